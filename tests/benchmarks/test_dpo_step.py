from __future__ import annotations

import pytest

from benchmarks.dpo_variants import CLIPS, Setting, build

SETTING = Setting("tiny", CLIPS["tiny"], 2, "cpu", autocast=False, checkpointing=True)


@pytest.fixture(scope="module")
def published():
    step = build("published", SETTING)
    return [step() for _ in range(2)]


@pytest.mark.parametrize("variant", ["lora", "lora_cached", "full", "full_cached"])
def test_variants_compute_the_loss_of_the_published_step(variant, published):
    step = build(variant, SETTING)
    first, second = step(), step()
    assert first == pytest.approx(published[0], abs=1e-3)  # beta multiplies the rounding of errors
    assert second != first  # the loss falls
    assert second < first + 1e-3


def test_encoding_comes_before_each_published_step():
    calls = []
    step = build("published_encoding", SETTING, lambda: calls.append(1))
    step()
    step()
    assert len(calls) == 2

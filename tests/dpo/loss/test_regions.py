from __future__ import annotations

import pytest
import torch

from dpo.loss.regions import region_token_weights
from tests.golden_files import Golden

GOLDEN = Golden("nft/region_weights.safetensors")


@pytest.mark.parametrize("case", GOLDEN.metadata["cases"])
def test_golden_region_weights(case):
    settings = GOLDEN.metadata["cases"][case]
    weights = region_token_weights(GOLDEN[f"{case}.attention"], settings["num_frames"], settings["w_max"])
    torch.testing.assert_close(weights, GOLDEN[f"{case}.video_weight"], rtol=0, atol=1e-6)


def test_frames_without_a_region_and_a_bound_of_1_weigh_all_tokens_alike():
    attention = torch.rand(2, 5, 12)
    attention[:, :, :4] = 0.25
    weights = region_token_weights(attention, 3, 1.5)
    assert (weights[:, :4] == weights[0, 0]).all()
    assert torch.isfinite(region_token_weights(attention, 12, 1.5)).all()
    assert (region_token_weights(attention, 3, 1.0) == 1).all()


def test_the_sound_s_region_weighs_more_within_its_frame():
    attention = torch.full((1, 5, 12), 0.1)
    attention[:, :, 6] = 0.2
    [weights] = region_token_weights(attention, 3, 1.5)
    assert weights.argmax() == 6
    assert (weights[4:8] != weights[6]).sum() == 3
    assert (weights[:4] == weights[8:]).all()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="5 frames"):
        region_token_weights(torch.rand(1, 5, 12), 5, 1.5)
    with pytest.raises(ValueError, match="at least 1"):
        region_token_weights(torch.rand(1, 5, 12), 3, 0.5)

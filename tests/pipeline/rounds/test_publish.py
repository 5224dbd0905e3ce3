"""The record of a round's data: a round whose files changed after it was published is not trained on."""

from __future__ import annotations

import pytest

from pipeline.rounds.config import RoundsConfig
from pipeline.rounds.publish import PUBLISHED_NAME, publish


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "run" / "round-1"
    for name, text in (
        ("preferences/candidates/media/a.mp4", "picture"),
        ("preferences/candidates/media/a.safetensors", "latents"),
        ("preferences/candidates/summary.json", "seconds: 1"),
        ("training/data.arrow", "rows"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_text("weights")
    return RoundsConfig(prompts=tmp_path / "p", output_dir=tmp_path / "run", model=str(model))


def test_unchanged_data_passes_and_times_of_a_stage_do_not_matter(config):
    publish(config, 1)
    before = (config.folder(1) / PUBLISHED_NAME).read_text()
    (config.folder(1) / "preferences/candidates/summary.json").write_text("seconds: 2")
    publish(config, 1)
    assert (config.folder(1) / PUBLISHED_NAME).read_text() == before


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("round-1/preferences/candidates/media/a.mp4", "other", "media/a.mp4 has changed"),
        ("round-1/preferences/candidates/media/a.safetensors", None, "media/a.safetensors is missing"),
        ("round-1/training/data.arrow", "more", "training/data.arrow has changed"),
        ("../model/model.safetensors", "trained", "the model that sampled has other weights"),
    ],
)
def test_changed_data_is_refused_by_name(config, name, text, message):
    publish(config, 1)
    path = config.output_dir / name
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ValueError, match="round 1 was published with other data") as error:
        publish(config, 1)
    assert message in str(error.value)

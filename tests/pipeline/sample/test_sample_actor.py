"""The sampling worker with the tiny model, without Ray: shared computation, reproducibility, timing of candidates."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.javisdit.pipeline import JointAVPipeline
from pipeline.sample.actor import SampleActor

ROOT = Path(__file__).parents[3]
OPTIONS = {"num_inference_steps": 2, "negative_prompt": "noise"}
pytestmark = pytest.mark.skipif(
    not any((ROOT / "model" / "presets" / "tiny").rglob("*.safetensors")), reason="the tiny preset is not there"
)


def make_actor(folder: Path, model: str = "tiny") -> SampleActor:
    settings = {"model": model, "device": "cpu", "dtype": "float32", "num_threads": 1, "seed": 0}
    return SampleActor(settings | {"folder": str(folder), "options": OPTIONS})


def job(name: str, num_candidates: int = 3) -> dict:
    text = f"a small red ball bounces {name}"
    row = {"key": name, "prompt": text, "audio_prompt": None, "media": f"media/{name}"}
    return row | {"indices": [*range(num_candidates)], "ground_truth": False, "video_path": None, "audio_path": None}


def test_the_candidates_of_a_prompt_share_one_text_embedding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, encoded = JointAVPipeline.encode_text, []

    def encode_and_note(pipeline, prompts):
        encoded.extend(prompts)
        return encode(pipeline, prompts)

    monkeypatch.setattr(JointAVPipeline, "encode_text", encode_and_note)
    assert len(make_actor(tmp_path).run(job("once"))["rows"]) == 3
    assert encoded == ["noise", "a small red ball bounces once"]


def test_a_candidate_is_the_same_bits_alone_and_after_others(tmp_path: Path) -> None:
    busy = make_actor(tmp_path / "busy")
    for name in ("first", "second"):
        busy.run(job(name))
    make_actor(tmp_path / "alone").run(job("second", num_candidates=1))
    files = sorted((tmp_path / "alone" / "media" / "second").iterdir())
    assert [path.name for path in files] == ["0.mp4", "0.safetensors", "0.wav"]
    for path in files:
        assert path.read_bytes() == (tmp_path / "busy" / "media" / "second" / path.name).read_bytes()


def test_seconds_of_generation_are_per_clip_and_leave_out_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 600, 6))  # each look at the clock is six seconds after the one before
    actor = make_actor(tmp_path, "tests.pipeline.fakes:FakeGenerator")
    monkeypatch.setattr("pipeline.sample.actor.time.perf_counter", lambda: float(next(clock)))
    rows = actor.run(job("timed"))["rows"]
    assert [row["generation_s"] for row in rows] == [2.0, 2.0, 2.0]

"""Parts are loaded on first use and compute on their device."""

from __future__ import annotations

import pytest
import torch

from model import JointAVPipeline
from model.javisdit.components import Components


class Recorder:
    """Part that records the devices to which it is moved."""

    def __init__(self) -> None:
        self.places: list[str] = []

    def to(self, device):
        self.places.append(str(device))
        return self


def test_a_part_is_loaded_once_and_stays_on_its_device():
    loaded = []
    parts = Components({"codec": lambda: loaded.append(1) or Recorder()}, "meta")
    assert parts.loaded == ()
    with parts.use("codec") as part, parts.use("codec") as same:
        assert part is same
    assert (parts.loaded, loaded, part.places) == (("codec",), [1], ["meta"])


def test_an_offloaded_part_visits_its_device_only_while_it_works():
    parts = Components({"codec": Recorder}, "meta", offload=True)
    assert parts["codec"].places == []
    with parts.use("codec") as part:
        assert part.places == ["meta"]
    assert part.places == ["meta", "cpu"]
    with pytest.raises(ZeroDivisionError), parts.use("codec"):
        _ = 1 / 0
    assert part.places == ["meta", "cpu"] * 2  # the part leaves the device even after an error


def test_moving_reaches_parts_of_now_and_later():
    parts = Components({"a": Recorder, "b": Recorder})
    assert parts["a"].places == ["cpu"]
    parts.to("meta")
    assert (parts["a"].places[-1], parts["b"].places) == ("meta", ["meta"])


def test_a_pipeline_loads_what_a_call_needs():
    pipeline = JointAVPipeline.from_pretrained("tiny")
    assert pipeline.loaded == ()
    pipeline.encode_text(["a red ball"])
    assert pipeline.loaded == ("text_encoder",)
    pipeline(["a red ball"], seeds=[0], num_inference_steps=1, output="latents")
    assert "video_codec" not in pipeline.loaded


def test_offloading_changes_no_number():
    results = [
        JointAVPipeline.from_pretrained("tiny", offload=offload)(["a red ball"], seeds=[0], num_inference_steps=1)[0]
        for offload in (False, True)
    ]
    assert (results[0].video == results[1].video).all()
    assert (results[0].audio == results[1].audio).all()


def test_bfloat16_reaches_the_network_and_the_text_encoder():
    pipeline = JointAVPipeline.from_pretrained("tiny", dtype=torch.bfloat16)
    assert pipeline.transformer.dtype == pipeline.text_encoder.model.dtype == torch.bfloat16
    [latents] = pipeline(["a red ball"], seeds=[0], num_inference_steps=1, output="latents")
    assert latents.video.dtype == torch.float32

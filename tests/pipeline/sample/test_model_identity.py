"""Model identity: a retrained model in the same folder is distinguished from the earlier one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.lineage import LABELLED, UNKNOWN, UNTRAINED, write_lineage
from pipeline.sample.actor import load_generator
from pipeline.sample.model_identity import lineage_of, model_identity


def write_model(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text("{}")
    return folder


def test_identity_follows_content_and_not_place(tmp_path: Path) -> None:
    first, copy, other = (write_model(tmp_path / name) for name in ("first", "copy", "other"))
    write_model(other, b"Weights")
    assert model_identity(str(first)) == model_identity(str(copy)) != model_identity(str(other))


def test_published_weights_in_torch_files_count(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    before = model_identity(str(folder))
    (folder / "Wan2.1_VAE.pth").write_bytes(b"codec")
    assert model_identity(str(folder)) != before


def test_only_the_parts_that_the_pipeline_names_count(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "weights")
    write_model(folder / "net")
    (folder / "codec.pth").write_bytes(b"codec")
    pipeline = {"components": {"transformer": "net", "video_codec": "codec.pth"}}
    (folder / "pipeline.json").write_text(json.dumps(pipeline))
    before = model_identity(str(folder))
    (folder / "imagebind_huge.pth").write_bytes(b"a reward, fetched later")
    (folder / "fetched.json").write_text("{}")
    assert model_identity(str(folder)) == before
    (folder / "codec.pth").write_bytes(b"Codec")
    with_codec = model_identity(str(folder))
    write_model(folder / "net", b"retrained")
    with_net = model_identity(str(folder))
    (folder / "pipeline.json").write_text(json.dumps(pipeline | {"defaults": {"guidance_scale": 1.0}}))
    assert len({before, with_codec, with_net, model_identity(str(folder))}) == 4


def test_leftovers_of_a_training_do_not_count(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    before = model_identity(str(folder))
    (folder / "summary.json").write_text('{"seconds": 1}')
    write_model(folder / "checkpoint-10")
    assert model_identity(str(folder)) == before


def test_an_adapter_is_another_model_on_another_base(tmp_path: Path) -> None:
    base, adapter = write_model(tmp_path / "base"), write_model(tmp_path / "adapter", b"adapter")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    before = model_identity(str(adapter))
    write_model(base, b"retrained")
    assert model_identity(str(adapter)) != before


def test_an_invalid_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no weights"):
        model_identity(str(tmp_path))
    with pytest.raises(ValueError, match="no-such-preset"):
        model_identity("no-such-preset")
    with pytest.raises(ValueError, match="no_such_module"):
        load_generator("no_such_module:Generator")


def test_the_lineage_is_read_beside_the_weights_and_does_not_count_as_weights(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    before = model_identity(str(folder))
    assert lineage_of(str(folder)) == UNKNOWN
    write_lineage(folder, LABELLED)
    assert lineage_of(str(folder)) == LABELLED
    assert model_identity(str(folder)) == before


def test_a_preset_is_known_to_be_untrained_and_a_callable_is_not() -> None:
    assert lineage_of("tiny") == UNTRAINED
    assert lineage_of("package.module:Generator") == UNKNOWN

"""`python -m model.generate` writes a clip, takes sizes by their published names, and explains mistakes in one line."""

from __future__ import annotations

import pytest

from core.cli import parse_config
from media import read_clip
from model.generate import GenerateConfig, main
from model.javisdit.network.sizes import NOMINAL_PIXELS


def test_generate_writes_a_clip_for_any_prompt(tmp_path):
    output = tmp_path / "new" / "clip.mp4"
    prompt = 'a <b>"ball"</b> \u202eof fire\nand ice \U0001f3d0'
    assert main(["--prompt", prompt, "--output", str(output), "--num_inference_steps", "1"]) == 0
    assert read_clip(output).video.shape == (33, 64, 64, 3)
    assert output.with_suffix(".wav").exists()


def test_generate_refuses_a_foreign_suffix(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--prompt", "a ball", "--output", str(tmp_path / "clip.avi")])
    assert "written as .mp4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "size"),
    [
        (["--resolution", "240p", "--duration_s", "4"], (65, (240, 432))),
        (["--resolution", "480p", "--aspect_ratio", "16:9", "--num_frames", "81"], (81, (864, 480))),
        (["--height", "64", "--width", "32"], (None, (64, 32))),
    ],
)
def test_generate_takes_sizes_by_their_published_names(flags, size):
    config = parse_config(GenerateConfig, ["--prompt", "a ball", "--output", "clip.mp4", *flags])
    assert (config.clip_length, config.picture_size) == size


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--resolution", "240p", "--height", "64"], "give only one"),
        (["--duration_s", "4", "--num_frames", "65"], "give only one"),
        (["--resolution", "720p"], "144p, 240p, 360p, 480p"),
    ],
)
def test_generate_refuses_sizes_that_contradict(flags, message, capsys):
    with pytest.raises(SystemExit):
        parse_config(GenerateConfig, ["--prompt", "a ball", "--output", "clip.mp4", *flags])
    assert message in capsys.readouterr().err


def test_help_names_every_resolution(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert f"{', '.join(NOMINAL_PIXELS)}, rounded up" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_frames", "32"], "use 29 or 33"),
        (["--height", "60"], "height is 60, but must be a multiple of the patch size, 16: use 64"),
    ],
)
def test_sizes_that_no_model_makes_are_refused_before_anything_is_loaded(flags, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--prompt", "a ball", "--output", "clip.mp4", *flags])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_model_that_is_none_is_named_in_one_line(tmp_path, capsys):
    assert main(["--prompt", "a ball", "--output", str(tmp_path / "a.mp4"), "--model", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "is no model" in error
    assert "Traceback" not in error

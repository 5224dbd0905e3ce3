"""`python -m rewards.score` as a person uses it, on real files."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from media import read_clip, write_clip, write_wav
from rewards.score import main
from rewards.score_inputs import clip_files
from tests.rewards.score_fakes import MODULE, make_clip, write_clips

ROOT = Path(__file__).parents[2]


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def named(*rewards: str) -> list[str]:
    return ["--rewards", *(f"{MODULE}:{reward}" for reward in rewards)]


def test_two_clips_side_by_side(tmp_path, capsys):
    clips = write_clips(tmp_path, dark=40, bright=160)
    status, out, _ = run(capsys, *clips, *named("Shade", "Peak"))
    assert status == 0
    lines = out.splitlines()
    assert lines[0].split() == ["shade", "\u2191", "peak", "\u2193", "length", "\u2191"]
    dark, bright = lines[1].split(), lines[2].split()
    assert (dark[0], bright[0]) == ("dark.mp4", "bright.mp4")
    assert not dark[1].endswith("*")  # brighter is better ...
    assert bright[1].endswith("*")
    assert dark[2] == "0.0400*"  # ... and quieter is
    assert bright[2] == "0.1600"
    assert dark[3] == bright[3] == "0.5625"  # equal: no best
    assert "Best of 2 metrics: dark.mp4 in 1, bright.mp4 in 1" in out


def test_a_narrow_terminal_gets_blocks_that_fit(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    prompt = ["--prompts", "a small red ball bounces twice on a grey background, sounding like a low wooden knock"]
    _, out, _ = run(capsys, *write_clips(tmp_path, a=40, b=160), "--rewards", "verifiable", *prompt)
    table = out[: out.index("higher is better")]
    assert max(map(len, table.splitlines())) <= 60
    for column in ("visual_quality", "production_complexity", "desync"):
        assert column in table
    assert table.count("a.mp4") > 1


def test_a_clip_that_fails_is_named_with_its_reason_and_the_status_is_1(tmp_path, capsys):
    clips = write_clips(tmp_path, good=40, bad=80, poison=90)
    clips[1].write_bytes(clips[1].read_bytes()[:300])
    texts = ["--prompts", "one two", "three", "FAIL"]
    status, out, _ = run(capsys, *clips, *named("Shade", "Words"), *texts)
    assert status == 1
    assert "bad.mp4: failed for shade, words: " in out
    assert "poison.mp4: failed for words: reward 'words' failed on " in out
    assert "cannot read this" in out
    assert "poison.mp4  " in out  # its shade stands
    good = next(line for line in out.splitlines() if line.startswith("good.mp4"))
    assert good.split()[2] == "2.0000"


def test_an_undefined_score_is_no_failure(tmp_path, capsys):
    (clip,) = write_clips(tmp_path, mute=50)
    write_clip(read_clip(clip, sound=False), tmp_path / "silent.mp4")
    status, out, _ = run(capsys, tmp_path / "silent.mp4", *named("Peak"))
    assert status == 0
    assert "silent.mp4: no score for peak: not defined by reward 'peak' for this clip: it has no audio track" in out


def test_folders_and_the_sound_beside_a_clip(tmp_path, capsys):
    write_clips(tmp_path / "in" / "deep", one=40, two=80)
    (tmp_path / "in" / "notes.txt").write_text("no clip")
    _, out, _ = run(capsys, tmp_path / "in", *named("Peak"))
    assert out.index("one.mp4") < out.index("two.mp4")
    assert "0.0400" in out  # exactly, as only the lossless wav has it
    assert "The sound of 2 of 2 clips was read from the .wav" in out

    write_wav(tmp_path / "loud.wav", make_clip(0, level=0.7).audio, 16_000)
    sounds = ["--audio", tmp_path / "loud.wav", tmp_path / "loud.wav"]
    _, out, _ = run(capsys, tmp_path / "in", *named("Peak"), *sounds)
    assert out.count("0.7000") == 2
    assert ".wav of the same name" not in out


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_prompts_from_a_table_by_path_and_by_id(tmp_path, capsys, kind):
    clips = write_clips(tmp_path, first=40, second=80)
    rows = pd.DataFrame(
        {
            "id": ["x", "0017", "other"],
            "text": ["one two three", "one", "none"],
            "path": ["first.mp4", "elsewhere.mp4", "else.mp4"],
        }
    )
    clips[1] = clips[1].rename(tmp_path / "0017.mp4")
    path = tmp_path / f"prompts.{kind}"
    writers = {
        "csv": lambda: rows.to_csv(path, index=False),
        "jsonl": lambda: rows.to_json(path, orient="records", lines=True),
        "parquet": lambda: rows.to_parquet(path),
    }
    writers[kind]()
    status, out, _ = run(capsys, *clips, *named("Words"), "--prompts", path)
    assert status == 0
    words = {line.split()[0]: line.split()[1] for line in out.splitlines() if ".mp4 " in line and "." in line[-8:]}
    assert words["first.mp4"] == "3.0000*"
    assert words["0017.mp4"] == "1.0000"


def test_other_columns_of_a_table_may_hold_anything(tmp_path, capsys):
    clips = write_clips(tmp_path, a=40, b=80)
    rows = [{"prompt_id": "a", "prompt": "one two", "tags": [1]}, {"prompt_id": "b", "prompt": 17, "tags": "x"}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    status, out, _ = run(capsys, *clips, *named("Words"), "--prompts", tmp_path / "p.jsonl")
    assert status == 0
    assert "2.0000" in out
    assert "1.0000" in out


def test_the_output_file_holds_scores_directions_and_what_made_them(tmp_path, capsys):
    clips = write_clips(tmp_path, a=40, b=160)
    (tmp_path / "weighted.txt").write_text("3")
    flags = [*named("Shade", "Peak", "Weighted"), "--reward_weights", tmp_path, "--protocol", "javisbench"]
    for kind in ("csv", "parquet", "json"):
        status, out, _ = run(capsys, *clips, *flags, "--prompts", "x", "--output", tmp_path / "out" / f"s.{kind}")
        assert status == 0
        assert f"written: {tmp_path / 'out' / f's.{kind}'}" in out
    table = pd.read_parquet(tmp_path / "out" / "s.parquet")
    assert table["candidate_id"].tolist() == list(map(str, clips))
    assert table["weighted"].tolist() == [-3.0, -3.0]
    assert all((tmp_path / "out" / path).is_file() for path in table["video_path"])
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "s.csv")[["shade", "peak"]], table[["shade", "peak"]])
    schema = pq.read_schema(tmp_path / "out" / "s.parquet")
    assert schema.field("peak").metadata[b"higher_is_better"] == b"false"
    assert schema.metadata[b"avdpo.protocol"] == b"javisbench"
    document = json.loads((tmp_path / "out" / "s.json").read_text())
    assert document["rewards"]["weighted"] == {"version": "1+javisbench", "weights": str(tmp_path)}
    assert document["rewards"]["shade"] == {"version": "1", "weights": None}
    assert document["protocol"] == "javisbench"
    assert document["scores"][1]["shade"] == pytest.approx(160, abs=2)


def test_the_same_clip_twice_asks_which_prompt_fits(tmp_path, capsys):
    (clip,) = write_clips(tmp_path, a=40)
    _, out, _ = run(capsys, clip, clip, *named("Words"), "--prompts", "one", "one two")
    assert "a.mp4 (2) " in out
    assert "a.mp4 (2) in 1" in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (named("Words"), ["held against its prompt by words, and there is none", "--prompts"]),
        ([*named("Words"), "--prompts", "a", "b", "c"], ["3 texts for 2 clips"]),
        ([*named("Peak"), "--audio", "a.wav"], ["1 files for 2 clips"]),
        ([*named("Words"), "--prompts", "none.csv"], ["none.csv does not exist"]),
        ([*named("Weighted")], ["'weighted' needs weights", "'weighted.txt'"]),
        ([*named("Weighted"), "--reward_weights", "nowhere"], ["'nowhere'", "do not exist"]),
        (["--rewards", "learnt", "--prompts", "x"], ["Did you mean 'learned'"]),
        ([*named("Shade", "Shade")], ["named twice"]),
        ([*named("Shade"), "--device", "gpu"], ["device is 'gpu'", "Try 'cpu'"]),
        ([*named("Shade"), "--device", "cuda:77"], ["device is 'cuda:77'", "Try 'cpu'"]),
    ],
)
def test_mistakes_end_with_status_2_and_one_line(tmp_path, capsys, flags, words):
    status, _, error = run(capsys, *write_clips(tmp_path, a=40, b=80), *flags)
    assert status == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error


def test_a_table_without_a_clip_says_which(tmp_path, capsys):
    clips = write_clips(tmp_path, a=40, b=80)
    (tmp_path / "p.csv").write_text("prompt_id,prompt\na,hello\n")
    status, _, error = run(capsys, *clips, *named("Words"), "--prompts", tmp_path / "p.csv")
    assert status == 2
    assert "no prompt for 1 of 2 clips" in error
    assert "b.mp4" in error
    assert "video_path" in error


def test_an_empty_prompt_among_others_is_named(tmp_path, capsys):
    status, _, error = run(capsys, *write_clips(tmp_path, a=40, b=80), *named("Words"), "--prompts", "hello", "")
    assert status == 2
    assert "b.mp4' is empty" in error


def test_a_large_folder_finds_its_prompts_in_the_table_at_once(tmp_path):
    names = [f"{number:05}.mp4" for number in range(3000)]
    for name in names:
        (tmp_path / name).touch()
    table = tmp_path / "p.csv"
    table.write_text("video_path,prompt\n" + "".join(f"{name},words of {name}\n" for name in reversed(names)))
    started = time.perf_counter()
    files = clip_files([tmp_path], None, [str(table)])
    assert time.perf_counter() - started < 20  # 200 s when each clip searched all rows
    assert all(file.prompt.prompt == f"words of {file.video_path.name}" for file in files)


def test_an_output_that_cannot_be_written_is_told_in_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    status, out, error = run(
        capsys, *write_clips(tmp_path, a=40), *named("Shade"), "--output", tmp_path / "file" / "s.csv"
    )
    assert status == 2
    assert "shade" in out
    assert "s.csv cannot be written: " in error


def test_an_empty_folder_and_a_wrong_output_are_refused(tmp_path, capsys):
    status, _, error = run(capsys, tmp_path, *named("Shade"))
    assert status == 2
    assert "holds no clip" in error
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), *named("Shade"), "--output", "scores.xlsx"])
    assert "must end in .csv, .parquet, .json" in capsys.readouterr().err


def test_as_a_program_with_help(tmp_path):
    program = [sys.executable, "-m", "rewards.score"]
    shown = subprocess.run([*program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for text in ("CLIPS [--config", "--reward_weights", "--prompts", "Exit status", "learned"):
        assert text in shown.stdout
    clips = write_clips(tmp_path, a=40, b=80)
    done = subprocess.run([*program, *clips, *named("Shade")], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "b.mp4 in 1" in done.stdout

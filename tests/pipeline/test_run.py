"""`python -m pipeline.run` as a user runs it: dry, in full, again, with mistakes, and killed at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from media import read_clip
from tests.pipeline.fakes import HOSTILE

ROOT = Path(__file__).parents[2]
FAKES = "tests.pipeline.fakes"
NUM_KILLS = 3
HAS_TINY_PRESET = any((ROOT / "model" / "presets" / "tiny").rglob("*.safetensors"))

# Modules that a finished run must not import.
SLOW_IMPORTS = ("torch", "ray", "transformers", "diffusers", "datasets")


def write_prompts(folder: Path, num_prompts: int = 4) -> Path:
    path = folder / "prompts.jsonl"
    texts = [*HOSTILE, "a small red ball bounces twice on a grey background"]
    rows = [{"prompt_id": texts[number], "prompt": texts[-number - 1]} for number in range(num_prompts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(prompts: Path, output_dir: Path, *flags: str, model: str = f"{FAKES}:FakeGenerator") -> list[str]:
    paths = ["--prompts", str(prompts), "--output_dir", str(output_dir)]
    rewards = [] if model == "tiny" else ["--rewards", f"{FAKES}:FakeReward"]
    return [sys.executable, "-m", "pipeline.run", *paths, "--model", model, "--num_actors", "2", *rewards, *flags]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=600)


def processor_time() -> float:
    """Return the processor seconds of all child processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def count_files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def tables(output_dir: Path) -> dict[str, pd.DataFrame]:
    from datasets import load_from_disk

    return {
        # Without times, which are not part of the results.
        "candidates": pd.read_parquet(output_dir / "candidates" / "candidates.parquet").drop(columns="generation_s"),
        "scores": pd.read_parquet(output_dir / "scores" / "scores.parquet"),
        "pairs": load_from_disk(str(output_dir / "pairs")).to_pandas(),
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the same model and prompts as the one that is killed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    result = run(command(write_prompts(folder), folder / "run", model=kill_test_model()))
    assert result.returncode == 0, result.stderr
    for text in ("sample: wanted 12, done 12 (skipped 0), failed 0", "score: wanted 12", "rank: wanted 4", "pairs: "):
        assert text in result.stdout
    assert f"report: {folder / 'run' / 'report' / 'index.html'}" in result.stdout
    return folder / "run"


def kill_test_model() -> str:
    return "tiny" if HAS_TINY_PRESET else f"{FAKES}:SlowGenerator"


def test_every_stage_leaves_its_configuration_and_summary(undisturbed: Path) -> None:
    for stage in ("candidates", "scores", "pairs"):
        assert {"output_dir"} <= yaml.safe_load((undisturbed / stage / "config.yaml").read_text()).keys()
        summary = json.loads((undisturbed / stage / "summary.json").read_text())
        assert summary["wanted"] == summary["done"] > summary["failed"] == 0
        assert summary["versions"]["avdpo"]


def test_finished_run_is_quick_and_imports_nothing_slow(undisturbed: Path) -> None:
    arguments = command(undisturbed.parent / "prompts.jsonl", undisturbed, model=kill_test_model())
    before = listing(undisturbed / "candidates" / "media")
    probe = (
        "import sys; sys.argv = sys.argv[1:]; from pipeline.run import main; status = main(); "
        f"sys.stderr.write(repr([name for name in {SLOW_IMPORTS} if name in sys.modules])); sys.exit(status)"
    )
    started = processor_time()
    result = run([sys.executable, "-c", probe, *arguments[2:]])
    finished_run = processor_time() - started
    assert (result.returncode, result.stderr) == (0, "[]")
    assert "sample: wanted 12, done 12 (skipped 12), failed 0" in result.stdout
    # Against the two libraries that every stage reads its tables with, because machines differ in speed.
    run([sys.executable, "-c", "import pandas, pyarrow.parquet"])
    assert finished_run < 5 * (processor_time() - started - finished_run)
    assert listing(undisturbed / "candidates" / "media") == before


def test_dry_run_prints_what_is_left_and_changes_nothing(undisturbed: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path)
    result = run(command(prompts, tmp_path / "run", "--dry_run"))
    assert result.returncode == 0, result.stderr
    assert "num_candidates: 3" in result.stdout
    assert "sample: wanted 12, done 0, left 12" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.jsonl"]

    before = listing(undisturbed)
    finished = command(undisturbed.parent / "prompts.jsonl", undisturbed, "--dry_run", model=kill_test_model())
    assert "score: wanted 12, done 12, left 0" in run(finished).stdout
    assert listing(undisturbed) == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--num_candidates", "0"], ["num_candidates", "at least 1"]),
        (["--guidance_scal", "3"], ["guidance_scale"]),
        (["--rewards", "verifyable"], ["verifiable"]),
        (["--model", "no/such/folder"], ["no/such/folder"]),
        (["--stages", "sampel"], ["sample, score, rank, report"]),
        (["--prompts", "none.csv"], ["none.csv", "does not exist"]),
    ],
)
def test_mistakes_end_with_status_2_and_one_line(flags: list[str], words: list[str], tmp_path: Path) -> None:
    result = run([*command(write_prompts(tmp_path), tmp_path / "run"), *flags, "--dry_run"])
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert all(word in result.stderr for word in words), result.stderr


def test_killed_at_random_moments_and_continued_it_gives_the_tables_of_an_undisturbed_run(
    undisturbed: Path, tmp_path: Path
) -> None:
    # Workers and batches differ from the reference, because they must not affect the results.
    pool = ["--num_actors", "1", "--batch_size", "3"]
    arguments = command(write_prompts(tmp_path), tmp_path / "run", *pool, model=kill_test_model())
    generator = random.Random(time.time_ns())
    for _ in range(NUM_KILLS):
        kill_after_progress(arguments, tmp_path / "run", generator)
    result = run(arguments)
    assert result.returncode == 0, result.stderr

    expected, ours = tables(undisturbed), tables(tmp_path / "run")
    for name, table in expected.items():
        pd.testing.assert_frame_equal(ours[name], table, check_exact=True, obj=name)
    folder = tmp_path / "run" / "candidates"
    for row in ours["candidates"].itertuples():
        clip = read_clip(folder / row.video_path, audio_path=folder / row.audio_path)
        assert (clip.num_frames, clip.height, clip.width) == (row.num_frames, row.height, row.width)
        reference = undisturbed / "candidates" / row.video_path
        for suffix in (".mp4", ".wav", ".safetensors"):
            assert (folder / row.video_path).with_suffix(suffix).read_bytes() == reference.with_suffix(
                suffix
            ).read_bytes()
    files = [path for path in (folder / "media").rglob("*") if path.is_file()]
    assert len(files) == 3 * len(ours["candidates"])


def kill_after_progress(arguments: list[str], output_dir: Path, generator: random.Random) -> None:
    """SIGKILL the process group a random moment after a random amount of new output, or once it has finished."""
    wanted = count_files(output_dir) + generator.randint(1, 12)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and count_files(output_dir) < wanted:
        time.sleep(0.02)
    time.sleep(generator.random() / 2)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("recipe", ["pipeline", "evaluate"])
def test_recipes_are_configurations_of_the_command(recipe: str, tmp_path: Path) -> None:
    from core.cli import parse_config
    from pipeline.run import RunConfig

    flags = ["--config", str(ROOT / "recipes" / "tiny" / f"{recipe}.yaml"), "--prompts", "p.csv", "--output_dir", "out"]
    assert parse_config(RunConfig, flags).model == "tiny"

"""The console script `avdpo`, installed from the wheel, in a folder that has packages of the same names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import avdpo
from avdpo.__main__ import main
from avdpo.commands import COMMANDS, module_of_prepare
from core.schema import CANDIDATES, table_from_rows, write_table
from media import write_clip
from rewards import METRIC_COLUMNS
from synthetic import caption, render_clip, scene_from_seed

ROOT = Path(__file__).parents[1]
SUBCOMMANDS = {
    *("sample", "score", "rank", "report", "run", "rounds", "prepare", "train", "sft", "generate", "export", "fetch"),
    *("construct", "signal"),
    *("evaluate", "compare", "audit", "inspect", "convert", "hub", "env"),
}
OWN_REWARD = '''
from rewards import Reward
import torch

class Brightness(Reward):
    """The mean of all pixels."""

    name, version, columns = "brightness", "1", ("brightness",)
    higher_is_better, needs, licence = {"brightness": True}, frozenset({"video"}), "none"

    def score(self, clips, prompts):
        return {"brightness": torch.tensor([clip.video.mean() for clip in clips], dtype=torch.float32)}
'''


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder into which the wheel, built from a copy of the sources, is installed without dependencies."""
    source, wheels, target = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "installed"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = [name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]]
    for name in packages:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    options = ["--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *options, "--wheel-dir", str(wheels), str(source)], check=True, capture_output=True)
    [wheel] = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True, capture_output=True)
    return target


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return the folder of a user who has a `model/`, a `media.py` and more of those names, none of them importable."""
    for name in ("model/__init__.py", "evaluation/__init__.py", "core/__init__.py", "media.py", "jobs.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"raise RuntimeError('{name} of the user was imported')\n")
    (tmp_path / "mine.py").write_text(OWN_REWARD)
    return tmp_path


def run(installed: Path, folder: Path, *arguments: str) -> str:
    """Run the installed script in a folder and return its output."""
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [str(installed / "bin" / "avdpo"), *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def candidate(seed: int, index: int) -> dict[str, object]:
    name = f"p{seed}/{index}"
    shape = {"num_frames": 33, "height": 64, "width": 64, "fps": 16.0, "sample_rate": 16000, "duration_s": 33 / 16}
    ids = {"candidate_id": name, "prompt_id": f"p{seed}", "index": index, "is_ground_truth": False, "seed": seed}
    files = {"video_path": f"media/{seed}_{index}.mp4", "audio_path": f"media/{seed}_{index}.wav"}
    return ids | files | shape | {"prompt": caption(scene_from_seed(seed))}


def write_candidates(run_folder: Path, num_prompts: int, per_prompt: int) -> list[str]:
    rows = [candidate(seed, index) for seed in range(num_prompts) for index in range(per_prompt)]
    write_table(table_from_rows(rows, CANDIDATES), CANDIDATES, run_folder / "candidates" / "candidates.parquet")
    return [str(row["candidate_id"]) for row in rows]


def test_report_of_the_machine_names_versions_and_no_paths(installed, project):
    shown = run(installed, project, "env")
    for line in (f"avdpo {avdpo.__version__}", "CPU: ", "libx264: available", "aac: available", "folder weights"):
        assert f"- {line}" in shown
    assert re.search(r"^- torch \d", shown, flags=re.MULTILINE)
    assert str(Path.home()) not in shown
    assert str(project) not in shown


def test_help_speaks_of_the_script(installed, project):
    assert run(installed, project, "rank", "--help").startswith("usage: avdpo rank ")
    assert run(installed, project, "sft", "--help").startswith("usage: avdpo sft ")


def test_a_table_is_ranked(installed, project):
    names = write_candidates(project / "run", num_prompts=8, per_prompt=3)
    scores = pd.DataFrame(
        np.random.default_rng(0).normal(size=(len(names), len(METRIC_COLUMNS))), columns=METRIC_COLUMNS
    )
    scores.insert(0, "candidate_id", names)
    (project / "run" / "scores").mkdir()
    scores.to_parquet(project / "run" / "scores" / "scores.parquet", index=False)
    assert "pairs from 8 prompts" in run(installed, project, "rank", "--output_dir", "run")
    assert (project / "run" / "pairs" / "ranking.json").is_file()


def test_workers_import_the_installed_packages_and_the_users_own_reward(installed, project):
    names = write_candidates(project / "run", num_prompts=2, per_prompt=1)
    (project / "run" / "candidates" / "media").mkdir()
    for seed in range(2):
        write_clip(render_clip(scene_from_seed(seed)), project / "run" / "candidates" / "media" / f"{seed}_0.mp4")
    shown = run(installed, project, "score", "--output_dir", "run", "--rewards", "verifiable", "mine:Brightness")
    assert "done 2 (skipped 0), failed 0" in shown
    scores = pd.read_parquet(project / "run" / "scores" / "scores.parquet")
    assert list(scores["candidate_id"]) == names
    assert scores[["visual_quality", "brightness"]].notna().all(axis=None)


def test_overview_names_every_subcommand_by_purpose(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert set(re.findall(r"^  (\w+) ", shown, flags=re.MULTILINE)) == SUBCOMMANDS == set(COMMANDS)
    assert len(re.findall(r"^[A-Z].*:$", shown, flags=re.MULTILINE)) == 4


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"avdpo {avdpo.__version__}\n"


def test_unknown_subcommand_names_the_nearest(capsys):
    assert main(["evalute"]) == 2
    assert "the nearest match is 'evaluate'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        (["--pairs", "runs/first/pairs"], "dpo.prepare"),
        (["--clips=clips.csv"], "model.prepare"),
        (["--config", "pairs.yaml", "--output", "out"], "dpo.prepare"),
        (["--config=pairs.yaml", "--clips", "clips.csv"], "model.prepare"),
        (["--groups", "runs/first"], "dpo.prepare"),
        (["--config", "written.yaml"], "dpo.prepare"),
    ],
)
def test_prepare_takes_pairs_or_clips(arguments, module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pairs.yaml").write_text("pairs: runs/first/pairs\nmodel: tiny\n")
    Path("written.yaml").write_text("model: tiny\npairs: ''\ngroups: runs/first\n")
    assert module_of_prepare(arguments) == module


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--output", "out"], "neither pairs nor clips"),
        (["--pairs", "a", "--clips", "b"], "both pairs and clips"),
        (["--pairs", "a", "--groups", "b"], "both pairs and groups"),
        (["--config", "absent.yaml"], r"absent\.yaml cannot be read"),
        (["--config", "broken.yaml"], r"broken\.yaml cannot be read"),
    ],
)
def test_prepare_says_why_it_cannot_choose(arguments, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("broken.yaml").write_text("pairs: [1\n")
    assert main(["prepare", *arguments]) == 2
    assert re.search(f"^error: .*{reason}", capsys.readouterr().err, flags=re.MULTILINE)
    assert main(["prepare", *arguments, "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: avdpo prepare --pairs DIR | --clips")

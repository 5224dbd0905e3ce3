"""`python -m evaluation.run` on real files, end to end: all metrics, both layouts, both protocols, and what is missing.

Networks are reduced and of random weights, or the tiny rewards. Values are computed three times in the whole module;
the tests look at what came of it, or use what is in the cache.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from core.lineage import Lineage, PreferenceTraining, RewardUse
from evaluation.compare import command as compare
from evaluation.judges.metrics import METRICS, VERIFIABLE
from evaluation.run import measure
from evaluation.run.command import evaluate, main, plan, prepare
from evaluation.run.config import EvaluateConfig
from tests.evaluation.bounce_samples import NUM_ROWS, write_benchmark, write_flawed, write_run
from tests.evaluation.judges.reduced_networks import write_weights

ALL = [metric.name for metric in (*METRICS, *VERIFIABLE)]
SCORES = [metric.name for metric in (*METRICS, *VERIFIABLE) if metric.distance is None]
LINEAGE = Lineage((PreferenceTraining("rewards", (RewardUse("imagebind", "1", ("ib_av",)),)),))
MUTE_UNDEFINED = {"fad", "fad_clap", "audio_quality", "ib_ta", "ib_av", "clap_score", "cavp_score", "avh_score"}
MUTE_UNDEFINED |= {"javis_score", "av_align", "desync"}


@dataclass(frozen=True)
class World:
    """A benchmark, samples of it in both layouts, and what was made of them."""

    folder: Path
    benchmark: Path
    run: Path
    flawed: Path
    weights: Path

    def config(self, **changes: Any) -> EvaluateConfig:
        settings: dict[str, Any] = {
            "samples": self.run,
            "benchmark": self.benchmark,
            "metrics": ["all", "verifiable"],
            "weights": str(self.weights),
            "cache": self.folder / "cache",
            "group_by": ["level"],
            "num_bootstrap": 200,
        }
        return EvaluateConfig(**settings | changes)


@pytest.fixture(scope="module")
def world(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> World:
    """After a run of good samples, and one of flawed ones."""
    folder = tmp_path_factory.mktemp("evaluation")
    benchmark = write_benchmark(folder)
    run = write_run(folder / "run", benchmark, json.dumps(LINEAGE.to_dict()))
    flawed = write_flawed(folder / "flawed", run, benchmark)
    made = World(folder, benchmark, run, flawed, write_weights(folder / "weights"))
    good = evaluate(made.config())
    assert (good.wanted, good.done, good.failed) == (NUM_ROWS, NUM_ROWS, 0)
    evaluate(made.config(samples=flawed, title="Flawed"))
    return made


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever computes something fails."""

    def refuse(jobs: Any, *rest: Any) -> Iterator[Any]:
        assert not jobs, f"{len(jobs)} jobs were to be computed"
        return iter(())

    monkeypatch.setattr(measure, "map_jobs", refuse)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation" / "results.json").read_text())


def by_level(found: dict[str, Any], metric: str) -> list[float]:
    return [found["metrics"][metric]["categories"]["level"][name]["value"] for name in ("copy", "mild", "strong")]


def test_every_metric_has_a_figure_of_all_samples(world: World) -> None:
    found = results(world.run)
    assert list(found["metrics"]) == ALL
    assert (found["num_rows"], found["num_samples"], found["skipped"], found["problems"]) == (12, 12, [], {})
    for name, metric in found["metrics"].items():
        overall = metric["overall"]
        assert overall["num_samples"] == NUM_ROWS, name
        assert np.isfinite(overall["value"]), name
        if metric["distance"]:
            assert (overall["num_real"], overall["low"]) == (NUM_ROWS, None), name
        else:
            assert overall["low"] <= overall["value"] <= overall["high"], name
    assert found["generation"] == {"seconds_per_clip": 2.0, "num_clips": NUM_ROWS}


def test_copies_of_the_ground_truth_are_at_no_distance_and_noise_is_worse(world: World) -> None:
    found = results(world.run)
    for name in ("fvd", "fad", "fad_clap"):
        copies, mild, strong = by_level(found, name)
        assert abs(copies) < 1e-4 * strong, name
        assert copies < min(mild, strong), name
    for name in ("fvd", "fad_clap"):  # to AudioCLIP's random network the mild noise is stranger than the strong
        _, mild, strong = by_level(found, name)
        assert mild < strong, name
    copies, mild, strong = by_level(found, "kvd")
    assert copies <= 1e-9
    assert copies < min(mild, strong)


def test_more_noise_is_judged_worse_by_those_who_know_bounce(world: World) -> None:
    found = results(world.run)
    rewards = ("visual_quality", "motion_quality", "audio_quality", "ib_tv", "ib_ta", "ib_av")
    for name in (*rewards, "av_align", "bounce_visual_quality", "bounce_motion_quality", "bounce_ib_av"):
        copies, mild, strong = by_level(found, name)
        assert copies > mild > strong, name
    for name in ("javis_score", "avh_score"):
        copies, mild, strong = by_level(found, name)
        assert copies > max(mild, strong), name
    for name in ("desync", "bounce_desync"):  # the strong ones sound half a second late
        copies, mild, strong = by_level(found, name)
        assert max(copies, mild) + 0.2 < strong, name


def test_categories_say_how_many_samples_they_are_of(world: World) -> None:
    found = results(world.run)["metrics"]
    sounds = {name: one["num_samples"] for name, one in found["ib_av"]["categories"]["Sound type"].items()}
    assert sounds == {"Ambient": 6, "Biological": 0, "Mechanical": 0, "Musical": 12, "Speech": 0}
    assert found["fvd"]["categories"]["Sound type"]["Ambient"]["num_real"] == 6
    assert found["fvd"]["categories"]["Sound type"]["Speech"]["value"] is None
    table = pd.read_csv(world.run / "evaluation" / "results.csv")
    assert table[["aspect", "category"]].iloc[1].tolist() == ["Sound type", "Ambient"]
    assert len(table) == 1 + 5 + 3 + 3  # all, sound types, temporal compositions, levels
    assert table["ib_av_n"].tolist()[:2] == [12, 6]
    assert table["fvd"].notna().tolist()[:3] == [True, True, False]
    overall = found["ib_av"]["overall"]
    assert (table["ib_av_low"][0], table["ib_av_high"][0]) == (overall["low"], overall["high"])


def test_samples_open_in_pandas_with_their_own_scores(world: World) -> None:
    table = pd.read_parquet(world.run / "evaluation" / "samples.parquet")
    assert table["row"].tolist() == list(range(NUM_ROWS))
    assert table["candidate_id"].tolist() == [f"bounce {row}/0" for row in range(NUM_ROWS)]
    assert table["seed"].tolist() == [2**62 + row for row in range(NUM_ROWS)]
    assert set(SCORES) <= set(table.columns)
    found = results(world.run)["metrics"]
    for name in SCORES:
        assert table[name].mean() == pytest.approx(found[name]["overall"]["value"], rel=1e-5, abs=1e-7), name


def test_flawed_samples_are_named_counted_and_take_no_part(world: World) -> None:
    found = results(world.flawed)
    table = pd.read_parquet(world.flawed / "evaluation" / "failures.parquet")
    kinds = table.groupby("kind")["candidate_id"].apply(list).to_dict()
    assert kinds == {
        "duplicate": ["sample_0004.mp4", "sample_4.mp4"],
        "wrong": ["sample_0099.mp4"],
        "missing": ["bounce 4", "bounce 5"],
        "failed": ["bounce 6/0"],
        "undefined": ["bounce 7/0"],
    }
    assert found["problems"] == {kind: len(names) for kind, names in kinds.items()}
    assert found["num_samples"] == 10
    undefined = table.loc[table["kind"] == "undefined", "error"].item()
    assert set(re.findall(r"\w+", undefined)) >= MUTE_UNDEFINED
    for name, metric in found["metrics"].items():
        if name in MUTE_UNDEFINED:
            assert metric["overall"]["num_samples"] == 8, name
        elif not name.startswith("bounce_"):
            assert metric["overall"]["num_samples"] == 9, name
    summary = json.loads((world.flawed / "evaluation" / "summary.json").read_text())
    assert (summary["wanted"], summary["done"], summary["failed"]) == (15, 9, 6)


def test_the_others_keep_their_own_values(world: World) -> None:
    good, flawed = (pd.read_parquet(run / "evaluation/samples.parquet") for run in (world.run, world.flawed))
    good, flawed = good.set_index("candidate_id"), flawed.set_index("candidate_id")
    others = flawed.index.difference(["bounce 6/0", "bounce 7/0"])
    pd.testing.assert_frame_equal(good.loc[others, SCORES], flawed.loc[others, SCORES])


def test_a_second_run_computes_nothing_and_finds_the_same(world: World, no_workers: None) -> None:
    before = results(world.run)
    samples = pd.read_parquet(world.run / "evaluation" / "samples.parquet")
    summary = evaluate(world.config())
    assert (summary.done, summary.skipped) == (NUM_ROWS, NUM_ROWS)
    assert results(world.run) == before
    pd.testing.assert_frame_equal(pd.read_parquet(world.run / "evaluation" / "samples.parquet"), samples)


def test_a_changed_file_is_computed_again_alone(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.run / "candidates", tmp_path / "candidates")
    assert prepare(world.config(samples=tmp_path)).measurement.num_left == 0  # elsewhere, and the same
    sound = tmp_path / "candidates" / "media" / "3.wav"
    sound.write_bytes(sound.read_bytes()[:-4000])
    again = prepare(world.config(samples=tmp_path)).measurement
    [(names, [task])] = again._missing().items()
    assert task.clip.name == "bounce 3/0"
    assert set(names) == set(again.stores)


def test_the_release_measures_otherwise_and_keeps_apart(world: World, tmp_path: Path) -> None:
    config = world.config(protocol="javisbench", output=tmp_path, limit=3)
    evaluate(config)
    released = json.loads((tmp_path / "results.json").read_text())
    evaluate(world.config(output=tmp_path, limit=3))
    correct = json.loads((tmp_path / "results.json").read_text())
    assert list(released["metrics"]) == ALL
    assert released["protocol"] == "javisbench"
    assert (released["num_samples"], released["problems"]) == (3, {})  # those beyond the limit are no mistake
    values = [
        {name: one["overall"]["value"] for name, one in found["metrics"].items()} for found in (released, correct)
    ]
    assert all(np.isfinite(list(one.values())).all() for one in values)
    assert values[0]["clip_score"] != values[1]["clip_score"]
    assert values[0]["visual_quality"] == values[1]["visual_quality"]
    assert abs(values[0]["fvd"]) < 1e-3
    assert released["metrics"]["fvd"]["overall"]["num_real"] == 3


def test_published_features_stand_in_for_the_ground_truth(world: World, tmp_path: Path, no_workers: None) -> None:
    measurement = prepare(world.config()).measurement
    video, audio = (measurement.stores[name].stack(name, measurement.keys[1][name]) for name in ("i3d", "audioclip"))
    np.savez(tmp_path / "features.npz", video=video, audio=audio)
    config = world.config(ground_truth_features=tmp_path / "features.npz", metrics=["fvd", "fad"], output=tmp_path)
    evaluate(config)
    found, usual = json.loads((tmp_path / "results.json").read_text())["metrics"], results(world.run)["metrics"]
    assert {name: one["overall"] for name, one in found.items()} == {name: usual[name]["overall"] for name in found}
    assert by_level({"metrics": found}, "fvd") == by_level({"metrics": usual}, "fvd")

    published = {"video": torch.zeros(NUM_ROWS, 400), "audio": torch.zeros(NUM_ROWS, 512)}
    torch.save(published, tmp_path / "features.pt")
    config = replace(config, ground_truth_features=tmp_path / "features.pt")
    with pytest.raises(ValueError, match="Give --protocol javisbench"):
        prepare(config)
    with pytest.raises(ValueError, match=r"'audio' of shape \(12, 512\), but audioclip gives 1024 numbers"):
        prepare(replace(config, protocol="javisbench"))


def test_metrics_without_weights_or_ground_truth_are_named_with_what_to_do(
    world: World, tmp_path: Path, no_workers: None, capsys: pytest.CaptureFixture[str]
) -> None:
    text = world.benchmark.read_text().replace("clips/", "elsewhere/")
    (tmp_path / "bench.csv").write_text(text)
    lines = plan(world.config(benchmark=tmp_path / "bench.csv", weights="tiny", output=tmp_path / "out")).splitlines()
    skipped = {line.split()[1].rstrip(":"): line for line in lines if line.startswith("skipped")}
    assert set(skipped) == {"fvd", "kvd", "fad", "fad_clap", "clip_score", "clap_score", "cavp_score"}
    assert "needs the weights clip-vit-base-patch32, and the preset 'tiny' has none" in skipped["clip_score"]
    assert "python -m model.fetch --components clip --output weights" in skipped["clip_score"]
    lines = plan(world.config(benchmark=tmp_path / "bench.csv", output=tmp_path / "out")).splitlines()
    assert [line.split(":")[0] for line in lines if "ground_truth_features" in line] == [
        f"skipped {name}" for name in ("fvd", "kvd", "fad", "fad_clap")
    ]
    arguments = ["--samples", str(world.run), "--benchmark", str(world.benchmark), "--metrics", "fvd"]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 2
    assert "No metric can be computed here: fvd needs the weights i3d_pretrained_400.pt" in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.json").exists()


def test_ground_truth_that_is_not_there_is_named(world: World, tmp_path: Path, no_workers: None) -> None:
    for part in ("clips", "bench.csv"):
        source = world.folder / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / part)
    (tmp_path / "clips" / "2.mp4").unlink()
    summary = evaluate(world.config(benchmark=tmp_path / "bench.csv", output=tmp_path / "out"))
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["problems"] == {"unfetched": 1}
    assert summary.failed == 0
    assert found["metrics"]["fvd"]["overall"]["num_real"] == NUM_ROWS - 1


def test_the_exit_status_is_of_the_failures(world: World, tmp_path: Path, no_workers: None) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    for path in sorted((world.run / "candidates" / "media").iterdir()):
        if path.stem != "5":
            shutil.copy(path, samples / f"sample_{int(path.stem):04d}{path.suffix}")
    arguments = [f"--{name}={value}" for name, value in (("samples", samples), ("benchmark", world.benchmark))]
    arguments += [f"--weights={world.weights}", f"--cache={world.folder / 'cache'}", "--metrics", "av_align", "fvd"]
    assert main(arguments) == 1
    assert main([*arguments, "--max_failures", "1"]) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": "nowhere"}, "nowhere does not exist: give the output_dir of pipeline.sample"),
        ({"benchmark": "nothing.csv"}, "nothing.csv does not exist"),
        ({"group_by": "colour"}, "no column 'colour' to group by"),
        ({"weights": "nowhere", "metrics": "desync"}, "needs the weights synchformer_state_dict.pth, and nowhere has"),
        ({"ground_truth_features": "none.npz"}, "none.npz does not exist"),
    ],
)
def test_mistakes_are_explained(
    world: World, tmp_path: Path, changes: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {
        "samples": str(world.run),
        "benchmark": str(world.benchmark),
        "weights": str(world.weights),
        "metrics": "fvd",
        "output": str(tmp_path),
    } | changes
    assert main([part for name, value in settings.items() for part in (f"--{name}", value)]) == 2
    assert message in capsys.readouterr().err


def test_a_dry_run_writes_nothing(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(world.flawed.rglob("*"))
    arguments = ["--samples", str(world.flawed), "--benchmark", str(world.benchmark), "--metrics", "verifiable"]
    assert main([*arguments, "--output", str(tmp_path / "out"), "--dry_run"]) == 0
    text = capsys.readouterr().out
    assert "10 of 10 clips left to look at (dry run: nothing written)" in text
    assert "sample_4.mp4: 2 files are sample 4: keep one" in text
    assert not (tmp_path / "out").exists()
    assert sorted(world.flawed.rglob("*")) == before


def test_what_came_before_a_kill_is_not_computed_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = world.config(metrics=["verifiable"], weights=None, output=tmp_path, cache=None, clip_batch_size=2)
    monkeypatch.setattr(measure, "FLUSH_S", 0.0)
    counts: list[int] = []

    def killed_after(most: int) -> None:
        def run_jobs(jobs: Any, actor: type, settings: dict[str, Any], pool: Any) -> Iterator[Any]:
            counts.append(len(jobs))
            for number, result in enumerate(actor(settings).run_all(jobs)):
                if number == most:
                    monkeypatch.setattr(measure.FeatureStore, "flush", lambda store: None)  # nor does it say farewell
                    raise KeyboardInterrupt
                yield result | {"tries": 1}

        monkeypatch.setattr(measure, "map_jobs", run_jobs)

    killed_after(2)
    with pytest.raises(KeyboardInterrupt):
        evaluate(config)
    monkeypatch.undo()
    assert not (tmp_path / "results.json").exists()
    assert prepare(config).measurement.num_left == NUM_ROWS - 4
    killed_after(NUM_ROWS)
    assert evaluate(config).failed == 0
    assert counts == [6, 4]


def test_a_clip_that_fails_is_named_for_every_row_it_answers(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for row in range(3):
        (tmp_path / f"sample_{row:04d}.mp4").write_bytes(b"no film")
    monkeypatch.setattr(
        measure, "map_jobs", lambda jobs, *rest: iter([{"key": job["key"], "lost": "it died"} for job in jobs])
    )
    summary = evaluate(world.config(samples=tmp_path, metrics=["av_align"], limit=3, cache=None))
    assert summary.failed == 3
    table = pd.read_parquet(tmp_path / "evaluation" / "failures.parquet")
    assert table["error"].tolist() == ["it died"] * 3


def test_the_samples_can_be_compared(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(run / "evaluation") for run in (world.run, world.flawed)]
    compare.main([*folders, "--output", str(tmp_path)])
    text = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "comparison.csv")
    assert {"ib_av", "av_align", "clip_score", "javis_score"} <= set(table["name"])
    assert "different judges scored it" not in text
    document = json.loads((tmp_path / "comparison.json").read_text())
    assert "bounce 5" in json.dumps(document)


def test_metrics_that_trained_the_model_are_marked(world: World) -> None:
    marks = {name: one["training"] for name, one in results(world.run)["metrics"].items()}
    assert marks["ib_av"] == "trained"
    assert {name for name, kind in marks.items() if kind == "related"} == {"ib_tv", "ib_ta", "avh_score", "javis_score"}
    assert marks["av_align"] == "held_out"
    assert {one["training"] for one in results(world.flawed)["metrics"].values()} == {"unknown"}

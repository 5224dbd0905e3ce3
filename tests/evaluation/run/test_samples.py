"""Every caption and every sample is accounted for: what is missing, duplicate or wrong is named."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from core.schema import CANDIDATES, table_from_rows, write_table
from evaluation.run.benchmark import read_benchmark
from evaluation.run.categories import ASPECTS, PUBLISHED_COLUMNS
from evaluation.run.samples import read_samples


def javisbench(folder: Path, num_rows: int = 4) -> Path:
    """A table as the release publishes its benchmark."""
    table = pd.DataFrame(
        {
            "id": [f"clip {row}" for row in range(num_rows)],
            "path": [f"videos/{row}.mp4" for row in range(num_rows)],
            "text": [f"a dog barks {row} times" for row in range(num_rows)],
            **dict.fromkeys(PUBLISHED_COLUMNS, "0"),
        }
    )
    table.loc[1, "cat2_ind"] = "1,4"
    table.to_csv(folder / "JavisBench.csv", index=False)
    return folder / "JavisBench.csv"


def candidate(prompt_id: str, prompt: str, index: int = 0, error: str | None = None) -> dict[str, object]:
    return {
        "candidate_id": f"{prompt_id}/{index}",
        "prompt_id": prompt_id,
        "prompt": prompt,
        "index": index,
        "is_ground_truth": False,
        "seed": index,
        "video_path": f"{prompt_id}/{index}.mp4",
        "num_frames": 33,
        "height": 64,
        "width": 64,
        "fps": 16.0,
        "duration_s": 2.0625,
        "error": error,
    }


def test_the_published_table_has_its_five_aspects(tmp_path: Path) -> None:
    benchmark = read_benchmark(javisbench(tmp_path))
    assert list(benchmark.categories) == list(ASPECTS)
    assert sum(map(len, ASPECTS.values())) == 19
    sounds = benchmark.categories["Sound type"]
    assert {name: rows.tolist() for name, rows in sounds.items() if len(rows)} == {
        "Ambient": [0, 2, 3],
        "Biological": [1],
        "Speech": [1],
    }
    assert benchmark.rows["prompt_id"].tolist()[0] == "clip 0"
    assert not len(benchmark.rows_with_media)  # YouTube's clips are not published


def test_any_column_can_be_grouped_by_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    path = javisbench(tmp_path)
    assert {
        name: rows.tolist()
        for name, rows in read_benchmark(path, ["video_path"], limit=2).categories["video_path"].items()
    } == {
        "videos/0.mp4": [0],
        "videos/1.mp4": [1],
    }
    with pytest.raises(ValueError, match="no column 'colour' to group by"):
        read_benchmark(path, ["colour"])
    path.write_text(path.read_text().replace('"1,4"', '"1,7"'))
    with pytest.raises(ValueError, match="cat2_ind of the benchmark has '7' in row 1: give numbers from 0 to 4"):
        read_benchmark(path)


def test_numbered_files_answer_the_rows_of_their_numbers(tmp_path: Path) -> None:
    benchmark = read_benchmark(javisbench(tmp_path))
    folder = tmp_path / "samples"
    folder.mkdir()
    for name in (
        "sample_0000.mp4",
        "sample_0000.wav",
        "sample_0002.mp4",
        "sample_2.mp4",
        "sample_0009.mp4",
        "notes.txt",
    ):
        (folder / name).touch()
    found = read_samples(folder, benchmark)
    [sample] = found.samples
    assert (sample.candidate_id, sample.row) == ("clip 0/0", 0)
    assert sample.audio_path == str(folder / "sample_0000.wav")
    problems = {problem.name: (problem.kind, problem.reason) for problem in found.problems}
    assert problems["sample_0002.mp4"] == problems["sample_2.mp4"] == ("duplicate", "2 files are sample 2: keep one")
    assert problems["sample_0009.mp4"] == ("wrong", "the benchmark has no row 9, its last is 3")
    assert [name for name, (kind, _) in problems.items() if kind == "missing"] == ["clip 1", "clip 2", "clip 3"]


def test_a_table_of_candidates_is_joined_by_prompt_and_what_does_not_fit_is_named(tmp_path: Path) -> None:
    benchmark = read_benchmark(javisbench(tmp_path))
    rows = [
        candidate("clip 2", "a dog barks 2 times"),
        candidate("clip 0", "a dog barks 0 times"),
        candidate("clip 0", "a dog barks 0 times", index=1),
        candidate("clip 1", "a cat purrs"),
        candidate("elsewhere", "a dog barks"),
        candidate("clip 3", "a dog barks 3 times", error="no memory"),
    ]
    path = tmp_path / "run" / "candidates" / "candidates.parquet"
    path.parent.mkdir(parents=True)
    write_table(table_from_rows(rows, CANDIDATES), CANDIDATES, path)
    found = read_samples(tmp_path / "run", benchmark)
    assert [(sample.candidate_id, sample.row) for sample in found.samples] == [
        ("clip 0/0", 0),
        ("clip 0/1", 0),
        ("clip 2/0", 2),
    ]
    problems = {problem.name: problem for problem in found.problems}
    assert {name: problem.kind for name, problem in problems.items()} == {
        "clip 1/0": "wrong",
        "elsewhere/0": "wrong",
        "clip 3/0": "failed",
    }
    assert "was sampled from 'a cat purrs', but the benchmark's prompt of this id is" in problems["clip 1/0"].reason


def test_a_folder_without_samples_says_what_is_looked_for(tmp_path: Path) -> None:
    benchmark = read_benchmark(javisbench(tmp_path))
    with pytest.raises(ValueError, match=r"holds neither candidates/candidates\.parquet"):
        read_samples(tmp_path, benchmark)
    with pytest.raises(ValueError, match="does not exist"):
        read_samples(tmp_path / "none", benchmark)
    (tmp_path / "sample_0011.mp4").touch()
    with pytest.raises(ValueError, match=r"has no sample of .*no row 11"):
        read_samples(tmp_path, benchmark)


def test_cells_of_the_benchmark_may_be_empty(tmp_path: Path) -> None:
    rows = [
        {"prompt_id": "a", "prompt": "x", "video_path": "a.mp4", "audio_path": "a.wav", "audio_prompt": "rain"},
        {"prompt_id": "b", "prompt": "y", "video_path": "b.mp4"},
        {"prompt_id": "c", "prompt": "z"},
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "prompts.csv", index=False)
    (tmp_path / "a.mp4").touch()
    benchmark = read_benchmark(tmp_path / "prompts.csv")
    assert benchmark.rows["audio_prompt"].tolist() == ["rain", None, None]
    assert benchmark.rows["audio_path"].tolist() == [str(tmp_path / "a.wav"), None, None]
    assert benchmark.rows["video_path"][2] is None
    assert (benchmark.rows_with_media.tolist(), benchmark.rows_without_media.tolist()) == ([0], [1])


def test_a_limit_leaves_rows_out_and_their_samples_are_no_mistake(tmp_path: Path) -> None:
    benchmark = read_benchmark(javisbench(tmp_path), limit=2)
    folder = tmp_path / "samples"
    folder.mkdir()
    for row in range(5):
        (folder / f"sample_{row:04d}.mp4").touch()
    found = read_samples(folder, benchmark)
    assert [sample.row for sample in found.samples] == [0, 1]
    assert [problem.name for problem in found.problems] == ["sample_0004.mp4"]

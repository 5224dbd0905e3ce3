"""Values that were computed once are found again, by the content of the files and never by their place."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evaluation.run.file_keys import FileDigests, value_key
from evaluation.run.store import MAX_PARTS, FeatureStore

OUTPUTS = {"score": None, "features": 3}


def values(number: float) -> dict[str, np.ndarray]:
    return {"score": np.float32(number), "features": np.full(3, number, np.float32)}


def test_values_are_found_again_in_any_order_and_gaps_are_nan(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "i3d-1", OUTPUTS)
    for number, key in enumerate("abc"):
        store.add(key, values(number))
    store.flush()
    again = FeatureStore(tmp_path / "i3d-1", OUTPUTS)
    assert len(again) == 3
    assert again.stack("score", ["c", None, "a", "unknown"]).tolist()[::2] == [2.0, 0.0]
    assert np.isnan(again.stack("score", ["c", None, "a", "unknown"])[1::2]).all()
    assert again.stack("features", ["b"]).tolist() == [[1.0, 1.0, 1.0]]


def test_an_undefined_score_is_known_and_not_computed_again(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "clap-1", {"clap_score": None})
    store.add("silent", {"clap_score": np.float32(np.nan)})
    store.flush()
    again = FeatureStore(tmp_path / "clap-1", {"clap_score": None})
    assert "silent" in again
    assert np.isnan(again.stack("clap_score", ["silent"])).all()


def test_many_small_parts_become_one(tmp_path: Path) -> None:
    folder = tmp_path / "i3d-1"
    store = FeatureStore(folder, OUTPUTS)
    for number in range(MAX_PARTS + 1):
        store.add(str(number), values(number))
        store.flush()
    FeatureStore(folder, OUTPUTS)
    assert len(list(folder.glob("part-*.parquet"))) == 1
    wanted = [str(number) for number in range(MAX_PARTS + 1)]
    assert FeatureStore(folder, OUTPUTS).stack("score", wanted).tolist() == list(range(MAX_PARTS + 1))


def test_digests_follow_the_content_of_files(tmp_path: Path) -> None:
    first, copy, other = (tmp_path / name for name in ("a.mp4", "b.mp4", "c.mp4"))
    first.write_bytes(b"one")
    copy.write_bytes(b"one")
    other.write_bytes(b"two")
    names = [str(path) for path in (first, copy, other, tmp_path / "none.mp4")]
    found = FileDigests(tmp_path / "cache" / "files.parquet").of(names)
    assert found[names[0]] == found[names[1]] != found[names[2]]
    assert names[3] not in found
    first.write_bytes(b"another one")
    changed = FileDigests(tmp_path / "cache" / "files.parquet").of(names)
    assert changed[names[0]] != found[names[0]]
    assert changed[names[2]] == found[names[2]]


def test_a_key_is_of_both_files_and_of_the_words_where_they_matter() -> None:
    hears, reads = frozenset({"audio"}), frozenset({"audio", "text"})
    assert value_key("v", "a", ("x",), hears) == value_key("v", "a", ("y",), hears)
    assert value_key("v", "a", ("x",), reads) != value_key("v", "a", ("y",), reads)
    assert len({value_key(*files, ("x",), hears) for files in (("v", "a"), ("v", "b"), ("w", "a"), ("v", None))}) == 4
    assert value_key(None, "a", ("x",), hears) is None

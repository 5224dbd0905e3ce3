"""Human labels: reading every form, merging, agreement against textbook values, and making pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.convert import pairs_from_labels, rank_by_labels, read_labels
from pipeline.exchange.label_agreement import cohen_kappa

COHEN = {("a", "a"): 20, ("a", "b"): 5, ("b", "a"): 10, ("b", "b"): 15}  # the usual example: kappa 0.4


def pairs_table(num_pairs: int) -> pd.DataFrame:
    rows = range(num_pairs)
    columns = {"pair_id": [f"q{row}" for row in rows], "prompt_id": [f"p{row}" for row in rows], "prompt": "a ball"}
    for side, index in (("chosen", 0), ("rejected", 1)):
        columns[f"{side}_candidate_id"] = [f"p{row}/{index}" for row in rows]
        columns[f"{side}_video_path"] = [f"{row}-{index}.mp4" for row in rows]
        columns[f"{side}_seed"] = pd.array([2**62 + row if index else None for row in rows], "Int64")
        columns[f"{side}_ib_av"] = [1.0 - index] * num_pairs
    margins = {f"margin_{name}": [1.0] * num_pairs for name in ("video", "audio", "audio_video")}
    return pd.DataFrame(columns | margins | {"margin": 3.0})


def label_rows(pair: int, winners: dict[str, str], modality: str = "overall", flip: bool = False) -> list[dict]:
    """Make the labels of one pair: `winners` by annotator, each a (chosen by the ranking), b or tie."""
    a, b = f"p{pair}/0", f"p{pair}/1"
    swap = {"a": "b", "b": "a", "tie": "tie"}
    return [
        {
            "pair_id": f"q{pair}",
            "modality": modality,
            "winner": swap[winner] if flip else winner,
            "a": b if flip else a,
            "b": a if flip else b,
            "annotator": annotator,
            "time": "2026-01-01T00:00:00Z",
        }
        for annotator, winner in winners.items()
    ]


def write(path: Path, rows: list[dict], *columns: str) -> Path:
    pd.DataFrame(rows)[list(columns) or slice(None)].to_csv(path, index=False)
    return path


def test_cohen_kappa_of_two_annotators_is_the_textbook_value(tmp_path: Path) -> None:
    answers = [pair for pair, count in COHEN.items() for _ in range(count)]
    rows = [row for pair, (ann, ben) in enumerate(answers) for row in label_rows(pair, {"ann": ann, "ben": ben})]
    labels = read_labels(write(tmp_path / "labels.csv", rows))
    (told,) = rank_by_labels(pairs_table(50), labels).agreement
    assert told.kappa == pytest.approx(0.4)
    assert (told.num_pairs, told.num_annotators, told.num_labels) == (50, 2, 100)
    assert (told.ties, told.unanimous) == (0.3, 0.7)


def test_more_annotators_have_the_mean_of_their_pairs_and_missing_labels_do_not_count(tmp_path: Path) -> None:
    answers = [pair for pair, count in COHEN.items() for _ in range(count)]
    rows = []
    for pair, (ann, ben) in enumerate(answers):
        said = {"ann": ann, "ben": ben} | ({"cy": ann} if pair % 2 else {})
        rows += label_rows(pair, said, flip=pair % 3 == 0)
    told = rank_by_labels(pairs_table(50), read_labels(write(tmp_path / "labels.csv", rows))).agreement[0]
    signs = np.array([[1 if answer == "a" else -1 for answer in said] for said in answers])
    signs[::3] *= -1  # as shown
    kappas = [cohen_kappa(signs[:, 0], signs[:, 1]), 1.0, cohen_kappa(signs[1::2, 0], signs[1::2, 1])]
    assert told.kappa == pytest.approx(np.mean(kappas))


def test_kappa_is_undefined_for_one_annotator_and_where_nothing_varies() -> None:
    assert cohen_kappa(np.array([1, 1]), np.array([1, 1])) is None
    assert cohen_kappa(np.array([1, -1]), np.array([-1, 1])) == -1.0
    assert cohen_kappa(np.array([1, -1, 0, 1]), np.array([1, -1, 0, 1])) == 1.0


def test_agreement_with_the_ranking_needs_no_balance_of_sides(tmp_path: Path) -> None:
    rows = [row for pair in range(8) for row in label_rows(pair, {"ann": "a" if pair else "b"})]
    told = rank_by_labels(pairs_table(8), read_labels(write(tmp_path / "labels.csv", rows))).agreement[0]
    assert told.ranking == 7 / 8
    assert told.ranking_kappa == pytest.approx(0.75)  # half is by chance
    assert told.kappa is None


def test_majority_decides_and_equal_votes_are_a_tie(tmp_path: Path) -> None:
    said = [("b", "b", "a"), ("a", "b", "tie"), ("a", "a", "tie"), ("tie", "tie", "b")]
    rows = [row for pair, three in enumerate(said) for row in label_rows(pair, dict(zip("xyz", three, strict=True)))]
    result = rank_by_labels(pairs_table(5), read_labels(write(tmp_path / "labels.csv", rows)))
    assert result.pairs["chosen_candidate_id"].tolist() == ["p0/1", "p2/0"]
    assert result.pairs["label_agrees"].tolist() == [False, True]
    assert result.pairs["label_votes"].tolist() == [3, 3]
    assert result.counts == {
        "tie, dropped": 2,
        "loser of the ranking preferred": 1,
        "winner of the ranking": 1,
        "not labelled, dropped": 1,
    }


def test_swapped_pair_is_whole(tmp_path: Path) -> None:
    pairs = pairs_table(1).assign(pair_id="p0/0>p0/1")
    labels = read_labels(write(tmp_path / "labels.csv", label_rows(0, {"ann": "b"})))
    row = pairs_from_labels(pairs, labels).iloc[0]
    assert (row["chosen_candidate_id"], row["chosen_video_path"]) == ("p0/1", "0-1.mp4")
    assert (row["chosen_seed"], row["chosen_ib_av"], row["rejected_ib_av"]) == (2**62, 0.0, 1.0)
    assert pd.isna(row["rejected_seed"])
    assert (row["margin"], row["margin_audio_video"], row["pair_id"]) == (-3.0, -1.0, "p0/1>p0/0")
    assert pairs["chosen_candidate_id"].tolist() == ["p0/0"]  # the caller's table is as it was


def test_modalities_decide_where_nobody_gave_an_overall_label(tmp_path: Path) -> None:
    rows = label_rows(0, {"ann": "b"}, "video") + label_rows(0, {"ann": "tie"}, "audio")
    rows += label_rows(1, {"ann": "b"}, "video") + label_rows(1, {"ann": "a"}, "audio")
    rows += label_rows(2, {"ann": "b"}, "video") + label_rows(2, {"ann": "a"}, "overall")
    result = rank_by_labels(pairs_table(3), read_labels(write(tmp_path / "labels.csv", rows)))
    assert result.pairs["chosen_candidate_id"].tolist() == ["p0/1", "p2/0"]
    assert result.counts["modalities disagree, dropped"] == 1
    assert [row.respect for row in result.agreement] == ["video", "audio", "overall"]
    assert [row.ranking for row in result.agreement] == [0.0, 1.0, 1.0]


def test_a_pair_shown_the_other_way_round_is_the_same_pair(tmp_path: Path) -> None:
    rows = label_rows(0, {"ann": "b", "cy": "b"}) + label_rows(0, {"ben": "b"}, flip=True)
    rows += label_rows(1, {"ann": "b"}, flip=True)
    result = rank_by_labels(pairs_table(2), read_labels(write(tmp_path / "labels.csv", rows)))
    assert result.pairs["chosen_candidate_id"].tolist() == ["p0/1", "p1/1"]
    assert result.agreement[0].unanimous == 1.0


def test_pairs_can_be_named_by_their_id_and_the_ranked_side(tmp_path: Path) -> None:
    path = tmp_path / "ann.csv"
    path.write_text("pair_id,winner\nq1,Rejected\nq0,chosen\nq9,chosen\n")
    result = rank_by_labels(pairs_table(3), read_labels(path), keep_unlabelled=True)
    assert result.pairs["chosen_candidate_id"].tolist() == ["p0/0", "p1/1", "p2/0"]
    assert result.pairs["label_source"].tolist() == ["human", "human", "ranking"]
    assert result.pairs["label_agrees"].tolist() == [True, False, pd.NA]
    assert result.counts["labels about no pair in the table"] == 1


def test_each_file_is_an_annotator_unless_it_names_them(tmp_path: Path) -> None:
    files = []
    for name, winner in (("ann", "a"), ("ben", "b"), ("cy", "b")):
        files.append(write(tmp_path / f"{name}.csv", label_rows(0, {"": winner}), "a", "b", "winner"))
    result = rank_by_labels(pairs_table(1), read_labels(files))
    assert result.pairs["chosen_candidate_id"].tolist() == ["p0/1"]
    assert result.agreement[0].num_annotators == 3


def test_candidates_give_pairs_by_labels_alone(tmp_path: Path) -> None:
    candidates = pd.DataFrame(
        {
            "candidate_id": ["p/gt", "p/0", "p/1"],
            "prompt_id": "p",
            "prompt": "a ball",
            "is_ground_truth": [True, False, False],
            "video_path": ["gt.mp4", "0.mp4", "1.mp4"],
            "ib_av": [0.1, 0.2, 0.3],
            "height": [64, 32, 64],
            "width": [64, 32, 64],
            "num_frames": [33, 33, 17],
            "fps": [16.0, 16.0, 8.0],
        }
    )
    path = tmp_path / "labels.csv"
    path.write_text("a,b,winner\np/0,p/1,b\np/0,p/gt,a\np/1,p/gt,tie\n")
    pairs = pairs_from_labels(candidates, read_labels(path))
    assert pairs["pair_id"].tolist() == ["p/1>p/0", "p/0>p/gt"]
    assert pairs["chosen_video_path"].tolist() == ["1.mp4", "0.mp4"]
    assert pairs[["height", "num_frames", "fps"]].to_numpy().tolist() == [[32, 17, 8.0], [32, 33, 16.0]]
    assert pairs["label_agrees"].isna().all()
    other = candidates.assign(prompt_id=["p", "q", "q"])
    with pytest.raises(ValueError, match=r"'p/0' and 'p/gt' are candidates of two prompts"):
        pairs_from_labels(other, read_labels(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pair_id,winner\nq0,a\n", r"'winner', row 0: 'a' is none of chosen, rejected, tie. Add the columns a and b"),
        ("pair_id,winner,modality\nq0,chosen,sound\n", r"'modality', row 0: 'sound' is none of"),
        ("a,b,winner\np0/0,p0/1,c\n", r"'winner', row 0"),
        ("pair_id,choice\nq0,a\n", r"which are no labels"),
        ("pair_id,winner\n", r"holds no rows"),
        ("a,b,winner\np0/0,p0/1,a\np0/1,p0/0,a\n", r"'labels' labels the pair of 'p0/1' and 'p0/0' twice"),
        ("a,b,winner\nx/0,x/1,a\n", r"None of the 1 labels"),
    ],
)
def test_unusable_labels_are_named(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        rank_by_labels(pairs_table(2), read_labels(tmp_path / "labels.csv"))

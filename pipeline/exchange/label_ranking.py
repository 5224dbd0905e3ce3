"""Ranking by people: merges the labels of annotators and makes pairs whose winners people chose."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.exchange.label_agreement import LabelAgreement, label_agreement, majority
from pipeline.exchange.label_pairs import pairs_of_candidates, swapped
from pipeline.exchange.labels import Labels, pair_keys
from rewards.agreement_tables import OVERALL

# Outcomes of a labelled pair.
CONFIRMED = "winner of the ranking"
REVERSED = "loser of the ranking preferred"
DECIDED = "winner by labels alone"
TIED = "tie, dropped"
DISAGREE = "modalities disagree, dropped"


@dataclass(frozen=True, eq=False)
class LabelledPairs:
    """Result of ranking by labels.

    pairs: Pairs with the winners that people chose.
    agreement: Agreement of people with each other and with the ranking, one row per labelled respect.
    counts: Outcome of pairs and labels, in words -> number.
    """

    pairs: pd.DataFrame
    agreement: list[LabelAgreement]
    counts: dict[str, int]

    def report(self) -> dict[str, Any]:
        """Return counts and agreement in the form of ranking.json."""
        return {"counts": self.counts, "agreement": [asdict(row) for row in self.agreement]}


def pairs_from_labels(pairs_or_candidates: pd.DataFrame, labels: Labels, keep_unlabelled: bool = False) -> pd.DataFrame:
    """Return only the pairs of `rank_by_labels`, ready for `pipeline.rank.pairs_folder.write_pairs`."""
    return rank_by_labels(pairs_or_candidates, labels, keep_unlabelled).pairs


def rank_by_labels(table: pd.DataFrame, labels: Labels, keep_unlabelled: bool = False) -> LabelledPairs:
    """Make pairs whose winners are those that people chose.

    Annotators are merged by majority; equal numbers of votes are a tie. A pair's winner is the merged `overall` label.
    If there is none, the winner is the clip that is better in some modality and worse in none. Ties, and pairs whose
    modalities disagree, are dropped. If people prefer the rejected clip, the sides are swapped and the margins change
    sign, so that a negative margin shows that the rewards disagreed.

    The pairs gain `label_source` ("human", or "ranking" for unlabelled pairs), `label_agrees` (whether people chose the
    ranking's winner; null if either did not choose) and `label_votes` (the number of labels that decided).

    Args:
        table: pairs of `pipeline.rank`, or candidates (for labels with `a` and `b`; scores may be joined to them).
        labels: the result of `read_labels`.
        keep_unlabelled: whether to keep pairs that nobody labelled, with the ranking's winner.

    Raises:
        ValueError: no label is about a pair in the table, or the table is of neither kind.
    """
    ranked = "candidate_id" not in table
    pairs = table.reset_index(drop=True) if ranked else pairs_of_candidates(table, labels)
    votes = _votes(pairs, labels)
    merged = majority(votes)
    merged["vote"] *= merged["key"].map(votes.groupby("key")["chosen_first"].first()).map({True: 1, False: -1})
    merged["ranking"] = _ranking(pairs, merged) if ranked else np.nan
    outcomes = _outcomes(merged, ranked)
    return LabelledPairs(
        _with_winners(pairs, outcomes, keep_unlabelled),
        label_agreement(votes, merged),
        _counts(pairs, outcomes, num_unmatched=len(labels.rows) - len(votes), keep_unlabelled=keep_unlabelled),
    )


def _votes(pairs: pd.DataFrame, labels: Labels) -> pd.DataFrame:
    """Match labels to rows of `pairs`: `key` is the row; `vote` is 1 for the clip that the file names first."""
    chosen, rejected = pairs["chosen_candidate_id"], pairs["rejected_candidate_id"]
    rows = labels.rows
    by_candidates = _lookup(pair_keys(chosen, rejected), pair_keys(rows["a"], rows["b"]))
    by_id = _lookup(pairs["pair_id" if "pair_id" in pairs else "prompt_id"].astype(str), rows["pair_id"])
    places = by_candidates.where(rows["a"].notna(), by_id)
    votes = rows[places.notna()].assign(key=places.dropna().astype("int64"))
    if votes.empty:
        raise ValueError(
            f"None of the {len(rows)} labels in {labels.source} is about a pair in the table. Their ids have to be "
            "those of the table that was labelled."
        )
    shown = votes["a"].where(votes["a"].notna(), votes["key"].map(chosen))
    first = shown.groupby(votes["key"]).transform("first")
    votes["vote"] = votes["vote"].where(shown == first, -votes["vote"])
    return votes.assign(chosen_first=first == votes["key"].map(chosen))


def _lookup(known: pd.Series[str], wanted: pd.Series[str]) -> pd.Series[float]:
    """Return the first position of each of `wanted` in `known`, null if absent."""
    places = pd.Series(range(len(known)), index=pd.Index(known, dtype=object), dtype="float64")
    return wanted.map(places[~places.index.duplicated()])


def _ranking(pairs: pd.DataFrame, merged: pd.DataFrame) -> pd.Series[float]:
    """Return the ranking's choice for each merged label: the sign of the modality's margin, else its winner (1)."""
    result = pd.Series(1.0, index=merged.index)
    for name in merged["respect"].unique():
        if (column := f"margin_{name}") in pairs:
            rows = merged["respect"] == name
            result[rows] = np.sign(merged.loc[rows, "key"].map(pairs[column]).astype("float64"))
    return result


def _outcomes(merged: pd.DataFrame, ranked: bool) -> pd.DataFrame:
    """Return `winner` (1 chosen, -1 rejected, 0 none), `outcome` and `num_votes` per labelled pair, by its row."""
    votes = merged.pivot(index="key", columns="respect", values="vote")
    overall = votes.pop(OVERALL) if OVERALL in votes else pd.Series(np.nan, index=votes.index)
    wins, losses = (votes == 1).any(axis=1), (votes == -1).any(axis=1)
    winner = overall.where(overall.notna(), wins.astype("int64") - losses.astype("int64")).astype("int64")
    names = (CONFIRMED, REVERSED) if ranked else (DECIDED, DECIDED)
    outcome = np.select([winner == 1, winner == -1, overall.isna() & wins & losses], [*names, DISAGREE], TIED)
    num_votes = merged.groupby("key")["num_votes"].max()
    return pd.DataFrame({"winner": winner, "outcome": outcome, "num_votes": num_votes}, index=votes.index)


def _with_winners(pairs: pd.DataFrame, outcomes: pd.DataFrame, keep_unlabelled: bool) -> pd.DataFrame:
    outcome = outcomes["outcome"].reindex(pairs.index)
    result = swapped(pairs, outcomes["winner"].reindex(pairs.index) == -1)
    result["label_source"] = outcome.notna().map({True: "human", False: "ranking"})
    result["label_agrees"] = outcome.map({CONFIRMED: True, REVERSED: False}).astype("boolean")
    result["label_votes"] = outcomes["num_votes"].reindex(pairs.index).astype("Int64")
    kept = outcome.isin([CONFIRMED, REVERSED, DECIDED])
    return result[kept | outcome.isna() if keep_unlabelled else kept].reset_index(drop=True)


def _counts(pairs: pd.DataFrame, outcomes: pd.DataFrame, num_unmatched: int, keep_unlabelled: bool) -> dict[str, int]:
    counts = {str(name): int(count) for name, count in outcomes["outcome"].value_counts().items()}
    if unlabelled := len(pairs) - len(outcomes):
        counts["not labelled, kept" if keep_unlabelled else "not labelled, dropped"] = unlabelled
    if num_unmatched:
        counts["labels about no pair in the table"] = num_unmatched
    return counts

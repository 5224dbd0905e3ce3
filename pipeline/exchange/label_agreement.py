"""Agreement of people with each other and with the ranking on the better of two clips."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from rewards.agreement_tables import MODALITIES

CHOICES = (1, 0, -1)  # the first clip, neither, the second


@dataclass(frozen=True)
class LabelAgreement:
    """Agreement of the labels in one respect (a modality, or overall)."""

    respect: str
    num_pairs: int
    num_annotators: int
    num_labels: int
    ties: float  # share of pairs whose merged label is a tie
    unanimous: float | None  # share of pairs with at least two labels whose labels all agree; None without such pairs
    kappa: float | None  # Cohen's kappa, mean over pairs of annotators; None if none share pairs or it is undefined
    ranking: float | None  # share of decided pairs in which people prefer the ranking's winner
    ranking_kappa: float | None  # Cohen's kappa of the merged label and the ranking


def label_agreement(votes: pd.DataFrame, merged: pd.DataFrame) -> list[LabelAgreement]:
    """Compute one row of agreement per labelled respect, in the order of `MODALITIES`.

    Args:
        votes: one row per label: `key` of the pair, `respect`, `annotator`, `vote` (one of CHOICES).
        merged: one row per pair and respect: `key`, `respect`, `vote`, and `ranking`, the clip that the ranking chose
            (one of CHOICES; null if nothing was ranked).
    """
    return [
        _one(name, votes[votes["respect"] == name], merged[merged["respect"] == name])
        for name in MODALITIES
        if (votes["respect"] == name).any()
    ]


def majority(votes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per pair and respect: the choice with most votes (a tie if two are equal) and `num_votes`."""
    counts = pd.DataFrame({choice: votes["vote"] == choice for choice in CHOICES}, index=votes.index)
    counts = counts.groupby([votes["key"], votes["respect"]], sort=False).sum()
    first, tie, second = (counts[choice] for choice in CHOICES)
    vote = np.select([first > np.maximum(tie, second), second > np.maximum(tie, first)], [1, -1], 0)
    return pd.DataFrame({"vote": vote, "num_votes": counts.sum(axis=1)}, index=counts.index).reset_index()


def cohen_kappa(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return Cohen's kappa (Cohen 1960) of two annotators' choices (N,); None if both always make the same choice."""
    observed = float((first == second).mean())
    by_chance = sum(float((first == choice).mean() * (second == choice).mean()) for choice in CHOICES)
    return (observed - by_chance) / (1 - by_chance) if by_chance < 1 else None


def agreement_table(rows: list[LabelAgreement]) -> str:
    """Format the rows as a text table."""
    frame = pd.DataFrame([asdict(row) for row in rows]).rename(columns={"respect": "labels"})
    return frame.to_string(index=False, na_rep="-", float_format=lambda value: f"{value:.3f}")


def _one(name: str, votes: pd.DataFrame, merged: pd.DataFrame) -> LabelAgreement:
    ranked = merged[merged["ranking"].notna() & (merged["ranking"] != 0)]
    decided = ranked[ranked["vote"] != 0]
    by_pair = votes.groupby("key")["vote"].agg(["size", "nunique"])
    several = by_pair[by_pair["size"] > 1]
    return LabelAgreement(
        respect=name,
        num_pairs=len(merged),
        num_annotators=votes["annotator"].nunique(),
        num_labels=len(votes),
        ties=float((merged["vote"] == 0).mean()),
        unanimous=float((several["nunique"] == 1).mean()) if len(several) else None,
        kappa=_mean_kappa(votes.pivot(index="key", columns="annotator", values="vote")),
        ranking=float((decided["vote"] == decided["ranking"]).mean()) if len(decided) else None,
        ranking_kappa=_ranking_kappa(ranked) if len(ranked) else None,
    )


def _mean_kappa(table: pd.DataFrame) -> float | None:
    """Return the mean kappa over pairs of annotators. table: pairs by annotators, null where not labelled."""
    kappas = []
    for first, second in itertools.combinations(table.columns, 2):
        both = table[[first, second]].dropna().to_numpy()
        if len(both) and (kappa := cohen_kappa(both[:, 0], both[:, 1])) is not None:
            kappas.append(kappa)
    return float(np.mean(kappas)) if kappas else None


def _ranking_kappa(ranked: pd.DataFrame) -> float | None:
    """Return kappa with each pair in both orders. If winners were always first, chance agreement would be 1."""
    vote, ranking = (ranked[name].to_numpy(np.int64) for name in ("vote", "ranking"))
    return cohen_kappa(np.concatenate([vote, -vote]), np.concatenate([ranking, -ranking]))

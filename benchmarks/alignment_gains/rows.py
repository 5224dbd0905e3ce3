"""The rows of the table: what is trained, with how many seeds, and what the row shows."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.alignment_gains import methods
from benchmarks.alignment_gains.methods import Method


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        name: name of the row and of its folders.
        method: trains the model.
        shows: what the row is there for.
        carries_claim: true for rows that are trained with every seed.
    """

    name: str
    method: Method
    shows: str
    carries_claim: bool = False


ROWS = (
    Row("winners", methods.winners, "cheap rival: imitation of the best candidates", True),
    Row("dpo", methods.dpo("modality_micro"), "the paper's modality-aware pairs of own samples", True),
    Row("dpo_ground_truth", methods.dpo("modality_micro", "any"), "pairs with ground truth"),
    Row("dpo_agnostic", methods.dpo("agnostic"), "the paper's ablation: one score for all modalities"),
    Row("dpo_inconsistent", methods.dpo("inconsistent"), "the paper's ablation: modalities may disagree"),
    Row("dpo_rounds", methods.rounds("dpo"), "rounds without the new objective"),
    Row("nft_summed", methods.nft(routing="summed"), "one round, every reward for both modalities"),
    Row("nft", methods.nft(), "one round, routed", True),
    Row("nft_rounds_summed", methods.rounds("nft", routing="summed"), "rounds, every reward for both modalities"),
    Row("nft_rounds", methods.rounds("nft"), "rounds, routed", True),
    Row("constructed", methods.constructed(), "negatives without sampling", True),
    Row("constructed_dpo", methods.constructed_then("dpo"), "negatives before DPO"),
    Row("constructed_nft", methods.constructed_then("nft"), "negatives before one round"),
    Row("shuffled", methods.nft(shuffle_advantages=True), "control: rewards of other candidates", True),
)


def chosen_rows(names: list[str]) -> tuple[Row, ...]:
    """Return the rows of these names, or all for none.

    Raises:
        ValueError: for an unknown name.
    """
    known = {row.name: row for row in ROWS}
    for name in names:
        if name not in known:
            raise ValueError(f"only names the row {name!r}: choose from {', '.join(known)}.")
    return tuple(known[name] for name in names) or ROWS

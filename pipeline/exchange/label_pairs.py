"""The two sides of a pair: building them from labelled candidates, and swapping them."""

from __future__ import annotations

import pandas as pd

from pipeline.exchange.labels import Labels, pair_keys
from pipeline.rank.pairs_folder import SIDES, pair_ids
from pipeline.rank.pairs_table import LENGTH_COLUMNS, SIDE_COLUMNS, SIZE_COLUMNS
from rewards.metrics import METRIC_COLUMNS


def pairs_of_candidates(candidates: pd.DataFrame, labels: Labels) -> pd.DataFrame:
    """Build one row per labelled pair of candidates, with the first-named one as `chosen`; nothing is ranked.

    Height and width are those of the clip with fewer pixels, length that of the shorter clip, as in ranking.

    Raises:
        ValueError: the table lacks a column, no label names two of its candidates, or a pair is of two prompts.
    """
    if missing := [name for name in ("prompt_id", "prompt") if name not in candidates]:
        raise ValueError(f"The candidates have no column {' and no '.join(missing)}. Give a candidates table.")
    rows = labels.rows.dropna(subset=["a", "b"])
    rows = rows[~pair_keys(rows["a"], rows["b"]).duplicated()]
    table = candidates.set_index(candidates["candidate_id"].astype(str))
    rows = rows[rows["a"].isin(table.index) & rows["b"].isin(table.index)]
    if rows.empty:
        raise ValueError(
            f"No label in {labels.source} names two candidates of the table by its columns a and b. Give the "
            "candidates that were shown, or a pairs table for labels by pair_id."
        )
    sides = [table.loc[rows[name]].reset_index(drop=True) for name in ("a", "b")]
    if (apart := sides[0]["prompt_id"] != sides[1]["prompt_id"]).any():
        first, second = (side["candidate_id"][apart].iloc[0] for side in sides)
        raise ValueError(
            f"{labels.source}: {first!r} and {second!r} are candidates of two prompts. A pair has one prompt."
        )
    columns = {name: sides[0][name] for name in ("prompt_id", "prompt")}
    for prefix, side in zip(SIDES, sides, strict=True):
        columns |= {f"{prefix}_{name}": side[name] for name in (*SIDE_COLUMNS, *METRIC_COLUMNS) if name in side}
    pairs = pd.DataFrame(columns | _geometry(*sides))
    return pairs.assign(pair_id=pair_ids(pairs))


def swapped(pairs: pd.DataFrame, rows: pd.Series[bool]) -> pd.DataFrame:
    """Swap both sides in the given rows, negate their margins and rebuild their pair_id."""
    result = pairs.copy()
    names = [str(name) for name in pairs]
    for chosen in [name for name in names if name.startswith("chosen_")]:
        rejected = chosen.replace("chosen_", "rejected_", 1)
        result[chosen] = pairs[chosen].where(~rows, pairs[rejected])
        result[rejected] = pairs[rejected].where(~rows, pairs[chosen])
    for name in [name for name in names if name == "margin" or name.startswith("margin_")]:
        result[name] = pairs[name].where(~rows, -pairs[name])
    if "pair_id" in pairs:
        result["pair_id"] = pairs["pair_id"].where(~rows, pair_ids(result))
    return result


def _geometry(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, pd.Series[float]]:
    columns: dict[str, pd.Series[float]] = {}
    for names, factors in ((SIZE_COLUMNS, ("height", "width")), (LENGTH_COLUMNS, ("num_frames",))):
        if set(factors) <= set(first):
            size, other = (side[list(factors)].prod(axis=1, skipna=False) for side in (first, second))
            smaller = (other < size).fillna(False).astype(bool)
            columns |= {name: first[name].where(~smaller, second[name]) for name in names if name in first}
    return columns

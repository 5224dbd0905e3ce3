"""Columns of pairs that `python -m dpo.construct` makes, besides those of `dpo.data.schema`. Imports no torch."""

from __future__ import annotations

from dpo.data.schema import COLUMNS, MODALITIES

STAGE = "stage"  # of the curriculum, 0 first
DISTORTION_S = "distortion_s"  # delay of the loser's sound in seconds; negative: it is early
STRENGTH = "strength"  # share of the sampling steps by which the regions of the loser were generated anew
MASKS = {name: f"{name}_mask" for name in MODALITIES}  # 1 where generated anew; empty where nothing was

SHIFT_COLUMNS = COLUMNS | {STAGE: "int32", DISTORTION_S: "float32"}
REGIONAL_COLUMNS = COLUMNS | {
    STRENGTH: "float32",
    MASKS["video"]: "list<float16>",  # (T, H, W)
    MASKS["audio"]: "list<float16>",  # (T, M)
}

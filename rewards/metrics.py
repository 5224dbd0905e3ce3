"""The metric columns of this project's rewards, their direction, and the modality that each belongs to."""

from __future__ import annotations

METRIC_COLUMNS: tuple[str, ...] = (
    "visual_quality",
    "motion_quality",
    "text_alignment",
    "audio_quality",
    "content_enjoyment",
    "content_usefulness",
    "production_complexity",
    "production_quality",
    "ib_tv",
    "ib_ta",
    "ib_av",
    "desync",
)

HIGHER_IS_BETTER: dict[str, bool] = {column: column != "desync" for column in METRIC_COLUMNS}

# The published grouping: each metric is standardised over the table and signed so that higher is better, then averaged.
MODALITY_METRICS: dict[str, tuple[str, ...]] = {
    "video": ("visual_quality", "motion_quality", "ib_tv"),
    "audio": ("audio_quality", "ib_ta"),
    "audio_video": ("ib_av", "desync"),
}

# Columns that compare a clip with its prompt; the others are blind to it.
TEXT_METRICS: tuple[str, ...] = ("text_alignment", "ib_tv", "ib_ta")

"""Score a few clips from the command line, without a pipeline run.

python -m rewards.score a.mp4 b.mp4 --prompts "a dog barks at a passing car" --reward_weights weights
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.cli import echo, parse_config
from rewards.base import Protocol
from rewards.decode import ClipFile
from rewards.registry import MissingPackageError, expand_names, get_reward
from rewards.score_inputs import clip_files
from rewards.score_output import OUTPUT_SUFFIXES, scores_text, write_scores
from rewards.suite import RewardSuite, ScoreRow

ABOUT = (
    "Score clips and print one line per clip and one column per metric, the best clip of each column marked. "
    'Example: python -m rewards.score a.mp4 b.mp4 --prompts "a dog barks" --reward_weights weights. '
    "Exit status: 0; 1 when a clip could not be scored; 2 on a mistake in what was given."
)
NARROWEST = 60  # columns; a narrower terminal wraps the lines itself


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Settings of `python -m rewards.score`."""

    clips: list[Path] = field(metadata={"help": "Media files, or folders of them; they may stand before all flags."})
    audio: list[Path] | None = field(
        default=None,
        metadata={"help": "The clips' sounds, one file each; by default the .wav beside a clip, else its own track."},
    )
    prompts: list[str] | None = field(
        default=None,
        metadata={
            "help": "One text for all clips, one per clip, or one CSV, JSONL or Parquet file, where a clip is found by "
            "video_path, or by prompt_id as its file name without suffix."
        },
    )
    rewards: list[str] = field(
        default_factory=lambda: ["learned"],
        metadata={"help": "Reward names, 'learned' for all four networks, or package.module:Class."},
    )
    reward_weights: str | None = field(
        default=None,
        metadata={
            "help": "Weights of the rewards: the folder that model.fetch filled, or 'tiny', the preset that "
            "knows only the clips of Bounce."
        },
    )
    device: str | None = field(default=None, metadata={"help": "Torch device; by default cuda where there is one."})
    dtype: str = field(default="float32", metadata={"help": "Type of the networks' weights, e.g. bfloat16."})
    protocol: Protocol = field(
        default="correct",
        metadata={"help": "correct, or javisbench: as the release scores, defects included."},
    )
    batch_size: int = field(default=8, metadata={"help": "Clips scored at once; twice as many are held in memory."})
    num_decoders: int = field(default=2, metadata={"help": "Threads that decode the next clips meanwhile."})
    output: Path | None = field(
        default=None, metadata={"help": f"File to write as well: {', '.join(OUTPUT_SUFFIXES)}."}
    )

    def __post_init__(self) -> None:
        if self.output is not None and self.output.suffix not in OUTPUT_SUFFIXES:
            raise ValueError(f"output is {self.output}, but must end in {', '.join(OUTPUT_SUFFIXES)}.")


def score(config: ScoreConfig) -> tuple[list[ClipFile], list[ScoreRow], RewardSuite]:
    """Score the clips of a configuration. Raises ValueError for a mistake in it, where possible before loading."""
    files = clip_files(config.clips, config.audio, config.prompts)
    _check_prompts(config, files)
    suite = RewardSuite.load(
        config.rewards,
        weights=config.reward_weights,
        device=config.device or _default_device(),
        dtype=config.dtype,
        protocol=config.protocol,
        batch_size=config.batch_size,
        num_decoders=config.num_decoders,
    )
    from tqdm import tqdm

    rows = list(tqdm(suite.iter_scores(files), total=len(files), desc="score", unit="clip", disable=None))
    return files, rows, suite


def main(argv: Sequence[str] | None = None) -> int:
    config = parse_config(ScoreConfig, argv, positional="clips", about=ABOUT)
    try:
        files, rows, suite = score(config)
    except (ValueError, MissingPackageError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    width = max(shutil.get_terminal_size((120, 24)).columns, NARROWEST)
    echo(scores_text(rows, suite, width))
    beside = (
        sum(file.audio_path is not None for file in files) if config.audio is None and "audio" in suite.needs else 0
    )
    if beside:
        echo(f"The sound of {beside} of {len(files)} clips was read from the .wav of the same name beside them.")
    if config.output is not None:
        try:
            write_scores(config.output, files, rows, suite, protocol=config.protocol, weights=config.reward_weights)
        except OSError as error:
            sys.stderr.write(f"error: {config.output} cannot be written: {error}\n")
            return 2
        echo(f"written: {config.output}")
    return int(any(row.error is not None for row in rows))


def _check_prompts(config: ScoreConfig, files: Sequence[ClipFile]) -> None:
    without = [file.candidate_id for file in files if not file.prompt.prompt]
    if not without:
        return
    rewards = [get_reward(name) for name in expand_names(config.rewards)]
    readers = [reward.name for reward in rewards if "text" in reward.needs]
    if readers:
        there = "there is none" if config.prompts is None else f"that of {without[0]!r} is empty"
        raise ValueError(
            f"A clip is held against its prompt by {', '.join(readers)}, and {there}. Add --prompts, or name only "
            "rewards that need no text with --rewards."
        )


def _default_device() -> str:
    import torch  # late: a mistake in the settings is reported without it

    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    sys.exit(main())

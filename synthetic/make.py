"""Writing of Bounce clips and their prompts table: `python -m synthetic.make --num_clips N --output DIR`.

DIR/prompts.parquet has one row per clip: prompt_id, prompt, video_path and audio_path (relative to DIR), seed and the
scene's attributes. DIR/clips contains <prompt_id>.mp4 and <prompt_id>.wav. The same command finishes an interrupted
run. With `--quality mixed` the clips are in DIR/mixed_clips, half of them have a fault, and the table has the columns
fault_group, fault and fault_strength (see `synthetic.quality`).
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from core.atomic import atomic_path
from core.cli import StageSummary, config_to_dict, config_to_yaml, echo, package_versions, parse_config
from media import write_clip
from synthetic.captions import caption
from synthetic.quality import draw_fault, spoil
from synthetic.render import render_clip
from synthetic.scene import Scene, scene_from_seed

Quality = Literal["clean", "mixed"]

CLIPS_PER_TASK = 16  # clips in one task of a worker
CLIP_FOLDERS: dict[Quality, str] = {"clean": "clips", "mixed": "mixed_clips"}


@dataclass(frozen=True)
class MakeConfig:
    """Settings of `python -m synthetic.make`."""

    output: Path = field(metadata={"help": "folder for prompts.parquet and clips/; created if missing"})
    num_clips: int = field(metadata={"help": "number of clips, with consecutive seeds"})
    first_seed: int = field(default=0, metadata={"help": "seed of the first scene; seeds from 1000000 are held out"})
    quality: Quality = field(
        default="clean", metadata={"help": "clean, or mixed: half of the clips have a fault that no caption mentions"}
    )
    num_workers: int = field(default=1, metadata={"help": "number of processes; the files do not depend on it"})
    dry_run: bool = field(default=False, metadata={"help": "print the plan and write nothing"})

    def __post_init__(self) -> None:
        for name, least in (("num_clips", 1), ("first_seed", 0), ("num_workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but must be at least {least}: give a larger number."
                )

    @property
    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.num_clips)

    @property
    def clips(self) -> Path:
        """Folder of the clips, which depends on their quality so that no folder holds both kinds."""
        return self.output / CLIP_FOLDERS[self.quality]


def make(config: MakeConfig) -> StageSummary:
    """Write the missing clips, then the prompts table and summary.json."""
    start = time.monotonic()
    missing = [seed for seed in config.seeds if not _is_finished(config.clips, seed)]
    if not config.dry_run:
        _write_clips(config, missing)
        _write_table(config)
    summary = StageSummary(
        stage="make",
        wanted=config.num_clips,
        done=config.num_clips - (len(missing) if config.dry_run else 0),
        skipped=config.num_clips - len(missing),
        failed=0,
        seconds=time.monotonic() - start,
        settings=config_to_dict(config),
        versions=package_versions("numpy", "av", "pyarrow"),
    )
    if not config.dry_run:
        summary.write(config.output)
    return summary


def prompt_id(seed: int) -> str:
    """Return the prompt_id of a scene's seed, for example "bounce-0000012"."""
    return f"bounce-{seed:07d}"


def table_row(scene: Scene, quality: Quality = "clean") -> dict[str, Any]:
    """Return the row of a scene in the prompts table; for mixed quality, with its fault."""
    name, folder = prompt_id(scene.seed), CLIP_FOLDERS[quality]
    row = {
        "prompt_id": name,
        "prompt": caption(scene),
        "video_path": f"{folder}/{name}.mp4",
        "audio_path": f"{folder}/{name}.wav",
        "seed": scene.seed,
        "color": scene.color,
        "size": scene.size,
        "background": scene.background,
        "num_impacts": scene.num_impacts,
        "pitch": scene.pitch,
        "material": scene.material,
        "side": scene.side,
    }
    if quality == "clean":
        return row
    fault = draw_fault(scene.seed)
    return row | {"fault_group": fault.group, "fault": fault.kind, "fault_strength": fault.strength}


def _is_finished(clips: Path, seed: int) -> bool:
    return all((clips / f"{prompt_id(seed)}{suffix}").exists() for suffix in (".mp4", ".wav"))


def _write_clips(config: MakeConfig, seeds: list[int]) -> None:
    tasks = [(config, seeds[i : i + CLIPS_PER_TASK]) for i in range(0, len(seeds), CLIPS_PER_TASK)]
    with tqdm(total=len(seeds), unit="clip", file=sys.stderr, disable=not seeds) as progress:
        if config.num_workers == 1 or len(tasks) <= 1:
            for task in tasks:
                progress.update(_write_task(task))
            return
        with multiprocessing.get_context("spawn").Pool(min(config.num_workers, len(tasks))) as pool:
            for count in pool.imap_unordered(_write_task, tasks):
                progress.update(count)


def _write_task(task: tuple[MakeConfig, list[int]]) -> int:
    config, seeds = task
    for seed in seeds:
        clip = render_clip(scene_from_seed(seed))
        write_clip(spoil(clip, seed) if config.quality == "mixed" else clip, config.clips / f"{prompt_id(seed)}.mp4")
    return len(seeds)


def _write_table(config: MakeConfig) -> None:
    table = pa.Table.from_pylist([table_row(scene_from_seed(seed), config.quality) for seed in config.seeds])
    with atomic_path(config.output / "prompts.parquet") as temporary:
        pq.write_table(table, temporary)


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    config = parse_config(MakeConfig, argv)
    echo(config_to_yaml(config))
    summary = make(config)
    echo(summary.line())
    if config.dry_run:
        echo(f"dry run: {summary.wanted - summary.skipped} clips would be written to {config.clips}")
    else:
        echo(f"prompts: {config.output / 'prompts.parquet'}")


if __name__ == "__main__":
    main()

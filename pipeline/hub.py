"""Upload of pairs to the Hugging Face hub, with a card that states their origin, and download of shared pairs.

python -m pipeline.hub --pairs runs/first/pairs --repo_id me/my-pairs --private --media clips
python -m pipeline.hub --repo_id me/my-pairs --download runs/theirs

A repository has the layout of a run, so that relative paths stay valid: README.md, data/pairs.parquet (beside it
ranking.json and attrition.parquet if they exist), candidates/ and scores/ with their tables, and candidates/media/ with
the clips of the pairs.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from core.cli import atomic_write_text, echo, parse_config
from pipeline.exchange.dataset_card import dataset_card, read_provenance
from pipeline.rank.pairs_folder import SIDES, is_dataset, read_dataset, write_pairs

if TYPE_CHECKING:
    from datasets import Dataset

ABOUT = """Upload a pairs dataset to the Hugging Face hub (--pairs), or download a shared one (--download).
Set HF_TOKEN or run `hf auth login` to authenticate."""

Media = Literal["none", "clips", "latents"]

PAIRS_FILE = "data/pairs.parquet"
TABLES = {"pairs": PAIRS_FILE, "candidates": "candidates/candidates.parquet", "scores": "scores/scores.parquet"}
_MEDIA_COLUMNS = {
    "none": (),
    "clips": ("video_path", "audio_path"),
    "latents": ("video_path", "audio_path", "latents_path"),
}
_MEDIA_SENTENCES = {
    "none": "The clips are not part of this repository; paths refer to the run that made them.",
    "clips": "The clips of the pairs are in `candidates/media`; the sampler's latents are not part of this repository.",
    "latents": "The clips of the pairs, and the sampler's latents, are in `candidates/media`.",
}


@dataclass(frozen=True, kw_only=True)
class HubConfig:
    """Settings of `python -m pipeline.hub`."""

    repo_id: str = field(metadata={"help": "The dataset's name on the hub: owner/name."})
    pairs: Path | None = field(default=None, metadata={"help": "Pairs folder to upload."})
    download: Path | None = field(default=None, metadata={"help": "Folder to download a shared dataset to."})
    private: bool = field(default=False, metadata={"help": "Make a new repository private."})
    media: Media = field(
        default="none",
        metadata={"help": "Files to upload with the pairs: none, clips (mp4 and wav), or latents (clips and latents)."},
    )
    licence: str | None = field(
        default=None, metadata={"help": "Licence of the dataset, as the hub spells it, such as cc-by-nc-4.0."}
    )
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit to push to or to download."})
    dry_run: bool = field(
        default=False, metadata={"help": "Only make the folder to upload, with its card, beside --pairs."}
    )

    def __post_init__(self) -> None:
        if (self.pairs is None) == (self.download is None):
            raise ValueError("Give either --pairs, to upload a dataset, or --download, to download one.")
        if self.repo_id.count("/") != 1 or not all(self.repo_id.split("/")):
            raise ValueError(f"repo_id is {self.repo_id!r}, but must be owner/name.")


def push_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    media: Media = "none",
    licence: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    dry_run: bool = False,
) -> Path:
    """Upload the pairs dataset in `folder` to the hub.

    The files to upload are first put into `<folder>_hub`, with hard links to the clips if the disk supports them.

    Args:
        media: the files of the pairs that are uploaded with the tables. Paths in the tables are not changed.
        licence: the hub's identifier of the dataset's licence.
        token: token of the hub; by default that of `hf auth login` or HF_TOKEN.
        dry_run: whether to make the folder only, without uploading it.

    Returns:
        The folder that was uploaded or, in a dry run, would be.

    Raises:
        ValueError: there is no pairs dataset, or a clip is missing or outside the run.
        huggingface_hub.errors.HfHubHTTPError: the hub refuses.
    """
    staged = stage(Path(folder), repo_id, media=media, licence=licence)
    if not dry_run:
        from huggingface_hub import HfApi  # imported late: a dry run does not need it

        api = HfApi(token=token)
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=staged,
            repo_type="dataset",
            revision=revision,
            commit_message="Preference pairs",
        )
    return staged


def load(source: str | Path, *, revision: str | None = None) -> Dataset:
    """Load pairs as a `datasets.Dataset` from a pairs folder, a downloaded or staged repository, or the hub by name.

    Raises:
        ValueError: the folder holds no pairs.
    """
    import datasets  # imported late: takes a second

    path = Path(source)
    if is_dataset(path):
        return datasets.load_from_disk(str(path))
    if (path / PAIRS_FILE).is_file():
        return datasets.Dataset.from_parquet(str(path / PAIRS_FILE))
    if path.is_dir():
        raise ValueError(f"{path} holds neither a pairs dataset nor {PAIRS_FILE}.")
    return datasets.load_dataset(str(source), "pairs", split="train", revision=revision)


def download(repo_id: str, folder: str | Path, *, revision: str | None = None, token: str | None = None) -> Path:
    """Download a shared dataset with its clips. Returns its pairs folder, which `dpo.prepare` and the report read.

    Raises:
        ValueError: the repository holds no pairs.
        huggingface_hub.errors.HfHubHTTPError: the hub refuses.
    """
    from huggingface_hub import HfApi

    folder = Path(folder)
    HfApi(token=token).snapshot_download(repo_id, repo_type="dataset", revision=revision, local_dir=folder)
    if not (folder / PAIRS_FILE).is_file():
        raise ValueError(f"{repo_id} has no {PAIRS_FILE}, so it was not shared by pipeline.hub. Load it with datasets.")
    table = pq.read_table(folder / PAIRS_FILE)
    pairs = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get)
    report = folder / "data" / "ranking.json"
    write_pairs(pairs, folder / "pairs", json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {})
    return folder / "pairs"


def stage(folder: Path, repo_id: str, *, media: Media = "none", licence: str | None = None) -> Path:
    """Make the folder to upload, `<folder>_hub`, replacing an earlier one. Returns its path.

    Raises:
        ValueError: there is no pairs dataset, or a clip is missing or outside the run.
    """
    if media not in get_args(Media):
        raise ValueError(f"media is {media!r}, but must be one of {', '.join(get_args(Media))}.")
    origin, run = read_provenance(folder), folder.parent
    files = _media_files(origin.pairs, folder, media)
    staged = run / f"{folder.name}_hub"
    shutil.rmtree(staged, ignore_errors=True)
    configs = {"pairs": PAIRS_FILE}
    (staged / "data").mkdir(parents=True)
    pq.write_table(origin.pairs, staged / PAIRS_FILE)
    for name in ("ranking.json", "attrition.parquet"):
        if (folder / name).is_file():
            shutil.copy2(folder / name, staged / "data" / name)
    for name in ("candidates", "scores"):
        if (run / TABLES[name]).is_file():
            configs[name] = TABLES[name]
            (staged / name).mkdir()
            pq.write_table(_without_machine_paths(pq.read_table(run / TABLES[name])), staged / TABLES[name])
    for path in files:
        _link(run / path, staged / path)
    card = dataset_card(origin, repo_id, configs, licence, _MEDIA_SENTENCES[media])
    atomic_write_text(staged / "README.md", card)
    return staged


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status: 0, or 2 if the input is wrong or the hub refuses."""
    config = parse_config(HubConfig, argv, about=ABOUT)
    from huggingface_hub.errors import HTTPError  # base class of connection errors and of the hub's own refusals

    try:
        echo(_run(config))
    except HTTPError as error:
        sys.stderr.write(
            f"error: the hub cannot be reached, or refuses: {error}\nSet HF_TOKEN, or log in with `hf auth login`, and "
            "check the repository name. The folder to upload is kept; run the same command to retry.\n"
        )
        return 2
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _run(config: HubConfig) -> str:
    if config.download is not None:
        folder = download(config.repo_id, config.download, revision=config.revision)
        return f"hub: {len(read_dataset(folder))} pairs of {config.repo_id} in {folder}"
    assert config.pairs is not None, "the configuration has pairs or download"
    staged = push_to_hub(
        config.pairs,
        config.repo_id,
        private=config.private,
        media=config.media,
        licence=config.licence,
        revision=config.revision,
        dry_run=config.dry_run,
    )
    files = [path for path in staged.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    done = "would be pushed (dry run)" if config.dry_run else f"pushed to {config.repo_id}"
    return f"hub: {len(files)} files, {size / 1e6:.1f} MB, {done}; card: {staged / 'README.md'}"


def _media_files(pairs: pa.Table, folder: Path, media: Media) -> list[str]:
    """Return the files of the pairs, relative to the run."""
    run = os.path.abspath(folder.parent)
    names = [name for side in SIDES for name in (f"{side}_{column}" for column in _MEDIA_COLUMNS[media])]
    paths = {path for name in names if name in pairs.column_names for path in pairs[name].unique().to_pylist() if path}
    places = {path: os.path.normpath(os.path.join(os.path.abspath(folder), path)) for path in paths}
    for path, place in sorted(places.items()):
        if not place.startswith(run + os.sep):
            raise ValueError(
                f"{path} of the pairs in {folder} is not inside {run}, so it cannot be uploaded. Move it into the run."
            )
        if not os.path.isfile(place):
            raise ValueError(
                f"{place} of the pairs in {folder} does not exist. Upload with --media none, or sample again."
            )
    return sorted(os.path.relpath(place, run) for place in places.values())


def _without_machine_paths(table: pa.Table) -> pa.Table:
    """Remove the local paths of the rewards' weights from the table's metadata; their identity is kept."""
    metadata = dict(table.schema.metadata or {})
    if b"avdpo.rewards" in metadata:
        rewards = json.loads(metadata[b"avdpo.rewards"])
        kept = {name: {key: value for key, value in facts.items() if key != "path"} for name, facts in rewards.items()}
        metadata[b"avdpo.rewards"] = json.dumps(kept).encode()
    return table.replace_schema_metadata(metadata)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)


if __name__ == "__main__":
    sys.exit(main())

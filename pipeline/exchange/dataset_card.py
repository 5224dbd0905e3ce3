"""The dataset card of shared pairs: how they were made and chosen, their licences, and the meaning of each column."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from core.cli import package_versions
from pipeline.rank.pairs_folder import metrics_of, read_dataset, read_report
from rewards.metrics import HIGHER_IS_BETTER, MODALITY_METRICS
from rewards.registry import available_rewards, get_reward

UNKNOWN = "not recorded"
_POLICIES = {
    "never": "real clips take no part in pairs",
    "winner_only": "a real clip may win, never lose",
    "any": "a real clip may win or lose",
}
_SIDE_MEANINGS = {
    "candidate_id": "`<prompt_id>/<number>`, or `<prompt_id>/gt` for the real clip",
    "video_path": "mp4, relative to the folder of this table",
    "audio_path": "lossless sound, relative to the folder of this table",
    "latents_path": "the sampler's own latents, relative to the folder of this table",
    "is_ground_truth": "whether it is the real clip of the prompt",
    "seed": "seed of the candidate's noise; null for a real clip",
    **{f"{name}_score": f"mean of the standardised {name} metrics" for name in MODALITY_METRICS},
}
_MEANINGS = {
    "pair_id": "both candidate ids, the winner's first",
    "prompt_id": "identifier of the prompt",
    "prompt": "the caption",
    "strategy": "how the pair was chosen",
    "margin": "sum of the three margins",
    **{f"margin_{name}": f"chosen minus rejected `{name}_score`" for name in MODALITY_METRICS},
    "num_frames": "frames of the shorter clip",
    "height": "pixels, of the clip with fewer pixels",
    "width": "pixels, of the clip with fewer pixels",
    "fps": "frames per second",
    "sample_rate": "sample rate of the sound, Hz",
    "duration_s": "seconds",
    "label_source": "who chose the winner: human or ranking",
    "label_agrees": "whether people chose the same winner as the ranking",
    "label_votes": "number of labels that decided",
}


@dataclass(frozen=True)
class Provenance:
    """The origin of a run's pairs, read from the run's folders. A field is empty if its table does not exist."""

    pairs: pa.Table
    ranking: dict[str, Any]  # ranking.json
    sampling: dict[str, Any] = field(default_factory=dict)  # settings in the candidates table
    model: str | None = None  # the `model` setting of pipeline.sample
    rewards: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> version, weights
    protocol: str | None = None


def read_provenance(pairs_folder: Path) -> Provenance:
    """Read the origin of pairs from their folder and from candidates/ and scores/ beside it.

    Raises:
        ValueError: the folder holds no pairs dataset.
    """
    run = pairs_folder.parent
    candidates, scores = (_metadata(run / name / f"{name}.parquet") for name in ("candidates", "scores"))
    config = run / "candidates" / "config.yaml"
    return Provenance(
        pairs=read_dataset(pairs_folder),
        ranking=read_report(pairs_folder),
        sampling=json.loads(candidates.get("avdpo.settings", "{}")),
        model=yaml.safe_load(config.read_text(encoding="utf-8")).get("model") if config.is_file() else None,
        rewards=json.loads(scores.get("avdpo.rewards", "{}")),
        protocol=scores.get("avdpo.protocol"),
    )


def dataset_card(origin: Provenance, repo_id: str, configs: dict[str, str], licence: str | None, media: str) -> str:
    """Write README.md for the hub: YAML for its viewer, then text for people.

    Args:
        configs: name -> Parquet file of each table in the repository; the first is the default.
        licence: the hub's identifier of the dataset's licence. If None, the card states that no licence is given.
        media: a sentence that says which clips the repository contains.
    """
    ranking, num_pairs = origin.ranking, len(origin.pairs)
    prompts = f" from {ranking['num_prompts']} prompts" if "num_prompts" in ranking else ""
    title = repo_id.split("/")[-1]
    sections = [
        _front_matter(num_pairs, configs, licence),
        f"# {title}\n\n{num_pairs} preference pairs for joint audio-video generation{prompts}: two clips of one "
        "caption each, of which one is preferred, with the scores of both.",
        "## How they were made\n\n" + _table(("", ""), _making(origin)),
        *([_labels_section(ranking["labels"])] if "labels" in ranking else []),
        "## Licences\n\n" + _licences(origin, licence),
        f"## Use\n\n{media}\n\n" + _usage(repo_id),
        "## Columns\n\n" + _table(("column", "type", "meaning"), _columns(origin.pairs.schema)),
    ]
    return "\n\n".join(sections) + "\n"


def _metadata(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    return {key.decode(): value.decode() for key, value in (pq.read_schema(path).metadata or {}).items()}


def _front_matter(num_pairs: int, configs: dict[str, str], licence: str | None) -> str:
    sizes = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    content: dict[str, Any] = {"license": licence} if licence else {}
    content |= {
        "task_categories": ["text-to-video", "text-to-audio"],
        "tags": ["preference", "dpo", "audio-video"],
        "size_categories": [next((name for limit, name in sizes if num_pairs < limit), "1M<n<10M")],
        "configs": [
            {"config_name": name, "data_files": path} | ({"default": True} if number == 0 else {})
            for number, (name, path) in enumerate(configs.items())
        ],
    }
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---"


def _making(origin: Provenance) -> list[tuple[str, str]]:
    sampling, ranking = dict(origin.sampling), origin.ranking
    weights, seed = sampling.pop("model", UNKNOWN), sampling.pop("seed", UNKNOWN)
    settings = ", ".join(f"{name} {value}" for name, value in sampling.items() if value is not None)
    wins = ranking.get("ground_truth_wins", {}).get("win_rate", {})
    policy = ranking.get("ground_truth")
    rows = [
        ("source model", f"{Path(origin.model).name if origin.model else UNKNOWN}; {weights}"),
        ("seeds", f"run seed {seed}; a candidate's own is a function of it, prompt_id and number, in `*_seed`"),
        ("sampling", settings or UNKNOWN),
        ("rewards", "; ".join(_reward_line(name, facts) for name, facts in origin.rewards.items()) or UNKNOWN),
        ("scoring protocol", origin.protocol or UNKNOWN),
        ("ranking", str(ranking.get("strategy", UNKNOWN))),
        ("ground truth", f"{policy}: {_POLICIES[policy]}" if policy in _POLICIES else UNKNOWN),
        ("real clip beats a generated one", ", ".join(f"{k} {v:.0%}" for k, v in wins.items()) or UNKNOWN),
        ("yield", _yield(ranking)),
        ("made with", ", ".join(f"{name} {version}" for name, version in package_versions("avdpo").items())),
    ]
    return rows


def _reward_line(name: str, facts: dict[str, Any]) -> str:
    weights = f" (weights {facts['weights']})" if facts.get("weights") else ""
    return f"{name} version {facts['version']}{weights}"


def _yield(ranking: dict[str, Any]) -> str:
    if "yield" not in ranking:
        return UNKNOWN
    reasons = "".join(
        f"; {count} prompts gave none: {reason}" for reason, count in ranking.get("attrition", {}).items()
    )
    return f"{ranking['num_pairs']} pairs, {ranking['yield']:.0%} of prompts{reasons}"


def _labels_section(labels: dict[str, Any]) -> str:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    rows = [
        (
            *(str(row[name]) for name in ("respect", "num_pairs", "num_annotators", "num_labels")),
            *(number(row[name]) for name in ("kappa", "ranking", "ranking_kappa")),
        )
        for row in labels["agreement"]
    ]
    header = ("labels", "pairs", "annotators", "labels given", "Cohen's kappa", "as ranked", "kappa with ranking")
    counts = "; ".join(f"{count} x {name}" for name, count in labels["counts"].items())
    return f"## Human labels\n\nPeople chose the winners: {counts}.\n\n{_table(header, rows)}"


def _licences(origin: Provenance, licence: str | None) -> str:
    rows = [(f"reward {name}", _reward_licence(name)) for name in origin.rewards]
    rows += _model_licences(origin.model)
    own = licence or "none stated: ask the owner of this repository"
    table = _table(("", "licence of its weights"), rows)
    return f"Licence of this dataset: {own}. Licences of the networks that made it:\n\n{table}"


def _model_licences(model: str | None) -> list[tuple[str, str]]:
    """Return the licences of the source model: known for weights of `model.fetch`, unknown for others."""
    lock = Path(model or "") / "fetched.json"
    if not lock.is_file():
        return [("source model", "see the model's own card: its licence may bind what it generates")]
    from model.fetch.catalogue import GENERATION, SOURCES  # imported late: most cards do not need it

    fetched = {entry["component"] for entry in json.loads(lock.read_text(encoding="utf-8")).values()}
    return [(f"source model, {name}", SOURCES[name].licence) for name in GENERATION if name in fetched]


def _reward_licence(name: str) -> str:
    return get_reward(name).licence if name in available_rewards() else "as its author states"


def _usage(repo_id: str) -> str:
    return (
        f'```python\nimport datasets\n\npairs = datasets.load_dataset("{repo_id}", "pairs", split="train")\n```\n\n'
        f"To download the clips too, ready for `python -m dpo.prepare --pairs DIR/pairs`:\n\n"
        f"```\npython -m pipeline.hub --repo_id {repo_id} --download DIR\n```"
    )


def _columns(schema: pa.Schema) -> list[tuple[str, str, str]]:
    metrics = metrics_of(schema.names)
    return [(f"`{item.name}`", str(item.type), _meaning(item.name, metrics)) for item in schema]


def _meaning(column: str, metrics: list[str]) -> str:
    side, _, name = column.partition("_")
    if side not in ("chosen", "rejected"):
        return _MEANINGS.get(column, "passed through")
    if name in metrics:
        direction = {True: "higher is better", False: "lower is better"}.get(HIGHER_IS_BETTER.get(name))  # type: ignore[arg-type]
        return f"{side} clip: metric" + (f", {direction}" if direction else "")
    return f"{side} clip: {_SIDE_MEANINGS.get(name, 'passed through')}"


def _table(header: tuple[str, ...], rows: list[Any]) -> str:
    def line(cells: Any) -> str:
        return "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, rows)])

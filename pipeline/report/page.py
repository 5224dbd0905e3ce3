"""The HTML of the report's page: the template filled with the run's figures, the script and the data."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from core.ids import fingerprint
from pipeline.report.data import SIDES, label
from rewards.metrics import MODALITY_METRICS

TEMPLATE_DIR = Path(__file__).parent / "template"
SCRIPTS = (  # joined in this order into one script
    *("table.js", "conditions.js", "player.js", "card.js", "gallery.js", "help.js"),
    *("labels.js", "labels_csv.js", "labelling.js", "page.js"),
)
STYLES = ("style.css", "views.css", "labelling.css")


def render(pairs: pa.Table, ranking: dict[str, Any], data: dict[str, Any], *, title: str, plots: list[str]) -> str:
    """Render the whole page as HTML. It needs no other file except the clips and pictures it shows.

    Args:
        ranking: content of `pairs/ranking.json`; {} if there is none.
        data: the result of `page_data`.
        plots: URLs of the plots that ranking drew.
    """
    script = _joined(SCRIPTS)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE_DIR),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("index.html.j2").render(
        title=title,
        subtitle=_subtitle(ranking),
        tiles=_tiles(pairs, ranking),
        losses=_losses(ranking),
        num_pairs=len(pairs),
        plots=plots,
        strategies=data["strategies"],
        modalities=data["modalities"],
        metrics=data["metrics"],
        style=Markup(_joined(STYLES)),
        script=Markup(script),
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(_json_for_html(data)),
    )


@functools.cache
def template_version() -> str:
    """Return a fingerprint of the template files, which changes when the page without its data changes."""
    return fingerprint("\0".join(path.read_text(encoding="utf-8") for path in sorted(TEMPLATE_DIR.iterdir())))


def _joined(names: tuple[str, ...]) -> str:
    return "\n".join((TEMPLATE_DIR / name).read_text(encoding="utf-8") for name in names)


def _json_for_html(value: Any) -> str:
    """Return JSON that is safe inside a script element: no text in it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _subtitle(ranking: dict[str, Any]) -> str:
    facts = {"Ranked by": ranking.get("strategy"), "ground truth:": ranking.get("ground_truth")}
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value)


def _tiles(pairs: pa.Table, ranking: dict[str, Any]) -> list[dict[str, str]]:
    tiles = [_tile("Pairs", f"{len(pairs):,}")]
    if "num_prompts" in ranking:
        num_prompts, num_giving = ranking["num_prompts"], pc.count_distinct(pairs["prompt_id"]).as_py()
        tiles.insert(0, _tile("Prompts", f"{num_prompts:,}"))
        tiles.append(_tile("Yield", _percent(num_giving, num_prompts), "of prompts gave a pair"))
    won, lost = (pc.sum(pairs[f"{side}_is_ground_truth"]).as_py() or 0 for side in SIDES)
    note = f"{won:,} of {won + lost:,} pairs with ground truth" if won + lost else "no pair with ground truth"
    tiles.append(_tile("Ground truth wins", _percent(won, won + lost), note))
    rates = ranking.get("ground_truth_wins", {}).get("win_rate")
    if rates:
        by_modality = ", ".join(f"{label(name).lower()} {rates[name]:.0%}" for name in MODALITY_METRICS)
        tiles.append(
            _tile("Ground truth beats a candidate", f"{rates['all']:.0%}", f"in every modality ({by_modality})")
        )
    return tiles


def _tile(label: str, value: str, note: str = "") -> dict[str, str]:
    return {"label": label, "value": value, "note": note}


def _losses(ranking: dict[str, Any]) -> list[dict[str, Any]]:
    """List the reasons why prompts gave no pair, the most common first."""
    attrition: dict[str, int] = ranking.get("attrition", {})
    total = sum(attrition.values())
    return [
        {"reason": reason, "count": count, "percent": 100 * count / total}
        for reason, count in sorted(attrition.items(), key=lambda item: -item[1])
        if count
    ]


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "n/a"

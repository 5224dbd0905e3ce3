from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml

from core.cli import (
    StageSummary,
    atomic_write_text,
    config_to_dict,
    config_to_yaml,
    echo,
    package_versions,
    parse_config,
    save_config,
)


@dataclass(frozen=True)
class Config:
    output_dir: Path = field(metadata={"help": "Folder of the results."})
    num_clips: int = field(default=3, metadata={"help": "How many; 50% are kept."})
    learning_rate: float = field(default=1e-4, metadata={"help": "Step size."})
    dry_run: bool = field(default=False, metadata={"help": "Only count."})
    keep: bool = field(default=True, metadata={"help": "Keep files."})
    rewards: list[str] = field(default_factory=lambda: ["verifiable"], metadata={"help": "Names."})
    policy: Literal["never", "any"] = field(default="any", metadata={"help": "Ground truth."})
    overrides: dict = field(default_factory=dict, metadata={"help": "More settings."})
    limits: dict[str, int] | None = field(default=None, metadata={"help": "Limits."})
    limit: int | None = field(default=5, metadata={"help": "At most."})
    audio_dir: Path | None = field(default=None, metadata={"help": "Sounds."})
    routing: str | dict = field(default="all", metadata={"help": "A name or a mapping."})

    def __post_init__(self):
        if self.num_clips < 0:
            raise ValueError(f"num_clips is {self.num_clips}, but must not be negative: set it to 0 or more.")


def error_of(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        parse_config(Config, argv)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_command_line_over_yaml_over_default(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("output_dir: from_yaml\nnum_clips: 7\nlearning_rate: 1e-5\noverrides: {a: {b: [1, 2]}}\n")
    config = parse_config(Config, ["--config", str(recipe), "--num-clips=9"])
    assert config.output_dir == Path("from_yaml")
    assert config.num_clips == 9
    assert config.learning_rate == 1e-5  # YAML itself reads 1e-5 as text
    assert config.overrides == {"a": {"b": [1, 2]}}
    assert config.policy == "any"
    assert parse_config(Config, [f"--config={recipe}", "--output_dir", "x"]).output_dir == Path("x")


def test_every_type_from_flags_and_from_yaml(tmp_path):
    flags = [
        "--output-dir=o",
        "--dry_run",
        "--keep",
        "false",
        "--rewards",
        "a",
        "b",
        "--policy",
        "never",
        "--limit",
        "none",
        "--audio_dir",
        "s",
    ]
    from_flags = parse_config(Config, [*flags, "--overrides", "{a: {b: 1}}", "--limits={x: 2}", "--learning_rate", "2"])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "output_dir: o\ndry_run: true\nkeep: false\nrewards: [a, b]\npolicy: never\nlimit: null\naudio_dir: s\n"
        "overrides: {a: {b: 1}}\nlimits: {x: 2}\nlearning_rate: 2\n"
    )
    assert parse_config(Config, ["--config", str(recipe)]) == from_flags
    assert from_flags == Config(
        Path("o"), 3, 2.0, True, False, ["a", "b"], "never", {"a": {"b": 1}}, {"x": 2}, None, Path("s")
    )
    assert isinstance(from_flags.learning_rate, float)
    assert parse_config(Config, ["--output_dir", "o", "--dry_run", "false"]).dry_run is False


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("num_clip: 3", "unknown key 'num_clip'; the nearest match is 'num_clips'"),
        ("num_clips: 1.5", "num_clips"),
        ("num_clips: many", "num_clips"),
        ("num_clips: [1]", "single value"),
        ("rewards: verifiable", "must be a list"),
        ("overrides: 3", "must be a mapping"),
        ("routing: [1]", "routing is [1]"),
        ("policy: always", "one of never, any"),
        ("dry_run: perhaps", "dry_run"),
        ("learning_rate:", "learning_rate"),
        ("- num_clips", "holds a list"),
        ("a: [", "not valid YAML"),
        ("num_clips: -1", "must not be negative"),
    ],
)
def test_mistakes_in_yaml_name_the_file_or_field(tmp_path, capsys, line, message):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(line + "\n")
    assert message in error_of(capsys, "--config", str(recipe), "--output_dir", "o")


@pytest.mark.parametrize(("text", "value"), [("each", "each"), ("{a: 1}", {"a": 1})])
def test_a_name_or_a_mapping_is_read_from_flags_and_yaml(tmp_path, text, value):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"output_dir: o\nrouting: {text}\n")
    assert parse_config(Config, ["--config", str(recipe)]).routing == value
    assert parse_config(Config, ["--output_dir", "o", "--routing", text]).routing == value
    assert parse_config(Config, ["--output_dir", "o"]).routing == "all"


def test_mistakes_on_the_command_line(capsys, tmp_path):
    unknown = error_of(capsys, "--output_dir", "o", "--num_clip", "3")
    assert "unknown argument '--num_clip'; the nearest match is '--num_clips'" in unknown
    assert "output_dir" in error_of(capsys)
    assert "invalid choice" in error_of(capsys, "--output_dir", "o", "--policy", "always")
    assert "YAML mapping" in error_of(capsys, "--output_dir", "o", "--overrides", "3")
    assert "none.yaml" in error_of(capsys, "--config", str(tmp_path / "none.yaml"))


def test_help_prints_help_and_default(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_config(Config, ["--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("--config", "How many; 50% are kept. (default: 3)", "Step size. (default: 0.0001)", "{never,any}"):
        assert part in text


def test_saved_config_reads_back(tmp_path):
    config = parse_config(Config, ["--output_dir", "a/ב", "--rewards", "x", "--limits={k: 1}", "--learning_rate=3e-7"])
    save_config(config, tmp_path / "made" / "config.yaml")
    assert parse_config(Config, ["--config", str(tmp_path / "made" / "config.yaml")]) == config
    assert (
        yaml.safe_load(config_to_yaml(config))
        == config_to_dict(config)
        == json.loads(json.dumps(config_to_dict(config)))
    )


def test_parsing_does_not_import_torch():
    program = (
        "import sys; from tests.core.test_cli import Config; from core.cli import parse_config;"
        "parse_config(Config, ['--output_dir', 'o']); print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_stage_summary(tmp_path, capsys):
    summary = StageSummary("sample", 240, 240, 40, 2, 100.0, {"seed": 1, "path": Path("x")}, package_versions("numpy"))
    assert summary.line() == "sample: wanted 240, done 240 (skipped 40), failed 2, 100.0 s, 2.0/s"
    summary.write(tmp_path)
    content = json.loads((tmp_path / "summary.json").read_text())
    assert (content["wanted"], content["rate"], content["settings"]["seed"]) == (240, 2.0, 1)
    assert content["versions"]["numpy"][0].isdigit()
    assert package_versions("no-such-package") == {"no-such-package": "missing"}
    assert StageSummary("rank", 0, 0, 0, 0, 0.0, {}, {}).line().endswith("0.0/s")
    echo(summary.line())
    assert capsys.readouterr().out == summary.line() + "\n"


def test_atomic_text(tmp_path):
    path = tmp_path / "deep" / "a.json"
    atomic_write_text(path, "alt")
    atomic_write_text(path, "neu ü")
    assert path.read_text(encoding="utf-8") == "neu ü"
    assert [item.name for item in path.parent.iterdir()] == ["a.json"]

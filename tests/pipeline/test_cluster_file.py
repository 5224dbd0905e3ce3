"""`ray_cluster.yaml`, read as Ray's cluster launcher reads it, without a cloud."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ray_cluster.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """Return the cluster file as the launcher completes it. The launcher raises for keys unknown to its schema."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(yaml.safe_load(TEXT))
    validate_config(prepared)
    return prepared


def test_gpu_workers_start_and_stop_on_demand_and_the_head_runs_no_actors(config: dict[str, Any]) -> None:
    head, worker = (config["available_node_types"][name] for name in ("head", "gpu_worker"))
    assert config["head_node_type"] == "head"
    assert head["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert worker["min_workers"] == 0 < worker["max_workers"] <= config["max_workers"]
    assert config["idle_timeout_minutes"] > 0


def test_every_node_installs_this_package_in_the_versions_of_the_head(config: dict[str, Any]) -> None:
    assert config["file_mounts"] == {"~/avdpo": "."}
    assert (ROOT / "pyproject.toml").is_file()
    commands = config["setup_commands"]
    install = next(number for number, command in enumerate(commands) if "pip install" in command)
    assert "-e ~/avdpo " in commands[install]
    assert "-c /shared/avdpo-versions.txt" in commands[install]
    assert commands[install + 1].endswith("pip freeze --exclude-editable > /shared/avdpo-versions.txt")
    assert any("/shared" in command and "mount" in command for command in commands[:install])


@pytest.mark.parametrize("role", ["head", "worker"])
def test_ray_is_started_with_flags_that_it_has(config: dict[str, Any], role: str) -> None:
    from ray.scripts.scripts import start

    known = {flag for parameter in start.params for flag in parameter.opts}
    command = config[f"{role}_start_ray_commands"][-1]
    flags = [word.split("=")[0] for word in shlex.split(command) if word.startswith("--")]
    assert "ray start" in command
    assert set(flags) <= known


def test_the_command_accepts_the_job_in_the_heading(tmp_path: Path) -> None:
    from core.cli import parse_config
    from pipeline.run import RunConfig

    comment = re.sub(r"\\\n#", "", TEXT)
    (arguments,) = re.findall(r"python -m pipeline\.run (.+)", comment)
    parsed = parse_config(RunConfig, shlex.split(arguments))
    assert parsed.output_dir.is_absolute()
    assert parsed.prompts.is_absolute()
    assert parsed.num_actors == yaml.safe_load(TEXT)["max_workers"]

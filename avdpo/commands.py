"""The subcommands of the console script `avdpo`: name, module, purpose and group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Command:
    """A subcommand. `python -m MODULE` runs the same command."""

    name: str
    module: str
    about: str
    group: str


DATA, TRAINING, EVALUATION, TABLES = "Preference data", "Models", "Evaluation", "Tables and the machine"

COMMANDS = {
    name: Command(name, module, about, group)
    for name, module, about, group in (
        ("run", "pipeline.run", "sample, score, rank and report in one go", DATA),
        ("sample", "pipeline.sample", "generate candidates for every prompt", DATA),
        ("score", "pipeline.score", "score candidates with rewards", DATA),
        ("rank", "pipeline.rank", "rank scored candidates into pairs of winner and loser", DATA),
        ("report", "pipeline.report", "write a page that shows the pairs", DATA),
        ("rounds", "pipeline.rounds", "repeat run, prepare and train from the newest model", DATA),
        (
            "prepare",
            "dpo.prepare",
            "encode pairs or groups (--pairs, --groups) for train, clips (--clips) for sft",
            TRAINING,
        ),
        ("construct", "dpo.construct", "make pairs for train from good clips, losers by rule", TRAINING),
        ("signal", "dpo.signal_test", "find in which modality made losers differ by sync", TRAINING),
        ("train", "dpo.train", "train a model on preference pairs, or on groups of scored candidates", TRAINING),
        ("sft", "model.train", "train a model on clips by flow matching", TRAINING),
        ("generate", "model.generate", "generate one clip from a prompt", TRAINING),
        ("export", "model.export", "write a trained model for others, adapters merged", TRAINING),
        ("fetch", "model.fetch", "download published weights", TRAINING),
        ("evaluate", "evaluation.run", "measure the samples of a model on a benchmark", EVALUATION),
        ("compare", "evaluation.compare", "compare models on the same prompts and seeds", EVALUATION),
        ("audit", "evaluation.audit", "check the rewards of a run before training on them", EVALUATION),
        ("inspect", "pipeline.inspect", "show what is in tables", TABLES),
        ("convert", "pipeline.convert", "convert preference data from and to other formats", TABLES),
        ("hub", "pipeline.hub", "share pairs on the Hugging Face hub, or download them", TABLES),
        ("env", "avdpo.environment", "print versions, devices and what is missing, for a report", TABLES),
    )
}
PREPARE_HELP = """usage: avdpo prepare --pairs DIR | --clips TABLE_OR_FOLDER | --groups RUN [--config FILE.yaml] [...]

Encodes training data once, so that training needs neither codecs nor text encoder.
--pairs, or `pairs` in the YAML file, prepares preference pairs for `avdpo train`: the same as python -m dpo.prepare.
--groups, or `groups` in the YAML file, prepares scored candidates for `avdpo train --objective nft`: the same.
--clips, or `clips` in the YAML file, prepares clips for `avdpo sft`: the same as python -m model.prepare.
`avdpo prepare --pairs --help` and `avdpo prepare --clips --help` list the settings of each."""
# What `avdpo prepare` prepares, and the module that does it.
PREPARED = {"pairs": "dpo.prepare", "clips": "model.prepare", "groups": "dpo.prepare"}


def overview() -> str:
    """Return the help text of `avdpo`: its subcommands by group."""
    lines = ["usage: avdpo COMMAND [--name value ...]", "", "Preference data and DPO for joint audio-video generation."]
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        members = [command for command in COMMANDS.values() if command.group == group]
        lines += ["", f"{group}:", *(f"  {command.name:<10} {command.about}" for command in members)]
    return "\n".join(
        [*lines, "", "`avdpo COMMAND --help` lists the settings of a command, `avdpo --version` prints the version."]
    )


def module_of_prepare(argv: Sequence[str]) -> str:
    """Return the module that prepares what the arguments name: pairs, clips or groups.

    Flags decide before the YAML file of `--config` does, as everywhere.

    Raises:
        ValueError: the arguments name none or several of them, or the YAML file cannot be read.
    """
    flags = {argument.split("=")[0] for argument in argv}
    given = [name for name in PREPARED if f"--{name}" in flags] or _names_in_config(argv)
    if len(given) != 1:
        named = f"both {' and '.join(given)}" if given else f"neither {' nor '.join(PREPARED)}"
        raise ValueError(
            f"the arguments name {named}, but one call prepares one of them: give --pairs, --clips or --groups."
        )
    return PREPARED[given[0]]


def _names_in_config(argv: Sequence[str]) -> list[str]:
    for place, argument in enumerate(argv):
        name, _, value = argument.partition("=")
        path = value or (argv[place + 1] if place + 1 < len(argv) else "")
        if name == "--config" and path:
            try:
                content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                raise ValueError(f"{path} cannot be read as YAML: {error}. Correct --config or the file.") from error
            return [name for name in PREPARED if content.get(name)] if isinstance(content, dict) else []
    return []

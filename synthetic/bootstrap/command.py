"""The command that trains the tiny preset from scratch: `python -m synthetic.bootstrap --config FILE --output DIR`.

`recipes/tiny/bootstrap.yaml` made the shipped preset. First come text encoder, codecs and latents of rendered scenes;
then the joint transformer, as the release trains its own: a video backbone (in place of Wan2.1), stage 1 on the sound
alone, stage 2 on both. Parts that are finished in `work_dir` are
not repeated, and a training stage continues from its last checkpoint, so the same command continues an interrupted run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from core.cli import echo, parse_config
from synthetic.bootstrap.config import BootstrapConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status, 0."""
    config = parse_config(BootstrapConfig, argv)
    from synthetic.bootstrap.run import bootstrap  # late: imports torch

    bootstrap(config)
    echo(f"{config.output} is finished; grade it with: python -m synthetic.grade --model {config.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

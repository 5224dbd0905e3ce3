"""Run `python -m pipeline.rounds`."""

from __future__ import annotations

import sys

from pipeline.rounds.command import main

if __name__ == "__main__":
    sys.exit(main())

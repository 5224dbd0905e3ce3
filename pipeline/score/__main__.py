"""Run `python -m pipeline.score`."""

from __future__ import annotations

import sys

from pipeline.score.command import main

if __name__ == "__main__":
    sys.exit(main())

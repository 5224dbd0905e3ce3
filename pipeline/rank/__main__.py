"""Run `python -m pipeline.rank`."""

from __future__ import annotations

import sys

from pipeline.rank.command import main

if __name__ == "__main__":
    sys.exit(main())

"""Run `python -m pipeline.sample`."""

from __future__ import annotations

import sys

from pipeline.sample.command import main

if __name__ == "__main__":
    sys.exit(main())

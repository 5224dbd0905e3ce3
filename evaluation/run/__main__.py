"""Run `python -m evaluation.run`."""

from __future__ import annotations

import sys

from evaluation.run.command import main

if __name__ == "__main__":
    sys.exit(main())

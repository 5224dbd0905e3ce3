"""Run `python -m evaluation.compare`."""

from __future__ import annotations

import sys

from evaluation.compare.command import main

if __name__ == "__main__":
    sys.exit(main())

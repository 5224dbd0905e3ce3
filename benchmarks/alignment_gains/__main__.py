"""Run `python -m benchmarks.alignment_gains`."""

from __future__ import annotations

import sys

from benchmarks.alignment_gains.command import main

if __name__ == "__main__":
    sys.exit(main())

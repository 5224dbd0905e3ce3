"""Run `python -m pipeline.report`."""

from __future__ import annotations

import sys

from pipeline.report.command import main

if __name__ == "__main__":
    sys.exit(main())

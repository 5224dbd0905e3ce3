"""Run `python -m model.export`."""

from __future__ import annotations

import sys

from model.export.command import main

if __name__ == "__main__":
    sys.exit(main())

"""Run `python -m model.train`."""

from __future__ import annotations

import sys

from model.train.command import main

if __name__ == "__main__":
    sys.exit(main())

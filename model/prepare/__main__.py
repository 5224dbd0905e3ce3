"""Run `python -m model.prepare`."""

from __future__ import annotations

import sys

from model.prepare.command import main

if __name__ == "__main__":
    sys.exit(main())

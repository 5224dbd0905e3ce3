"""Run `python -m model.fetch`."""

from __future__ import annotations

import sys

from model.fetch.command import main

if __name__ == "__main__":
    sys.exit(main())

"""Run `python -m pipeline.inspect`."""

from __future__ import annotations

import sys

from pipeline.inspect.command import main

if __name__ == "__main__":
    sys.exit(main())

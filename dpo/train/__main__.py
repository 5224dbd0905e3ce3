"""Run `python -m dpo.train`."""

from __future__ import annotations

import sys

from dpo.train.command import main

if __name__ == "__main__":
    sys.exit(main())

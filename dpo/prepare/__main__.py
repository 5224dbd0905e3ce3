"""Run `python -m dpo.prepare`."""

from __future__ import annotations

import sys

from dpo.prepare.command import main

if __name__ == "__main__":
    sys.exit(main())

"""Run `python -m dpo.construct`."""

from __future__ import annotations

import sys

from dpo.construct.command import main

if __name__ == "__main__":
    sys.exit(main())

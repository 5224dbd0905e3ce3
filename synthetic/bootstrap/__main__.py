"""Run `python -m synthetic.bootstrap`."""

from __future__ import annotations

import sys

from synthetic.bootstrap.command import main

if __name__ == "__main__":
    sys.exit(main())

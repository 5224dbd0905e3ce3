"""Run `python -m evaluation.audit`."""

from __future__ import annotations

import sys

from evaluation.audit.command import main

if __name__ == "__main__":
    sys.exit(main())

"""Run `python -m dpo.signal_test`."""

from __future__ import annotations

import sys

from dpo.signal_test.command import main

if __name__ == "__main__":
    sys.exit(main())

"""Run `python -m synthetic.train_rewards`."""

from __future__ import annotations

import sys

from synthetic.train_rewards.command import main

if __name__ == "__main__":
    sys.exit(main())

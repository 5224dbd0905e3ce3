"""Run `python -m synthetic.train_rewards`."""

import sys

from synthetic.train_rewards.command import main

if __name__ == "__main__":
    sys.exit(main())

"""Run `python -m dpo.train`."""

import sys

from dpo.train.command import main

if __name__ == "__main__":
    sys.exit(main())

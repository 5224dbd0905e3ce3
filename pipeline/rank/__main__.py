"""Run `python -m pipeline.rank`."""

import sys

from pipeline.rank.command import main

if __name__ == "__main__":
    sys.exit(main())

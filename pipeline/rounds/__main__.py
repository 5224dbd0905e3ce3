"""Run `python -m pipeline.rounds`."""

import sys

from pipeline.rounds.command import main

if __name__ == "__main__":
    sys.exit(main())

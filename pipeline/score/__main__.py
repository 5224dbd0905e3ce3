"""Run `python -m pipeline.score`."""

import sys

from pipeline.score.command import main

if __name__ == "__main__":
    sys.exit(main())

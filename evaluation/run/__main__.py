"""Run `python -m evaluation.run`."""

import sys

from evaluation.run.command import main

if __name__ == "__main__":
    sys.exit(main())

"""Run `python -m evaluation.compare`."""

import sys

from evaluation.compare.command import main

if __name__ == "__main__":
    sys.exit(main())

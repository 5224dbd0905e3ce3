"""Run `python -m model.prepare`."""

import sys

from model.prepare.command import main

if __name__ == "__main__":
    sys.exit(main())

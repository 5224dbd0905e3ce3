"""Run `python -m model.fetch`."""

import sys

from model.fetch.command import main

if __name__ == "__main__":
    sys.exit(main())

"""Run `python -m synthetic.bootstrap`."""

import sys

from synthetic.bootstrap.command import main

if __name__ == "__main__":
    sys.exit(main())

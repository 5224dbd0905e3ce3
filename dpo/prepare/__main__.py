"""Run `python -m dpo.prepare`."""

import sys

from dpo.prepare.command import main

if __name__ == "__main__":
    sys.exit(main())

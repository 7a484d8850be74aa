"""The command line as `python -m skmars`."""

import sys

from skmars.cli import main

if __name__ == "__main__":
    sys.exit(main())

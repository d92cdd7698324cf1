"""`python -m dl_lab` is the `dl-lab` command."""

import sys

from dl_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m levelip.cli`: the `lvlip` command."""

import sys

from levelip.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

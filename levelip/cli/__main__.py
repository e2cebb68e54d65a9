"""The `lvlip` command, and `python -m levelip.cli`: nothing is loaded before Ctrl-C is heard."""

import sys


def main() -> int:
    """As levelip.cli.main.main; Ctrl-C while that is being loaded ends in silence, too, with 130."""
    try:
        from levelip.cli.main import main as run
    except KeyboardInterrupt:
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())

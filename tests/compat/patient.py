"""CPython's runner of its tests, more patient: `python -m tests.compat.patient ARGS` is `python -m test ARGS`, but what
test.support gives five or thirty seconds may take a minute, as it can on a busy machine.
"""

from __future__ import annotations

import runpy
from importlib import import_module
from typing import Any

PATIENCE_S = 60.0


def main() -> None:
    """Take the arguments of `python -m test`."""
    support: Any = import_module("test.support")
    support.LOOPBACK_TIMEOUT = support.SHORT_TIMEOUT = PATIENCE_S
    runpy.run_module("test", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

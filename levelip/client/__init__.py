"""What applications import: `from levelip.client import socket` stands in for the standard library's module.

`socket` is the drop-in, `rpc` a thin client without file descriptors. Importing this package imports neither.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["rpc", "socket"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

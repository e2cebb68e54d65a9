"""The debugger as a Python API: what `lvlip` itself uses to watch, stop and change a running stack.

`Debugger` and what its methods raise are here. They are loaded when they are asked for: commands that only read some of
this package's lists are quick, as they do without ZeroMQ.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from levelip.debug.debugger import Debugger
    from levelip.debug.model import DebugError, HeldByAnother, NothingHeld
    from levelip.ipc.control import ControlError, NotRunning

__all__ = ["ControlError", "DebugError", "Debugger", "HeldByAnother", "NotRunning", "NothingHeld"]

_HOMES = {
    "Debugger": "levelip.debug.debugger",
    "DebugError": "levelip.debug.model",
    "HeldByAnother": "levelip.debug.model",
    "NothingHeld": "levelip.debug.model",
    "ControlError": "levelip.ipc.control",
    "NotRunning": "levelip.ipc.control",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)

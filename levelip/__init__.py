"""Level-IP: a TCP/IP stack in user space, one process per protocol layer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from levelip.client.patching import Patch

__version__ = "0.1.0"


def patch() -> Patch:
    """Let the standard library's `socket`, and all that is built on it, use the stack in this whole process.

    Before what uses it is imported, if possible. `patch().undo()`, or the end of a `with levelip.patch():`, takes it
    back. docs/socket-api.md says what it reaches.
    """
    made: Patch = importlib.import_module("levelip.client.patching").patch()
    return made

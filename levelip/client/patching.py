"""patch(): the standard library's sockets become the stack's, in the whole process, until undo().

The standard module's class and functions are replaced, also in modules that have taken them by their names before
(`from socket import socket`). What cannot be reached: other names for them, classes derived from the standard socket
before the patch (but for ssl's), default arguments, and C code with sockets of its own (docs/socket-api.md).
"""

from __future__ import annotations

import socket as std
import sys
import threading
from types import ModuleType
from typing import Any

from levelip.client import names
from levelip.client import socket as ours

_KEPT = ("levelip.client", "_socket")  # modules that mean the kernel's sockets where they say so
NAMES = (
    "socket",
    "has_ipv6",
    "has_dualstack_ipv6",
    *names.LOOKUPS,
)  # the standard module's own code makes all else of them
_lock = threading.Lock()


class Patch:
    """What patch() has changed; also a context manager, which takes it back."""

    def __init__(self) -> None:
        self._changed: list[tuple[Any, str, Any]] = []
        self._done = False

    def _set(self, place: Any, name: str, value: Any) -> None:
        self._changed.append((place, name, getattr(place, name)))
        setattr(place, name, value)

    def apply(self) -> None:
        """Put ours in the place of the standard library's."""
        for name in NAMES:
            old, new = getattr(std, name), ours.OURS[name]
            for module in list(sys.modules.values()):
                if isinstance(module, ModuleType) and not module.__name__.startswith(_KEPT):
                    if vars(module).get(name) is old and not isinstance(old, bool):
                        self._set(module, name, new)
            self._set(std, name, new)
        ssl = sys.modules.get("ssl")
        if ssl is not None:  # else its class will derive from ours
            from levelip.client.sslsocket import SSLSocket

            self._set(ssl.SSLContext, "sslsocket_class", SSLSocket)
        self._reach_other_processes()

    def _reach_other_processes(self) -> None:
        """multiprocessing: it sends sockets by their exact class, and what it spawns is to be on the stack, too."""
        from multiprocessing import reduction, spawn

        from levelip.client.datagramsocket import DatagramSocket
        from levelip.client.kernelsocket import KernelSocket

        for kind in (ours.socket, DatagramSocket, KernelSocket):
            reduction.ForkingPickler.register(kind, reduction._reduce_socket)  # type: ignore[attr-defined]
        command_line = spawn.get_command_line

        def ours_too(**arguments: Any) -> list[str]:
            words = command_line(**arguments)
            if "-c" in words:
                words[words.index("-c") : words.index("-c")] = ["-m", "levelip"]
            return words

        self._set(spawn, "get_command_line", ours_too)

    def undo(self) -> None:
        """Put everything back. Sockets that exist stay what they are."""
        with _lock:
            if self._done:
                return
            self._done = True
            _patches.remove(self)
            if not _patches:
                while self._changed:
                    place, name, value = self._changed.pop()
                    setattr(place, name, value)
            elif self._changed:
                _patches[0]._changed = self._changed  # another patch() still holds

    def __enter__(self) -> Patch:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()


_patches: list[Patch] = []


def patch() -> Patch:
    """From now on `socket` and all that is built on it use the stack. Undone by undo() of what it returns, once each
    time that it was called."""
    with _lock:
        made = Patch()
        if not _patches:
            made.apply()
        _patches.append(made)
    return made

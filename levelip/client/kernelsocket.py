"""Sockets of local families (AF_UNIX, AF_NETLINK, ...), and descriptors that are not the stack's: the kernel's.

They are instances of our class, so that a program that asks `isinstance(x, socket.socket)` hears what it expects.
"""

from __future__ import annotations

from levelip.client import kernel
from levelip.client.streamsocket import socket


class KernelSocket(socket):
    """All methods are the standard library's again."""

    __slots__ = ()
    _made_of = socket

    def _make(self, family: int, type: int, proto: int, fileno: int | None) -> None:
        kernel.socket.__init__(self, family, type, proto, fileno)


for _name in vars(socket):
    if hasattr(kernel.socket, _name) and _name not in ("__init__", "__module__", "__doc__", "__slots__"):
        setattr(KernelSocket, _name, getattr(kernel.socket, _name))

KernelSocket.accept = kernel.rebound(kernel.socket.accept, socket=socket)  # type: ignore[method-assign]

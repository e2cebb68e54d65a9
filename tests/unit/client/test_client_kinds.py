"""Classes that programs derive from ours. AF_UNIX sockets stand for all of another kind, as they need no stack."""

from __future__ import annotations

import errno
import socket as std
from pathlib import Path
from typing import Any

import pytest

from levelip.client import kinds, socket
from levelip.client.datagramsocket import DatagramSocket
from levelip.client.kernelsocket import KernelSocket
from levelip.client.program import PROGRAM
from levelip.client.sslsocket import SSLSocket


class Mine(socket.socket):
    """Constructed as the standard class."""

    def describe(self) -> str:
        return "mine"


class Named(socket.socket):
    """Its constructor has arguments of its own, and says to super().__init__ alone what it is for."""

    def __init__(self, path: str, *, family: int = std.AF_UNIX) -> None:
        super().__init__(family, std.SOCK_DGRAM)
        self.path = path

    def describe(self) -> str:
        return self.path


class Slotted(Named):
    """With slots of its own, and constructed by the base class's name."""

    __slots__ = ("more",)

    def __init__(self) -> None:
        Named.__init__(self, "slotted")
        self.more = 1


@pytest.mark.parametrize(
    ("cls", "args", "says"),
    [(Mine, (std.AF_UNIX, std.SOCK_DGRAM), "mine"), (Named, ("path",), "path"), (Slotted, (), "slotted")],
)
def test_a_class_of_the_program_s_own(cls: Any, args: tuple[Any, ...], says: str) -> None:
    """It gets the calls of what it is made for, and is still itself."""
    with cls(*args) as sock:
        assert isinstance(sock, cls)
        assert isinstance(sock, KernelSocket)
        assert (type(sock).__name__, sock.describe(), sock.family, sock.type) == (cls.__name__, says, 1, 2)
        sock.bind("")
        assert sock.sendto(b"x", sock.getsockname()) == 1
        assert type(sock)(*args).__class__ is type(sock)


def test_what_is_the_stack_s_never_becomes_the_kernel_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever a class's own constructor is called with: what it makes of AF_INET needs the stack."""
    monkeypatch.setenv("LEVELIP_RUN", str(tmp_path))
    PROGRAM.leave()
    with pytest.raises(OSError) as caught:
        Named("10.0.0.1", family=std.AF_INET)
    assert caught.value.errno == errno.ENETDOWN
    with socket.socket(std.AF_UNIX) as local, pytest.raises(OSError) as caught:
        type(local)(std.AF_INET)  # by the class of a socket that is the kernel's
    assert caught.value.errno == errno.ENETDOWN


def test_a_duplicate_is_of_the_same_class() -> None:
    """dup() goes by the class's own constructor, as in the standard library."""
    with Mine(std.AF_UNIX) as sock, sock.dup() as other:
        assert type(other) is type(sock)


@pytest.mark.parametrize("base", [socket.socket, DatagramSocket, KernelSocket])
@pytest.mark.parametrize("cls", [socket.socket, DatagramSocket, KernelSocket, Mine, Slotted, SSLSocket])
def test_every_class_can_become_every_other(cls: Any, base: Any) -> None:
    """What the interpreter asks of classes, that objects of one may become the other's: the same layout."""
    fitting = kinds._specialised(cls, base)
    assert issubclass(fitting, base)
    assert kinds._specialised(fitting, base) is fitting
    sock = std.socket.__new__(cls)
    sock.__class__ = fitting
    assert sock.fileno() == -1

"""The drop-in's face: its names, and what it makes of addresses. Nothing here needs a stack."""

from __future__ import annotations

import ast
import errno
import inspect
import socket as std
import subprocess
import sys
import textwrap
from pathlib import Path
from types import FunctionType

import pytest

from levelip.client import socket
from levelip.client.datagramsocket import DatagramSocket
from levelip.client.kernelsocket import KernelSocket
from levelip.client.program import PROGRAM
from levelip.client.socket import OURS


def test_every_name_of_the_standard_module_is_there() -> None:
    """Code written for `socket` finds what it knows, private names too; constants and errors are the same objects."""
    names = set(dir(std)) - {"__warningregistry__"}  # Python's own, once a warning has come while its code ran
    assert [name for name in sorted(names) if not hasattr(socket, name)] == []
    differing = {name for name in names if getattr(socket, name) is not getattr(std, name)}
    assert {name for name in differing if not name.startswith("__")} <= set(OURS)
    assert socket.timeout is TimeoutError
    assert issubclass(socket.socket, std.socket)


def test_every_method_is_ours_or_harmless() -> None:
    """What names addresses, options or streams is overridden: the C methods would see an AF_UNIX socket."""
    native = {name for name in dir(std.socket) if name not in vars(socket.socket) and not name.startswith("__")}
    of_the_descriptor = (
        "close detach fileno get_inheritable getblocking gettimeout makefile set_inheritable setblocking"
    )
    harmless = {*of_the_descriptor.split(), "settimeout", "timeout", "sendmsg_afalg"}
    assert {name for name in native if not name.startswith("_")} == harmless


@pytest.mark.parametrize("base", [socket.socket, DatagramSocket])
def test_methods_do_not_meet_a_derived_class_s(base: type) -> None:
    """connect_ex() is not connect() of a class that overrides it (ssl.SSLSocket does), recvfrom() not its recv(): as
    in the standard library, where they are C."""
    names = {name for name in dir(std.socket) if not name.startswith("_")} - {"fileno", "gettimeout", "family", "type"}
    for name, method in vars(base).items():
        if name.startswith("_") or not isinstance(method, FunctionType):
            continue
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(method)))):
            own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
            allowed = {"settimeout", "setblocking", "get_inheritable"}  # state of the descriptor
            assert not own or node.attr not in names - allowed, (name, node.attr)  # type: ignore[attr-defined]


def test_the_standard_module_s_functions_are_its_own_code() -> None:
    """create_server and its like are not copies: whatever Python runs, they do what it does."""
    for name in ("create_connection", "create_server", "fromfd", "socketpair"):
        assert getattr(socket, name).__code__ is getattr(std, name).__code__
        assert getattr(socket, name).__globals__["socket"] is socket.socket


def test_local_families_are_the_kernel_s() -> None:
    """AF_UNIX sockets and descriptors that are not ours have the standard library's methods."""
    for name in ("send", "recvmsg", "bind", "accept", "getsockopt", "close", "family", "proto", "sendfile"):
        method = getattr(KernelSocket, name)
        assert method is getattr(std.socket, name) or method.__code__ is getattr(std.socket, name).__code__
    with socket.socket(std.AF_UNIX) as sock:
        assert type(sock) is KernelSocket
    one, two = socket.socketpair()
    with one, two, std.socket() as kernel, socket.socket(fileno=kernel.detach()) as again:
        assert type(again) is KernelSocket
        assert again.family == std.AF_INET


def test_no_stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ENETDOWN names the door and the command, and no helper is started."""
    monkeypatch.setenv("LEVELIP_RUN", str(tmp_path))
    monkeypatch.setenv("LEVELIP_NAME", "nowhere")
    PROGRAM.leave()
    for make in (socket.socket, lambda: socket.create_connection(("127.0.0.1", 1))):
        with pytest.raises(OSError) as caught:
            make()
        assert caught.value.errno == errno.ENETDOWN
        assert f"{tmp_path}/nowhere.door/gateway" in str(caught.value)
        assert "lvlip up" in str(caught.value)


def test_importing_is_cheap() -> None:
    """An application that imports the package loads neither ZeroMQ nor the helper."""
    source = "import sys, levelip.client.socket; sys.exit('zmq' in sys.modules or 'levelip.client.loop' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == 0


def test_the_helper_is_not_started_by_hand() -> None:
    """Without its arguments it says who starts it."""
    command = [sys.executable, "-m", "levelip.client.helper"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "programs start it" in done.stderr

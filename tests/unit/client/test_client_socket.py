"""The drop-in's face: its names, and what it makes of addresses. Nothing here needs a stack."""

from __future__ import annotations

import errno
import socket as std
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from levelip.client import socket
from levelip.client.program import PROGRAM
from levelip.client.streamsocket import _address


def test_every_name_of_the_standard_module_is_there() -> None:
    """Code written for `socket` finds what it knows; constants and errors are the same objects."""
    missing = [name for name in std.__all__ if not hasattr(socket, name)]
    assert missing == []
    assert socket.AF_INET is std.AF_INET
    assert socket.timeout is TimeoutError
    assert socket.gaierror is std.gaierror
    assert issubclass(socket.socket, std.socket)


def test_every_method_is_ours_or_harmless() -> None:
    """What names addresses, options or streams is overridden: the C methods would see an AF_UNIX socket."""
    ours = vars(socket.socket)
    names = """accept bind connect connect_ex dup getpeername getsockname getsockopt listen recv recv_into recvfrom
        recvfrom_into recvmsg recvmsg_into send sendall sendmsg sendto setsockopt shutdown"""
    for name in names.split():
        assert name in ours, name


@pytest.mark.parametrize(
    ("address", "packed"),
    [
        (("10.0.0.1", 80), (b"\x0a\0\0\x01", 80)),
        (("", 0), (b"\0\0\0\0", 0)),
        (("<broadcast>", 9), (b"\xff\xff\xff\xff", 9)),
        (("localhost", 65_535), (b"\x7f\0\0\x01", 65_535)),
        ((b"127.0.0.1", 1), (b"\x7f\0\0\x01", 1)),
    ],
)
def test_addresses(address: Any, packed: tuple[bytes, int]) -> None:
    """As the standard library reads them, without a lookup."""
    assert _address(address) == packed


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("10.0.0.1", TypeError),
        (("10.0.0.1",), TypeError),
        (("10.0.0.1", "80"), TypeError),
        (("10.0.0.1", 65_536), OverflowError),
        (("10.0.0.1", -1), OverflowError),
    ],
)
def test_wrong_addresses(address: Any, error: type[Exception]) -> None:
    """Raise what the standard library raises."""
    with pytest.raises(error):
        _address(address)
    with std.socket() as sock, pytest.raises(error):
        sock.bind(address)


def test_local_families_are_the_kernel_s() -> None:
    """AF_UNIX sockets and descriptors that are not ours become plain standard sockets."""
    with socket.socket(std.AF_UNIX) as sock:
        assert type(sock) is std.socket
    one, two = socket.socketpair()
    with one, two, std.socket() as kernel, socket.socket(fileno=kernel.detach()) as again:
        assert type(again) is std.socket
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

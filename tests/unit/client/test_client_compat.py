"""docs/socket-compat.md is what the code, the tables and the tests say, and leaves nothing out."""

from __future__ import annotations

import socket as std
import sys

import pytest

from levelip.client.socket import OURS
from tests.compat import sockets


def test_nothing_is_left_out() -> None:
    """Each flag has its row, and no row is of a name that Python has not."""
    assert set(sockets.flags()) <= set(sockets.FLAGS)
    assert set(sockets.CALLS) <= set(sockets.methods())
    assert set(sockets.FUNCTIONS) <= set(sockets.functions())
    assert set(sockets.OPTION_NOTES) <= {name for name, _, _ in sockets.options()}
    assert {name for name in OURS if name != "socket"} <= set(sockets.functions())


def test_calls_are_tested() -> None:
    """Every method that is ours is used by the program that compares it with the kernel's."""
    by = sockets.touched()
    untested = [
        name
        for name in sockets.methods()
        if name in vars(sockets.socket) and not any("socketapi" in test for test in by.get(name, []))
    ]
    assert untested == []


@pytest.mark.parametrize(("kind", "datagrams"), [(std.SOCK_STREAM, False), (std.SOCK_DGRAM, True)])
def test_linux_has_what_we_carry(kind: int, datagrams: bool) -> None:
    """An option that is carried is one that the running kernel knows on such a socket."""
    with std.socket(std.AF_INET, kind) as sock:
        for name, level, number in sockets.options():
            if sockets.verdict(name, (level, number), datagrams=datagrams) == "yes" and "MEMBERSHIP" not in name:
                try:
                    sock.getsockopt(level, number, 256)
                except OSError as error:
                    assert error.errno == 107, name  # ENOTCONN: IP_MTU


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the page is made with Python 3.11, others have other names"
)
def test_the_page_is_what_would_be_written() -> None:
    """`python -m tests.compat.sockets` has nothing to change."""
    assert sockets.PAGE.read_text() == sockets.page()

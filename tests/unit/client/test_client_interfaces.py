"""Numbers and names of interfaces: what can be asked with which arguments."""

from __future__ import annotations

import socket as std
from typing import Any

import pytest

from levelip.client import interfaces
from levelip.client.program import PROGRAM

ROWS = [[1, "lo", "loopback", True, 65_536, b"", []], [2, "lvl0", "tap", True, 1500, bytes(6), []]]


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that knows of these."""
    monkeypatch.setattr(PROGRAM, "call", lambda *_: ({"interfaces": ROWS}, -1))


def test_what_there_is() -> None:
    """Both ways, names as text, bytes or path."""
    assert interfaces.if_nameindex() == [(1, "lo"), (2, "lvl0")]
    assert [interfaces.if_nametoindex(name) for name in ("lo", b"lvl0")] == [1, 2]
    assert [interfaces.if_indextoname(index) for index in (1, 2)] == ["lo", "lvl0"]


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        *(("if_nametoindex", one) for one in ("nobody", "x" * 40, "a\0b", 0, None)),
        *(("if_indextoname", one) for one in (0, 1 << 40, -1, 1 << 70, "lo", 1.0)),
    ],
)
def test_errors_are_the_standard_library_s(name: str, argument: Any) -> None:
    """The same class and errno."""
    heard = []
    for module in (std, interfaces):
        with pytest.raises((OSError, ValueError, TypeError, OverflowError)) as caught:
            getattr(module, name)(argument)
        heard.append((caught.type, getattr(caught.value, "errno", None)))
    assert heard[0] == heard[1]

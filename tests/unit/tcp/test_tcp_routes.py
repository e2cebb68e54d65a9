"""Routes that refuse (blackhole, unreachable, prohibit), as ip tells of them."""

from __future__ import annotations

import errno

import pytest
from tcp_host import OURS, Host

from levelip.frames.packet import Route, Routes
from levelip.frames.seam import Connect
from levelip.rpc.stream import Reset

FAR = bytes((192, 0, 2, 7))


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EHOSTUNREACH, errno.EACCES])
def test_connect_by_a_route_that_refuses(number: int) -> None:
    """connect() fails at once with the route's errno, as in Linux; a longer prefix that does not refuse is used."""
    c = Host()
    rows = [
        Route(bytes((192, 0, 2, 0)), 24, OURS, 1500, 0, number),
        Route(bytes((192, 0, 2, 8)), 32, OURS, 1500, 0),
        Route(bytes(4), 0, OURS, 1500, 0),
    ]
    c.core.receive(Routes(rows, [OURS]), c.now)
    c.call(Connect(60, "", FAR, 80))
    c.message(Reset, errno=number)
    c.expect_nothing()
    c.call(Connect(61, "", bytes((192, 0, 2, 8)), 80))
    [segment] = c.segments
    assert segment.dst == bytes((192, 0, 2, 8))

"""Buffers that tune themselves do not slow a transfer down, and stay small where the path is slow."""

from __future__ import annotations

from typing import Any

import pytest

from tests.netsim.net import MS, Impairment
from tests.netsim.tcp_apps import pair, small_config

FOUR_MB = 1 << 22
SIZE = 8 << 20


def transfer(how: Impairment, **config: Any) -> tuple[float, dict[str, Any]]:
    """Seconds from connect() to the end of 8 MB, and the receiver's figures."""
    rings = dict.fromkeys(("send_ring", "receive_ring", "send_buffer", "receive_buffer"), FOUR_MB)
    both = small_config(**{**rings, "connections": 8, **config})
    net, a, b, _, _ = pair(how, a=both, b=both)
    b.listen(80)
    start = net.now
    a.connect(b.address, 80, bytes(SIZE), eof=True)
    assert net.run(lambda: bool(b.accepted) and b.accepted[0].eof, seconds=600)
    assert len(b.accepted[0].received) == SIZE
    rows = [row for row in b.core.control(1, "ss", {}, net.now)["sockets"] if row["state"] != "LISTEN"]
    return (net.now - start) / 1e9, rows[0]["info"]


@pytest.mark.parametrize("delay", [MS // 20, MS, 20 * MS], ids=["0.1 ms", "2 ms", "40 ms"])
def test_no_round_trip_is_lost(delay: int) -> None:
    """With offload, cwnd alone bounds the first RTTs: 14 KB, 28, 56 ... A window of 256 KB is used up in the fifth, and
    grows to the full 4 MB before cwnd does. The same time as with 4 MB from the start, within 2 %."""
    how = Impairment(delay=delay, split=False)
    fixed, _ = transfer(how, moderate_rcvbuf=False, receive_initial=FOUR_MB, send_initial=FOUR_MB)
    tuned, figures = transfer(how)
    assert tuned <= fixed * 1.02
    assert figures["rcvbuf"] == 2 * FOUR_MB


def test_the_window_follows_a_slow_path() -> None:
    """100 Mbit/s and 2 ms (a packet each 120 µs): 25 KB are under way; 256 KB are taken in 21 ms, of which 10 count as
    RTT (four SRTTs or 10 ms), so twice 125 KB and a bit are enough, and the buffer stays below 600 KB."""
    tuned, figures = transfer(Impairment(delay=MS, gap=120_000))
    assert figures["rcvbuf"] < 2 * 600_000
    fixed, _ = transfer(Impairment(delay=MS, gap=120_000), moderate_rcvbuf=False, receive_initial=FOUR_MB)
    assert tuned <= fixed * 1.02

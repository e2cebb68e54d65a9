"""The short path for common segments does what the long one does: the same segments, messages and figures."""

from __future__ import annotations

from typing import Any

import pytest

from layers.tcp.core import TcpCore
from tests.netsim.net import MS, Impairment
from tests.netsim.tcp_apps import pair, pattern, small_config

GOOD = Impairment()
WHOLE = Impairment(split=False)
BAD = Impairment(loss=0.03, duplicate=0.02, reorder=0.03, jitter=MS)


def run(how: Impairment, seed: int, *, predict: bool, **more: Any) -> dict[str, Any]:
    """A transfer both ways; all that could be seen of it."""
    net, a, b, to_b, to_a = pair(how, seed=seed, header_prediction=predict, **more)
    to_b.log, to_a.log = [], []
    b.listen(80)
    b.reply = pattern(seed, 150_000)
    sock = a.connect(b.address, 80, pattern(seed + 1, 150_000), eof=True)
    assert net.run(lambda: sock.eof and bool(b.accepted) and b.accepted[0].eof, seconds=300)
    assert bytes(sock.received) == b.reply and bytes(b.accepted[0].received) == sock.to_send
    return {
        "time": net.now,
        "wire": [[(s.id, s.head, s.causes, s.gso_size) for s in link.log or []] for link in (to_b, to_a)],
        "counters": [dict(sorted(host.core.counters.items())) for host in (a, b)],
        "tcbs": [host.core.snapshot()["connections"] for host in (a, b)],
    }


@pytest.mark.parametrize("how", [GOOD, WHOLE, BAD], ids=["good", "whole", "bad"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_both_paths_agree(how: Impairment, seed: int) -> None:
    """Segment by segment."""
    short, long = run(how, seed, predict=True), run(how, seed, predict=False)
    assert short["wire"] == long["wire"]
    assert short["counters"] == long["counters"]
    assert short["tcbs"] == long["tcbs"]
    assert short["time"] == long["time"]


def test_both_paths_agree_across_the_wrap() -> None:
    """With ISNs just below 2^32."""
    assert run(BAD, 4, predict=True, fixed_isn=2**32 - 7) == run(BAD, 4, predict=False, fixed_isn=2**32 - 7)


def test_both_paths_agree_in_a_small_window() -> None:
    """Where window updates and zero windows are common."""
    small = {"a": small_config(receive_buffer=8192), "b": small_config(receive_buffer=8192)}
    assert run(GOOD, 5, predict=True, **small) == run(GOOD, 5, predict=False, **small)


def test_it_is_taken() -> None:
    """The core asks it at all: with it off, the same run takes the long path for each segment."""
    seen = []

    class Watching(TcpCore):
        def receive(self, frame: Any, now: int) -> None:
            seen.append(self._predict)
            super().receive(frame, now)

    run(GOOD, 1, predict=True, core_type=Watching)
    assert all(seen)

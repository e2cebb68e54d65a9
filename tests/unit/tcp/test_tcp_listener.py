"""How much waits on a listener: its two queues at their limits, counted as Linux does."""

from __future__ import annotations

import pytest

from layers.tcp.connection import Options
from layers.tcp.listener import Listener, Room


def listener(backlog: int, *, half_open: int = 0, untaken: int = 0) -> Listener:
    made = Listener(1, b"", 80, "", backlog, Options())
    made.half_open = dict.fromkeys(range(half_open), True)
    made.untaken = dict.fromkeys(range(untaken), True)
    return made


@pytest.mark.parametrize(
    ("backlog", "half_open", "untaken", "room"),
    [
        (2, 0, 2, Room.FREE),  # one more than the backlog may wait to be accepted
        (2, 0, 3, Room.ACCEPT_QUEUE_FULL),
        (2, 1, 0, Room.FREE),
        (2, 2, 0, Room.SYN_QUEUE_FULL),
        (0, 0, 0, Room.FREE),  # at least one may open
        (0, 1, 0, Room.SYN_QUEUE_FULL),
        (0, 0, 1, Room.ACCEPT_QUEUE_FULL),
        (2, 2, 3, Room.ACCEPT_QUEUE_FULL),  # the reason that is told
    ],
)
def test_room(backlog: int, half_open: int, untaken: int, room: Room) -> None:
    """Linux sk_acceptq_is_full, inet_csk_reqsk_queue_is_full."""
    full = listener(backlog, half_open=half_open, untaken=untaken)
    assert full.room() == room == full.room(0)
    assert full.accept_queue_full() == (room == Room.ACCEPT_QUEUE_FULL)


def test_room_without_cookies() -> None:
    """Linux tcp_max_syn_backlog: three quarters of it, whatever the backlog; the rest is for known peers."""
    assert listener(100, half_open=5).room(8) == Room.FREE
    assert listener(100, half_open=6).room(8) == Room.SYN_QUEUE_FULL
    assert listener(100, half_open=6).room(9) == Room.FREE  # 9 - 2
    assert listener(100, half_open=7).room(9) == Room.SYN_QUEUE_FULL
    assert listener(3, half_open=3).room(8) == Room.SYN_QUEUE_FULL
    assert listener(100, half_open=99).room(0) == Room.FREE

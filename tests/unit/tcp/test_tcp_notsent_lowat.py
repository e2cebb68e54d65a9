"""TCP_NOTSENT_LOWAT between tcp and the gateway: a grant taken back, one that follows what was sent; chronographs."""

from __future__ import annotations

import pytest
from tcp_host import MSS, Host, far

from layers.tcp.chronograph import BUSY, IDLE, RWND, SNDBUF, Chronograph
from levelip.frames.seam import Incoming, SetOption
from levelip.rpc.stream import Accepted, Send

RING = 65_536


def bounded(most: int = 4000) -> Host:
    """A connection with ten segments of cwnd, of which `most` bytes may wait."""
    c = far()
    c.call(SetOption(c.sock, "notsent_lowat", most))
    assert c.message(Accepted).limit == most
    return c


def test_what_was_written_on_the_old_grant_is_taken() -> None:
    """The application may not have heard yet that it was taken back; beyond it nothing is taken."""
    c = bounded()
    c.call(Send(c.sock, 0, 30_000, b"x" * 30_000))
    assert c.row()["send_q"] == 30_000  # type: ignore[index]
    assert c.dropped("tcp_send_beyond") == 0
    c.call(Send(c.sock, 30_000, RING, b"x" * RING))
    assert c.dropped("tcp_send_beyond") == 1


def test_what_is_sent_makes_room_at_once() -> None:
    """In the same round: nothing else comes that would tell it. The half of it is worth a message (Linux
    tcp_stream_memory_free), less is not."""
    c = bounded()
    c.call(Send(c.sock, 0, 1000, b"x" * 1000))
    c.no_message()
    c.call(Send(c.sock, 1000, 1500, b"x" * 1500))
    assert c.message(Accepted).limit >= 4000 + 1000


@pytest.mark.parametrize("none", [0, -1])
def test_none_is_the_whole_buffer(none: int) -> None:
    """0 as Linux's sysctl has it by default; -1 is its largest value."""
    c = bounded()
    c.call(SetOption(c.sock, "notsent_lowat", none))
    assert c.message(Accepted).limit == RING


def test_a_connection_is_born_with_it() -> None:
    """The listener's option is its child's."""
    c = Host()
    c.listen(options={"notsent_lowat": 5000})
    c.inject("S", seq=0)
    c.expect("SA")
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1)
    assert c.find_message(Incoming).limit == 5000


def test_chronographs_add_up() -> None:
    """Each turn counts for what ran until then; busy is all three, and what runs counts until now."""
    chrono = Chronograph()
    for at, kind in ((10, BUSY), (30, RWND), (60, SNDBUF), (100, BUSY), (150, IDLE), (1000, RWND)):
        chrono.turn(kind, at)
    assert [chrono.total(kind, 1005) for kind in (BUSY, RWND, SNDBUF)] == [20 + 50, 30 + 5, 40]
    assert chrono.busy(1005) == 145


def test_the_clock_stops_where_the_connection_does() -> None:
    """A reset with data under way: what the application asks later is what it was then."""
    c = far()
    c.write(b"x" * 3 * MSS)
    c.inject("PA", seq=1, ack=1, data=b"unread")  # so that the id stays
    c.advance(20)
    c.inject("RA", seq=7, ack=1)
    c.advance(500)
    row = c.row()
    assert row is not None and row["state"] == "CLOSED"
    assert row["info"]["busy_time"] == 20_000

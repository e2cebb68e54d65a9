"""TCP_NOTSENT_LOWAT between tcp and the gateway: a grant taken back, one that follows what was sent; chronographs."""

from __future__ import annotations

import pytest
from tcp_host import HOSTS, MSS, Host, far, syn_sent

from layers.tcp.chronograph import BUSY, IDLE, RWND, SNDBUF, Chronograph
from layers.tcp.telling import grant_due
from levelip.frames.seam import Connected, Incoming, SetOption
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


def test_while_it_opens_nothing_is_granted() -> None:
    """The application hears of its grant with the opening."""
    c = syn_sent()
    c.call(SetOption(c.sock, "notsent_lowat", 5000))
    c.no_message()
    c.inject("SA", seq=0, ack=1)
    assert c.message(Connected).limit == 5000


@pytest.mark.parametrize(
    ("lowat", "grown", "due"), [(1000, 499, False), (1000, 500, True), (1, 1, True), (1, 0, False)]
)
def test_half_of_it_is_worth_a_message(lowat: int, grown: int, due: bool) -> None:
    """To the byte (Linux tcp_stream_memory_free)."""
    c = far()
    _, conn = c.parts()
    tx = conn.tx
    tx.snd_una, tx.snd_nxt, tx.snd_end = 1000, 3000, 3000
    tx.lowat, tx.limit = lowat, 3000 + lowat - grown
    assert grant_due(conn) is due
    HOSTS.clear()  # no such connection was


def limited() -> Host:
    """All of the buffer is under way, cwnd and the peer's window would take more."""
    c = far(tlp=False)
    _, conn = c.parts()
    conn.congestion.cwnd = 1 << 20
    c.write(bytes(RING))
    assert sum(c.sizes()) == RING and conn.chrono.kind == SNDBUF
    return c.quiet()


def figures(c: Host) -> tuple[int, int]:
    """tcpi_busy_time and tcpi_sndbuf_limited, in ms."""
    row = c.row()
    assert row is not None
    return row["info"]["busy_time"] // 1000, row["info"]["sndbuf_limited"] // 1000


def test_the_buffer_is_what_held_it_back_until_it_has_room() -> None:
    """That is until the application is told so (Linux tcp_chrono_stop of TCP_CHRONO_SNDBUF_LIMITED)."""
    c = limited()
    c.advance(30)
    assert figures(c) == (30, 30)
    c.inject("A", seq=1, ack=1 + 20 * MSS)
    c.message(Accepted)
    c.advance(20)
    assert figures(c) == (50, 30)


def test_a_fin_under_way_is_no_data() -> None:
    """All data is acknowledged, and there is room again: nothing is busy any more."""
    c = limited()
    c.shut()
    c.advance(30)
    c.inject("A", seq=1, ack=1 + RING)
    assert c.state == "FIN_WAIT_1"
    c.message(Accepted)
    c.advance(20)
    assert figures(c) == (30, 30)


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

"""What the gateway's calls are answered with: each message whole, each refusal with its errno, counted once."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from tcp_host import MSS, OURS, PEER_PORT, PORT, RING, THEIRS, Host, connected, established, listening, syn_sent

from levelip.frames.packet import Route, Routes
from levelip.frames.seam import Bind, Close, Connect, Connected, GetInfo, Incoming, Listen, Released, Result, Taken
from levelip.rpc.stream import Accepted, Consumed, Data, Eof, Reset, Send

ANY = bytes(4)
ELSEWHERE = b"\xc0\0\2\1"


def answer(c: Host, call: Any) -> Any:
    """The one message that a call leads to."""
    c.call(call)
    [told] = c.messages
    c.messages.clear()
    return told


def test_bind() -> None:
    """The address and port that it has now; 0.0.0.0 where none was named; EADDRINUSE, EADDRNOTAVAIL."""
    c = Host(port_first=40_000, port_last=40_001)
    assert answer(c, Bind(7, 1, b"", 80)) == Result(7, 0, {"address": ANY, "port": 80})
    assert answer(c, Bind(8, 2, OURS, 81)) == Result(8, 0, {"address": OURS, "port": 81})
    assert answer(c, Bind(9, 3, b"", 80)) == Result(9, errno.EADDRINUSE)
    assert answer(c, Bind(10, 3, ELSEWHERE, 82)) == Result(10, errno.EADDRNOTAVAIL)
    chosen = {answer(c, Bind(11, sock, b"", 0)).data["port"] for sock in (4, 5)}
    assert chosen == {40_000, 40_001}
    assert answer(c, Bind(12, 6, b"", 0)) == Result(12, errno.EADDRINUSE)


def test_listen() -> None:
    """On what is bound; unbound, on a port of the range; once more, with another backlog. Not on a connection."""
    c = Host(port_first=40_000, port_last=40_000, backlog_max=20)
    assert answer(c, Bind(1, 50, b"", 80)).errno == 0
    assert answer(c, Listen(2, 50, "", 5, {})) == Result(2, 0, {"address": ANY, "port": 80})
    assert answer(c, Listen(3, 50, "", 99, {"nodelay": 1})) == Result(3, 0, {"address": ANY, "port": 80})
    [row] = c.core.control(1, "ss", {}, c.now)["sockets"]
    assert (row["sock"], row["send_q"]) == (50, 20)  # tcp.backlog_max
    assert answer(c, Listen(4, 51, "", 5, {})) == Result(4, 0, {"address": ANY, "port": 40_000})
    assert answer(c, Listen(5, 52, "", 5, {})) == Result(5, errno.EADDRINUSE)
    d = established()
    assert answer(d, Listen(6, d.sock, "", 5, {})) == Result(6, errno.EINVAL)


def test_two_that_may_bind_cannot_both_listen() -> None:
    """SO_REUSEADDR; and the second may try again once the first is gone."""
    c = Host()
    for sock in (1, 2):
        assert answer(c, Bind(1, sock, b"", 80, True)).errno == 0
    assert answer(c, Listen(2, 1, "", 5, {})).errno == 0
    assert answer(c, Listen(3, 2, "", 5, {})) == Result(3, errno.EADDRINUSE)
    assert answer(c, Close(1, False)) == Released(1)
    assert answer(c, Listen(4, 2, "", 5, {})) == Result(4, 0, {"address": ANY, "port": 80})


@pytest.mark.parametrize("address", [OURS, ANY])
def test_a_listener_by_address(address: bytes) -> None:
    """One with an address is asked before one for any; closed, it is nobody's any more."""
    c = Host()
    c.call(Bind(1, 50, b"" if address == ANY else address, 80))
    c.call(Listen(2, 50, "", 5, {}))
    c.quiet()
    c.inject("S", seq=0)
    c.expect("SA")
    c.call(Close(50, False))
    c.quiet()
    c.inject("S", seq=0, src_port=9)
    c.expect("RA")


def test_connect_that_cannot_be() -> None:
    """No route: ENETUNREACH; a route that refuses: its errno; broadcasts and groups: ENETUNREACH."""
    c = Host()
    for dst in (ELSEWHERE, b"\xff\xff\xff\xff", b"\xe0\0\0\1"):
        assert answer(c, Connect(1, "", dst, 80, {})) == Reset(1, errno.ENETUNREACH)
    rows = [Route(b"\x0a\0\0\0", 24, OURS, 1500, 0, errno.EACCES)]
    c.core.receive(Routes(rows, [OURS]), c.now)
    assert answer(c, Connect(1, "", THEIRS, 80, {})) == Reset(1, errno.EACCES)
    c.expect_nothing()


def test_connect_to_nobody_is_to_ourselves() -> None:
    """0.0.0.0 is 127.0.0.1, as Linux."""
    c = Host()
    c.call(Connect(1, "", ANY, 80, {}))
    [segment] = c.segments
    assert (segment.src, segment.dst) == (b"\x7f\0\0\1", b"\x7f\0\0\1")


def test_connect_with_what_is_taken() -> None:
    """The four-tuple is in use, or no port of the range is free: EADDRNOTAVAIL. No memory: ENOBUFS."""
    c = Host(port_first=40_000, port_last=40_000)
    c.call(Connect(1, "", THEIRS, PEER_PORT, {}))
    c.quiet()
    assert answer(c, Connect(2, "", THEIRS, PEER_PORT, {})) == Reset(2, errno.EADDRNOTAVAIL)
    c.call(Connect(3, "", THEIRS, PEER_PORT + 1, {}))  # another four-tuple with the same port
    assert c.segments and not c.messages
    full = Host(connections=1)
    full.call(Connect(1, "", THEIRS, 80, {}))
    full.quiet()
    assert answer(full, Connect(2, "", THEIRS, 81, {})) == Reset(2, errno.ENOBUFS)
    assert full.dropped("tcp_no_slot") == 1


def test_connect_goes_out_from_what_is_bound() -> None:
    """Address and port; an address alone leaves the port; no address leaves the route's."""
    c = Host()
    c.call(Bind(1, 60, OURS, 7777))
    c.quiet()
    c.connect()
    got = c.expect("S")
    assert got.ports == (7777, PEER_PORT) and got.segment.src == OURS
    c.quiet()
    c.call(Bind(1, 61, b"", 7778))
    c.quiet()
    c.call(Connect(61, "", THEIRS, PEER_PORT, {}))
    got = c.expect("S")
    assert got.ports == (7778, PEER_PORT) and got.segment.src == OURS


def test_connected_and_incoming_tell_all() -> None:
    """Addresses, ports, where the rings lie, and how far may be sent."""
    c = syn_sent()
    c.inject("SA", seq=0, ack=1)
    told = c.message(Connected)
    assert (told.sock, told.local_address, told.local_port) == (60, OURS, c.local_port)
    assert (told.remote_address, told.remote_port, told.limit) == (THEIRS, PEER_PORT, RING)
    assert told.rings.send_size == told.rings.receive_size == RING
    c = listening()
    c.inject("S", seq=0)
    c.expect("SA")
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1)
    told = c.message(Incoming)
    assert (told.listener, told.local_address, told.local_port) == (50, OURS, PORT)
    assert (told.remote_address, told.remote_port, told.limit) == (THEIRS, PEER_PORT, RING)


def test_what_is_sent_is_stored_where_it_belongs() -> None:
    """Bytes of a client without shared memory: at their offset; what is known already is left out."""
    c = connected(connect={"nodelay": 1})
    c.call(Send(c.sock, 0, 3, b"abc"))
    c.call(Send(c.sock, 1, 5, b"bcdef"))
    assert c.rings is not None
    assert c.memory.read(c.rings.send(0, 6)) == b"abcdef"
    assert [c.expect("PA").data for _ in range(2)] == [b"abc", b"def"]
    c.call(Send(c.sock, 2, 4, b"cdef"))  # a repeat changes nothing
    c.expect_nothing()
    assert c.tcb()["tx"]["snd_end"] == 6


def test_a_gap_and_what_is_too_much_are_answered_with_what_is_known() -> None:
    """How far the bytes are known, and how far they may go."""
    c = connected()
    assert answer(c, Send(c.sock, 5, 1, b"x")) == Accepted(c.sock, 0, RING)
    assert answer(c, Send(c.sock, 0, RING + 1)) == Accepted(c.sock, 0, RING)
    assert answer(c, Send(c.sock, 0, 4, b"abc")) == Accepted(c.sock, 0, RING)  # a length that lies
    assert c.dropped("tcp_send_gap") == 1 and c.dropped("tcp_send_beyond") == 2
    c.call(Send(c.sock, 0, RING))  # all of it fits
    assert c.tcb()["tx"]["snd_end"] == RING


def test_an_end_that_is_ahead_waits_for_what_comes_before_it() -> None:
    """Eof at 6 while 3 bytes are known: told so; with the other 3 the FIN goes. Nothing follows it."""
    c = connected()
    c.call(Send(c.sock, 0, 3, b"abc"))
    c.quiet()
    assert answer(c, Eof(c.sock, 6)) == Accepted(c.sock, 3, RING)
    assert c.state == "ESTABLISHED"
    c.call(Send(c.sock, 3, 4, b"defg"))  # one more than was promised
    assert c.dropped("tcp_send_after_eof") == 1
    c.call(Send(c.sock, 3, 3, b"def"))
    assert c.expect("PFA").data == b"def" and c.state == "FIN_WAIT_1"
    c.call(Eof(c.sock, 6))
    c.call(Send(c.sock, 6, 1, b"x"))
    assert c.dropped("tcp_send_after_eof") == 2
    other = connected()
    other.call(Send(other.sock, 0, 3, b"abc"))
    other.call(Eof(other.sock, 2))  # before what is known
    assert other.state == "ESTABLISHED" and other.dropped("tcp_send_after_eof") == 1


def test_a_promise_that_is_not_kept_is_no_fin() -> None:
    """Closed while bytes lack that Eof announced: RST, for the peer must not take it for the end."""
    c = connected()
    c.call(Eof(c.sock, 6))
    c.quiet()
    c.close()
    c.expect("RA")


def test_close_tells_whether_anything_is_left_to_do() -> None:
    """A listener, an unknown socket, one that is closed already: Released at once; a second close: nothing."""
    c = listening()
    assert answer(c, Close(50, False)) == Released(50)
    assert answer(c, Close(51, False)) == Released(51)
    d = connected()
    d.close()
    d.quiet()
    d.close()
    d.no_message()
    d.expect_nothing()
    e = connected()
    e.inject("R", seq=1)
    assert e.message(Reset) == Reset(60, errno.ECONNRESET)
    assert answer(e, Close(60, False)) == Released(60)


def test_what_waits_to_be_accepted_is_reset_with_its_listener() -> None:
    """And a half-open one forgotten without a word (Linux inet_csk_listen_stop)."""
    c = listening()
    c.inject("S", seq=0)
    c.expect("SA")
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1)
    c.inject("S", seq=0, src_port=9)
    c.quiet()
    c.call(Close(50, False))
    [got] = [c.expect("RA") for _ in range(len(c.segments))]
    assert got.ports == (PORT, PEER_PORT)
    assert c.core.control(1, "ss", {}, c.now)["sockets"] == []


def test_a_connection_that_is_closed_before_it_is_taken() -> None:
    """Its place in the backlog is free again."""
    c = listening()
    c.inject("S", seq=0)
    c.expect("SA")
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1)
    child = c.message(Incoming).sock
    assert c.row(50)["recv_q"] == 1  # type: ignore[index]
    c.call(Close(child, False))
    assert c.row(50)["recv_q"] == 0  # type: ignore[index]
    c.call(Taken(50, child))  # too late, and no harm


def test_figures_of_what_is_no_connection() -> None:
    """A listener: how many wait, and the backlog (Linux tcp_get_info); an unknown socket is CLOSED, 7. Pacing would not
    limit either."""
    c = listening()
    assert answer(c, GetInfo(3, 50)) == Result(
        3, 0, {"state": 10, "unacked": 0, "sacked": 16, "pacing_rate": 2**64 - 1}
    )
    assert answer(c, GetInfo(4, 99)) == Result(4, 0, {"state": 7, "pacing_rate": 2**64 - 1})
    d = established()
    told = answer(d, GetInfo(5, d.sock))
    assert (told.request, told.errno, told.data) == (5, 0, d.row()["info"])  # type: ignore[index]


def test_data_and_its_end_are_told_once() -> None:
    """Data by offset and place; Eof behind the last byte; nothing again when the application has read."""
    c = established()
    c.inject("PA", seq=1, ack=1, data=b"hello")
    told = c.message(Data)
    assert (told.sock, told.offset, told.payload) == (c.sock, 0, c.rings.receive(0, 5))  # type: ignore[union-attr]
    c.no_message()
    c.inject("PFA", seq=6, ack=1, data=b"!")
    assert c.message(Data).offset == 5
    assert c.message(Eof) == Eof(c.sock, 6)
    c.consume(6)
    c.no_message()


def test_only_bytes_that_were_told_can_be_consumed() -> None:
    """More is refused; less than before changes nothing."""
    c = established()
    c.inject("PA", seq=1, ack=1, data=b"hello")
    c.quiet()
    c.call(Consumed(c.sock, 6))
    assert c.dropped("tcp_consumed_ahead") == 1 and c.tcb()["rx"]["consumed"] == 0
    c.call(Consumed(c.sock, 5))
    c.call(Consumed(c.sock, 4))
    assert c.tcb()["rx"]["consumed"] == 5


def test_routes_that_change_reach_what_is_open() -> None:
    """A smaller MTU at once; a larger one not (the path may be narrower); segmentation offload as it is now."""
    c = established()
    c.routes(1400, 30_000)
    tcb = c.tcb()
    assert (tcb["pmtu"], tcb["gso_max"], tcb["tx"]["mss"]) == (1400, 30_000, MSS - 100)
    c.routes(1500, 0)
    tcb = c.tcb()
    assert (tcb["pmtu"], tcb["gso_max"], tcb["tx"]["mss"]) == (1400, 0, MSS - 100)
    c.core.receive(Routes([], [OURS]), c.now)
    assert c.tcb()["pmtu"] == 1400

"""Local ports: bind conflicts as in Linux, ephemeral ports by RFC 6056, ISNs by RFC 6528; the listener's backlog."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from tcp_host import OURS, PEER_PORT, PORT, THEIRS, Host, established, last_ack, listening, syn_sent, time_wait

from layers.tcp.isn import initial_sequence
from layers.tcp.ports import Binding, Ports
from levelip.frames.packet import BROADCAST, Route
from levelip.frames.routes import RouteLookup
from levelip.frames.seam import Bind, Close, Connect, Connected, Incoming, Listen, Released, Result, Taken
from levelip.rpc.stream import Reset

ISN = dict[str, Any]
ANY, ONE, TWO = bytes(4), b"\1\0\0\1", b"\2\0\0\2"


@pytest.mark.parametrize(
    ("have", "want", "conflict"),
    [
        (Binding(ANY, 80), Binding(ANY, 80), True),
        (Binding(ANY, 80), Binding(ANY, 81), False),
        (Binding(ONE, 80), Binding(TWO, 80), False),
        (Binding(ONE, 80), Binding(ANY, 80), True),
        (Binding(ANY, 80, reuse_address=True), Binding(ANY, 80, reuse_address=True), False),
        (Binding(ANY, 80, reuse_address=True), Binding(ANY, 80), True),
        (Binding(ANY, 80, reuse_address=True, listening=True), Binding(ANY, 80, reuse_address=True), True),
        (Binding(ANY, 80, reuse_port=True, listening=True), Binding(ANY, 80, reuse_port=True, listening=True), False),
        (Binding(ANY, 80, reuse_port=True), Binding(ANY, 80, reuse_address=True), True),
    ],
)
def test_conflicts(have: Binding, want: Binding, conflict: bool) -> None:
    """inet_csk_bind_conflict."""
    ports = Ports()
    ports.hold(1, have)
    assert ports.conflicts(2, want) is conflict
    assert not ports.conflicts(1, want)


def result(c: Host, frame: Any) -> Any:
    """The answer to a call."""
    c.call(frame)
    return c.message(Result)


def test_bind_and_listen_answer_with_the_name() -> None:
    """Port 0: one from the ephemeral range."""
    c = Host()
    got = result(c, Bind(1, 50, b"", 0))
    assert got.errno == 0 and 32_768 <= got.data["port"] <= 60_999
    assert result(c, Listen(2, 50, "", 5)).data["port"] == got.data["port"]


def test_listen_without_bind() -> None:
    """Takes an ephemeral port, as Linux' autobind."""
    got = result(Host(), Listen(2, 50, "", 5))
    assert got.errno == 0 and got.data["port"] >= 32_768


@pytest.mark.parametrize("port", [40_000, 40_500, 40_999])
def test_a_port_of_the_sockets_own_range(port: int) -> None:
    """IP_LOCAL_PORT_RANGE of one port, for listen() and for connect(): both ends of ours are within it."""
    c = Host(port_first=40_000, port_last=40_999)
    own = {"port_range": port << 16 | port}
    c.call(Listen(1, 50, "", 16, own))
    assert c.message(Result).data["port"] == port
    c.call(Close(50))
    c.connect(options=own)
    assert int.from_bytes(c.segments[0].head[:2], "big") == port


def test_bind_to_a_foreign_address() -> None:
    """EADDRNOTAVAIL; our own, any and 127/8 are fine."""
    c = Host()
    assert result(c, Bind(1, 50, b"\x0a\0\0\x63", 80)).errno == errno.EADDRNOTAVAIL
    for number, address in enumerate((OURS, b"\x7f\0\0\x05")):
        assert result(c, Bind(1, 51 + number, address, 80)).errno == 0
    assert result(c, Bind(1, 53, ANY, 80)).errno == errno.EADDRINUSE


GROUP, NET_BROADCAST, EVERYBODY = b"\xe0\1\2\3", b"\x0a\0\0\xff", b"\xff\xff\xff\xff"


@pytest.mark.parametrize("address", [GROUP, NET_BROADCAST, EVERYBODY])
def test_bind_to_many(address: bytes) -> None:
    """A group or a broadcast address can be bound to, once as any address (Linux __inet_bind); it may listen, and a SYN
    to our own address finds nobody, nor does one to the group (RFC 9293 MUST-57)."""
    c = Host()
    assert result(c, Bind(1, 50, address, 80)) == Result(1, 0, {"address": address, "port": 80})
    assert result(c, Bind(2, 51, address, 80)).errno == errno.EADDRINUSE
    assert result(c, Bind(3, 52, ANY, 80)).errno == errno.EADDRINUSE
    assert result(c, Bind(4, 53, OURS, 80)).errno == 0
    c.call(Close(53))
    assert c.message(Released).sock == 53
    assert result(c, Listen(5, 50, "", 5)) == Result(5, 0, {"address": address, "port": 80})
    c.inject("S", seq=0)
    c.expect("RA", seq=-c.isn & 0xFFFF_FFFF, ack=1)
    syn = c.segment("S", seq=0)
    syn.dst, syn.flags = address, BROADCAST
    c.core.receive(syn, c.now)
    c.flush()
    c.expect_nothing()
    assert c.dropped("tcp_broadcast") == 1


@pytest.mark.parametrize("address", [GROUP, NET_BROADCAST, EVERYBODY])
def test_connect_from_many(address: bytes) -> None:
    """What is bound so connects from the route's address, with the port that it has, and is bound there from then on
    (Linux inet_bhash2_update_saddr)."""
    c = Host()
    c.call(Bind(1, 60, address, 4000))
    assert c.message(Result).errno == 0
    c.connect()
    assert (c.segments[0].src, c.segments[0].head[:2]) == (OURS, (4000).to_bytes(2, "big"))
    assert result(c, Bind(2, 51, OURS, 4000)).errno == errno.EADDRINUSE
    assert result(c, Bind(3, 52, address, 4000)).errno == 0


def test_what_is_nearly_many_is_not() -> None:
    """The network's own address, a host's, and class E (Linux: RTN_UNICAST, so EADDRNOTAVAIL); and a socket that cannot
    connect stays bound as it was."""
    c = Host()
    for address in (b"\x0a\0\0\0", b"\x0a\0\0\xfe", b"\xf0\0\0\1"):
        assert result(c, Bind(1, 50, address, 80)).errno == errno.EADDRNOTAVAIL
    c.call(Bind(1, 60, GROUP, 4000))
    c.messages.clear()
    c.call(Connect(60, "", GROUP, PEER_PORT, {}))
    assert c.message(Reset).errno == errno.ENETUNREACH
    assert result(c, Bind(2, 51, OURS, 4000)).errno == 0


@pytest.mark.parametrize(
    ("prefix", "length", "address", "broadcast"),
    [
        (b"\x0a\0\0\0", 24, b"\x0a\0\0\xff", True),
        (b"\x0a\0\0\0", 30, b"\x0a\0\0\3", True),
        (b"\x0a\0\0\2", 31, b"\x0a\0\0\3", False),  # RFC 3021 2: of two addresses none is everybody's
        (b"\x0a\0\0\2", 32, OURS, False),
        (bytes(4), 0, b"\xff\xff\xff\xfe", False),
        (b"\xac\x10\0\0", 16, b"\xac\x10\xff\xff", False),  # a network behind a gateway: we are not on it
        (bytes(16), 64, bytes(8) + b"\xff" * 8, False),
    ],
)
def test_broadcast_addresses(prefix: bytes, length: int, address: bytes, broadcast: bool) -> None:
    """Of the networks that one of our addresses lies in (RFC 1122 3.2.1.3), and everybody's."""
    routes = RouteLookup(known=True, routes=[Route(prefix, length, OURS if len(prefix) == 4 else bytes(16), 1500, 0)])
    assert routes.is_broadcast(address) is routes.is_many(address) is broadcast
    assert routes.is_broadcast(EVERYBODY) and routes.is_many(GROUP) and not routes.is_broadcast(GROUP)


def test_port_in_use() -> None:
    """EADDRINUSE until the listener is closed."""
    c = listening()
    assert result(c, Bind(1, 51, b"", PORT)).errno == errno.EADDRINUSE
    c.call(Close(50))
    c.quiet()
    assert result(c, Bind(1, 51, b"", PORT)).errno == 0


def test_two_listeners_with_reuseaddr() -> None:
    """Both may bind, one may listen."""
    c = Host()
    for sock in (50, 51):
        assert result(c, Bind(1, sock, b"", 80, True)).errno == 0
    assert result(c, Listen(2, 50, "", 5)).errno == 0
    assert result(c, Listen(2, 51, "", 5)).errno == errno.EADDRINUSE


def test_a_time_wait_holds_the_port() -> None:
    """A restarted server needs SO_REUSEADDR, on both the old and the new socket."""
    c = time_wait()
    c.close()
    c.call(Close(50))
    c.quiet()
    assert result(c, Bind(1, 51, b"", PORT)).errno == errno.EADDRINUSE
    c.advance(60_001)
    assert result(c, Bind(1, 51, b"", PORT)).errno == 0


def test_reuseaddr_over_time_wait() -> None:
    """Set on both, it is allowed at once."""
    c = Host()
    c.listen(reuse=True)
    c.inject("S", seq=0)
    c.expect("SA")
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1)
    c.sock = c.message(Incoming).sock
    c.close()
    c.inject("FA", seq=1, ack=2)
    c.call(Close(50))
    c.quiet()
    assert result(c, Bind(1, 51, b"", PORT, True)).errno == 0
    assert result(c, Listen(1, 51, "", 5)).errno == 0


def test_ports_are_free_when_connections_end() -> None:
    """Nothing is left in the table."""
    c = last_ack()
    c.inject("A", seq=2, ack=2)
    c.close()
    c.call(Close(50))
    snapshot = c.core.snapshot()
    assert snapshot["ports"]["bindings"] == {} and snapshot["connections"] == []


def test_connect_from_a_bound_port() -> None:
    """The port that bind() chose; it stays with the socket when the connect fails, as on Linux."""
    c = Host()
    assert result(c, Bind(1, 60, b"", 5555)).errno == 0
    c.connect()
    c.learn_port()
    assert c.local_port == 5555
    c.expect("S")
    c.inject("RA", seq=0, ack=1)
    c.message(Reset)
    assert result(c, Bind(1, 61, b"", 5555)).errno == errno.EADDRINUSE
    c.connect()
    c.learn_port()
    assert c.local_port == 5555
    c.call(Close(60))
    c.quiet()
    assert result(c, Bind(1, 61, b"", 5555)).errno == 0


def test_connect_again_from_the_same_port_to_the_same_place() -> None:
    """EADDRNOTAVAIL: the four-tuple is taken."""
    c = Host()
    for sock in (60, 61):
        assert result(c, Bind(1, sock, b"", 5555, True)).errno == 0
    c.connect(sock=60)
    c.call(Connect(61, "", THEIRS, 4711))
    c.message(Reset, sock=61, errno=errno.EADDRNOTAVAIL)


def test_ephemeral_ports_run_out() -> None:
    """Three ports: the fourth connection to the same place fails, one to another place does not."""
    c = Host(port_first=40_000, port_last=40_002)
    for sock in range(60, 63):
        c.call(Connect(sock, "", THEIRS, 80))
    assert sorted(int.from_bytes(segment.head[:2], "big") for segment in c.segments) == [40_000, 40_001, 40_002]
    c.call(Connect(63, "", THEIRS, 80))
    c.message(Reset, sock=63, errno=errno.EADDRNOTAVAIL)
    c.call(Connect(64, "", THEIRS, 81))
    c.no_message()
    assert len(c.segments) == 4


@pytest.mark.rfc("RFC 6056 3.3-1")
def test_ephemeral_ports_follow_rfc_6056() -> None:
    """To one place they rise one by one from a secret start; another place, or secret, starts elsewhere."""
    ports = Ports()

    def choose(secret: bytes, remote: bytes) -> int:
        return ports.free_for_connect(secret, OURS, remote, 80, 32_768, 60_999, lambda port: False)

    first = [choose(b"a" * 32, THEIRS) for _ in range(3)]
    assert [(port - first[0]) % 28_232 for port in first] == [0, 1, 2]
    assert choose(b"a" * 32, TWO) not in range(first[0], first[0] + 10)
    assert choose(b"b" * 32, THEIRS) not in range(first[0], first[0] + 10)


@pytest.mark.rfc("RFC 9293 MUST-8", "RFC 9293 SHLD-1", "RFC 9293 MUST-9", "RFC 6528 3-1", "RFC 6528 3-2")
def test_isn() -> None:
    """RFC 6528: a clock of 4 µs plus a secret of the four-tuple."""
    secret = b"k" * 32
    at = initial_sequence(secret, OURS, 80, THEIRS, 1000, 0)
    assert initial_sequence(secret, OURS, 80, THEIRS, 1000, 4_000_000) == (at + 1000) % 2**32
    others = [
        initial_sequence(secret, OURS, 81, THEIRS, 1000, 0), initial_sequence(secret, OURS, 80, THEIRS, 1001, 0),
        initial_sequence(secret, THEIRS, 80, OURS, 1000, 0), initial_sequence(b"z" * 32, OURS, 80, THEIRS, 1000, 0),
    ]  # fmt: skip
    assert len({at, *others}) == 5


@pytest.mark.rfc("RFC 9293 SHLD-1")
def test_isn_is_used(isn: ISN) -> None:
    """Without fixed_isn two connections in one instant start at different numbers."""
    c = Host(**{**isn, "isn": -1})
    c.connect(sock=60)
    c.connect(sock=61)
    assert c.segments[0].head[4:8] != c.segments[1].head[4:8]


# the backlog


def knock(c: Host, port: int, *, finish: bool) -> None:
    """A SYN from `port`, and the ACK that completes the handshake."""
    c.agreed_ts = False
    c.inject("S", seq=0, src_port=port)
    if not c.segments:
        return
    c.expect("SA")
    c.agreed_ts = True
    if finish:
        c.inject("A", seq=1, ack=1, src_port=port)


def test_accept_queue(isn: ISN) -> None:
    """Backlog 2: three connections may wait (Linux sk_acceptq_is_full), the fourth SYN is dropped; Taken makes room."""
    c = Host(**isn)
    c.listen(backlog=2)
    for port in (1, 2, 3):
        knock(c, port, finish=True)
    children = [c.message(Incoming).sock for _ in range(3)]
    knock(c, 4, finish=True)
    c.expect_nothing()
    assert c.dropped("accept_queue_full") == 1
    c.call(Taken(50, children[0]))
    knock(c, 4, finish=True)
    c.message(Incoming)


def test_syn_queue(isn: ISN) -> None:
    """Backlog 2, without cookies: two may be half open."""
    c = Host(syncookies=0, **isn)
    c.listen(backlog=2)
    for port in (1, 2, 3):
        knock(c, port, finish=False)
    assert c.dropped("syn_queue_full") == 1
    c.inject("R", seq=1, src_port=1)
    knock(c, 3, finish=False)
    assert c.dropped("syn_queue_full") == 1


def test_last_ack_of_a_handshake_waits_for_room(isn: ISN) -> None:
    """The accept queue filled meanwhile: the ACK is ignored, the SYN-ACK goes again. Linux tcp_v4_syn_recv_sock."""
    c = Host(**isn)
    c.listen(backlog=1)
    knock(c, 1, finish=True)
    knock(c, 2, finish=False)
    c.call(Listen(3, 50, "", 0))
    c.quiet()
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1, src_port=2)
    c.no_message()
    assert c.dropped("accept_queue_full") == 1
    c.advance(1000)
    c.expect("SA")


def test_a_child_that_was_reset_still_waits() -> None:
    """accept() gives it all the same, as on Linux; it leaves the queue when taken."""
    c = Host()
    c.listen(backlog=5)
    knock(c, 1, finish=True)
    child = c.message(Incoming).sock
    c.inject("R", seq=1, src_port=1)
    c.message(Reset, sock=child)
    assert c.core.control(1, "ss", {}, c.now)["sockets"][0]["recv_q"] == 1
    c.call(Taken(50, child))
    assert c.core.control(1, "ss", {}, c.now)["sockets"][0]["recv_q"] == 0


def test_no_slot_for_a_child() -> None:
    """All ring slots of the region are in use: the SYN is dropped, and may come again."""
    c = Host(connections=1)
    c.listen()
    knock(c, 1, finish=True)
    knock(c, 2, finish=True)
    assert c.dropped("tcp_no_slot") == 1


@pytest.mark.rfc("RFC 9293 MUST-42", "RFC 9293 MUST-43")
def test_a_specific_listener_wins() -> None:
    """Over one of any address."""
    c = Host()
    result(c, Bind(1, 50, OURS, 80, True))
    result(c, Bind(1, 51, b"\x7f\0\0\1", 80, True))
    result(c, Listen(2, 50, "", 5))
    result(c, Listen(2, 51, "", 5))
    knock(c, 1, finish=True)
    assert c.message(Incoming).listener == 50


def test_listeners_with_reuseport_share_the_load() -> None:
    """Both listen on one port; the remote port decides whose a connection is."""
    c = Host()
    for sock in (50, 51):
        assert result(c, Bind(1, sock, b"", 80, False, True)).errno == 0
        assert result(c, Listen(2, sock, "", 5)).errno == 0
    for port in (10, 11, 12):
        knock(c, port, finish=True)
    assert [c.message(Incoming).listener for _ in range(3)] == [50, 51, 50]


def test_backlog_is_bounded() -> None:
    """tcp.backlog_max, Linux somaxconn."""
    c = Host(backlog_max=3)
    c.listen(backlog=1000)
    assert c.core.control(1, "ss", {}, c.now)["sockets"][0]["send_q"] == 3


@pytest.mark.rfc("RFC 9293 MUST-41")
def test_established_listener_goes_on() -> None:
    """A second connection while the first is open."""
    c = established()
    knock(c, 99, finish=True)
    c.message(Incoming)


@pytest.mark.parametrize(
    ("kind", "code", "error"),
    [(3, 0, errno.ENETUNREACH), (3, 1, errno.EHOSTUNREACH), (3, 3, errno.ECONNREFUSED), (3, 13, errno.EHOSTUNREACH),
     (3, 2, errno.ENOPROTOOPT), (11, 0, errno.EHOSTUNREACH), (12, 0, errno.EPROTO)],
)  # fmt: skip
def test_icmp_errors_end_a_connect(isn: ISN, kind: int, code: int, error: int) -> None:
    """With Linux's errno (icmp_err_convert)."""
    c = syn_sent(**isn)
    local = c.local_port
    c.peer_port = 4711
    assert local >= 32_768
    c.icmp(kind, code, seq=0)
    c.message(Reset, errno=error)


@pytest.mark.rfc("RFC 5927 5.2-1", "RFC 5927 4.1-1")
def test_icmp_errors_do_not_end_an_open_connection(isn: ISN) -> None:
    """They are soft there, RFC 5927 5.2; and what is not in flight is not believed at all, 4.1."""
    c = established(**isn)
    c.icmp(3, 3, seq=1)
    assert c.dropped("tcp_icmp_not_in_flight") == 1
    c.write(b"x")
    c.icmp(3, 3, seq=1)
    c.no_message()
    assert c.state == "ESTABLISHED" and c.tcb()["soft_error"] == errno.ECONNREFUSED


def test_connected_reports_names() -> None:
    """Local first, as getsockname and getpeername will show them."""
    c = syn_sent()
    c.inject("SA", seq=0, ack=1)
    told = c.message(Connected)
    assert (told.local_address, told.local_port) == (OURS, c.local_port)

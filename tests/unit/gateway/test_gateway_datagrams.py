"""Datagram sockets of the gateway, with a udp core beside it: datagrams both ways, errors, restarts, snapshots."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest
from datagram_bench import GROUP, HERE, LOCAL, PEER_PORT, PORT, REMOTE, DatagramBench

from gateway.core import GatewayCore
from gateway.datagrams import QUEUE
from gateway.work import WAITING_CALLS
from levelip.frames.packet import Interface, InterfaceAddress, Routes, Way
from levelip.frames.seam import Bind, Close, Member, OpenDatagram
from levelip.rpc.messages import DatagramError, DatagramIn, SendDatagram, TookDatagrams
from levelip.wire.udp import UdpHeader

JOIN, LEAVE, IP = 35, 36, 0
MREQ = struct.pack("4s4s", GROUP, bytes(4))


@pytest.fixture
def bench() -> DatagramBench:
    return DatagramBench()


def test_a_datagram_goes_out(bench: DatagramBench) -> None:
    """sendto() on a new socket takes a port, which getsockname() shows from then on."""
    sock = bench.socket()
    bench.app.send(SendDatagram(sock, REMOTE, PEER_PORT, b"query", 77))
    assert bench.answer(77).errno == 0
    (segment,) = bench.sent()
    header = UdpHeader.parse(segment.head)
    assert (segment.src, segment.dst, header.dst_port, segment.payload) == (LOCAL, REMOTE, PEER_PORT, b"query")
    assert bench.app.ok("getsockname", sock) == {"address": bytes(4), "port": header.src_port}


def test_a_port_taken_in_passing_is_known(bench: DatagramBench) -> None:
    """The port that a datagram without an answer took is shown, too."""
    sock = bench.socket()
    bench.app.send(SendDatagram(sock, REMOTE, PEER_PORT, b"x"))
    (segment,) = bench.sent()
    assert bench.port(sock) == UdpHeader.parse(segment.head).src_port
    assert not bench.app.replies, "nobody asked"


@pytest.mark.parametrize(
    ("address", "port", "payload", "error"),
    [
        (b"", 0, b"x", errno.EDESTADDRREQ),
        (REMOTE, 0, b"x", errno.EINVAL),
        (REMOTE, 9, bytes(65_508), errno.EMSGSIZE),
        (bytes([10, 0, 0, 255]), 9, b"x", errno.EACCES),
        (b"12345", 9, b"x", errno.EAFNOSUPPORT),
        (REMOTE, 9, bytes(65_507), 0),
    ],
)
def test_sendto_says_what_is_wrong(bench: DatagramBench, address: bytes, port: int, payload: bytes, error: int) -> None:
    """A datagram that cannot be sent is answered with sendto(2)'s errno (net/ipv4/udp.c udp_sendmsg)."""
    sock = bench.socket()
    bench.app.send(SendDatagram(sock, address, port, payload, 1))
    assert bench.answer(1).errno == error
    assert len(bench.sent()) == (not error)


def test_on_a_socket_that_is_not_there(bench: DatagramBench) -> None:
    """EBADF, and a drop that is counted; likewise on another client's."""
    other = bench.client()
    sock = bench.socket()
    bench.app.send(SendDatagram(99, REMOTE, 9, b"x", 1))
    assert bench.answer(1).errno == errno.EBADF
    other.send(SendDatagram(sock, REMOTE, 9, b"x", 2))
    reply = other.reply(2)
    assert reply is not None and reply.errno == errno.EBADF
    other.send(TookDatagrams(sock, 5))
    assert bench.drops("bad_message") == 2 and bench.drops("udp_unknown") == 1
    assert other.errno("bind", sock, address=LOCAL, port=1) == errno.EBADF


def test_a_datagram_comes_in(bench: DatagramBench) -> None:
    """With all that recvmsg() tells; taking it gives its room back to udp."""
    sock = bench.socket("bound")
    bench.arrive(b"hello")
    (told,) = bench.app.take()
    assert told == DatagramIn(sock, 5 + 256, REMOTE, PEER_PORT, LOCAL, 4, 61, 1, b"hello")
    bench.app.send(TookDatagrams(sock, told.upto))
    assert bench.udp.control(1, "ss", {}, 0)["sockets"][0]["recv_q"] == 0
    assert bench.core.control(1, "ss.datagrams", {}, 0)["sockets"][0]["recv_q"] == 0


def test_more_is_taken_than_came(bench: DatagramBench) -> None:
    """A client that claims more than it was told gives back no more than that."""
    sock = bench.socket("bound")
    bench.arrive(b"hello")
    bench.app.send(TookDatagrams(sock, 1 << 40))
    bench.arrive(b"again")
    assert bench.udp.control(1, "ss", {}, 0)["sockets"][0]["recv_q"] == 261


def test_a_slow_reader_loses(bench: DatagramBench) -> None:
    """Beyond SO_RCVBUF udp drops, and counts."""
    sock = bench.socket("bound")
    bench.app.ok("setsockopt", sock, level=1, option=8, value=2304)
    for _ in range(10):
        bench.arrive(bytes(1000))
    assert len(bench.app.take()) == 3  # 4608 bytes, 1256 each
    assert bench.udp.counters["drop.udp_buffer_full"] == 7


def test_connect_filters_and_dissolves(bench: DatagramBench) -> None:
    """Only the peer is heard; after AF_UNSPEC there is none, and the port stays if bind() chose it."""
    sock, port = bench.socket(), PORT
    bench.app.ok("bind", sock, address=b"", port=port)
    bench.app.ok("connect", sock, address=REMOTE, port=PEER_PORT)
    assert bench.app.ok("getpeername", sock) == {"address": REMOTE, "port": PEER_PORT}
    bench.arrive(b"no", port=port, src_port=99)
    bench.arrive(b"yes", port=port)
    assert [one.payload for one in bench.app.take()] == [b"yes"]
    bench.app.send(SendDatagram(sock, b"", 0, b"to the peer", 5))
    assert bench.answer(5).errno == 0 and bench.sent()[-1].dst == REMOTE
    bench.app.ok("connect", sock, address=b"", port=0)
    assert bench.app.errno("getpeername", sock) == errno.ENOTCONN
    assert bench.app.ok("getsockname", sock) == {"address": bytes(4), "port": port}
    bench.arrive(b"anybody", port=port, src_port=99)
    assert [one.payload for one in bench.app.take()] == [b"anybody"]


def test_port_unreachable(bench: DatagramBench) -> None:
    """A connected socket hears of it, by SO_ERROR once; one that is not connected does not (Linux), unless it said
    IP_RECVERR (RFC 1122 4.1.3.3)."""
    sock, loose = bench.socket("connected"), bench.socket("bound")
    bench.icmp(sock, 3, 3)
    (told,) = bench.app.take()
    assert (type(told), told.errno, told.icmp_code) == (DatagramError, errno.ECONNREFUSED, 3)
    assert bench.app.ok("getsockopt", sock, level=1, option=4)["value"] == struct.pack("=i", errno.ECONNREFUSED)
    assert bench.app.ok("getsockopt", sock, level=1, option=4)["value"] == bytes(4)
    bench.icmp(loose, 3, 3)
    assert bench.app.take() == []
    bench.app.ok("setsockopt", loose, level=IP, option=11, value=1)
    bench.icmp(loose, 3, 3)
    assert len(bench.app.take()) == 1


def test_a_soft_error_is_no_error(bench: DatagramBench) -> None:
    """Host unreachable changes nothing for a connected socket (net/ipv4/udp.c __udp4_lib_err)."""
    sock = bench.socket("connected")
    bench.icmp(sock, 3, 1)
    assert bench.app.take() == []
    assert bench.app.ok("getsockopt", sock, level=1, option=4)["value"] == bytes(4)


def test_groups(bench: DatagramBench) -> None:
    """Join, hear, leave; the errnos are Linux's."""
    sock = bench.socket()
    bench.app.ok("bind", sock, address=b"", port=PORT)
    bench.app.ok("setsockopt", sock, level=IP, option=JOIN, value=MREQ)
    assert bench.app.errno("setsockopt", sock, level=IP, option=JOIN, value=MREQ) == errno.EADDRINUSE
    assert bench.app.errno("setsockopt", sock, level=IP, option=JOIN, value=struct.pack("4s4s", LOCAL, bytes(4))) == 22
    assert bench.app.errno("setsockopt", sock, level=IP, option=JOIN, value=b"short") == errno.EINVAL
    assert bench.core.control(1, "ss.datagrams", {}, 0)["sockets"][0]["groups"] == ["239.1.2.3"]
    bench.app.send(SendDatagram(sock, GROUP, PORT, b"to all"))
    (told,) = bench.app.take()  # IP_MULTICAST_LOOP
    assert (told.payload, told.local_address) == (b"to all", GROUP)
    bench.app.ok("setsockopt", sock, level=IP, option=LEAVE, value=MREQ)
    assert bench.app.errno("setsockopt", sock, level=IP, option=LEAVE, value=MREQ) == errno.EADDRNOTAVAIL
    assert bench.app.errno("setsockopt", sock, level=IP, option=LEAVE, value=bytes(8)) == errno.EADDRNOTAVAIL


def test_calls_keep_their_order(bench: DatagramBench) -> None:
    """What comes while udp settles a call waits behind it, up to a bound."""
    sock = bench.socket()
    bench.hold = True
    first = bench.app.ask("bind", sock, address=LOCAL, port=PORT)
    names = [bench.app.ask("getsockname", sock) for _ in range(WAITING_CALLS)]
    assert bench.app.errno("getsockname", sock) == errno.ENOBUFS
    assert bench.app.reply(first) is None and bench.app.reply(names[0]) is None
    bench.hold = False
    bench.flush()
    assert bench.answer(first).errno == 0
    assert {bench.answer(one).data["port"] for one in names} == {PORT}


def test_close_while_a_call_is_under_way(bench: DatagramBench) -> None:
    """The call and those behind it fail with EBADF; udp's late answer changes nothing."""
    sock = bench.socket()
    bench.hold = True
    first, second = bench.app.ask("bind", sock, address=LOCAL, port=PORT), bench.app.ask("getsockname", sock)
    bench.app.ok("close", sock)
    assert [bench.answer(one).errno for one in (first, second)] == [errno.EBADF] * 2
    bench.hold = False
    bench.flush()
    assert not bench.core._state.asked and not bench.udp.control(1, "ss", {}, 0)["sockets"]


def test_a_client_that_dies_closes(bench: DatagramBench) -> None:
    """Its sockets are gone at udp, too."""
    sock = bench.socket("bound")
    bench.to_udp.clear()
    bench.lose(bench.app)
    assert bench.to_udp == [Close(sock)]
    assert not bench.core._state.datagrams


def test_udp_does_not_come(bench: DatagramBench) -> None:
    """A call that waits for udp fails with ENETDOWN in the end, and what waited behind it goes on; close() ends it."""
    first, second = bench.socket(), bench.socket()
    bench.udp_down()
    binds = [bench.app.ask("bind", sock, address=LOCAL, port=9) for sock in (first, second)]
    name = bench.app.ask("getsockname", first)
    bench.advance(9_999)
    assert bench.app.replies == {}
    bench.app.ok("close", second)
    assert bench.answer(binds[1]).errno == errno.EBADF
    bench.advance(1)
    assert bench.answer(binds[0]).errno == errno.ENETDOWN and bench.answer(name).data["port"] == 0
    bench.udp_up()
    bench.app.ok("bind", first, address=LOCAL, port=9)
    (session,) = bench.core._state.sessions.values()
    assert session.calls == 0


def test_udp_is_restarted(bench: DatagramBench) -> None:
    """Sockets are made anew with port, peer, options and groups; a call meanwhile waits for udp."""
    bound, connected = bench.socket("bound"), bench.socket("connected")
    port = bench.port(connected)
    bench.app.ok("setsockopt", bound, level=1, option=6, value=1)
    bench.app.ok("setsockopt", bound, level=IP, option=JOIN, value=MREQ)
    bench.udp_down()
    late = bench.socket()
    asked = bench.app.ask("bind", late, address=LOCAL, port=9), bench.app.ask("getsockname", late)
    assert bench.app.replies == {}
    bench.app.send(SendDatagram(bound, REMOTE, 9, b"lost", 3))
    assert bench.answer(3).errno == errno.ENETDOWN and bench.drops("udp_down") == 1
    assert bench.app.ok("getsockname", bound)["port"] == PORT
    bench.to_udp.clear()
    bench.udp_up()
    assert [bench.answer(number).data["port"] for number in asked] == [9, 9]
    kinds = [type(frame) for frame in bench.to_udp if getattr(frame, "sock", 0) == bound]
    assert set(kinds) == {OpenDatagram, Bind, Member}
    bench.arrive(b"one")
    bench.arrive(b"two", port=port)
    assert [one.payload for one in bench.app.take()] == [b"one", b"two"]
    assert bench.app.ok("getpeername", connected) == {"address": REMOTE, "port": PEER_PORT}
    bench.app.send(SendDatagram(bound, bytes([10, 0, 0, 255]), 9, b"to all", 4))
    assert bench.answer(4).errno == 0


def test_udp_dies_in_a_call(bench: DatagramBench) -> None:
    """The call fails with ENETDOWN, the one behind it is carried out."""
    sock = bench.socket()
    bench.hold = True
    first, second = bench.app.ask("bind", sock, address=LOCAL, port=PORT), bench.app.ask("getsockname", sock)
    bench.udp_down()
    assert bench.answer(first).errno == errno.ENETDOWN
    assert bench.answer(second).errno == 0


def test_udp_is_far_behind(bench: DatagramBench) -> None:
    """A full queue toward udp drops, counts, and says ENOBUFS to who asks."""
    sock = bench.socket("bound")
    bench.hold = True
    for _ in range(QUEUE + 3):
        bench.app.send(SendDatagram(sock, REMOTE, 9, b"x"))
    bench.app.send(SendDatagram(sock, REMOTE, 9, b"x", 1))
    assert bench.answer(1).errno == errno.ENOBUFS
    assert bench.drops("udp_down") == 4


def test_a_client_comes_back(bench: DatagramBench) -> None:
    """While its connection is gone datagrams are lost and give their room back; its sockets are what they were."""
    sock = bench.socket("bound")
    bench.lose(bench.app, dead=False)
    bench.arrive(b"lost")
    assert bench.udp.control(1, "ss", {}, 0)["sockets"][0]["recv_q"] == 0
    bench.app.hello(token=bench.app.token)
    bench.arrive(b"heard")
    assert [one.payload for one in bench.app.take() if isinstance(one, DatagramIn)] == [b"heard"]
    assert bench.port(sock) == PORT


def test_loopback_and_any(bench: DatagramBench) -> None:
    """0.0.0.0 as a destination is this host (Linux)."""
    sock = bench.socket()
    bench.app.send(SendDatagram(sock, bytes(4), 9, b"x", 1))
    assert bench.answer(1).errno == 0
    assert [(one.src, one.dst) for one in bench.sent()] == [(HERE, HERE)]
    assert bench.app.ok("connect", sock, address=bytes(4), port=9)["remote_address"] == HERE
    assert bench.app.ok("getpeername", sock) == {"address": HERE, "port": 9}
    bound = bench.socket()
    bench.app.ok("bind", bound, address=LOCAL, port=0)
    assert bench.app.ok("connect", bound, address=bytes(4), port=9)["remote_address"] == LOCAL


@pytest.mark.parametrize("cut", range(12))
def test_snapshot_in_mid_run(cut: int) -> None:
    """A core restored at any point says what the one that went on says."""
    whole, halved = _run(-1), _run(cut)
    assert halved == whole


def _run(cut: int) -> list[Any]:
    bench = DatagramBench()
    said: list[Any] = []

    def bind() -> None:
        bench.app.ask("bind", sock, address=LOCAL, port=PORT)
        bench.app.ask("getsockname", sock)

    def hold() -> None:
        bench.hold = not bench.hold
        bench.flush()

    sock = bench.socket()
    steps: list[Any] = [
        hold, bind, lambda: bench.app.send(SendDatagram(sock, REMOTE, 9, b"a", 50)), hold,
        lambda: bench.app.ask("setsockopt", sock, level=IP, option=JOIN, value=MREQ),
        lambda: bench.arrive(b"hello"), lambda: bench.app.ask("connect", sock, address=REMOTE, port=PEER_PORT),
        lambda: bench.icmp(sock, 3, 3), bench.udp_down, bench.udp_up,
        lambda: bench.app.send(TookDatagrams(sock, 300)), lambda: bench.app.ask("close", sock),
    ]  # fmt: skip
    for number, step in enumerate(steps):
        if number == cut:
            data = bench.core.snapshot()
            bench.core = GatewayCore.restore(bench.config, data)
            assert bench.core.snapshot() == data
        step()
        said += [*bench.app.take(), *bench.app.replies.values(), *bench.to_udp]
        bench.app.replies.clear()
        bench.to_udp.clear()
    return said


def test_interfaces(bench: DatagramBench) -> None:
    """udp tells what it knows of interfaces and routes; without udp that is ENETDOWN, at once and for who waits."""
    device: list[Any] = [1, "lvl", "tap", True, 1500, b"\2\0\0\0\0\1", [[LOCAL, 24, b""]]]
    told = Interface(*device[:6], [InterfaceAddress(LOCAL, 24, b"")])
    bench.udp.receive(Routes([], [LOCAL], [told], [Way(LOCAL, 32, "local", b"", LOCAL, 0, 2)]), 0)
    assert bench.app.ok("interfaces") == {
        "interfaces": [device], "routes": [[LOCAL, 32, "local", b"", LOCAL, 0, 2]],
    }  # fmt: skip
    bench.hold = True
    number = bench.app.ask("interfaces")
    bench.udp_down()
    assert bench.answer(number).errno == errno.ENETDOWN
    bench.hold = False
    assert bench.app.errno("interfaces") == errno.ENETDOWN


# ICMP sockets, path MTU, the error queue

ECHO = bytes([8, 0, 0, 0, 0, 0, 0, 3]) + b"are you there"


def test_an_icmp_socket(bench: DatagramBench) -> None:
    """socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP): bind chooses the identifier, sendto says what may not be sent,
    SO_PROTOCOL and `lvlip ss` say what it is; it comes back after a restart of udp."""
    sock = bench.app.ok("socket", type=2, proto=1)["sock"]
    assert bench.app.ok("bind", sock, address=b"", port=77)["port"] == 77
    for option in (2, 38):  # SO_REUSEADDR, which is on as in Linux, and SO_PROTOCOL
        assert bench.app.ok("getsockopt", sock, level=1, option=option)["value"] == (1).to_bytes(4, "little")
    assert bench.core.control(0, "ss.datagrams", {}, 0)["sockets"][0]["proto"] == "icmp"
    bench.app.send(SendDatagram(sock, REMOTE, 0, ECHO, 5))
    bench.app.send(SendDatagram(sock, REMOTE, 0, b"\0" + ECHO[1:], 6))
    assert (bench.answer(5).errno, bench.answer(6).errno) == (0, errno.EINVAL)
    (segment,) = bench.sent()
    assert (segment.proto, segment.head[4:6]) == (1, (77).to_bytes(2, "big"))
    assert bench.app.ok("connect", sock, address=REMOTE, port=0)
    bench.udp_down()
    bench.udp_up()
    bench.app.send(SendDatagram(sock, b"", 0, ECHO, 7))
    assert bench.answer(7).errno == 0 and bench.sent()[0].dst == REMOTE
    assert bench.app.errno("socket", type=2, proto=2) == errno.EPROTONOSUPPORT


def test_ip_mtu(bench: DatagramBench) -> None:
    """What fits on the way to the peer; ENOTCONN without one; it cannot be set (RFC 8085 3.2)."""
    sock = bench.socket()
    ask = {"level": IP, "option": 14}
    assert bench.app.errno("getsockopt", sock, **ask) == errno.ENOTCONN
    sock = bench.socket("connected")
    assert bench.app.ok("getsockopt", sock, **ask)["value"] == (1500).to_bytes(4, "little")
    bench.icmp(sock, 3, 4, mtu=1000)
    assert bench.app.ok("getsockopt", sock, **ask)["value"] == (1000).to_bytes(4, "little")
    assert bench.app.errno("setsockopt", sock, **ask, value=1400) == errno.ENOPROTOOPT


def test_an_error_brings_its_quote_where_it_is_wanted(bench: DatagramBench) -> None:
    """With IP_RECVERR; SO_ERROR has the errno either way, but not of our own verdict, which the call has told."""
    sock = bench.socket("connected")
    for value, quote in ((0, b""), (1, b"what was sent")):
        bench.app.ok("setsockopt", sock, level=IP, option=11, value=value)
        bench.icmp(sock, 3, 3, quote=b"what was sent")
        (error,) = [one for one in bench.app.take() if isinstance(one, DatagramError)]
        assert (error.errno, error.icmp_type, error.payload) == (errno.ECONNREFUSED, 3, quote)
        assert bench.app.ok("getsockopt", sock, level=1, option=4)["value"][0] == errno.ECONNREFUSED
    bench.app.ok("setsockopt", sock, level=IP, option=10, value=2)
    bench.app.send(SendDatagram(sock, b"", 0, bytes(1473), 8))
    assert bench.answer(8).errno == errno.EMSGSIZE
    (error,) = [one for one in bench.app.take() if isinstance(one, DatagramError)]
    assert (error.errno, error.icmp_type, error.mtu, error.payload) == (errno.EMSGSIZE, -1, 1500, b"")
    assert bench.app.ok("getsockopt", sock, level=1, option=4)["value"] == bytes(4)


ROUTE = bytes.fromhex("01070b04") + bytes(8)
ALERT = bytes.fromhex("94040000")
IP_OPTIONS, SO_TIMESTAMP, SO_TIMESTAMPNS = 4, 29, 35


@pytest.mark.rfc("RFC 1122 4.1.3.2-2")
@pytest.mark.rfc("RFC 1122 4.1.3.2-3")
def test_ip_options_go_with_each_datagram(bench: DatagramBench) -> None:
    """Those of the socket, or of the datagram itself (IP_RETOPTS), none if it says so; after a restart of udp, too."""
    sock = bench.socket()
    bench.app.ok("setsockopt", sock, level=IP, option=IP_OPTIONS, value=ROUTE)
    assert bench.app.ok("getsockopt", sock, level=IP, option=IP_OPTIONS)["value"] == ROUTE
    for own, sent in ((None, ROUTE), (ALERT, ALERT), (b"", b"")):
        bench.app.send(SendDatagram(sock, REMOTE, PEER_PORT, b"x", ip_options=own))
        assert [one.options for one in bench.sent()] == [sent]
    bench.udp_down()
    bench.udp_up()
    bench.app.send(SendDatagram(sock, REMOTE, PEER_PORT, b"x"))
    assert [one.options for one in bench.sent()] == [ROUTE]
    bench.app.ok("setsockopt", sock, level=IP, option=IP_OPTIONS, value=b"")
    bench.app.send(SendDatagram(sock, REMOTE, PEER_PORT, b"x"))
    assert [one.options for one in bench.sent()] == [b""]


def test_options_of_a_datagram_that_are_none(bench: DatagramBench) -> None:
    """EINVAL, and nothing is sent; what fits without options but not with them is EMSGSIZE."""
    sock = bench.socket()
    bench.app.send(SendDatagram(sock, REMOTE, PEER_PORT, b"x", 1, ip_options=b"\7\3\3"))
    assert bench.answer(1).errno == errno.EINVAL
    bench.app.send(SendDatagram(sock, REMOTE, PEER_PORT, bytes(65_507), 2, ip_options=ALERT))
    assert bench.answer(2).errno == errno.EMSGSIZE
    assert bench.sent() == []


@pytest.mark.rfc("RFC 1122 4.1.3.2-1")
def test_what_is_told_of_a_datagram(bench: DatagramBench) -> None:
    """Its IP options, unchanged; how long it has been in the stack; how many had no room before it."""
    sock = bench.socket("bound")
    bench.app.ok("setsockopt", sock, level=1, option=8, value=0)
    bench.arrive(b"x" * 1500, options=ROUTE, age=1500)
    bench.arrive(b"x" * 1500)
    (one,) = (said for said in bench.app.take() if isinstance(said, DatagramIn))
    assert (one.ip_options, one.age, one.drops) == (ROUTE, 1500, 0)
    bench.app.send(TookDatagrams(sock, one.upto))
    bench.arrive(b"x")
    assert [said.drops for said in bench.app.take() if isinstance(said, DatagramIn)] == [1]


def test_one_of_two_timestamps(bench: DatagramBench) -> None:
    """SO_TIMESTAMP puts SO_TIMESTAMPNS off, and the other way round (net/core/sock.c sock_set_timestamp)."""
    sock = bench.socket()
    for option, other in ((SO_TIMESTAMP, SO_TIMESTAMPNS), (SO_TIMESTAMPNS, SO_TIMESTAMP)):
        bench.app.ok("setsockopt", sock, level=1, option=option, value=1)
        values = [bench.app.ok("getsockopt", sock, level=1, option=one)["value"] for one in (option, other)]
        assert values == [struct.pack("=i", 1), bytes(4)]

"""UDP as a calculator: which socket gets a datagram, what leaves, what is refused and why (RFC 768, RFC 1122 4.1)."""

from __future__ import annotations

import errno
from typing import Any

import msgspec
import pytest

from layers.udp.core import UdpCore
from layers.udp.path_mtu import KNOWN, PathMtus
from levelip.frames.core import ControlError
from levelip.frames.packet import (
    BROADCAST,
    Checksum,
    Groups,
    Interface,
    InterfaceAddress,
    PathMtu,
    Process,
    Refused,
    Routes,
    Segment,
    Way,
)
from levelip.frames.seam import (
    Bind,
    Close,
    Datagram,
    Failed,
    GetInfo,
    Member,
    NeighbourDown,
    NeighbourUp,
    OpenDatagram,
    Released,
    Result,
    SendTo,
    SetOption,
    Took,
)
from levelip.rpc.place import Place
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from tests.unit.udp.udp_host import GROUP, LOOPBACK, OTHER, OURS, ROUTES, THEIRS, UdpHost, datagram, icmp_error


@pytest.fixture
def host() -> UdpHost:
    return UdpHost()


def drops(host: UdpHost) -> dict[str, int]:
    return {name.removeprefix("drop."): count for name, count in host.core.counters.items() if name.startswith("drop.")}


def received(host: UdpHost) -> list[Datagram]:
    return [one for one in host.out("gateway") if isinstance(one, Datagram)]


def sent(host: UdpHost) -> Segment:
    (segment,) = [one for one in host.out("ip") if isinstance(one, Segment)]
    return segment


# receiving


@pytest.mark.rfc("RFC 768 fields-1", "RFC 768 interface-2", "RFC 8085 3.1.7-1")
@pytest.mark.rfc("RFC 1122 4.1.3.5-1", "RFC 1122 4.1.4-2", "RFC 1122 3.4-2")
def test_a_datagram_reaches_its_socket_with_all_that_recvmsg_tells(host: UdpHost) -> None:
    """Source, destination, TTL, TOS and interface (RFC 1122 4.1.3.5 wants the destination to be had)."""
    host.socket(1, port=53)
    host.feed(datagram(b"hello", 53))
    (got,) = received(host)
    assert (got.sock, got.address, got.port, got.local_address) == (1, THEIRS, 4000, OURS)
    assert (got.payload, got.tos, got.ttl, got.iface) == (b"hello", 0x10, 61, 1)


@pytest.mark.rfc("RFC 768 fields-3")
def test_an_empty_datagram_is_one(host: UdpHost) -> None:
    """RFC 768: the least length is eight."""
    host.socket(1, port=53)
    host.feed(datagram(b"", 53))
    assert [one.payload for one in received(host)] == [b""]


@pytest.mark.rfc("RFC 768 fields-3", "RFC 1122 4.1.3.4-1", "RFC 1122 4.1.3.4-2")
@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (datagram(b"hello", 53, checksum=1), "udp_checksum"),
        (datagram(b"hello", 53, length=7), "udp_malformed"),
        (datagram(b"hello", 53, length=14), "udp_malformed"),
        (msgspec.structs.replace(datagram(b"", 53), head=b"\0\0\0\x35\0\x08\0"), "udp_malformed"),
        (msgspec.structs.replace(datagram(b"", 53), payload=Place("pool", 0, 9, 0, 9, 1)), "udp_not_inline"),
    ],
)
def test_what_is_wrong_goes_in_silence(host: UdpHost, made: Segment, reason: str) -> None:
    """RFC 1122 4.1.3.4: a wrong checksum is discarded silently; no ICMP for what cannot be read either."""
    host.socket(1, port=53)
    host.feed(made)
    assert drops(host) == {reason: 1}
    assert host.out("gateway") == host.out("ip") == []


@pytest.mark.rfc("RFC 768 checksum-3")
def test_no_checksum_is_none_to_verify(host: UdpHost) -> None:
    """RFC 768: zero means that the sender generated none."""
    host.socket(1, port=53)
    host.feed(datagram(b"hello", 53, checksum=0))
    assert len(received(host)) == 1


@pytest.mark.rfc("RFC 768 fields-3")
def test_padding_behind_the_length_is_cut(host: UdpHost) -> None:
    """The header's length counts, not the packet's."""
    host.socket(1, port=53)
    host.feed(datagram(b"hellopad", 53, length=13, checksum=0))
    assert received(host)[0].payload == b"hello"


@pytest.mark.rfc("RFC 1122 4.1.3.1-1", "RFC 792 3-2", "RFC 1122 3.4-4")
def test_nobody_there_is_said_by_icmp(host: UdpHost) -> None:
    """RFC 1122 4.1.3.1: port unreachable, with the packet's own header and bytes to quote."""
    host.feed(datagram(b"x" * 600, 54))
    (refused,) = host.out("ip")
    assert refused == Refused(5, 3, 3, b"E" + bytes(19), datagram(b"x" * 600, 54).head + b"x" * 540)
    assert drops(host) == {"udp_no_port": 1}


def test_never_for_a_broadcast(host: UdpHost) -> None:
    """RFC 1122 3.2.2: no error about a datagram to a broadcast or multicast address."""
    host.feed(datagram(b"x", 54, dst=GROUP, flags=BROADCAST))
    assert host.out("ip") == []
    assert drops(host) == {"udp_no_port": 1}


@pytest.mark.rfc("RFC 768 fields-2")
def test_who_knows_most_of_it_gets_it(host: UdpHost) -> None:
    """Linux's order: connected and bound to the address, connected, bound, any."""
    host.socket(1, port=53, reuse_address=1)
    host.socket(2, port=53, address=OURS, reuse_address=1)
    host.socket(3, port=53, reuse_address=1)
    host.connect(3, THEIRS, 4000)
    for sport, sock in ((4000, 3), (4001, 2)):
        host.feed(datagram(b"", 53, sport=sport))
        assert [one.sock for one in received(host)] == [sock]
    host.feed(datagram(b"", 53, dst=LOOPBACK, src=LOOPBACK))
    assert [one.sock for one in received(host)] == [1]


@pytest.mark.rfc("RFC 8085 5.1-4")
def test_a_connected_socket_hears_nobody_else(host: UdpHost) -> None:
    """And the others are told that nobody is there."""
    host.socket(1, port=53)
    host.connect(1, THEIRS, 4000)
    host.feed(datagram(b"", 53, src=OTHER))
    assert isinstance(host.out("ip")[0], Refused)


def test_reuse_port_shares_by_four_tuple(host: UdpHost) -> None:
    """The same peer meets the same socket; many peers meet all."""
    for sock in (1, 2, 3):
        host.socket(sock, port=53, reuse_port=1)
    chosen = {}
    for _ in range(2):
        for sport in range(4000, 4030):
            host.feed(datagram(b"", 53, sport=sport))
            (got,) = received(host)
            assert chosen.setdefault(sport, got.sock) == got.sock
    assert set(chosen.values()) == {1, 2, 3}


def test_a_full_buffer_drops_and_counts(host: UdpHost) -> None:
    """SO_RCVBUF bounds what waits, at 256 bytes a datagram beside its payload; Took gives room back."""
    host.socket(1, port=53, rcvbuf=2304)
    for _ in range(4):
        host.feed(datagram(bytes(512), 53))
    got = received(host)
    assert len(got) == 3
    assert drops(host) == {"udp_buffer_full": 1}
    host.feed(Took(1, got[0].upto))
    host.feed(datagram(bytes(512), 53))
    assert len(received(host)) == 1
    (row,) = host.core.control(0, "ss", {}, 0)["sockets"]
    assert (row["recv_q"], row["drops"]) == (3 * 768, 1)


def test_one_datagram_always_has_room(host: UdpHost) -> None:
    """Be it larger than the whole buffer."""
    host.socket(1, port=53, rcvbuf=2304)
    host.feed(datagram(bytes(9000), 53))
    assert len(received(host)) == 1


# groups and broadcasts


def test_a_group_reaches_every_socket_that_is_bound_so(host: UdpHost) -> None:
    """RFC 1112 7.2; one that is bound to an address of ours gets none."""
    host.socket(1, port=53, reuse_address=1)
    host.socket(2, port=53, address=GROUP, reuse_address=1)
    host.socket(3, port=53, address=OURS, reuse_address=1)
    host.feed(datagram(b"", 53, dst=GROUP, flags=BROADCAST))
    assert [one.sock for one in received(host)] == [1, 2]


def test_multicast_all_off_wants_its_own_membership(host: UdpHost) -> None:
    """ip(7) IP_MULTICAST_ALL."""
    host.socket(1, port=53, multicast_all=0)
    host.feed(datagram(b"", 53, dst=GROUP, flags=BROADCAST))
    assert received(host) == []
    assert host.call(Member(1, 1, GROUP, True)).errno == 0
    host.feed(datagram(b"", 53, dst=GROUP, flags=BROADCAST))
    assert len(received(host)) == 1


@pytest.mark.rfc("RFC 1122 4.1.4-3")
def test_ip_hears_of_the_groups(host: UdpHost) -> None:
    """All of them each time; the last socket's end leaves them."""
    host.socket(1)
    host.socket(2)
    assert host.call(Member(1, 1, GROUP, True)).errno == 0
    assert host.call(Member(1, 2, GROUP, True)).errno == 0
    assert host.out("ip")[-1] == Groups([GROUP])
    assert host.call(Member(1, 1, GROUP, False)).errno == 0
    assert host.out("ip") == [Groups([GROUP])]
    host.feed(Close(2))
    assert host.out("gateway") == [Released(2)]
    assert host.out("ip") == [Groups([])]


@pytest.mark.parametrize(
    ("group", "join", "number"),
    [(THEIRS, True, errno.EINVAL), (GROUP, False, errno.EADDRNOTAVAIL), (GROUP, True, errno.EADDRINUSE)],
)
def test_memberships_that_cannot_be(host: UdpHost, group: bytes, join: bool, number: int) -> None:
    """Linux's errnos; the third has joined it already."""
    host.socket(1)
    if number == errno.EADDRINUSE:
        host.call(Member(1, 1, group, True))
    assert host.call(Member(1, 1, group, join)).errno == number


def test_what_we_send_to_our_group_comes_back(host: UdpHost) -> None:
    """IP_MULTICAST_LOOP, on unless it is switched off."""
    host.socket(1, port=53)
    host.call(Member(1, 1, GROUP, True))
    host.feed(SendTo(0, 1, GROUP, 53, b"hi"))
    assert [one.payload for one in received(host)] == [b"hi"]
    host.feed(SetOption(1, "multicast_loop", 0))
    host.feed(SendTo(0, 1, GROUP, 53, b"hi"))
    assert received(host) == []


# sending


@pytest.mark.rfc("RFC 768 fields-1", "RFC 768 checksum-1", "RFC 768 ip-1", "RFC 768 protocol-1")
@pytest.mark.rfc("RFC 1122 4.1.3.4-1", "RFC 1122 4.1.3.4-4", "RFC 8085 3.4-1", "RFC 8085 5.1-1")
def test_sent_as_rfc_768_draws_it(host: UdpHost) -> None:
    """Ports, length, a checksum over the pseudo header; an unbound socket gets an ephemeral port; DF is set."""
    host.socket(1, tos=8, ttl=9)
    answer = host.send(1, b"hello", THEIRS, 4000)
    segment = sent(host)
    port = answer.data["port"]
    assert 32_768 <= port <= 60_999
    assert segment.head[:6] == port.to_bytes(2, "big") + b"\x0f\xa0\x00\x0d"
    data = segment.head + segment.payload  # type: ignore[operator]
    assert internet_checksum(data, pseudo_header_sum(OURS, THEIRS, 17, 13)) == 0
    assert (segment.src, segment.dst, segment.tos, segment.ttl, segment.proto) == (OURS, THEIRS, 8, 9, 17)
    assert segment.dont_fragment and segment.checksum == Checksum.NONE
    assert host.send(1, b"again", THEIRS, 4000).data["port"] == port


@pytest.mark.rfc("RFC 768 checksum-2")
def test_a_checksum_of_zero_is_sent_as_ones(host: UdpHost) -> None:
    """RFC 768: zero would mean none. One payload in 65,536 has that sum; the last word is chosen so."""
    port = host.socket(1, port=5000)
    head = port.to_bytes(2, "big") + b"\x0f\xa0\x00\x0a\0\0"
    word = internet_checksum(head, pseudo_header_sum(OURS, THEIRS, 17, 10))
    host.send(1, word.to_bytes(2, "big"), THEIRS, 4000)
    assert sent(host).head[6:] == b"\xff\xff"


@pytest.mark.rfc("RFC 1122 4.1.3.4-3")
def test_no_check_sends_none(host: UdpHost) -> None:
    """SO_NO_CHECK."""
    host.socket(1, no_check=1)
    host.send(1, b"hello", THEIRS, 4000)
    assert sent(host).head[6:] == b"\0\0"


def test_too_long_for_the_path_is_left_to_ip_or_refused(host: UdpHost) -> None:
    """IP_PMTUDISC_WANT lets ip cut it; DO says EMSGSIZE (RFC 1122 4.1.3 and ip(7))."""
    host.socket(1)
    host.send(1, bytes(1473), THEIRS, 4000)
    assert not sent(host).dont_fragment
    host.feed(SetOption(1, "mtu_discover", 2))
    assert host.send(1, bytes(1472), THEIRS, 4000).errno == 0
    assert host.send(1, bytes(1473), THEIRS, 4000).errno == errno.EMSGSIZE


@pytest.mark.parametrize(
    ("address", "port", "size", "number"),
    [
        (b"", 0, 1, errno.EDESTADDRREQ),
        (THEIRS, 0, 1, errno.EINVAL),
        (THEIRS, 1, 65_508, errno.EMSGSIZE),
        (b"\x08\x08\x08\x08", 1, 1, errno.ENETUNREACH),
        (b"\xc6\x33\x64\x01", 1, 1, errno.EHOSTUNREACH),
        (b"\xff\xff\xff\xff", 1, 1, errno.EACCES),
        (b"\x0a\0\0\xff", 1, 1, errno.EACCES),
    ],
)
def test_what_cannot_be_sent(host: UdpHost, address: bytes, port: int, size: int, number: int) -> None:
    """sendto(2)'s errnos; nothing leaves, and a call that wants no answer is counted all the same."""
    host.socket(1)
    assert host.send(1, bytes(size), address, port).errno == number
    host.feed(SendTo(0, 1, address, port, bytes(size)))
    assert host.out("ip") == host.out("gateway") == []
    assert host.core.counters["send_errors"] == 2


@pytest.mark.rfc("RFC 1122 4.1.4-3")
def test_broadcast_by_so_broadcast(host: UdpHost) -> None:
    """RFC 1122 4.1.4 and socket(7)."""
    host.socket(1, broadcast=1)
    host.send(1, b"x", b"\x0a\0\0\xff", 9)
    assert sent(host).flags == BROADCAST


def test_the_queue_to_ip_is_bounded() -> None:
    """ENOBUFS, a drop that is counted."""
    host = UdpHost(queue=2)
    host.socket(1)
    for _ in range(2):
        host.feed(SendTo(0, 1, THEIRS, 1, b""))
    host.feed(SendTo(1, 1, THEIRS, 1, b""))
    assert [one.errno for one in host.out("gateway")] == [errno.ENOBUFS]
    assert drops(host) == {"udp_queue_full": 1}


# bind and connect


@pytest.mark.parametrize(
    ("first", "second", "number"),
    [
        ({"port": 53}, {"port": 53}, errno.EADDRINUSE),
        ({"port": 53, "address": OURS}, {"port": 53, "address": LOOPBACK}, 0),
        ({"port": 53}, {"port": 53, "address": OURS}, errno.EADDRINUSE),
        ({"port": 53, "reuse_address": 1}, {"port": 53, "reuse_address": 1}, 0),
        ({"port": 53, "reuse_address": 1}, {"port": 53}, errno.EADDRINUSE),
        ({"port": 53, "reuse_port": 1}, {"port": 53, "reuse_port": 1}, 0),
    ],
)
def test_ports_conflict_as_in_linux(host: UdpHost, first: dict[str, Any], second: dict[str, Any], number: int) -> None:
    """udp_lib_lport_inuse: overlapping addresses, unless both said SO_REUSEADDR or both SO_REUSEPORT."""
    host.socket(1, **first)
    host.socket(2)
    reuse = {name: bool(second.get(name)) for name in ("reuse_address", "reuse_port")}
    assert host.call(Bind(1, 2, second.get("address", b""), 53, **reuse)).errno == number


@pytest.mark.rfc("RFC 1122 4.1.3.6-2")
def test_bind_to_what_is_not_ours(host: UdpHost) -> None:
    """EADDRNOTAVAIL."""
    host.socket(1)
    assert host.call(Bind(1, 1, THEIRS, 53)).errno == errno.EADDRNOTAVAIL


def test_all_ports_taken() -> None:
    """bind(0) says EADDRINUSE, sendto EAGAIN, as Linux."""
    host = UdpHost(port_first=7000, port_last=7001)
    for sock in (1, 2):
        host.socket(sock, address=OURS)
    host.socket(3)
    assert host.call(Bind(1, 3, b"", 0)).errno == errno.EADDRINUSE
    assert host.send(3, b"", THEIRS, 1).errno == errno.EAGAIN


@pytest.mark.rfc("RFC 1122 4.1.3.5-3", "RFC 1122 4.1.3.5-4")
def test_connect_chooses_the_source_and_can_be_undone(host: UdpHost) -> None:
    """connect(2): a peer, an address of ours; AF_UNSPEC dissolves it."""
    host.socket(1)
    assert host.connect(1, THEIRS, 4000).data["address"] == OURS
    assert host.send(1, b"x").errno == 0
    assert sent(host).dst == THEIRS
    assert host.connect(1, b"", 0).errno == 0
    assert host.send(1, b"x").errno == errno.EDESTADDRREQ
    assert host.connect(1, b"\x08\x08\x08\x08", 1).errno == errno.ENETUNREACH


def test_a_socket_that_is_not_there(host: UdpHost) -> None:
    """EBADF where an answer is waited for, a counted drop where none is."""
    assert host.send(9, b"x", THEIRS, 1).errno == errno.EBADF
    for frame in (SendTo(0, 9, THEIRS, 1, b""), Took(9, 1), SetOption(9, "tos", 1)):
        host.feed(frame)
    assert drops(host) == {"udp_unknown_socket": 4}


def test_sockets_are_bounded() -> None:
    """udp.sockets; calls on one that did not come to be are answered with EBADF."""
    host = UdpHost(sockets=1)
    host.socket(1)
    host.feed(OpenDatagram(2, 17))
    assert drops(host) == {"udp_no_sockets": 1}
    assert host.send(2, b"", THEIRS, 1).errno == errno.EBADF


# errors from the network


@pytest.mark.rfc("RFC 1122 4.1.3.3-1")
@pytest.mark.parametrize(
    ("kind", "code", "number", "hard"),
    [
        (3, 0, errno.ENETUNREACH, False),
        (3, 1, errno.EHOSTUNREACH, False),
        (3, 2, errno.ENOPROTOOPT, True),
        (3, 3, errno.ECONNREFUSED, True),
        (3, 4, errno.EMSGSIZE, True),
        (3, 13, errno.EHOSTUNREACH, False),
        (11, 0, errno.EHOSTUNREACH, False),
        (12, 0, errno.EPROTO, True),
    ],
)
def test_an_error_reaches_the_socket_that_sent(host: UdpHost, kind: int, code: int, number: int, hard: bool) -> None:
    """RFC 1122 4.1.3.3; errnos and which of them are hard as Linux's icmp_err_convert."""
    port = host.socket(1, port=5000)
    host.feed(icmp_error(kind, code, port=port, mtu=1400))
    (told,) = host.out("gateway")
    assert told == Failed(1, number, kind, code, b"\x0a\0\0\xfe", THEIRS, 4000, 1400, hard, told.id, [9])
    assert told.id >> 60 == Process.UDP


@pytest.mark.rfc("RFC 8085 5.2-1")
def test_an_error_about_nothing_of_ours(host: UdpHost) -> None:
    """No such port, or connected elsewhere."""
    host.socket(1, port=5000)
    host.connect(1, OTHER, 1)
    host.out("gateway")
    for port in (5000, 5001):
        host.feed(icmp_error(3, 3, port=port))
    assert host.out("gateway") == []
    assert drops(host) == {"udp_icmp_stray": 2}


# the rest of the verbs


def test_another_gateway_knows_none_of_the_sockets(host: UdpHost) -> None:
    """Ports and groups are free again."""
    host.socket(1, port=53)
    host.call(Member(1, 1, GROUP, True))
    host.out("ip")
    host.feed(NeighbourUp("gateway", 1))
    assert len(host.core.control(0, "ss", {}, 0)["sockets"]) == 1
    host.feed(NeighbourUp("gateway", 2))
    assert host.core.control(0, "ss", {}, 0)["sockets"] == []
    assert host.out("ip") == [Groups([])]
    host.socket(1, port=53)


def test_a_new_ip_hears_of_the_groups(host: UdpHost) -> None:
    """What waited for the old one is lost, and counted."""
    host.socket(1)
    host.call(Member(1, 1, GROUP, True))
    host.out("ip")
    host.feed(SendTo(0, 1, THEIRS, 1, b""))
    host.feed(NeighbourDown("ip"))
    host.feed(NeighbourUp("ip", 2))
    assert host.out("ip") == [Groups([GROUP])]
    assert drops(host) == {"neighbour_down": 1}


def test_room_is_respected(host: UdpHost) -> None:
    """What there is no room for stays, in order."""
    host.socket(1, port=53)
    for letter in (b"a", b"b", b"c"):
        host.feed(datagram(letter, 53))
    first = host.core.outgoing({"gateway": 2, "ip": 0})
    rest = host.core.outgoing({"gateway": 2, "ip": 0})
    assert [frame.payload for _, frame in first + rest] == [b"a", b"b", b"c"]


def test_restored_in_mid_run_it_has_the_same_future(host: UdpHost) -> None:
    """Sockets, credit, groups, random choices, what waits to be sent."""
    host.socket(1, port=53, rcvbuf=2304)
    host.call(Member(1, 1, GROUP, True))
    host.feed(datagram(bytes(700), 53))
    host.feed(SendTo(0, 1, THEIRS, 1, b"x"))
    plain = msgspec.msgpack.decode(msgspec.msgpack.encode(host.core.snapshot()))
    copy = UdpCore.restore(host.config, plain)
    futures = []
    for core in (host.core, copy):
        core.receive(OpenDatagram(2, 17), 5)
        core.receive(Bind(1, 2, b"", 0), 5)
        core.receive(datagram(bytes(700), 53), 6)
        core.receive(datagram(bytes(700), 53), 7)
        futures.append((core.outgoing({}), core.events(), core.snapshot(), core.next_timer()))
    assert futures[0] == futures[1]


def test_settings(host: UdpHost) -> None:
    """What can change while it runs does, the rest says what to do."""
    host.core.set("queue", 5, 0)
    assert host.config.udp.queue == 5
    with pytest.raises(ControlError, match="restart"):
        host.core.set("port_first", 5, 0)
    with pytest.raises(ControlError, match="no setting"):
        host.core.set("nothing", 5, 0)
    with pytest.raises(ControlError, match="udp knows ss"):
        host.core.control(0, "conn", {}, 0)


def test_interfaces_are_told_on(host: UdpHost) -> None:
    """What ip told of interfaces and routes is the answer to a question about no socket, after a restore as well."""
    device = Interface(1, "lvl", "tap", True, 1500, b"\2\0\0\0\0\1", [InterfaceAddress(OURS, 24, b"\x0a\0\0\xff")])
    way = Way(bytes(4), 0, "unicast", THEIRS, OURS, 0, 1)
    host.feed(Routes(ROUTES.routes, ROUTES.addresses, [device], [way]))
    data = {
        "interfaces": [[1, "lvl", "tap", True, 1500, b"\2\0\0\0\0\1", [[OURS, 24, b"\x0a\0\0\xff"]]]],
        "routes": [[bytes(4), 0, "unicast", THEIRS, OURS, 0, 1]],
    }
    assert host.call(GetInfo(5, 0)) == Result(5, 0, data)
    host.socket(1)
    assert host.call(GetInfo(6, 1)) == Result(6, errno.ENOTCONN, {}), "of a socket the MTU toward its peer"
    host.core = UdpCore.restore(host.config, host.core.snapshot())
    assert host.call(GetInfo(7, 0)).data == data


# the path's MTU


def wide(host: UdpHost, *, size: int = 1200, dst: bytes = THEIRS) -> Any:
    """Send that many bytes: DF as it went out, or the errno."""
    answer = host.send(1, bytes(size), dst, 4000)
    return answer.errno or sent(host).dont_fragment


@pytest.mark.rfc("RFC 8085 3.2-1")
def test_a_path_mtu_is_learned_and_used(host: UdpHost) -> None:
    """RFC 1191 3: what is longer is left to ip to cut (WANT), or refused (DO); ip is told; others' paths stay wide;
    after udp.mtu_expires_s it is tried again (6.3)."""
    host.socket(1, port=5000)
    assert wide(host) is True
    host.feed(icmp_error(3, 4, port=5000, mtu=1000))
    assert host.out("ip") == [PathMtu(THEIRS, 1000, 600_000)]
    assert wide(host) is False and wide(host, size=972) is True and wide(host, dst=OTHER) is True
    host.feed(SetOption(1, "mtu_discover", 2))
    assert (wide(host), wide(host, size=973), wide(host, size=972)) == (errno.EMSGSIZE, errno.EMSGSIZE, True)
    host.feed(SetOption(1, "mtu_discover", 3))  # PROBE goes by the device's
    assert wide(host) is True
    host.feed(SetOption(1, "mtu_discover", 1))
    host.now += 600 * 1_000_000_000
    assert wide(host) is True
    assert host.core.counters["path_mtu_lowered"] == 1


def test_a_path_mtu_that_is_not_believed(host: UdpHost) -> None:
    """One that is no smaller, or smaller than any link's; one about a datagram of nobody's; to a socket that said
    IP_PMTUDISC_INTERFACE or OMIT (Linux ip_sk_accept_pmtu)."""
    host.socket(1, port=5000)
    for mtu, port in ((1500, 5000), (9000, 5000), (67, 5000), (1000, 5001)):
        host.feed(icmp_error(3, 4, port=port, mtu=mtu))
    host.feed(SetOption(1, "mtu_discover", 4))
    host.feed(icmp_error(3, 4, port=5000, mtu=1000))
    assert host.out("ip") == []


def test_below_552_df_is_left_out(host: UdpHost) -> None:
    """Linux ip_rt_min_pmtu: datagrams stay so large, and routers may cut them."""
    host.socket(1, port=5000)
    host.feed(icmp_error(3, 4, port=5000, mtu=300))
    host.out("ip")
    assert wide(host, size=100) is False and wide(host, size=524) is False
    host.feed(SetOption(1, "mtu_discover", 2))
    assert (wide(host, size=524), wide(host, size=525)) == (False, errno.EMSGSIZE)


def test_paths_known_are_bounded(host: UdpHost) -> None:
    """What was learned first is forgotten."""
    known = PathMtus()
    for number in range(KNOWN + 1):
        known.learn(number.to_bytes(4, "big"), 1000, 10)
    assert len(known.rows()) == KNOWN
    assert known.find(bytes(4), 5) == 0 and known.find(b"\0\0\0\1", 5) == 1000 and known.find(b"\0\0\0\1", 10) == 0


@pytest.mark.rfc("RFC 8085 3.2-2")
def test_the_mtu_on_the_way_to_the_peer(host: UdpHost) -> None:
    """IP_MTU: the device's, then what was learned; ENOTCONN without a peer, and no way is an error."""
    host.socket(1, port=5000)
    ask = lambda: host.call(GetInfo(3, 1))  # noqa: E731
    assert ask().errno == errno.ENOTCONN
    host.connect(1, THEIRS, 4000)
    assert ask().data == {"mtu": 1500}
    host.feed(icmp_error(3, 4, port=5000, mtu=1000))
    assert ask().data == {"mtu": 1000}
    host.feed(Routes([], [OURS]))
    assert ask().errno == errno.ENETUNREACH
    assert host.call(GetInfo(3, 99)).errno == errno.EBADF


def test_too_long_by_our_own_verdict_is_told_for_the_error_queue(host: UdpHost) -> None:
    """Linux ip_local_error: EMSGSIZE, with the MTU that there is, besides the call's errno; no port without a peer."""
    host.socket(1, port=5000, mtu_discover=2)
    host.feed(SendTo(1, 1, THEIRS, 4000, bytes(1473)))
    failed, answer = host.out("gateway")
    assert failed == Failed(1, errno.EMSGSIZE, -1, 0, bytes(4), THEIRS, 0, 1500)
    assert answer.errno == errno.EMSGSIZE


def test_an_error_brings_what_it_quotes(host: UdpHost) -> None:
    """The datagram's bytes behind its header, as far as they were quoted (IP_RECVERR)."""
    host.socket(1, port=5000)
    error = icmp_error(3, 3, port=5000)
    error.head += b"the first bytes"
    host.feed(error)
    assert host.out("gateway")[0].payload == b"the first bytes"

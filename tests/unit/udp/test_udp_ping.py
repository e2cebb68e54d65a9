"""ICMP's datagram sockets: echo requests with the socket's identifier, replies and errors to whom they belong."""

from __future__ import annotations

import errno

import pytest

from layers.udp.core import UdpCore
from levelip.frames.packet import BROADCAST, Checksum, IcmpError, Segment
from levelip.frames.seam import Bind, Datagram, Failed, OpenDatagram, Result, SendTo
from levelip.wire.icmp import IcmpMessage
from tests.unit.udp.udp_host import GROUP, LOOPBACK, OTHER, OURS, THEIRS, UdpHost

ICMP = 1
REQUEST = IcmpMessage.echo_request(ident=0xDEAD, sequence=3, payload=b"are you there").serialize()


@pytest.fixture
def host() -> UdpHost:
    return UdpHost()


def ping(host: UdpHost, sock: int = 1, *, ident: int = 77, address: bytes = b"", **options: int) -> int:
    """A socket with this identifier (0: one is chosen)."""
    host.feed(OpenDatagram(sock, ICMP, options))
    answer = host.call(Bind(1, sock, address, ident, bool(options.get("reuse_address"))))
    return int(answer.data["port"]) if not answer.errno else -answer.errno


def sent(host: UdpHost) -> tuple[Segment, IcmpMessage]:
    (segment,) = [one for one in host.out("ip") if isinstance(one, Segment)]
    return segment, IcmpMessage.parse(segment.head + segment.payload)  # type: ignore[operator]


def reply(ident: int, *, dst: bytes = OURS, src: bytes = THEIRS, flags: int = 0) -> Segment:
    data = IcmpMessage.echo_reply(IcmpMessage.echo_request(ident=ident, sequence=3, payload=b"yes"))
    return Segment(
        5, [], False, 0, 1, src, dst, ICMP, 61, 0, data.serialize(fill_checksum=True), b"", int(Checksum.VERIFIED), 0,
        flags=flags,
    )  # fmt: skip


def error_about(ident: int, kind: int, code: int, mtu: int = 0, request: bytes = REQUEST) -> IcmpError:
    head = request[:4] + ident.to_bytes(2, "big") + request[6:]
    return IcmpError(9, [], kind, code, mtu, b"\x0a\0\0\xfe", OURS, THEIRS, ICMP, head)


def test_a_request_has_the_sockets_identifier_and_a_right_checksum(host: UdpHost) -> None:
    """Whatever the program wrote there; number and data are its own, and the destination's port means nothing."""
    ping(host, ident=77, ttl=3, tos=8)
    for port in (0, 4711):
        assert host.send(1, REQUEST, THEIRS, port).errno == 0
        segment, message = sent(host)
        assert (segment.proto, segment.src, segment.dst, segment.ttl, segment.tos) == (ICMP, OURS, THEIRS, 3, 8)
        assert segment.dont_fragment and message.checksum_ok
        assert (message.ident, message.sequence, message.payload) == (77, 3, b"are you there")


@pytest.mark.parametrize(
    ("payload", "number"),
    [
        (b"", errno.EINVAL), (REQUEST[:7], errno.EINVAL), (REQUEST[:8], 0), (b"\0" + REQUEST[1:], errno.EINVAL),
        (b"\x08\1" + REQUEST[2:], errno.EINVAL), (REQUEST + bytes(65_515 - len(REQUEST)), 0),
        (REQUEST + bytes(65_516 - len(REQUEST)), errno.EMSGSIZE),
    ],
)  # fmt: skip
def test_only_echo_requests_are_sent(host: UdpHost, payload: bytes, number: int) -> None:
    """net/ipv4/ping.c: another type or code, or less than a header, is EINVAL."""
    ping(host)
    assert host.send(1, payload, THEIRS).errno == number


def test_to_whom(host: UdpHost) -> None:
    """Without destination and peer EDESTADDRREQ; the peer of connect, whose port may be 0; a broadcast address wants
    SO_BROADCAST."""
    ping(host)
    assert host.send(1, REQUEST).errno == errno.EDESTADDRREQ
    assert host.send(1, REQUEST, b"\x0a\0\0\xff").errno == errno.EACCES
    assert host.connect(1, THEIRS, 0).errno == 0
    assert host.send(1, REQUEST).errno == 0
    assert sent(host)[0].dst == THEIRS


@pytest.mark.parametrize("address", [GROUP, b"\x0a\0\0\xff", THEIRS])
def test_only_one_of_our_addresses_is_bound(host: UdpHost, address: bytes) -> None:
    """Neither a group nor a broadcast address, which a UDP socket may have (ping_check_bind_addr)."""
    ping(host)
    assert host.call(Bind(1, 1, address, 77)).errno == errno.EADDRNOTAVAIL


def test_a_reply_goes_to_the_socket_with_its_identifier(host: UdpHost) -> None:
    """The whole message, from port 0; to a socket that is bound to an address only from there (ping_lookup)."""
    ping(host, 1, ident=77)
    ping(host, 2, ident=78, address=LOOPBACK)
    host.out("gateway")
    came = reply(77)
    host.feed(came)
    (got,) = host.out("gateway")
    assert isinstance(got, Datagram)
    assert (got.sock, got.address, got.port, got.ttl, got.payload) == (1, THEIRS, 0, 61, came.head)
    host.feed(reply(78))
    host.feed(reply(79))
    assert host.out("gateway") == []
    assert host.core.counters["drop.udp_no_ping"] == 2
    host.feed(reply(78, dst=LOOPBACK, src=LOOPBACK))
    (got,) = host.out("gateway")
    assert isinstance(got, Datagram) and got.sock == 2


def test_identifiers_are_no_ports_of_udp(host: UdpHost) -> None:
    """The same number is free for both, and a datagram never reaches an ICMP socket."""
    assert ping(host, 1, ident=53) == 53
    assert host.socket(2, port=53) == 53
    assert host.core._ctx.endpoints.find(OURS, 53, THEIRS, 9).id == 2  # type: ignore[union-attr]


def test_who_may_have_an_identifier(host: UdpHost) -> None:
    """One socket, at all addresses, unless all of them say SO_REUSEADDR (ping_get_port); 0: one is chosen. Of several
    the last one has the replies."""
    assert ping(host, 1, ident=77, address=OURS) == 77
    assert ping(host, 2, ident=77, address=LOOPBACK) == -errno.EADDRINUSE
    assert ping(host, 3, ident=78, reuse_address=1) == 78
    assert ping(host, 4, ident=78, reuse_address=1) == 78
    host.feed(reply(78))
    assert [one.sock for one in host.out("gateway") if isinstance(one, Datagram)] == [4]
    chosen = {ping(host, sock, ident=0) for sock in (5, 6)}
    assert len(chosen) == 2 and min(chosen) >= 32_768


def test_without_bind_one_is_chosen_at_the_first_request(host: UdpHost) -> None:
    """And stays."""
    host.feed(OpenDatagram(1, ICMP))
    idents = []
    for _ in range(2):
        answer = host.send(1, REQUEST, THEIRS)
        idents += [answer.data["port"], sent(host)[1].ident]
    assert len(set(idents)) == 1 and idents[0]


@pytest.mark.rfc("RFC 1122 4.1.3.3-1")
@pytest.mark.parametrize(
    ("kind", "code", "number", "hard"),
    [(3, 1, errno.EHOSTUNREACH, False), (3, 2, errno.ENOPROTOOPT, True), (11, 0, errno.EHOSTUNREACH, False)],
)
def test_an_error_about_a_request(host: UdpHost, kind: int, code: int, number: int, hard: bool) -> None:
    """RFC 1122 4.1.3.3, by its identifier, with the request that it quotes."""
    ping(host, ident=77)
    host.out("gateway")
    error = error_about(77, kind, code)
    host.feed(error)
    reporter = b"\x0a\0\0\xfe"
    (told,) = host.out("gateway")
    assert told == Failed(1, number, kind, code, reporter, THEIRS, 0, 0, hard, told.id, [9], error.head)
    host.feed(error_about(78, kind, code))
    host.feed(error_about(77, kind, code, request=b"\0" + REQUEST[1:]))  # about a reply of ours
    host.feed(error_about(77, kind, code, request=REQUEST[:5]))
    assert host.out("gateway") == []
    assert host.core.counters["drop.udp_icmp_stray"] == 3


def test_a_wide_request_learns_the_path_mtu(host: UdpHost) -> None:
    """And the next one is cut (IP_PMTUDISC_WANT)."""
    ping(host, ident=77)
    host.feed(error_about(77, 3, 4, mtu=1000))
    host.out("ip")
    host.send(1, REQUEST + bytes(1000), THEIRS)
    assert not sent(host)[0].dont_fragment


def test_a_slow_reader(host: UdpHost) -> None:
    """SO_RCVBUF bounds what waits."""
    ping(host, ident=77, rcvbuf=600)
    host.out("gateway")
    for _ in range(4):
        host.feed(reply(77))
    assert len(host.out("gateway")) == 2 and host.core.counters["drop.udp_buffer_full"] == 2


def test_restored_it_goes_on(host: UdpHost) -> None:
    """Identifiers and learned MTUs are in the snapshot."""
    ping(host, ident=77)
    host.feed(error_about(77, 3, 4, mtu=1000))
    host.core.outgoing({})
    copy = UdpCore.restore(host.config, host.core.snapshot())
    for core in (host.core, copy):
        core.receive(reply(77, src=OTHER), 5)
        core.receive(SendTo(1, 1, THEIRS, 0, REQUEST + bytes(1000)), 6)
    assert host.core.snapshot() == copy.snapshot()
    assert host.core.outgoing({}) == copy.outgoing({})


def test_never_looped_nor_for_a_group(host: UdpHost) -> None:
    """A request to a group goes out only; ip hands up no reply to one, and one that says so is nobody's."""
    ping(host, ident=77, multicast_loop=1)
    assert host.send(1, REQUEST, b"\xe0\0\0\1").errno == 0
    segment, _ = sent(host)
    assert segment.flags & BROADCAST and segment.ttl == 1
    assert [one for one in host.out("gateway") if not isinstance(one, Result)] == []

"""What is learned about single destinations: path MTUs (RFC 1191) and redirects (RFC 1122 3.2.2.2)."""

from __future__ import annotations

import pytest
from ip_host import DIRECTED, FAR, LOOPBACK, OWN, PEER, SECOND, TCP_HEAD, Host, icmp_packet, quote_of, segment

from layers.ip.exceptions import ENTRIES_LIMIT, PLATEAUS, PathExceptions, guess_mtu, plateau_below
from levelip.frames.packet import PROBE, Doubt, Packet, PathMtu, Unreachable
from levelip.tracing import reasons
from levelip.wire import icmp
from levelip.wire.icmp import IcmpMessage
from levelip.wire.ipv4 import Ipv4Header, Proto

ROUTER = bytes((203, 0, 113, 1))
OTHER = bytes((10, 0, 0, 9))  # another gateway on our network
FARTEXT = "192.0.2.7"


def cache(host: Host) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = host.core.control(1, "route.cache", {}, host.now)["cache"]
    return rows


def route_mtu(host: Host, dst: str = FARTEXT) -> int:
    return int(host.core.control(1, "route.get", {"dst": dst}, host.now)["mtu"])


# path MTU


@pytest.mark.rfc("RFC 1191 6.6-2", "RFC 1191 3-1", "RFC 1191 6.2-1", "RFC 1191 6.3-1", "RFC 1191 6.3-2")
def test_a_transport_lowers_the_path_mtu(host: Host) -> None:
    """Its word holds for 10 minutes: larger packets with DF are refused, those without are cut; then it rises again."""
    host.feed(PathMtu(FAR, 1280))
    assert route_mtu(host) == 1280 and route_mtu(host, "192.0.2.8") == 1500
    assert cache(host) == [{"dst": FARTEXT, "mtu": 1280, "mtu_expires_ms": 600_000}]
    [(_, error)] = host.dropped(segment(b"x" * 1241, dst=FAR), reasons.EXCEEDS_MTU, silent=False)
    assert (error.icmp_code, error.mtu) == (icmp.FRAG_NEEDED, 1280)
    assert host.sent(segment(b"x" * 1240, dst=FAR))
    assert host.sent(segment(b"x" * 1460, dst=PEER))
    out = host.feed(segment(b"x" * 1241, dst=FAR, dont_fragment=False))
    assert [len(frame.head) + len(frame.payload) for _, frame in out] == [1276, 25]  # 20 + 1256, 20 + 5
    assert host.core.next_timer() == host.now + 600 * SECOND
    host.core.handle_timer(host.now + 600 * SECOND - 1)
    assert route_mtu(host) == 1280
    host.now += 600 * SECOND
    host.core.handle_timer(host.now)
    assert route_mtu(host) == 1500 and host.sent(segment(b"x" * 1460, dst=FAR)) and host.core.next_timer() is None


def test_a_probe_may_be_larger_than_the_path_mtu(host: Host) -> None:
    """As large as the device takes: how else would a larger one be found (Linux IP_PMTUDISC_PROBE)."""
    host.feed(PathMtu(FAR, 1280))
    host.dropped(segment(bytes(1300), dst=FAR), reasons.EXCEEDS_MTU, silent=False)
    host.sent(segment(bytes(1460), dst=FAR, flags=PROBE))
    host.dropped(segment(bytes(1461), dst=FAR, flags=PROBE), reasons.EXCEEDS_MTU, silent=False)


def test_an_icmp_error_about_tcp_lowers_nothing_by_itself(host: Host) -> None:
    """Whether it is genuine, tcp alone can tell, by the sequence number: it is told, and ip waits for its word."""
    error = host.told(icmp_packet(IcmpMessage.dest_unreachable(4, quote_of(), mtu=600), src=ROUTER))
    assert error.mtu == 600 and cache(host) == []


@pytest.mark.rfc("RFC 1191 3")
def test_a_ping_finds_the_path_mtu(host: Host) -> None:
    """An error about an echo request that waits, with ident and number as sent, is believed."""
    host.ping(FARTEXT, size=1400, id=7, seq=8, dont_fragment=True)
    [(_, request)] = host.flush()
    quoted = request.head[:28]
    host.feed(icmp_packet(IcmpMessage.dest_unreachable(4, quoted, mtu=1300), src=ROUTER))
    assert route_mtu(host) == 1300
    assert host.ping(FARTEXT, size=1400, dont_fragment=True)["error"] == "message too long, mtu: 1300"
    forged = IcmpMessage.echo_request(ident=9, sequence=9).serialize()
    about = quote_of(proto=Proto.ICMP, body=forged)
    host.dropped(icmp_packet(IcmpMessage.dest_unreachable(4, about, mtu=600)), reasons.ICMP_NO_TRANSPORT)
    assert route_mtu(host) == 1300


@pytest.mark.rfc("RFC 1191 3-8")
@pytest.mark.parametrize(("told", "used"), [(68, 552), (0, 552), (551, 552), (552, 552), (553, 553)])
def test_none_below_552_is_believed(host: Host, told: int, used: int) -> None:
    """Linux min_pmtu: a tiny MTU is hardly ever the truth, and serves to make us send many small packets."""
    host.feed(PathMtu(FAR, told))
    assert route_mtu(host) == used


@pytest.mark.rfc("RFC 1191 3-9", "RFC 1191 3-9")
@pytest.mark.parametrize(("dst", "mtu"), [(FAR, 1500), (FAR, 9000), (OWN, 600), (LOOPBACK, 600), (DIRECTED, 600)])
def test_what_lowers_nothing(host: Host, dst: bytes, mtu: int) -> None:
    """RFC 1191 3: an MTU never rises by an error, and there is none to ourselves or to groups."""
    host.dropped(PathMtu(dst, mtu), reasons.PATH_MTU_STALE)
    assert cache(host) == []


def test_a_device_with_a_smaller_mtu_than_552() -> None:
    """The least that is believed is then the device's own."""
    host = Host(mtu=296)
    host.dropped(PathMtu(FAR, 68), reasons.PATH_MTU_STALE)
    assert route_mtu(host) == 296


@pytest.mark.rfc("RFC 1191 7.1", "RFC 1191 3-7", "RFC 1191 5-1")
def test_plateaus(host: Host) -> None:
    """A router older than RFC 1191 says 0: the next plateau below the length that it quotes."""
    assert [plateau_below(mtu) for mtu in (65_535, 32_000, 1500, 1492, 69, 68)] == [32_000, 17_914, 1492, 1006, 68, 68]
    assert guess_mtu(1500, 20, 1500) == 1492
    assert guess_mtu(1520, 20, 1500) == 1492  # a router that adds the header's length
    assert guess_mtu(1006, 20, 1500) == 508
    assert list(PLATEAUS) == sorted(PLATEAUS, reverse=True)
    quoted = Ipv4Header.build(OWN, FAR, proto=6, payload_length=1480).serialize() + TCP_HEAD
    assert host.told(icmp_packet(IcmpMessage.dest_unreachable(4, quoted, mtu=0))).mtu == 1492


@pytest.mark.rfc("RFC 1191 6.3")
def test_flush(host: Host) -> None:
    """`lvlip route flush` forgets all at once."""
    host.feed(PathMtu(FAR, 1280))
    assert host.core.control(1, "route.flush", {}, host.now) == {"flushed": 1}
    assert route_mtu(host) == 1500 and cache(host) == [] and host.core.next_timer() is None


def test_the_cache_is_bounded() -> None:
    """1,024 destinations; the one whose last news is oldest goes."""
    known = PathExceptions()
    for number in range(ENTRIES_LIMIT):
        assert len(known.lower_mtu(number.to_bytes(4, "big"), 600, number + 1)) == 1
    known.redirect(bytes(4), PEER, 5)  # news about the oldest
    assert known.lower_mtu(b"\1\1\1\1", 600, 9) == [b"\1\1\1\1", (1).to_bytes(4, "big")]
    assert len(known.entries()) == ENTRIES_LIMIT and known.find(bytes(4)) is not None
    assert known.next_timer() == 1  # of the first one's MTU


def test_it_survives_new_routes_and_a_snapshot(host: Host) -> None:
    """What was learned stays when the table is made anew."""
    host.feed(PathMtu(FAR, 1280))
    host.core.set("routes", ["198.51.100.0/24 via 10.0.0.9"], host.now)
    assert route_mtu(host) == 1280
    host.core = type(host.core).restore(host.core.config, host.core.snapshot())
    assert route_mtu(host) == 1280


# redirects


def redirect(gateway: bytes = OTHER, code: int = 1, dst: bytes = FAR, src: bytes = OWN) -> IcmpMessage:
    return IcmpMessage.redirect(code, quote_of(dst=dst, src=src), gateway=gateway)


@pytest.mark.rfc(
    "RFC 792 redirect", "RFC 1122 3.2.2.2-2", "RFC 1122 3.2.2.2-3", "RFC 1122 3.3.1.2-1", "RFC 1122 3.3.1.2-2",
    "RFC 1122 3.3.1.3-1", "RFC 792 8-1",
)  # fmt: skip
@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_a_redirect_is_followed(host: Host, code: int) -> None:
    """RFC 1122 3.2.2.2: network redirects count as host redirects: that destination alone, and for five minutes."""
    assert host.feed(icmp_packet(redirect(code=code))) == []
    assert host.sent(segment(dst=FAR)).next_hop == OTHER
    assert host.sent(segment(dst=bytes((192, 0, 2, 8)))).next_hop == PEER
    assert cache(host) == [{"dst": FARTEXT, "via": "10.0.0.9", "redirect_expires_ms": 300_000}]
    host.now += 300 * SECOND
    host.core.handle_timer(host.now)
    assert host.sent(segment(dst=FAR)).next_hop == PEER


@pytest.mark.rfc("RFC 1122 3.2.2.2-4")
def test_a_second_redirect_must_come_from_the_new_gateway(host: Host) -> None:
    """Only the gateway in use is listened to, which after a redirect is another."""
    third = bytes((10, 0, 0, 33))
    host.feed(icmp_packet(redirect()))
    host.dropped(icmp_packet(redirect(third)), reasons.ICMP_REDIRECT_FROM)
    host.feed(icmp_packet(redirect(third), src=OTHER))
    assert host.sent(segment(dst=FAR)).next_hop == third


@pytest.mark.rfc("RFC 1122 3.2.2.2-4")
@pytest.mark.parametrize(
    ("message", "src", "reason"),
    [
        (redirect(), OTHER, reasons.ICMP_REDIRECT_FROM),  # not the gateway in use
        (redirect(), FAR, reasons.ICMP_REDIRECT_FROM),
        (redirect(dst=PEER), PEER, reasons.ICMP_REDIRECT_FROM),  # about itself, a neighbour
        (redirect(dst=OWN), PEER, reasons.ICMP_REDIRECT_FROM),
        (redirect(dst=DIRECTED), PEER, reasons.ICMP_REDIRECT_FROM),
        (redirect(FAR), PEER, reasons.ICMP_REDIRECT_TO),  # not on our network
        (redirect(OWN), PEER, reasons.ICMP_REDIRECT_TO),
        (redirect(PEER), PEER, reasons.ICMP_REDIRECT_TO),  # the one in use
        (redirect(DIRECTED), PEER, reasons.ICMP_REDIRECT_TO),
        (redirect(bytes((224, 0, 0, 1))), PEER, reasons.ICMP_REDIRECT_TO),
        (redirect(LOOPBACK), PEER, reasons.ICMP_REDIRECT_TO),
        (redirect(code=4), PEER, reasons.ICMP_REDIRECT),
        (redirect(src=FAR), PEER, reasons.ICMP_NOT_OURS),
        (IcmpMessage.redirect(1, b"short", gateway=OTHER), PEER, reasons.ICMP_QUOTE),
    ],
)
def test_redirects_that_are_not_followed(host: Host, message: IcmpMessage, src: bytes, reason: reasons.Reason) -> None:
    """RFC 1122 3.2.2.2: silently discarded, each with its reason."""
    host.dropped(icmp_packet(message, src=src), reason)
    assert cache(host) == []


def test_redirects_switched_off() -> None:
    """ip.accept_redirects = false; ip.secure_redirects: only to gateways that the table names."""
    Host(accept_redirects=False).dropped(icmp_packet(redirect()), reasons.ICMP_REDIRECT)
    Host(secure_redirects=True).dropped(icmp_packet(redirect()), reasons.ICMP_REDIRECT_TO)
    host = Host(secure_redirects=True, routes=["198.51.100.0/24 via 10.0.0.9"])
    host.feed(icmp_packet(redirect()))
    assert host.sent(segment(dst=FAR)).next_hop == OTHER


@pytest.mark.rfc("RFC 1122 3.3.1.4-1")
def test_a_gateway_that_does_not_answer_is_given_up(host: Host) -> None:
    """RFC 1122 3.3.1.4: whoever was redirected to a dead gateway goes by the default one again."""
    host.feed(icmp_packet(redirect()))
    lost = host.sent(segment(dst=FAR))
    host.feed(Unreachable(1, OTHER, lost.head, [lost.id]))
    out = host.sent(segment(dst=FAR))
    assert isinstance(out, Packet) and out.next_hop == PEER


# gateways that do not answer


def two_gateways() -> Host:
    """10.0.0.1, and 10.0.0.9 with a higher metric; both for the default, and 10.0.0.1 alone for 198.51.100.0/24."""
    return Host(routes=["0.0.0.0/0 via 10.0.0.9 metric 10", "198.51.100.0/24 via 10.0.0.1"])


def by_way_of(host: Host, dst: bytes = FAR) -> bytes:
    return host.sent(segment(dst=dst)).next_hop


@pytest.mark.rfc("RFC 1122 3.3.1.5-1", "RFC 1122 3.3.1.2-4")
def test_another_default_gateway_is_used_while_one_does_not_answer() -> None:
    """For a minute (gateway_retry_ms), then the first is tried again; a restored core does the same."""
    host = two_gateways()
    lost = host.sent(segment(dst=FAR))
    assert lost.next_hop == PEER
    start = host.now
    host.feed(Unreachable(1, PEER, lost.head, [lost.id]))
    assert by_way_of(host) == OTHER
    assert host.core.next_timer() == start + 60 * SECOND
    host.core = type(host.core).restore(host.core._ctx.config, host.core.snapshot())
    assert by_way_of(host) == OTHER
    host.now = start + 60 * SECOND
    host.core.handle_timer(host.now)
    assert by_way_of(host) == PEER and host.core.next_timer() is None


def test_without_another_gateway_the_dead_one_is_used() -> None:
    """A prefix with one gateway keeps it, and so do all once none answers."""
    host = two_gateways()
    for gateway in (PEER, OTHER):
        host.feed(Unreachable(1, gateway, host.sent(segment(dst=FAR)).head, []))
    assert by_way_of(host) == PEER
    assert by_way_of(host, bytes((198, 51, 100, 1))) == PEER


def test_a_neighbour_that_is_no_gateway_changes_no_route() -> None:
    """Its own silence concerns nobody else."""
    host = two_gateways()
    host.feed(Unreachable(1, bytes((10, 0, 0, 77)), host.sent(segment(dst=FAR)).head, []))
    assert by_way_of(host) == PEER and host.core.next_timer() is None


@pytest.mark.rfc("RFC 1122 3.3.1.4-6", "RFC 9293 MUST-20")
def test_advice_from_tcp_ends_a_redirect(host: Host) -> None:
    """Nothing comes back from where a redirect leads: that destination goes by the gateway again; its path MTU stays,
    and so do redirects of others."""
    host.feed(icmp_packet(redirect()))
    host.feed(PathMtu(FAR, 1280))
    assert by_way_of(host) == OTHER
    assert host.feed(Doubt(PEER)) == [] and by_way_of(host) == OTHER
    assert host.feed(Doubt(FAR)) == [] and by_way_of(host) == PEER
    assert route_mtu(host) == 1280 and host.core.counters["doubts"] == 2

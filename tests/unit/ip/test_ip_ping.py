"""`lvlip ping`: the core sends the request, finds its answer, and gives up in time."""

from __future__ import annotations

import pytest
from ip_host import FAR, MS, OWN, Host, icmp_packet, link_state, quote_of, read_icmp, segment

from layers.ip.ping import PINGS_LIMIT, error_text
from levelip.frames.core import DEFERRED, ControlError
from levelip.frames.packet import IcmpError, Packet, Segment, Unreachable
from levelip.tracing import reasons
from levelip.wire import icmp
from levelip.wire.addr import format_ipv4
from levelip.wire.icmp import IcmpMessage
from levelip.wire.ipv4 import Proto


def asked(host: Host, dst: str = "10.0.0.1", **args: object) -> IcmpMessage:
    """Ping, and the request that goes out."""
    assert host.ping(dst, **args) is DEFERRED  # type: ignore[arg-type]
    [(port, out)] = host.flush()
    assert port == "link" and isinstance(out, Packet)
    assert out.causes == [] and out.ingress == host.now
    return read_icmp(out)[1]


@pytest.mark.rfc("RFC 1122 3.2.2.6-2", "RFC 1122 3.2.2.6-7")
def test_round_trip(host: Host) -> None:
    """The answer says how long it took by the stack's clock, its TTL, its size and who sent it."""
    request = asked(host, token=42, id=9, seq=3)
    assert (request.type, request.ident, request.sequence, len(request.payload)) == (icmp.ECHO, 9, 3, 56)
    host.now += 1_234_567
    host.core.receive(icmp_packet(IcmpMessage.echo_reply(request), ttl=61), host.now)
    [answer] = host.answers()
    assert answer.token == 42
    assert answer.data == {"from": "10.0.0.1", "ttl": 61, "size": 64, "rtt_ns": 1_234_567}
    assert host.core.next_timer() is None


def test_options_of_ping(host: Host) -> None:
    """Size and TTL are as asked; the id is chosen where none is given."""
    host.ping(size=100, ttl=5)
    [(_, out)] = host.flush()
    header, request = read_icmp(out)
    assert header.ttl == 5 and header.src == OWN and len(request.payload) == 100


def test_damaged_data_is_told(host: Host) -> None:
    """A reply whose data differs counts, and is marked, as ping prints "wrong data byte"."""
    request = asked(host)
    reply = IcmpMessage(icmp.ECHO_REPLY, 0, request.rest, request.payload[:-1] + b"\xff")
    host.core.receive(icmp_packet(reply), host.now)
    assert host.answers()[0].data["wrong_data"] is True


def test_a_reply_counts_once(host: Host) -> None:
    """A duplicate is nobody's."""
    reply = IcmpMessage.echo_reply(asked(host))
    host.core.receive(icmp_packet(reply), host.now)
    assert len(host.answers()) == 1
    host.dropped(icmp_packet(reply), reasons.ICMP_UNASKED)


def test_timeout(host: Host) -> None:
    """After timeout_ms, and not a nanosecond before, the ping is answered with an error."""
    asked(host, token=5, timeout_ms=700)
    asked(host, token=6, timeout_ms=300, seq=2)
    start = host.now
    assert host.core.next_timer() == start + 300 * MS
    host.core.handle_timer(start + 300 * MS - 1)
    assert host.answers() == []
    host.core.handle_timer(start + 900 * MS)
    assert [(a.token, a.data) for a in host.answers()] == [(6, {"error": "timeout"}), (5, {"error": "timeout"})]
    assert host.core.next_timer() is None


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (lambda quoted: IcmpMessage.dest_unreachable(1, quoted), "Destination Host Unreachable"),
        (lambda quoted: IcmpMessage.dest_unreachable(13, quoted), "Packet filtered"),
        (lambda quoted: IcmpMessage.dest_unreachable(4, quoted, mtu=1280), "Frag needed and DF set (mtu = 1280)"),
        (lambda quoted: IcmpMessage.time_exceeded(0, quoted), "Time to live exceeded"),
        (lambda quoted: IcmpMessage.parameter_problem(1, quoted), "Parameter problem"),
    ],
)
def test_an_error_ends_it(host: Host, message: object, text: str) -> None:
    """An ICMP error that quotes the request ends the ping, with its sender and ping's words."""
    request = asked(host, "192.0.2.7", token=8)
    quoted = quote_of(proto=Proto.ICMP, dst=FAR, body=request.serialize(fill_checksum=True)[:8])
    host.core.receive(icmp_packet(message(quoted), src=bytes((203, 0, 113, 1))), host.now)  # type: ignore[operator]
    [answer] = host.answers()
    assert (answer.token, answer.data["error"], answer.data["from"]) == (8, text, "203.0.113.1")


def test_error_about_another_destination(host: Host) -> None:
    """An error must name the destination that was asked, or anybody could end a ping."""
    request = asked(host, "192.0.2.7")
    quoted = quote_of(proto=Proto.ICMP, dst=bytes((192, 0, 2, 8)), body=request.serialize()[:8])
    host.dropped(icmp_packet(IcmpMessage.dest_unreachable(1, quoted)), reasons.ICMP_NO_TRANSPORT)


def test_no_answer_to_arp(host: Host) -> None:
    """link's report ends the ping at once: Destination Host Unreachable, from ourselves, as ping prints it."""
    host.ping("10.0.0.9", token=3)
    [(_, out)] = host.flush()
    host.core.receive(Unreachable(1, bytes((10, 0, 0, 9)), out.head[:28], [out.id]), host.now)
    [answer] = host.answers()
    assert answer.data["error"] == "Destination Host Unreachable" and answer.data["from"] == format_ipv4(OWN)


@pytest.mark.parametrize("dst", ["127.0.0.1", "10.0.0.2", "127.77.0.1"])
def test_ourselves(host: Host, dst: str) -> None:
    """Our own addresses answer without link, at any size that IPv4 has."""
    assert host.ping(dst, size=65_507) is DEFERRED
    [answer] = host.answers()
    assert answer.data["from"] == dst and answer.data["size"] == 65_515 and "wrong_data" not in answer.data


def test_ourselves_with_echo_turned_off() -> None:
    """ip.echo_reply = false silences loopback too."""
    host = Host(echo_reply=False)
    host.ping("127.0.0.1")
    assert host.answers() == []


def test_no_route() -> None:
    """Without a route the answer comes at once, marked as our own."""
    host = Host(gateway="")
    assert host.ping("192.0.2.7") == {"error": "Network is unreachable", "local": True}
    host.feed(link_state(up=False))
    assert host.ping("10.0.0.1")["error"] == "Network is unreachable"


def test_too_long(host: Host) -> None:
    """A request larger than the MTU cannot be sent yet; ping's words."""
    error = {"error": "message too long, mtu: 1500", "mtu": 1500, "local": True}
    assert host.ping(size=1473, dont_fragment=True) == error
    assert host.ping(size=1472) is DEFERRED


@pytest.mark.parametrize(
    "args",
    [{"dst": "nonsense"}, {"dst": ""}, {"dst": None}, {"dst": "10.0.0.255"}, {"dst": "224.0.0.1"},
     {"dst": "255.255.255.255"}, {"id": 65_536}, {"seq": -1}, {"size": 65_508}, {"size": "56"}, {"ttl": 0},
     {"ttl": 256}, {"timeout_ms": 0}, {"timeout_ms": True}],
)  # fmt: skip
def test_wrong_arguments(host: Host, args: dict[str, object]) -> None:
    """A wrong argument is refused by name; nothing is sent."""
    with pytest.raises(ControlError, match=r"needed|broadcast"):
        host.core.control(1, "ping", {"dst": "10.0.0.1", **args}, host.now)
    assert host.flush() == [] and host.core.next_timer() is None


def test_the_same_twice(host: Host) -> None:
    """Two pings with one id and number could not be told apart; and there is a limit."""
    host.ping(id=1, seq=1)
    with pytest.raises(ControlError, match="waiting already"):
        host.ping(id=1, seq=1)
    for seq in range(2, PINGS_LIMIT + 1):
        host.ping(id=1, seq=seq)
    with pytest.raises(ControlError, match=str(PINGS_LIMIT)):
        host.ping(id=2, seq=1)


def test_errors_in_words() -> None:
    """Every code has words; unknown ones are numbered."""
    texts = {error_text(icmp.DEST_UNREACH, code, 0) for code in range(16)}
    assert len(texts) == 16
    assert error_text(icmp.DEST_UNREACH, 99, 0) == "Dest Unreachable, Bad Code: 99"
    assert error_text(icmp.TIME_EXCEEDED, 1, 0) == "Frag reassembly time exceeded"


@pytest.mark.rfc("RFC 1122 3.3.6-1")
def test_directed_broadcast_of_the_old_form(host: Host) -> None:
    """10.0.0.0 is a broadcast address too (RFC 1122 3.3.6)."""
    with pytest.raises(ControlError):
        host.ping("10.0.0.0")


# replies and errors that are for a program's ICMP socket


@pytest.fixture
def with_udp() -> Host:
    return Host(transports={6: "tcp", 17: "udp"})


def test_a_reply_that_no_ping_waits_for_goes_to_udp(with_udp: Host) -> None:
    """Whole, its checksum verified: a program's socket may have asked. One that is damaged does not."""
    request = IcmpMessage.echo_request(ident=77, sequence=3, payload=b"are you there")
    reply = IcmpMessage.echo_reply(request)
    [(port, up)] = with_udp.feed(icmp_packet(reply, ttl=61))
    assert port == "udp" and isinstance(up, Segment)
    assert (up.proto, up.ttl, up.dst) == (Proto.ICMP, 61, OWN)
    assert IcmpMessage.parse(up.head + up.payload).payload == b"are you there"  # type: ignore[operator]
    damaged = icmp_packet(reply)
    damaged.head = damaged.head[:-1] + b"X"
    with_udp.dropped(damaged, reasons.ICMP_CHECKSUM)


def test_the_ping_that_waits_has_its_reply_first(with_udp: Host) -> None:
    """`lvlip ping`'s is not handed to udp."""
    with_udp.core.receive(icmp_packet(IcmpMessage.echo_reply(asked(with_udp))), with_udp.now)
    assert len(with_udp.answers()) == 1


def test_an_error_about_a_programs_request_goes_to_udp(with_udp: Host) -> None:
    """About an echo request; one about any other ICMP message of ours is nobody's."""
    request = IcmpMessage.echo_request(ident=77, sequence=3).serialize()
    for body, wanted in ((request, True), (b"\0" + request[1:], False)):
        quote = quote_of(proto=Proto.ICMP, body=body)
        packet = icmp_packet(IcmpMessage.dest_unreachable(icmp.HOST_UNREACH, quote))
        if wanted:
            [(port, error)] = with_udp.feed(packet)
            assert port == "udp" and isinstance(error, IcmpError) and error.head == request
        else:
            with_udp.dropped(packet, reasons.ICMP_NO_TRANSPORT)


@pytest.mark.parametrize("head", [b"", b"\x08", b"\x08" + bytes(6), b"\0" + bytes(7), b"\r" + bytes(7)])
def test_what_is_no_echo_request(with_udp: Host, head: bytes) -> None:
    """A faulty transport may send that; the error about it is nobody's, and a ping of ours waits on, as it does where
    it is about another message of the same number."""
    with_udp.ping("192.0.2.7", id=0, seq=0)
    with_udp.feed(link_state(up=False))
    assert with_udp.feed(segment(dst=b"\xc0\0\2\7", proto=Proto.ICMP, head=head)) == []
    assert with_udp.core.counters[reasons.ICMP_NO_TRANSPORT.counter] == 1 and with_udp.answers() == []


def test_a_programs_request_to_ourselves(with_udp: Host) -> None:
    """It is answered by ourselves, and the reply goes back up."""
    request = IcmpMessage.echo_request(ident=77, sequence=3).serialize(fill_checksum=True)
    [(port, up)] = with_udp.feed(segment(src=OWN, dst=OWN, proto=Proto.ICMP, head=request))
    assert port == "udp" and isinstance(up, Segment)
    assert IcmpMessage.parse(up.head).type == icmp.ECHO_REPLY

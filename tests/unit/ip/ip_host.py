"""A host under test: the ip core with its device up, and the packets that tests speak to it in."""

from __future__ import annotations

import random
from typing import Any

from layers.ip.config import IpCoreConfig
from layers.ip.core import Core
from levelip.config import IpConfig
from levelip.frames.packet import (
    Checksum,
    IcmpError,
    LinkState,
    Packet,
    PathMtu,
    Refused,
    Routes,
    Segment,
    Unreachable,
)
from levelip.frames.seam import Answer, NeighbourUp
from levelip.rpc.place import Payload, Place
from levelip.tracing.events import Event
from levelip.tracing.reasons import Reason
from levelip.wire.addr import format_ipv4
from levelip.wire.icmp import IcmpMessage
from levelip.wire.ipv4 import Ipv4Header, Proto
from tests.netsim.net import check_frame

OWN = bytes((10, 0, 0, 2))
PEER = bytes((10, 0, 0, 1))
FAR = bytes((192, 0, 2, 7))
LOOPBACK = bytes((127, 0, 0, 1))
DIRECTED = bytes((10, 0, 0, 255))
LIMITED = b"\xff" * 4
TCP_HEAD = bytes.fromhex("9c400050 00000001 00000002 5018ffff 00000000".replace(" ", ""))
MS = 1_000_000
SECOND = 1000 * MS
EPOCH = 0x1234

HOSTS: list[Host] = []
"""Those of the test that runs: conftest looks at their state at its end."""


def link_state(**changes: Any) -> LinkState:
    """The device as link tells of it."""
    fields: dict[str, Any] = {
        "iface": 1, "name": "tap0", "kind": "tap", "up": True, "mtu": 1500, "gso_max": 65_535, "checksum_offload": True,
    }  # fmt: skip
    return LinkState(**{**fields, **changes})


def packet(
    payload: bytes = TCP_HEAD,
    *,
    src: bytes = PEER,
    dst: bytes = OWN,
    proto: int = Proto.TCP,
    place: Place | None = None,
    checksum: int = Checksum.VERIFIED,
    gso_size: int = 0,
    link_flags: int = 0,
    trailer: bytes = b"",
    head_size: int | None = None,
    id: int = 77,
    **header: Any,
) -> Packet:
    """A packet from outside whose header is right; `header` sets fields of Ipv4Header.build.

    `head_size`: how many bytes travel as head, the rest is payload; `trailer`: what Ethernet padded.
    """
    length = len(payload) + (place.length if place else 0)
    ip = Ipv4Header.build(src, dst, proto=proto, payload_length=length, **header).serialize(fill_checksum=True)
    data = ip + payload + trailer
    if place is not None:
        return Packet(id, [5], True, 1234, 1, data, place, checksum, gso_size, b"", link_flags)
    size = len(data) if head_size is None else head_size
    return Packet(id, [5], True, 1234, 1, data[:size], data[size:], checksum, gso_size, b"", link_flags)


def icmp_packet(message: IcmpMessage, *, spoil: bool = False, **fields: Any) -> Packet:
    """An ICMP message from outside; `spoil`: with a wrong checksum."""
    data = message.serialize(fill_checksum=True)
    if spoil:
        data = data[:2] + bytes((data[2] ^ 0x55, data[3])) + data[4:]
    return packet(data, proto=Proto.ICMP, **fields)


def segment(
    payload: Payload = b"", *, head: bytes = TCP_HEAD, src: bytes = OWN, dst: bytes = PEER, **fields: Any
) -> Segment:
    """A segment that tcp sends."""
    known: dict[str, Any] = {
        "id": 99, "causes": [3], "traced": True, "ingress": 555, "iface": 0, "proto": Proto.TCP, "ttl": 0, "tos": 0,
        "checksum": Checksum.PARTIAL, "gso_size": 0,
    }  # fmt: skip
    return Segment(src=src, dst=dst, head=head, payload=payload, **{**known, **fields})


def quote_of(
    out: Segment | None = None, *, proto: int = Proto.TCP, src: bytes = OWN, dst: bytes = FAR, body: bytes = TCP_HEAD
) -> bytes:
    """What an ICMP error quotes of a packet that we sent."""
    return Ipv4Header.build(src, dst, proto=proto, payload_length=len(body)).serialize(fill_checksum=True) + body


class Host:
    """The core, its clock, and what came out of it."""

    def __init__(
        self, *, device: bool = True, mtu: int = 1500, transports: dict[int, str] | None = None, **ip: Any
    ) -> None:
        self.now = SECOND
        config = IpCoreConfig(ip=IpConfig(**ip), epoch=EPOCH, mtu=mtu)
        if transports is not None:
            config.transports = transports
        self.core = Core(config, random.Random(7), self.now)
        self.core.interest = True
        HOSTS.append(self)
        if device:
            self.core.receive(link_state(mtu=mtu), self.now)
            self.flush()
            self.core.events()

    def flush(self, **room: int) -> list[tuple[str, Any]]:
        out = self.core.outgoing(room)
        for _, frame in out:
            check_frame(frame)
        return out

    def feed(self, frame: Any) -> list[tuple[str, Any]]:
        """Give it one frame and take all that comes out."""
        self.core.receive(frame, self.now)
        out = self.flush()
        if isinstance(frame, Packet | Segment):
            for _, each in out:
                if isinstance(each, Packet | Segment | IcmpError):
                    derives(each, frame)
        return out

    def sent(self, frame: Any) -> Packet:
        """The one packet to link that `frame` leads to."""
        [(port, out)] = self.feed(frame)
        assert port == "link" and isinstance(out, Packet), (port, out)
        return out

    def delivered(self, frame: Any) -> Segment:
        """The one segment to tcp that `frame` leads to."""
        [(port, out)] = self.feed(frame)
        assert port == "tcp" and isinstance(out, Segment), (port, out)
        return out

    def told(self, frame: Any) -> IcmpError:
        """The one ICMP error to tcp that `frame` leads to."""
        [(port, out)] = self.feed(frame)
        assert port == "tcp" and isinstance(out, IcmpError), (port, out)
        return out

    def replied(self, frame: Any) -> tuple[Ipv4Header, IcmpMessage]:
        """The one ICMP message that `frame` leads to, both checksums right."""
        return read_icmp(self.sent(frame))

    def dropped(self, frame: Any, reason: Reason, *, silent: bool = True) -> list[tuple[str, Any]]:
        """`frame` is discarded for `reason`, which is counted once and told once; `silent`: nothing comes of it."""
        before = self.core.counters.get(reason.counter, 0)
        out = self.feed(frame)
        assert self.core.counters[reason.counter] == before + 1, self.core.counters
        events = [event for event in self.core.events() if event.kind == "drop" and event.reason == reason.name]
        assert len(events) == 1 and events[0].at == self.now
        tells_the_truth(frame, events[0])
        if silent:
            assert out == []
        return out

    def routes(self) -> Routes:
        """What tcp is told when it comes up."""
        [(port, out)] = self.feed(NeighbourUp("tcp", 9))
        assert port == "tcp" and isinstance(out, Routes)
        return out

    def ping(self, dst: str = "10.0.0.1", token: int = 1, **args: Any) -> dict[str, Any]:
        return self.core.control(token, "ping", {"dst": dst, **args}, self.now)

    def answers(self) -> list[Answer]:
        """Answers to commands that are ready."""
        return [out for port, out in self.flush() if port == "control"]


def check_state(core: Core) -> None:
    """A core is consistent with itself, its state is of its types, and a core restored from a snapshot has the same."""
    ctx = core._ctx
    assert ctx.queued == sum(isinstance(out, Packet) for _, out in ctx.out)
    partials = ctx.reassembly.partials()
    assert ctx.reassembly.used == sum(partial.cost for partial in partials)
    for partial in partials:
        stop = 0
        for piece in partial.pieces:
            assert stop <= piece.start < piece.stop == piece.start + len(piece.data)
            stop = piece.stop
        assert partial.have == sum(len(piece.data) for piece in partial.pieces)
    data = core.snapshot()
    assert all(event[1] != "drop" or None not in event[-1].values() for event in data["events"]), data["events"]
    again = Core.restore(core.config, data)
    assert again.snapshot() == data
    assert again.next_timer() == core.next_timer() and again._ctx.queued == ctx.queued and again._ctx.mtu == ctx.mtu


_FRAGMENT = {"dst", "ident", "offset", "src"}
_ICMP = {"code", "dst", "src", "type"}
_PACKET = {"dst", "proto", "src"}
FIGURES: dict[str, set[str]] = {
    "datagram_too_long": {"dst", "length", "src"},
    "fragment_bad_length": _FRAGMENT,
    "fragment_beyond_65535": _FRAGMENT,
    "fragment_duplicate": _FRAGMENT,
    "fragment_ecn": _FRAGMENT,
    "fragment_memory": {"dst", "ident", "src"},
    "fragment_of_refused": _FRAGMENT,
    "fragment_overlap": _FRAGMENT,
    "fragment_too_many": _FRAGMENT,
    "fragment_two_ends": _FRAGMENT,
    "fragments_off": _FRAGMENT,
    "icmp_bad_quote": _ICMP,
    "icmp_broadcast": _ICMP,
    "icmp_echo_off": _ICMP,
    "icmp_no_transport": {"dst", "error", "proto"},
    "icmp_not_ours": {"dst", "quoted", "src"},
    "icmp_redirect_bad_gateway": {"dst", "gateway", "src"},
    "icmp_redirect_foreign": {"dst", "gateway", "src"},
    "icmp_redirect_ignored": {"code", "dst", "src"},
    "icmp_source_quench": _ICMP,
    "icmp_unasked": {"dst", "ident", "seq", "src"},
    "icmp_unknown_type": _ICMP,
    "icmp_unsupported": _ICMP,
    "igmp_malformed": {"dst", "src", "why"},
    "igmp_no_router_alert": {"dst", "src", "ttl"},
    "ip_bad_checksum": {"length"},
    "ip_bad_header_length": {"length"},
    "ip_bad_option": {"at", "dst", "src"},
    "ip_bad_total_length": {"length"},
    "ip_bad_version": {"length"},
    "ip_source_routed": {"at", "dst", "src"},
    "ip_torn": {"length"},
    "ip_truncated": {"length"},
    "link_broadcast": _PACKET,
    "martian_destination": _PACKET,
    "martian_source": _PACKET,
    "multicast_not_joined": _PACKET,
    "no_protocol": _PACKET,
    "not_for_us": _PACKET,
    "own_source": _PACKET,
    "path_mtu_not_lower": {"dst", "mtu"},
}
"""What the event of a drop tells beside its reason; of others source and destination."""


def tells_the_truth(frame: Any, event: Event) -> None:
    """The event of a drop names the frame, has the figures of its reason, and they are those of the frame."""
    told = event.data
    if event.reason == "ip_headers_not_inline":  # as far as it could be read
        assert set(told) in (set(), _PACKET, _PACKET | _FRAGMENT)
    elif isinstance(frame, Refused) and event.reason == "icmp_bad_quote":
        assert not told, "there is no header to tell of"
    elif isinstance(frame, Unreachable):
        assert set(told) == {"next_hop"} and told["next_hop"] == format_ipv4(frame.next_hop)
    else:
        assert set(told) == FIGURES.get(event.reason, {"dst", "src"}), event
    assert None not in told.values(), event
    assert event.frame == (frame.id if isinstance(frame, Packet | Segment | Refused) else 0), event
    if isinstance(frame, PathMtu):
        assert told == {"dst": format_ipv4(frame.dst), "mtu": frame.mtu}
    elif isinstance(frame, Segment):
        own = format_ipv4(frame.src) if frame.src else told["src"]
        assert (told["src"], told["dst"]) == (own, format_ipv4(frame.dst))
    elif isinstance(frame, Packet) and "src" in told:
        head = frame.head + (frame.payload if isinstance(frame.payload, bytes) else b"")
        body = head[(head[0] & 15) * 4 :]
        facts: dict[str, Any] = {
            "src": format_ipv4(head[12:16]), "dst": format_ipv4(head[16:20]), "ttl": head[8],
            "ident": int.from_bytes(head[4:6], "big"), "offset": (int.from_bytes(head[6:8], "big") & 0x1FFF) * 8,
        }  # fmt: skip
        if event.reason.startswith("icmp") and len(body) >= 8:
            facts |= {"type": body[0], "code": body[1], "gateway": format_ipv4(body[4:8])}
        if event.reason.startswith("icmp_redirect") and "gateway" in told:
            facts["dst"] = format_ipv4(body[24:28])  # whom the redirect is about
        if event.reason == "icmp_unasked":
            facts |= {"ident": int.from_bytes(body[4:6], "big"), "seq": int.from_bytes(body[6:8], "big")}
        if event.reason == "icmp_not_ours":
            facts["quoted"] = format_ipv4(body[20:24])
        if event.reason == "fragment_memory":
            del facts["ident"]  # of another datagram, the oldest
        known = {name: facts[name] for name in told if name in facts}
        assert {name: told[name] for name in known} == known, event
        names = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 132: "SCTP"}
        assert "proto" not in told or told["proto"] == names.get(head[9], head[9]), event
    elif isinstance(frame, Packet) and "length" in told:
        assert told["length"] == len(frame.head) + len(frame.payload)


def derives(out: Packet | Segment | IcmpError, frame: Packet | Segment) -> None:
    """What comes of a frame at once names it as its cause, is traced if it was, and keeps when it entered the stack."""
    assert out.id >> 60 == 2 and out.id >> 40 & 0xFFFFF == EPOCH and out.id & 0xFF_FFFF_FFFF, hex(out.id)
    assert frame.id in out.causes, out
    if not isinstance(out, IcmpError):
        assert (out.traced, out.ingress) == (frame.traced, frame.ingress), out
        assert isinstance(out.gso_size, int) and out.checksum in tuple(Checksum)


def read_icmp(out: Packet) -> tuple[Ipv4Header, IcmpMessage]:
    """Header and message of a packet that must be right in every sum and length."""
    assert isinstance(out.payload, bytes)
    data = out.head + out.payload
    header = Ipv4Header.parse(data)
    assert header.total_length == len(data)
    assert header.serialize(fill_checksum=True) == data[: header.length]
    message = IcmpMessage.parse(data, header.length)
    assert message.checksum_ok
    return header, message

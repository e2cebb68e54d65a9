"""The ip core: IPv4 in and out, loopback, and what ICMP asks for; a calculator without socket, clock or thread.

From link come Packet, LinkState and Unreachable, from the transports Segment. To link goes Packet with its next hop,
to a transport Segment, IcmpError and Routes, each on the port named after the neighbour. Nothing is kept of a packet
beyond the flush after it came, but in the queue toward link.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from typing import Any, NamedTuple

import msgspec

from layers.ip import commands
from layers.ip import icmp as host_icmp
from layers.ip.commands import LOOPBACK_MTU
from layers.ip.config import IpCoreConfig
from layers.ip.header import HeaderWriter
from layers.ip.icmp import Action, Quoted, TokenBucket
from layers.ip.ping import Pings, Waiting, echo_data
from layers.ip.routing import Kind, RoutingTable, Row
from layers.ip.validate import check_addresses, check_header, check_options
from levelip.addressing import BadSetting, addressing
from levelip.config import IpConfig
from levelip.frames.core import DEFERRED, ControlError, Output, Room
from levelip.frames.packet import (
    BROADCAST,
    Checksum,
    FrameIds,
    IcmpError,
    LinkState,
    Packet,
    Process,
    Route,
    Routes,
    Segment,
    Unreachable,
)
from levelip.frames.seam import Answer, NeighbourDown, NeighbourUp
from levelip.rpc.place import Payload, Place, cut
from levelip.tracing import reasons
from levelip.tracing.events import Event
from levelip.tracing.reasons import Reason
from levelip.wire import icmp
from levelip.wire.addr import LIMITED_BROADCAST, LOOPBACK, format_address, format_ipv4, is_multicast
from levelip.wire.errors import Malformed
from levelip.wire.icmp import IcmpMessage, icmp_name
from levelip.wire.ipv4 import FLAG_DF, IPV4_HEADER_LEN, IPV4_MAX_TOTAL_LENGTH, Ipv4Header, Proto, proto_name

MILLISECOND = 1_000_000
LINK = "link"
CONTROL = "control"

Frame = Packet | LinkState | Unreachable | Segment | NeighbourUp | NeighbourDown
Outgoing = Packet | Segment | IcmpError | Routes | Answer


class Cause(NamedTuple):
    """What a message that we make ourselves descends from; `frame` 0: a command."""

    frame: int
    traced: bool
    ingress: int


class Datagram(NamedTuple):
    """A packet that was accepted: header, and the transport's bytes as head and payload."""

    header: Ipv4Header
    head: bytes
    payload: Payload
    packet: Packet
    group: bool
    """Sent to a broadcast address, of IP or of the link."""


class IpState(msgspec.Struct):
    """All of a core's state beyond its configuration, as plain data for snapshots."""

    rng: list[Any]
    frame_ids: FrameIds
    ident: int
    link: LinkState | None
    bucket: TokenBucket
    pings: list[Waiting]
    counters: dict[str, int]
    queue: list[tuple[str, Outgoing]]
    events: list[Event]
    interest: bool


class Core:
    """IPv4 and ICMP of one host with one device."""

    def __init__(self, config: IpCoreConfig, rng: random.Random, now: int) -> None:
        self.config = config
        self.interest = False
        self.counters: dict[str, int] = Counter()
        self._rng = rng
        self._ids = FrameIds(Process.IP, config.epoch)
        self._ident = rng.getrandbits(16)
        self._link: LinkState | None = None
        self._bucket = TokenBucket(config.ip.icmp_rate_per_s, config.ip.icmp_burst, now)
        self._pings = Pings()
        self._headers = HeaderWriter()
        self._out: deque[tuple[str, Outgoing]] = deque()
        self._queued = 0  # packets for link in _out
        self._events: list[Event] = []
        self._now = now  # of the frame or command at work: for events
        self._transports = config.transports
        self._use_addresses()
        self._handlers: dict[type, Any] = {
            Packet: self._packet,
            Segment: self._segment,
            LinkState: self._link_state,
            Unreachable: self._unreachable,
            NeighbourUp: self._neighbour_up,
            NeighbourDown: self._neighbour_down,
        }

    def _use_addresses(self) -> None:
        """Derive from the configuration what is asked once a packet; raises BadSetting."""
        meant = addressing(self.config.ip)
        self._table = RoutingTable(meant)
        self._own = meant.address
        self._network = meant.network
        self._broadcasts = meant.broadcasts

    # --- the verbs

    def receive(self, frame: Frame, now: int) -> None:
        """Take one frame from a neighbour."""
        self._handlers[type(frame)](frame, now)

    def handle_timer(self, now: int) -> None:
        """Give up the pings whose time is over."""
        for ping in self._pings.expire(now):
            self._answer(ping.token, {"error": "timeout"})

    def next_timer(self) -> int | None:
        """When the next ping is given up."""
        return self._pings.next_deadline() if self._pings else None

    def outgoing(self, room: Room) -> Output:
        """Take what is to be sent. What is for link waits for room, and so do routes and answers; the rest is lost.

        A segment on its way up may lie in link's pool, whose slot is free again after this flush, so it cannot wait:
        it is dropped here, as in a receive queue that is full.
        """
        out = self._out
        if not out:
            return []
        self._queued = 0
        if len(out) <= min(room.values(), default=len(out)):
            self._out = deque()
            return list(out)
        left = dict(room)
        taken: Output = []
        self._out = deque()
        for port, frame in out:
            space = left.get(port, 1)
            if space > 0:
                if port in left:
                    left[port] = space - 1
                taken.append((port, frame))
            elif isinstance(frame, Segment | IcmpError):
                self._drop(reasons.PIPE_FULL, frame.id, to=port)
            else:
                self._out.append((port, frame))
                self._queued += port == LINK
        return taken

    def events(self) -> list[Event]:
        """Take the events since the last call."""
        events, self._events = self._events, []
        return events

    def set(self, key: str, value: Any, now: int) -> None:
        """Change ip.`key`; all but the address can change while running."""
        if key not in IpConfig.__struct_fields__:
            raise ControlError(f"ip.{key} is no setting; there are {', '.join(IpConfig.__struct_fields__)}")
        if key == "address":
            raise ControlError("ip.address cannot change while connections use it; set it in level-ip.toml and restart")
        before = self.config.ip
        self.config.ip = msgspec.structs.replace(before, **{key: value})
        if key in ("gateway", "routes"):
            try:
                self._use_addresses()
            except BadSetting as error:
                self.config.ip = before
                raise ControlError(str(error)) from None
            self._send_routes()
        elif key in ("icmp_rate_per_s", "icmp_burst"):
            self._bucket = TokenBucket(self.config.ip.icmp_rate_per_s, self.config.ip.icmp_burst, now)

    def snapshot(self) -> dict[str, Any]:
        """The whole state as plain data."""
        state = IpState(
            rng=list(self._rng.getstate()),
            frame_ids=self._ids,
            ident=self._ident,
            link=self._link,
            bucket=self._bucket,
            pings=self._pings.waiting(),
            counters=dict(sorted(self.counters.items())),
            queue=list(self._out),
            events=self._events,
            interest=self.interest,
        )
        data: dict[str, Any] = msgspec.to_builtins(state, builtin_types=(bytes,))
        return data

    @classmethod
    def restore(cls, config: IpCoreConfig, data: dict[str, Any]) -> Core:
        """A core that goes on from `snapshot()`."""
        state = msgspec.convert(data, IpState, builtin_types=(bytes,))
        rng = random.Random()
        version, internal, gauss = state.rng
        core = cls(config, rng, 0)
        rng.setstate((version, tuple(internal), gauss))
        core._ids = state.frame_ids
        core._ident = state.ident
        core._link = state.link
        core._bucket = state.bucket
        core._pings = Pings(state.pings)
        core.counters.update(state.counters)
        core._out = deque(state.queue)
        core._queued = sum(port == LINK for port, _ in state.queue)
        core._events = state.events
        core.interest = state.interest
        return core

    # --- bookkeeping

    def _drop(self, reason: Reason, frame: int, **data: Any) -> None:
        """Discard something: counted always, told when somebody listens. Addresses in `data` become text."""
        self.counters[reason.counter] += 1
        if self.interest:
            text = {key: _address_text(value) if isinstance(value, bytes) else value for key, value in data.items()}
            self._events.append(Event(self._now, "drop", reason.name, frame, "", text))

    def _emit(self, kind: str, frame: int, **data: Any) -> None:
        if self.interest:
            text = {key: _address_text(value) if isinstance(value, bytes) else value for key, value in data.items()}
            self._events.append(Event(self._now, kind, "", frame, "", text))

    def _answer(self, token: int, data: dict[str, Any]) -> None:
        self._out.append((CONTROL, Answer(token, data)))

    # --- from link

    def _packet(self, packet: Packet, now: int) -> None:
        """One IPv4 packet from outside: judge it, then hand it on (RFC 1122 3.2.1)."""
        self._now = now
        head = packet.head
        payload = packet.payload
        if len(head) < IPV4_HEADER_LEN or len(head) < (head[0] & 15) * 4:
            if isinstance(payload, Place):
                self._drop(reasons.IP_NOT_INLINE, packet.id)
                return
            head += payload
            payload = b""
        length = payload.length if type(payload) is Place else len(payload)
        size = len(head) + length
        counters = self.counters
        counters["in.packets"] += 1
        counters["in.bytes"] += size

        header = check_header(head, size)
        if isinstance(header, Reason):
            self._drop(header, packet.id, length=size)
            return
        src = header.src
        dst = header.dst
        if reason := check_addresses(header, packet.flags, self._own, self._broadcasts):
            self._drop(reason, packet.id, src=src, dst=dst, proto=_proto(header.proto))
            return
        if size > header.total_length:  # Ethernet's padding (RFC 894)
            if header.total_length <= len(head):
                head = head[: header.total_length]
                payload = b""
            else:
                payload = cut(payload, 0, header.total_length - len(head))
        group = dst != self._own
        datagram = Datagram(header, head[header.ihl * 4 :], payload, packet, group)
        if header.options and not self._options_allow(datagram):
            return
        if header.frag_offset or header.flags & 1:
            # Reassembly (RFC 791 3.2, RFC 815) belongs here: it takes the datagram and gives back a whole one or None.
            self._drop(reasons.FRAGMENT, packet.id, src=src, dst=dst, ident=header.ident, offset=header.frag_offset * 8)
            return
        self._deliver(datagram, now)

    def _options_allow(self, datagram: Datagram) -> bool:
        """Whether the packet's options let it pass; a malformed one is reported to its sender (RFC 1122 3.2.2.5)."""
        header = datagram.header
        verdict = check_options(header.options)
        for name in verdict.counters:
            self.counters[name] += 1
        if verdict.reason is None:
            return True
        self._drop(verdict.reason, datagram.packet.id, src=header.src, dst=header.dst, at=verdict.pointer)
        if verdict.reason is reasons.IP_OPTION:
            self._report(datagram, lambda quoted: IcmpMessage.parameter_problem(verdict.pointer, quoted))
        return False

    def _deliver(self, datagram: Datagram, now: int) -> None:
        """Hand a whole datagram from outside to the protocol that it names."""
        header, head, payload, packet, group = datagram
        proto = header.proto
        port = self._transports.get(proto)
        if port is not None:
            self.counters["in.delivered"] += 1
            segment = Segment(
                self._ids.next(),
                [packet.id],
                packet.traced,
                packet.ingress,
                packet.iface,
                header.src,
                header.dst,
                proto,
                header.ttl,
                header.tos,
                head,
                payload,
                packet.checksum,
                packet.gso_size,
                bool(header.flags & FLAG_DF),
                BROADCAST if group else 0,
            )
            self._out.append((port, segment))
            return
        if proto == Proto.ICMP:
            if isinstance(payload, Place):
                self._drop(reasons.IP_NOT_INLINE, packet.id, src=header.src, dst=header.dst, proto=_proto(proto))
                return
            cause = Cause(packet.id, packet.traced, packet.ingress)
            self._icmp(header.src, header.dst, header.ttl, header.tos, head + payload, group, cause, now)
            return
        # RFC 1122 3.2.2.1: a host SHOULD generate protocol unreachable
        self._drop(reasons.NO_PROTOCOL, packet.id, src=header.src, dst=header.dst, proto=_proto(proto))
        self._report(datagram, lambda quoted: IcmpMessage.dest_unreachable(icmp.PROT_UNREACH, quoted))

    def _link_state(self, state: LinkState, now: int) -> None:
        """The device came, went or changed: the transports' routes change with it."""
        self._now = now
        if state == self._link:
            return
        self._link = state
        self._emit("link", 0, name=state.name, up=state.up, mtu=state.mtu, gso_max=state.gso_max)
        self._send_routes()

    def _unreachable(self, lost: Unreachable, now: int) -> None:
        """link got no answer from the next hop: host unreachable, as a router would say (RFC 1122 2.3.2.2)."""
        self._now = now
        quoted = host_icmp.parse_quote(lost.head)
        if quoted is None:
            self._drop(reasons.ICMP_QUOTE, 0, next_hop=lost.next_hop)
            return
        self._tell(icmp.DEST_UNREACH, icmp.HOST_UNREACH, quoted, reporter=self._own, causes=lost.causes)

    # --- neighbours

    def _neighbour_up(self, frame: NeighbourUp, now: int) -> None:
        self._now = now
        if frame.name in self._transports.values():
            self._send_routes()

    def _neighbour_down(self, frame: NeighbourDown, now: int) -> None:
        """What waits for a process that is gone is of no use to its successor: connections and routes are told anew.

        Routes stay while link is away: it is started again, and until then packets are lost as on a bad cable.
        """
        self._now = now
        kept: deque[tuple[str, Outgoing]] = deque()
        for port, out in self._out:
            if port == frame.name:
                self._drop(reasons.NEIGHBOUR_DOWN, 0 if isinstance(out, Routes | Answer) else out.id, to=port)
            else:
                kept.append((port, out))
        self._out = kept
        self._queued = sum(port == LINK for port, _ in kept)

    def _send_routes(self) -> None:
        """Tell every transport the routes as they are now; an older message that still waits is replaced."""
        message = Routes([self._route(row) for row in self._usable()], list(self._table.addresses))
        self._out = deque((port, frame) for port, frame in self._out if not isinstance(frame, Routes))
        for port in sorted(set(self._transports.values())):
            self._out.append((port, message))
        self._emit("route", 0, routes=len(message.routes))

    def _usable(self) -> list[Row]:
        """The rows that a transport may use: none through a device that is down.

        As long as link has not said anything (it starts at the same time as we) the device counts as up.
        """
        up = self._link is None or self._link.up
        return [row for row in self._table.rows if row.kind is Kind.LOCAL or (up and row.kind is Kind.UNICAST)]

    def _route(self, row: Row) -> Route:
        local = row.kind is Kind.LOCAL
        mtu = LOOPBACK_MTU if local else self._mtu()
        gso_max = self._link.gso_max if self._link is not None and not local else 0
        return Route(row.prefix.network, row.prefix.length, row.source, mtu, gso_max)

    def _mtu(self) -> int:
        return self.config.mtu if self._link is None else self._link.mtu

    # --- from the transports

    def _segment(self, segment: Segment, now: int) -> None:
        """One segment to send: route it, give it a header, hand it to link or loop it back (RFC 1122 3.3.1)."""
        self._now = now
        dst = segment.dst
        hop = self._table.lookup(dst)
        if hop is None or not (hop.local or self._link is None or self._link.up):
            self._refuse(segment, reasons.NO_ROUTE, icmp.NET_UNREACH)
            return
        src = segment.src or hop.source
        if src not in (self._own, LOOPBACK) and not (hop.local and self._is_local(src)):
            self._drop(reasons.SOURCE_NOT_OURS, segment.id, src=src, dst=dst)
            return
        head = segment.head
        payload = segment.payload
        length = len(head) + (payload.length if type(payload) is Place else len(payload))
        if hop.local:
            self._loop_back(segment, src, length, now)
            return
        if hop.group and not segment.flags & BROADCAST:
            # as Linux: EACCES or ENETUNREACH for whoever did not set SO_BROADCAST; TCP never may
            self._refuse(segment, reasons.BROADCAST_REFUSED, icmp.NET_UNREACH)
            return
        if src == LOOPBACK:
            self._drop(reasons.LOOPBACK_OUTSIDE, segment.id, src=src, dst=dst)  # RFC 1122 3.2.1.3 g
            return
        total = IPV4_HEADER_LEN + length
        if total > IPV4_MAX_TOTAL_LENGTH:
            self._drop(reasons.DATAGRAM_TOO_LONG, segment.id, src=src, dst=dst, length=total)
            return
        gso_size = segment.gso_size
        # of a super-segment, whose head is the transport's header, the first piece is the longest
        piece = IPV4_HEADER_LEN + len(head) + gso_size if gso_size else total
        if piece > self._mtu() and not self._fits(segment, piece):
            return
        if self._queued >= self.config.ip.queue:
            self._drop(reasons.IP_QUEUE_FULL, segment.id, src=src, dst=dst)
            return

        flags = FLAG_DF if segment.dont_fragment else 0
        ident = self._ident
        # One number a packet on the wire, also where link or the device makes several of it. With DF set any would do
        # (RFC 6864 4.1); without it, not repeating within a packet's lifetime is what counts (4.2).
        self._ident = (ident + (-(-(length - len(head)) // gso_size) if gso_size else 1)) & 0xFFFF
        ttl = segment.ttl or self.config.ip.ttl
        header = self._headers.write(src, dst, segment.proto, ttl, segment.tos, flags, total, ident)
        counters = self.counters
        counters["out.packets"] += 1
        counters["out.bytes"] += total
        self._queued += 1
        packet = Packet(
            self._ids.next(),
            _causes(segment),
            segment.traced,
            segment.ingress,
            self._link.iface if self._link is not None else 0,
            header + head,
            payload,
            segment.checksum,
            gso_size,
            hop.next_hop,
            BROADCAST if hop.group else 0,
        )
        self._out.append((LINK, packet))

    def _is_local(self, address: bytes) -> bool:
        hop = self._table.lookup(address)
        return hop is not None and hop.local

    def _fits(self, segment: Segment, size: int) -> bool:
        """Whether a packet of `size` bytes, more than the MTU, can be sent in fragments (not yet)."""
        if segment.dont_fragment:
            self._refuse(segment, reasons.EXCEEDS_MTU, icmp.FRAG_NEEDED, mtu=self._mtu())  # RFC 1191 3
        else:
            self._drop(reasons.NEEDS_FRAGMENTS, segment.id, src=segment.src, dst=segment.dst, length=size)
        return False

    def _refuse(self, segment: Segment, reason: Reason, code: int, mtu: int = 0) -> None:
        """Discard a segment and tell its transport why, in the form of the ICMP error that a router would have sent."""
        self._drop(reason, segment.id, src=segment.src, dst=segment.dst)
        start = segment.head
        if len(start) < host_icmp.QUOTE_MIN and isinstance(segment.payload, bytes):
            start += segment.payload[: host_icmp.QUOTE_MIN]
        quoted = Quoted(segment.src or self._own, segment.dst, segment.proto, start)
        self._tell(icmp.DEST_UNREACH, code, quoted, reporter=self._own, causes=_causes(segment), mtu=mtu)

    def _loop_back(self, segment: Segment, src: bytes, length: int, now: int) -> None:
        """To one of our own addresses: the segment comes straight back, and link never sees it (RFC 1122 3.2.1.3 g)."""
        if IPV4_HEADER_LEN + length > LOOPBACK_MTU:
            self._drop(reasons.DATAGRAM_TOO_LONG, segment.id, src=src, dst=segment.dst, length=length)
            return
        self.counters["loopback.packets"] += 1
        self.counters["loopback.bytes"] += IPV4_HEADER_LEN + length
        proto = segment.proto
        port = self._transports.get(proto)
        ttl = segment.ttl or self.config.ip.ttl
        if port is not None:
            # Nothing could damage it on the way, so a checksum that is not there yet need not be made.
            checksum = Checksum.VERIFIED if segment.checksum == Checksum.PARTIAL else segment.checksum
            back = Segment(
                self._ids.next(),
                _causes(segment),
                segment.traced,
                segment.ingress,
                0,
                src,
                segment.dst,
                proto,
                ttl,
                segment.tos,
                segment.head,
                segment.payload,
                checksum,
                segment.gso_size,
                segment.dont_fragment,
                0,
            )
            self._out.append((port, back))
        elif proto == Proto.ICMP and isinstance(segment.payload, bytes):
            cause = Cause(segment.id, segment.traced, segment.ingress)
            message = segment.head + segment.payload
            self._icmp(src, segment.dst, ttl, segment.tos, message, False, cause, now)
        else:
            self._drop(reasons.NO_PROTOCOL, segment.id, src=src, dst=segment.dst, proto=_proto(proto))

    # --- ICMP

    def _icmp(
        self, src: bytes, dst: bytes, ttl: int, tos: int, data: bytes, group: bool, cause: Cause, now: int
    ) -> None:
        """An ICMP message for us, from outside or looped back."""
        frame = cause.frame
        self.counters["icmp.in"] += 1
        try:
            message = IcmpMessage.parse(data)
        except Malformed:
            self._drop(reasons.ICMP_TRUNCATED, frame, src=src, dst=dst)
            return
        if not message.checksum_ok:
            self._drop(reasons.ICMP_CHECKSUM, frame, src=src, dst=dst)
            return
        verdict = host_icmp.judge(message, group=group, echo_reply=self.config.ip.echo_reply)
        if isinstance(verdict, Reason):
            self._drop(verdict, frame, src=src, dst=dst, type=message.type, code=message.code)
        elif verdict is Action.REPLY:
            # RFC 1122 3.2.2.6: from the address that was asked; 3.2.2: with the request's TOS. Options are not
            # returned: we skip them on arrival (Linux returns them).
            if self.interest:
                self._emit("icmp", frame, name=message.name, src=src, dst=dst)
            self._send_icmp(IcmpMessage.echo_reply(message), dst, src, cause, now, tos=tos)
        elif verdict is Action.PING:
            found = self._pings.reply(message, src, ttl, now)
            if found is None:
                self._drop(reasons.ICMP_UNASKED, frame, src=src, dst=dst, ident=message.ident, seq=message.sequence)
                return
            self._answer(*found)
        else:
            self._icmp_error(message, src, dst, cause)

    def _icmp_error(self, message: IcmpMessage, src: bytes, dst: bytes, cause: Cause) -> None:
        """An ICMP error: it goes to the transport whose segment it quotes (RFC 1122 3.2.2, 4.2.3.9)."""
        frame = cause.frame
        quoted = host_icmp.parse_quote(message.payload)
        if quoted is None:
            self._drop(reasons.ICMP_QUOTE, frame, src=src, dst=dst, type=message.type, code=message.code)
            return
        if not self._is_local(quoted.src):
            self._drop(reasons.ICMP_NOT_OURS, frame, src=src, dst=dst, quoted=quoted.src)
            return
        self._emit("icmp", frame, name=message.name, src=src, dst=quoted.dst, proto=_proto(quoted.proto))
        needs_mtu = message.type == icmp.DEST_UNREACH and message.code == icmp.FRAG_NEEDED
        mtu = message.mtu if needs_mtu else 0
        self._tell(message.type, message.code, quoted, reporter=src, causes=[frame] if frame else [], mtu=mtu)

    def _tell(
        self, icmp_type: int, code: int, quoted: Quoted, *, reporter: bytes, causes: list[int], mtu: int = 0
    ) -> None:
        """Pass an error on to whom it concerns: a transport, or a ping."""
        src, dst, proto, head = quoted.src, quoted.dst, quoted.proto, quoted.head
        port = self._transports.get(proto)
        if port is not None:
            self.counters["icmp.to_transport"] += 1
            error = IcmpError(self._ids.next(), causes, icmp_type, code, mtu, reporter, src, dst, proto, head)
            self._out.append((port, error))
            return
        if proto == Proto.ICMP and len(head) >= host_icmp.QUOTE_MIN:
            found = self._pings.failed(head, dst, icmp_type=icmp_type, code=code, mtu=mtu, reporter=reporter)
            if found is not None:
                self._answer(*found)
                return
        frame = causes[0] if causes else 0
        self._drop(reasons.ICMP_NO_TRANSPORT, frame, dst=dst, proto=_proto(proto), error=icmp_name(icmp_type, code))

    def _report(self, datagram: Datagram, make: Any) -> None:
        """Send the ICMP error `make(quote)` to a datagram's sender, if that is allowed and not too often."""
        header, head, payload, packet, group = datagram
        group = group or bool(packet.flags & BROADCAST)
        if not host_icmp.may_report(header, group=group, transport=head, broadcasts=self._broadcasts):
            self._drop(reasons.ICMP_NOT_ALLOWED, packet.id, src=header.src, dst=header.dst)
            return
        if not self._bucket.take(self._now):
            self._drop(reasons.ICMP_RATE_LIMITED, packet.id, src=header.src, dst=header.dst)
            return
        message = make(host_icmp.quote(header.serialize() + head, payload))
        self.counters["icmp.errors_sent"] += 1
        cause = Cause(packet.id, packet.traced, packet.ingress)
        self._send_icmp(message, header.dst, header.src, cause, self._now)

    def _send_icmp(
        self, message: IcmpMessage, src: bytes, dst: bytes, cause: Cause, now: int, *, tos: int = 0, ttl: int = 0
    ) -> None:
        """Send an ICMP message as any other segment. `ttl` 0: the default."""
        self.counters["icmp.out"] += 1
        data = message.serialize(fill_checksum=True)
        # It bears the number of what caused it: this segment crosses no seam, only the packet made of it does.
        segment = Segment(
            id=cause.frame,
            causes=[],
            traced=cause.traced,
            ingress=cause.ingress,
            iface=0,
            src=src,
            dst=dst,
            proto=Proto.ICMP,
            ttl=ttl,
            tos=tos,
            head=data,
            payload=b"",
            checksum=Checksum.NONE,
            gso_size=0,
            dont_fragment=False,
        )
        self._segment(segment, now)

    # --- control

    def control(self, token: int, name: str, args: dict[str, Any], now: int) -> dict[str, Any]:
        """Carry out a command: ping (answered later), route, route.get, addresses."""
        self._now = now
        match name:
            case "ping":
                return self._ping(token, commands.PingRequest.read(args, ttl=self.config.ip.ttl), now)
            case "route":
                return {"routes": [commands.describe_row(row, self._link, self._mtu()) for row in self._table.rows]}
            case "route.get":
                return self._route_get(commands.address_argument(args, "dst"))
            case "addresses":
                return commands.describe_addresses(self._own, self._network, self._link, self._mtu())
        raise ControlError(f"ip knows no command {name!r}; there are {', '.join(commands.COMMANDS)}")

    def _route_get(self, dst: bytes) -> dict[str, Any]:
        hop = self._table.lookup(dst)
        if hop is None:
            return {"dst": format_ipv4(dst), "error": "Network is unreachable"}
        next_hop = format_ipv4(hop.next_hop) if hop.next_hop else ""
        row = commands.describe_row(hop.row, self._link, self._mtu())
        return {**row, "dst": format_ipv4(dst), "next_hop": next_hop, "group": hop.group}

    def _ping(self, token: int, asked: commands.PingRequest, now: int) -> dict[str, Any]:
        """Send an echo request; its answer follows as an Answer frame, be it an error."""
        dst = asked.dst
        if dst == LIMITED_BROADCAST or dst in self._broadcasts or is_multicast(dst):
            raise ControlError(f"{format_ipv4(dst)} is a broadcast or multicast address; ping asks single hosts")
        hop = self._table.lookup(dst)
        if hop is None or not (hop.local or self._link is None or self._link.up):
            return {"error": "Network is unreachable", "local": True}
        mtu = LOOPBACK_MTU if hop.local else self._mtu()
        if IPV4_HEADER_LEN + icmp.ICMP_HEADER_LEN + asked.size > mtu:
            return {"error": f"message too long, mtu: {mtu}", "mtu": mtu, "local": True}
        ident = self._rng.getrandbits(16) if asked.ident is None else asked.ident
        deadline = now + asked.timeout_ms * MILLISECOND
        self._pings.add(Waiting(token, ident, asked.sequence, dst, asked.size, now, deadline))
        message = IcmpMessage.echo_request(ident=ident, sequence=asked.sequence, payload=echo_data(asked.size))
        self._send_icmp(message, hop.source, dst, Cause(0, False, now), now, ttl=asked.ttl)
        return DEFERRED


def _causes(segment: Segment) -> list[int]:
    return [segment.id] if segment.id else []


def _proto(number: int) -> str | int:
    """For events: the protocol's name where it has a well-known one."""
    name = proto_name(number)
    return number if name.startswith("proto ") else name


def _address_text(address: bytes) -> str:
    """For events, which also tell of addresses that are none."""
    return format_address(address) if len(address) in (4, 16) else address.hex()

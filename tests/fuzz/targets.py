"""What is fuzzed: each core, and the codec before it, driven by bytes that are read as operations.

A target takes any bytes and must not raise; after every operation it looks whether what the core keeps is bounded, and
at the end whether restore(snapshot()) is the same state. The operations are those of the world: frames from the wire,
messages of neighbours and clients, time that passes, a pipe that is full.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

from gateway.config import GatewayCoreConfig
from gateway.core import GatewayCore
from layers.ip.config import IpCoreConfig
from layers.ip.core import Core as IpCore
from layers.link.config import LinkCoreConfig
from layers.link.core import LinkCore
from layers.tcp.config import TcpCoreConfig
from layers.tcp.core import TcpCore
from levelip.config import IpConfig, LinkConfig, TcpConfig
from levelip.frames.packet import (
    DeviceFrame,
    DeviceState,
    IcmpError,
    IpToLink,
    IpToTransport,
    LinkState,
    LinkToIp,
    Packet,
    Route,
    Routes,
    Segment,
    TransportToIp,
    Unreachable,
)
from levelip.frames.seam import (
    Bind,
    ClientLost,
    Close,
    Connect,
    FromClient,
    GatewayToTcp,
    GatewayToUdp,
    Listen,
    NeighbourDown,
    NeighbourUp,
    Taken,
    TcpToGateway,
    UdpToGateway,
)
from levelip.rpc.codec import Codec, RefusedMessage
from levelip.rpc.messages import VERSION, Hello, Request, SendDatagram, TookDatagrams
from levelip.rpc.stream import Consumed, Eof, Reset, Send, Urgent
from tests.fuzz import neighbours
from tests.fuzz.datagrams import datagrams
from tests.fuzz.door import door
from tests.fuzz.driven import (
    ADDRESSES,
    OPERATIONS,
    OUR_MAC,
    OURS,
    ROUTER,
    START,
    THEIR_MAC,
    THEIRS,
    Driven,
    checksummed,
    ip_packet,
)
from tests.fuzz.reader import Reader


def link(data: bytes) -> None:
    """Ethernet frames, ARP, packets from ip, a device that changes."""
    config = LinkCoreConfig(
        epoch=7, device=DeviceState("lvl0", "tap", True, True, 1500, True, 65_535), link=LinkConfig(), mac=OUR_MAC,
        addresses=[OURS], broadcasts=[b"\xff" * 4, b"\x0a\0\0\xff"],
    )  # fmt: skip
    driven = Driven(LinkCore(config, random.Random(1), START), lambda state: LinkCore.restore(config, state))
    driven.feed(NeighbourUp("ip", 5))
    reader = Reader(data)
    for _ in range(OPERATIONS):
        if not reader:
            break
        match reader.below(8):
            case 0:
                driven.feed(DeviceFrame(driven.name(), [], reader.piece(), b"", reader.piece(12)))
            case 1:
                head = (OUR_MAC if reader.below(2) else b"\xff" * 6) + THEIR_MAC
                driven.feed(DeviceFrame(driven.name(), [], head + reader.piece(), reader.piece(), reader.piece(12)))
            case 2:
                arp = struct.pack(">HHBBH", 1, 0x800, 6, 4, 1 + reader.below(3))
                sender = THEIR_MAC if reader.below(2) else reader.bytes(6).ljust(6, b"\0")
                ends = [ADDRESSES[reader.below(len(ADDRESSES))] for _ in range(2)]
                body = arp + sender + ends[0] + OUR_MAC + ends[1]
                head = b"\xff" * 6 + THEIR_MAC + b"\x08\x06"
                driven.feed(DeviceFrame(driven.name(), [], head + body[: 28 - reader.below(2)], b""))
            case 3:
                packet = ip_packet(reader, reader.piece(), proto=6)
                hop = ADDRESSES[reader.below(len(ADDRESSES))]
                state = reader.below(4)
                driven.feed(Packet(driven.name(), [], False, START, 1, packet, b"", state, reader.number(2), hop))
            case 4:
                driven.wait(reader)
            case 5:
                driven.flush(reader.below(4))
            case 6:
                up, mtu = bool(reader.below(2)), reader.number(2)
                driven.feed(DeviceState("lvl0", "tap", True, up, mtu, bool(reader.below(2)), 65_535))
            case _:
                driven.feed(NeighbourUp("ip", 5) if reader.below(2) else NeighbourDown("ip"))
    driven.finish()


def ip(data: bytes) -> None:
    """Packets of every protocol, fragments, ICMP; segments of tcp; a link that changes."""
    config = IpCoreConfig(ip=IpConfig(), epoch=7, mtu=1500)
    driven = Driven(IpCore(config, random.Random(1), START), lambda state: IpCore.restore(config, state))
    driven.feed(LinkState(1, "tap0", "tap", True, 1500, 65_535, True))
    reader = Reader(data)
    for _ in range(OPERATIONS):
        if not reader:
            break
        match reader.below(8):
            case 0:
                raw = reader.piece()
                driven.feed(Packet(driven.name(), [], False, START, 1, raw, reader.piece(), reader.below(4), 0))
            case 1 | 2:
                src, dst = ADDRESSES[reader.below(len(ADDRESSES))], ADDRESSES[reader.below(2)]
                packet = ip_packet(reader, reader.piece(), proto=reader.number(), src=src, dst=dst)
                flags = reader.below(2)
                driven.feed(Packet(driven.name(), [], False, START, 1, packet, b"", 3, 0, b"", flags))
            case 3:
                body = struct.pack(">BBH", reader.below(20), reader.below(16), 0) + reader.bytes(4).ljust(4, b"\0")
                if reader.below(2):
                    body += ip_packet(reader, reader.piece(), proto=6, src=OURS, dst=THEIRS)
                packet = ip_packet(reader, checksummed(body + reader.piece(), 2), proto=1)
                driven.feed(Packet(driven.name(), [], False, START, 1, packet, b"", 3, 0))
            case 4:
                dst = ADDRESSES[reader.below(len(ADDRESSES))]
                size = reader.number(2)
                frame = Segment(
                    driven.name(), [], False, START, 0, OURS if reader.below(2) else b"", dst, 6, reader.number(),
                    reader.number(), reader.piece(60), bytes(size), 1, reader.number(2), bool(reader.below(2)),
                )  # fmt: skip
                if frame.src:
                    driven.feed(frame)
            case 5:
                driven.wait(reader)
            case 6:
                driven.flush(reader.below(4))
            case _:
                if reader.below(2):
                    driven.feed(Unreachable(1, THEIRS, reader.piece(), []))
                else:
                    mtu = reader.number(2)
                    driven.feed(LinkState(1, "tap0", "tap", bool(reader.below(4)), mtu, reader.number(2), True))
    driven.finish()


SOCKETS = 4
RING = 65_536


def tcp_between_hosts() -> Driven:
    """A tcp core with a listener on port 80 and a connect() under way."""
    settings = TcpConfig(
        send_ring=RING, receive_ring=RING, send_buffer=RING, receive_buffer=RING, connections=8, backlog_max=4
    )
    config = TcpCoreConfig(tcp=settings, epoch=3, fixed_isn=0xFFFF_FF00)
    driven = Driven(TcpCore(config, random.Random(1), START), lambda state: TcpCore.restore(config, state))
    driven.feed(Routes([Route(b"\x0a\0\0\0", 24, OURS, 1500, 65_535)], [OURS]))
    driven.feed(NeighbourUp("gateway", 9))
    driven.feed(Bind(1, 1, OURS, 80))
    driven.feed(Listen(2, 1, "own", 4))
    driven.feed(Connect(3, "own", THEIRS, 4711, {}))
    return driven


def tcp(data: bytes) -> None:
    """Segments near and far from what is expected, calls of the gateway, ICMP errors, time."""
    driven = tcp_between_hosts()
    peer = _Peer(driven)
    reader = Reader(data)
    if reader.below(4):
        peer.establish()
    for _ in range(OPERATIONS):
        if not reader:
            break
        peer.operation(reader)
    driven.finish()


def tcp_neighbours(data: bytes) -> None:
    """Options that change while connections carry data, commands, routes that refuse, a gateway that is another."""
    driven = tcp_between_hosts()
    peer = _Peer(driven)
    peer.establish()
    reader = Reader(data)
    for _ in range(OPERATIONS):
        if not reader:
            break
        if reader.below(2):
            peer.operation(reader)
        else:
            neighbours.tcp_operation(reader, driven, neighbours.known(reader, peer.children))
            peer.look()
    driven.finish()


class _Peer:
    """What the other end and the gateway do to a tcp core. `flows`: (our port, their port) → numbers as last seen."""

    def __init__(self, driven: Driven) -> None:
        self.driven = driven
        self.flows: dict[tuple[int, int], list[int]] = {}
        self.sent = [0] * (SOCKETS + 1)
        self.children: list[int] = []
        self.look()

    def look(self, room: int = 1 << 30) -> None:
        """Take what goes out and learn from it where each connection is."""
        for port, frame in self.driven.flush(room):
            if port == "ip" and isinstance(frame, Segment):
                ours, theirs, seq, ack, word = struct.unpack_from(">HHIIH", frame.head)
                length = len(frame.payload) + (word & 1) + (word >> 1 & 1)
                self.flows[ours, theirs] = [(seq + length) & 0xFFFF_FFFF, ack]
                if len(self.flows) > 16:
                    del self.flows[next(iter(self.flows))]
            elif port == "gateway" and type(frame).__name__ == "Incoming":
                self.children.append(frame.sock)

    def establish(self) -> None:
        """One connection of ours is answered, one comes to the listener: both are ESTABLISHED."""
        (ours, theirs), (acked, _) = next(iter(self.flows.items()))
        self.put(ours, theirs, 7000, acked, 0x12, b"\x02\x04\x05\xb4\x04\x02\x01\x01\x01\x03\x03\x07")
        self.put(80, 1000, 7000, 0, 0x02, b"\x02\x04\x05\xb4\x04\x02\x01\x01\x01\x03\x03\x07")
        self.put(80, 1000, 7001, self.flows[80, 1000][0], 0x10, b"")

    def put(self, ours: int, theirs: int, seq: int, ack: int, flags: int, options: bytes) -> None:
        """A segment without payload, and what comes of it."""
        head = struct.pack(">HHIIHHHH", theirs, ours, seq, ack, (20 + len(options)) << 10 | flags, 65_535, 0, 0)
        driven = self.driven
        driven.feed(Segment(driven.name(), [], False, driven.now, 1, THEIRS, OURS, 6, 64, 0, head + options, b"", 2, 0))
        self.look()

    def segment(self, reader: Reader) -> None:
        """A segment for a connection that is there, near what it expects, or a SYN of a new one."""
        keys = list(self.flows)
        if reader.below(4) == 0 or not keys:
            ours, theirs, expected, acked = 80, 1000 + reader.below(6), 0, 0
        else:
            ours, theirs = keys[reader.below(len(keys))]
            acked, expected = self.flows[ours, theirs]
        seq = (expected + (reader.signed() if reader.below(4) == 0 else 0)) & 0xFFFF_FFFF
        ack = (acked - (reader.number(2) if reader.below(4) == 0 else 0)) & 0xFFFF_FFFF
        flags = (0x10, 0x12, 0x02, 0x11, 0x18, 0x04, 0x14, 0x30, 0xD0, reader.number())[reader.below(10)]
        options = b""
        for _ in range(reader.below(4)):
            base = struct.pack(">II", (ack + reader.number(2)) & 0xFFFF_FFFF, (ack + reader.number(2)) & 0xFFFF_FFFF)
            stamp = struct.pack(">II", reader.number(4), reader.number(4))
            options += (b"\x01", b"\x02\x04" + reader.bytes(2).ljust(2, b"\0"), b"\x03\x03\x07", b"\x04\x02",
                        b"\x08\x0a" + stamp, b"\x05\x0a" + base, reader.bytes(5))[reader.below(7)]  # fmt: skip
        options = (options + bytes(-len(options) % 4))[:40]
        head = struct.pack(
            ">HHIIHHHH", theirs, ours, seq, ack, (20 + len(options)) << 10 | flags, reader.number(2), 0,
            reader.number(2) if flags & 0x20 else 0,
        )  # fmt: skip
        size = (0, 0, 1, 100, 1448, 20_000)[reader.below(6)]
        gso = 1448 if size > 1448 else 0
        driven = self.driven
        driven.feed(
            Segment(
                driven.name(), [], False, driven.now, 1, THEIRS, OURS, 6, 64, reader.below(4), head + options,
                bytes(size), 2, gso, True, int(reader.below(16) == 0),
            )
        )  # fmt: skip

    def call(self, reader: Reader) -> None:
        """A message of the gateway; offsets right or drawn."""
        sock = (self.children or [1])[-1] if reader.below(2) else reader.below(SOCKETS + 1)
        number = reader.number()
        offset = reader.number(2)
        own = sock if sock < len(self.sent) else 0
        match reader.below(10):
            case 0:
                size = reader.number(2)
                start = self.sent[own] if reader.below(4) else offset
                self.sent[own] = start + size
                self.driven.feed(Send(sock, start, size, bytes(size) if reader.below(2) else b""))
            case 1:
                self.driven.feed(Consumed(sock, offset))
            case 2:
                self.driven.feed(Eof(sock, self.sent[own]))
            case 3:
                self.driven.feed(Reset(sock, number))
            case 4:
                self.driven.feed(Close(sock, bool(reader.below(2))))
            case 5:
                self.driven.feed(Taken(1, sock))
            case 6:
                self.driven.feed(Connect(sock, "own", ADDRESSES[reader.below(len(ADDRESSES))], offset, {}))
            case 7:
                self.driven.feed(Bind(number, sock, OURS if reader.below(2) else b"", offset))
            case 8:
                self.driven.feed(Listen(number, sock, "own", reader.number()))
            case _:
                self.driven.feed(Urgent(sock, self.sent[own] if reader.below(2) else offset))

    def operation(self, reader: Reader) -> None:
        """One thing that happens."""
        match reader.below(10):
            case 0:
                head = reader.piece(80)
                name, payload = self.driven.name(), reader.piece()
                self.driven.feed(Segment(name, [], False, START, 1, THEIRS, OURS, 6, 64, 0, head, payload, 2, 0))
            case 1 | 2 | 3 | 4:
                self.segment(reader)
            case 5:
                self.call(reader)
            case 6:
                self.driven.wait(reader)
            case 7:
                ports = list(self.flows) or [(80, 80)]
                ours, theirs = ports[reader.below(len(ports))]
                seq = (self.flows.get((ours, theirs), [0])[0] - reader.number(2)) & 0xFFFF_FFFF
                head = struct.pack(">HHI", ours, theirs, seq)
                kind, code, mtu = reader.below(16), reader.below(16), reader.number(2)
                self.driven.feed(IcmpError(self.driven.name(), [], kind, code, mtu, ROUTER, OURS, THEIRS, 6, head))
            case 8:
                self.look(reader.below(3))
                return
            case _:
                mtu = reader.number(2)
                self.driven.feed(Routes([Route(b"\x0a\0\0\0", 24, OURS, mtu, reader.number(2))], [OURS]))
        self.look()


OPS = (
    "socket", "bind", "listen", "accept", "connect", "shutdown", "close", "setsockopt", "getsockopt", "getsockname",
    "getpeername", "nothing",
)  # fmt: skip
ARGUMENTS = ("address", "port", "backlog", "how", "level", "option", "value", "family", "type", "proto", "nonblocking")


def gateway(data: bytes) -> None:
    """Clients that call what they like, with arguments of every type; a tcp that comes and goes."""
    config = GatewayCoreConfig(tcp=TcpConfig(), epoch=7, owner=1000, memory_dir="/mem")
    driven = Driven(GatewayCore(config, random.Random(5), START), lambda state: GatewayCore.restore(config, state))
    driven.feed(NeighbourUp("tcp", 5))
    reader = Reader(data)
    peers = (b"a", b"b", b"c")
    for _ in range(OPERATIONS):
        if not reader:
            break
        peer = peers[reader.below(3)]
        sock = 7 << 32 | reader.below(6)
        match reader.below(8):
            case 0:
                message: Any = Hello(VERSION, "fuzz", reader.piece(16), "" if reader.below(2) else "f" * 32)
            case 1 | 2 | 3:
                args = {ARGUMENTS[reader.below(len(ARGUMENTS))]: _value(reader) for _ in range(reader.below(4))}
                message = Request(reader.number(2), OPS[reader.below(len(OPS))], sock, args)
            case 4:
                message = Send(sock, reader.number(2), reader.number(2), reader.piece())
            case 5:
                message = (Consumed, Eof, Reset)[reader.below(3)](sock, reader.number(2))
            case 6:
                driven.wait(reader)
                continue
            case _:
                lost = ClientLost(peer, bool(reader.below(2)))
                driven.feed((NeighbourDown("tcp"), NeighbourUp("tcp", reader.number()), lost)[reader.below(3)])
                driven.flush()
                continue
        driven.feed(FromClient(peer, 1000, 10, message, 0))
        driven.flush()
    driven.finish()


def _value(reader: Reader) -> Any:
    values = (0, 1, -1, 6, 80, OURS, THEIRS, b"", True, None, "x", 1 << 62, reader.number(4), reader.piece(20), [1])
    return values[reader.below(len(values))]


SEAMS: dict[str, Codec[Any]] = {
    "device": Codec(DeviceFrame | DeviceState), "link-ip": Codec(LinkToIp), "ip-link": Codec(IpToLink),
    "ip-transport": Codec(IpToTransport), "transport-ip": Codec(TransportToIp), "gateway-tcp": Codec(GatewayToTcp),
    "tcp-gateway": Codec(TcpToGateway), "gateway-udp": Codec(GatewayToUdp), "udp-gateway": Codec(UdpToGateway),
    "door": Codec(Hello | Request | Send | Consumed | Eof | Reset | SendDatagram | TookDatagrams),
}  # fmt: skip


def messages(data: bytes) -> None:
    """Parts from a neighbour's pipe or a client's door: decoded, or refused with a reason."""
    reader = Reader(data)
    codec = list(SEAMS.values())[reader.below(len(SEAMS))]
    whole = bool(reader.below(2))
    items = reader.bytes(len(data))
    parts = [items]
    if not whole:
        parts = [b"\x94\x01\x07\x00" + items, items]
    try:
        codec.decode(parts)
    except RefusedMessage as refused:
        assert refused.reason


TARGETS: dict[str, Callable[[bytes], None]] = {
    "link": link, "ip": ip, "tcp": tcp, "gateway": gateway, "messages": messages, "datagrams": datagrams,
    "door": door, "ip-neighbours": neighbours.ip_neighbours, "link-neighbours": neighbours.link_neighbours,
    "tcp-neighbours": tcp_neighbours,
}  # fmt: skip

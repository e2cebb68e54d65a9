"""The fuzz target of datagrams: a udp core below a gateway core, driven from the wire and by clients at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.config import GatewayCoreConfig
from gateway.core import GatewayCore
from layers.udp.config import UdpCoreConfig
from layers.udp.core import UdpCore
from levelip.config import UdpConfig
from levelip.frames.packet import BROADCAST, IcmpError, Route, Routes, Segment
from levelip.frames.seam import (
    Associate,
    Bind,
    ClientLost,
    Close,
    FromClient,
    Member,
    NeighbourDown,
    NeighbourUp,
    OpenDatagram,
    SendTo,
    SetOption,
    Took,
)
from levelip.rpc.messages import VERSION, Hello, Request, SendDatagram, TookDatagrams
from levelip.wire.udp import UdpHeader
from tests.fuzz.reader import Reader

START = 1_000_000_000_000
OURS, THEIRS, GROUP, ALL = b"\x0a\0\0\2", b"\x0a\0\0\1", b"\xef\1\2\3", b"\x0a\0\0\xff"
ADDRESSES = (OURS, THEIRS, GROUP, ALL, b"", bytes(4), b"\x7f\0\0\1", bytes(16), b"\xff\xff\xff\xff", b"abc")
OPERATIONS = 60
QUEUED = 5_000  # what may wait for a neighbour, of one input of OPERATIONS
BUFFER = 8_192  # bytes of a socket's receive buffer here, so that it is full soon
OPTIONS = ("reuse_address", "reuse_port", "broadcast", "rcvbuf", "tos", "multicast_all", "no_check", "unheard")
PORTS = (0, 1, 53, 5000, 40_000, 65_535)


class Pair:
    """Both cores; what they say to each other is delivered, what they say to others is counted and thrown away."""

    def __init__(self) -> None:
        self.udp_config = UdpCoreConfig(udp=UdpConfig(receive_buffer=BUFFER, sockets=16, queue=64), epoch=9)
        self.config = GatewayCoreConfig(udp=self.udp_config.udp, epoch=7, owner=1000, memory_dir="/mem")
        self.udp = UdpCore(self.udp_config, random.Random(3), START)
        self.gateway = GatewayCore(self.config, random.Random(5), START)
        self.udp.interest = self.gateway.interest = True
        self.udp.receive(Routes([Route(b"\x0a\0\0\0", 24, OURS, 1500, 0)], [OURS, b"\x7f\0\0\1"]), START)
        self.gateway.receive(NeighbourUp("udp", 1), START)
        for peer in (b"a", b"b"):
            self.gateway.receive(FromClient(peer, 1000, 10, Hello(VERSION, "fuzz"), 0), START)

    def settle(self, room: int) -> None:
        """What there is room for goes through."""
        for _ in range(20):
            down = self.gateway.outgoing({"udp": room})
            up = self.udp.outgoing({"gateway": room, "ip": room})
            for port, frame in down:
                if port == "udp":
                    self.udp.receive(frame, START)
            for port, frame in up:
                if port == "gateway":
                    self.gateway.receive(frame, START)
            if not down and not up:
                break
        self.udp.events()
        self.gateway.events()

    def bounded(self) -> None:
        """Queues and buffers are."""
        ctx = self.udp._ctx
        assert len(ctx.to_ip) <= 64 + OPERATIONS + 1
        assert len(ctx.to_gateway) <= QUEUED and not ctx.looped
        for one in ctx.endpoints.rows():
            limit = max(one.rcvbuf, BUFFER)
            assert 0 <= one.waiting <= limit + 65_792, "a socket holds more than its buffer and one datagram"
        assert len(ctx.endpoints.by_id) <= 16

    def finish(self) -> None:
        """A core restored from a snapshot is the same; of a client that is gone nothing is left."""
        for core, restore in (
            (self.udp, lambda data: UdpCore.restore(self.udp_config, data)),
            (self.gateway, lambda data: GatewayCore.restore(self.config, data)),
        ):
            state = core.snapshot()
            assert msgspec.msgpack.encode(restore(state).snapshot()) == msgspec.msgpack.encode(state)
        for peer in (b"a", b"b"):
            self.gateway.receive(ClientLost(peer, True), START)
        assert not self.gateway._state.datagrams


def _segment(reader: Reader) -> Segment:
    """From the wire: a header that is right or not, whole or cut."""
    payload = bytes(reader.number(2)) if reader.below(2) else reader.piece()
    length = 8 + len(payload) if reader.below(4) else reader.number(2)
    head = UdpHeader(PORTS[reader.below(6)], PORTS[reader.below(6)], length & 0xFFFF, reader.below(2)).serialize()
    if reader.below(8) == 0:
        head, payload = head[: reader.below(8)], b""
    dst = (OURS, GROUP, ALL, THEIRS)[reader.below(4)]
    return Segment(
        id=1, causes=[], traced=False, ingress=START, iface=1, src=THEIRS, dst=dst, proto=17, ttl=9,
        tos=reader.number(), head=head, payload=payload, checksum=reader.below(4), gso_size=0,
        flags=BROADCAST if reader.below(2) else 0, network=reader.piece(40),
    )  # fmt: skip


def _from_gateway(reader: Reader, sock: int) -> Any:
    """What a gateway could say, in any order and of any socket."""
    address, port = ADDRESSES[reader.below(len(ADDRESSES) - 1)], PORTS[reader.below(6)]
    address = address if len(address) in (0, 4) else b""
    request = reader.number()
    makers: tuple[Callable[[], Any], ...] = (
        lambda: OpenDatagram(sock, 17, {OPTIONS[reader.below(len(OPTIONS))]: reader.number()}),
        lambda: Bind(request, sock, address, port, bool(request & 1), bool(request & 2)),
        lambda: Associate(request, sock, address, port),
        lambda: SendTo(request, sock, address, port, bytes(reader.number(2)), reader.number(), reader.number()),
        lambda: Took(sock, reader.number(3)),
        lambda: Member(request, sock, address or GROUP, bool(request & 1)),
        lambda: SetOption(sock, OPTIONS[reader.below(len(OPTIONS))], reader.number(2)),
        lambda: Close(sock),
    )
    return makers[reader.below(len(makers))]()


def _from_client(reader: Reader, sock: int) -> Any:
    address, port = ADDRESSES[reader.below(len(ADDRESSES))], PORTS[reader.below(6)]
    number = reader.number()
    requests: tuple[tuple[str, dict[str, Any]], ...] = (
        ("socket", {"type": 2}), ("bind", {"address": address, "port": port}),
        ("connect", {"address": address, "port": port}), ("close", {}), ("getsockname", {}), ("getpeername", {}),
        ("setsockopt", {"level": reader.below(2), "option": reader.below(60), "value": reader.number()}),
        ("setsockopt", {"level": 0, "option": 35 + reader.below(2), "value": address + bytes(4)}),
        ("getsockopt", {"level": reader.below(2), "option": reader.below(60)}), ("shutdown", {"how": reader.below(4)}),
    )  # fmt: skip
    match reader.below(4):
        case 0:
            return SendDatagram(sock, address, port, bytes(reader.number(2)), number)
        case 1:
            return TookDatagrams(sock, reader.number(3))
        case _:
            op, args = requests[reader.below(len(requests))]
            return Request(number, op, sock, args)


def datagrams(data: bytes) -> None:
    """Datagrams and ICMP errors from the wire, clients' calls, a gateway that speaks of foreign sockets."""
    reader, pair = Reader(data), Pair()
    for _ in range(OPERATIONS):
        if not reader:
            break
        sock = 7 << 32 | reader.below(6)
        match reader.below(8):
            case 0 | 1:
                pair.udp.receive(_segment(reader), START)
            case 2 | 3 | 4:
                peer = (b"a", b"b")[reader.below(2)]
                pair.gateway.receive(FromClient(peer, 1000, 10, _from_client(reader, sock), 0), START)
            case 5:
                pair.udp.receive(_from_gateway(reader, reader.below(20)), START)
            case 6:
                head = bytes([0, PORTS[reader.below(3)] & 0xFF]) + reader.bytes(8)
                error = IcmpError(1, [], reader.below(16), reader.below(16), reader.number(2), THEIRS, OURS, THEIRS,
                                  17 if reader.below(8) else 6, head)  # fmt: skip
                pair.udp.receive(error, START)
            case _:
                frame = (NeighbourDown("udp"), NeighbourUp("udp", reader.below(3)))[reader.below(2)]
                pair.gateway.receive(frame, START)
        pair.bounded()
        pair.settle((1 << 30, 0, 1)[reader.below(3)])
    pair.finish()

"""A udp core with routes, and short words for what goes in and out."""

from __future__ import annotations

import random
from typing import Any

from layers.udp.config import UdpCoreConfig
from layers.udp.core import UdpCore
from levelip.config import UdpConfig
from levelip.frames.packet import Checksum, IcmpError, Route, Routes, Segment
from levelip.frames.seam import Associate, Bind, NeighbourUp, OpenDatagram, Result, SendTo
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.udp import UdpHeader

OURS, THEIRS, OTHER = b"\x0a\0\0\2", b"\x0a\0\0\1", b"\x0a\0\0\3"
GROUP = b"\xef\1\2\3"
LOOPBACK = b"\x7f\0\0\1"
ROUTES = Routes(
    [
        Route(b"\x7f\0\0\0", 8, LOOPBACK, 65_535, 0),
        Route(OURS, 32, OURS, 65_535, 0),
        Route(b"\x0a\0\0\0", 24, OURS, 1500, 0),
        Route(b"\xc6\x33\x64\0", 24, OURS, 1500, 0, 113),  # unreachable: EHOSTUNREACH
    ],
    [OURS, LOOPBACK],
)


class UdpHost:
    """`out(port)` takes what the core has for "ip" or "gateway"."""

    def __init__(self, **settings: Any) -> None:
        self.config = UdpCoreConfig(udp=UdpConfig(**settings), epoch=7)
        self.core = UdpCore(self.config, random.Random(1), 0)
        self.core.interest = True
        self.now = 1
        self.number = 0
        for frame in (NeighbourUp("ip", 1), NeighbourUp("gateway", 1), ROUTES):
            self.core.receive(frame, self.now)
        self.taken: dict[str, list[Any]] = {"ip": [], "gateway": []}

    def feed(self, frame: Any) -> None:
        """A frame from a neighbour."""
        self.core.receive(frame, self.now)

    def out(self, port: str) -> list[Any]:
        """What came out of a port since the last call."""
        for name, frame in self.core.outgoing({}):
            self.taken[name].append(frame)
        frames, self.taken[port] = self.taken[port], []
        return frames

    def call(self, frame: Any) -> Result:
        """A call that is answered with a Result."""
        self.feed(frame)
        answers = [one for one in self.out("gateway") if isinstance(one, Result)]
        assert len(answers) == 1
        return answers[0]

    def socket(self, sock: int = 1, *, port: int = 0, address: bytes = b"", **options: int) -> int:
        """A socket; bound if a port or an address is named. Returns its port."""
        self.feed(OpenDatagram(sock, 17, options))
        if not (port or address):
            return 0
        reuse = {name: bool(options.get(name)) for name in ("reuse_address", "reuse_port")}
        answer = self.call(Bind(1, sock, address, port, **reuse))
        assert answer.errno == 0, answer
        return int(answer.data["port"])

    def connect(self, sock: int, address: bytes, port: int) -> Result:
        """connect(2)."""
        return self.call(Associate(1, sock, address, port))

    def send(self, sock: int, data: bytes, address: bytes = b"", port: int = 0, **more: Any) -> Result:
        """sendto(2)."""
        return self.call(SendTo(1, sock, address, port, data, **more))

    def errno(self, answer: Result) -> int:
        """Of an answer."""
        return answer.errno


def datagram(
    data: bytes, port: int, *, src: bytes = THEIRS, sport: int = 4000, dst: bytes = OURS, checksum: int | None = None,
    state: int = Checksum.UNVERIFIED, length: int | None = None, **more: Any,
) -> Segment:  # fmt: skip
    """A datagram as ip hands it up; `checksum` None: the right one."""
    header = UdpHeader(sport, port, 8 + len(data) if length is None else length)
    if checksum is None:
        pseudo = pseudo_header_sum(src, dst, 17, 8 + len(data))
        checksum = internet_checksum(header.serialize() + data, pseudo) or 65_535
    head = header.serialize()[:6] + checksum.to_bytes(2, "big")
    fields: dict[str, Any] = {"network": b"E" + bytes(19), "flags": 0, **more}
    return Segment(5, [], False, 0, 1, src, dst, 17, 61, 0x10, head, data, int(state), 0, **fields)


def icmp_error(kind: int, code: int, *, port: int, dport: int = 4000, mtu: int = 0) -> IcmpError:
    """An error about a datagram from our `port` to THEIRS."""
    head = UdpHeader(port, dport, 20).serialize()
    return IcmpError(9, [], kind, code, mtu, b"\x0a\0\0\xfe", OURS, THEIRS, 17, head)

"""A gateway core beside a real udp core: what the pair answers an application, in virtual time.

bench = DatagramBench()
sock = bench.socket("bound")                    # or "unbound", "connected"
bench.app.send(SendDatagram(sock, REMOTE, 53, b"query"))
bench.sent()                                    # segments that udp gave to ip
bench.arrive(b"answer", port=40_001)            # one from the network
"""

from __future__ import annotations

import random
from typing import Any

from gateway_bench import LOCAL, MS, REMOTE, Bench

from layers.udp.config import UdpCoreConfig
from layers.udp.core import UdpCore
from levelip.config import UdpConfig
from levelip.frames.packet import Checksum, IcmpError, Route, Routes, Segment
from levelip.frames.seam import ForClient, NeighbourDown, NeighbourUp
from levelip.rpc.messages import Reply
from levelip.wire.udp import UdpHeader

HERE = bytes([127, 0, 0, 1])
PORT, PEER_PORT = 5000, 53
GROUP = bytes([239, 1, 2, 3])
SAMPLES: dict[str, dict[str, Any]] = {
    "bind": {"address": LOCAL, "port": PORT + 1},
    "connect": {"address": REMOTE, "port": PEER_PORT + 1},
    "shutdown": {"how": 1},
    "getsockopt": {"level": 1, "option": 4},
    "setsockopt": {"level": 1, "option": 6, "value": 1},
}
ROUTES = Routes(
    [
        Route(bytes([10, 0, 0, 0]), 24, LOCAL, 1500, 0, 0),
        Route(bytes([127, 0, 0, 0]), 8, HERE, 65_535, 0, 0),
        Route(bytes(4), 0, LOCAL, 1500, 0, 0),
    ],
    [LOCAL, HERE],
)


class DatagramBench(Bench):
    """See the module's text. `gateway` is the core under test, `udp` its neighbour; `hold` keeps udp from answering."""

    def __init__(self, *, uid: int = 1000, **gateway: Any) -> None:
        self.udp = self._fresh_udp()
        self.to_ip: list[Any] = []
        self.to_udp: list[Any] = []
        self.hold = False
        self.udp_epoch = 1
        super().__init__(**gateway)
        self.udp_up()
        self.app = self.client(uid=uid)
        self.app.take()

    def _fresh_udp(self) -> UdpCore:
        core = UdpCore(UdpCoreConfig(udp=UdpConfig(), epoch=9), random.Random(3), 0)
        core.receive(ROUTES, 0)
        return core

    def flush(self) -> None:
        """Deliver all that either says."""
        for _ in range(1000):
            output = self.core.outgoing({"udp": 0} if self.hold else {})
            if not output:
                return
            for port, message in output:
                if port == "udp":
                    self.to_udp.append(message)
                    self.udp.receive(message, self.now)
                elif port == "tcp":
                    self.told.append(message)
                    self._answer(message)
                elif isinstance(message, ForClient):
                    self._deliver(message)
                else:
                    self.door.append(message)
            self._hear_udp()
        raise AssertionError("the core never stops talking")

    def _hear_udp(self) -> None:
        for port, message in self.udp.outgoing({}):
            if port == "gateway":
                self.core.receive(message, self.now)
            else:
                self.to_ip.append(message)

    def udp_up(self, *, same: bool = False) -> None:
        """udp says hello; a fresh one unless `same`."""
        if not same:
            self.udp = self._fresh_udp()
            self.udp_epoch += 1
        self.feed(NeighbourUp("udp", self.udp_epoch))

    def udp_down(self) -> None:
        """udp is killed."""
        self.feed(NeighbourDown("udp"))

    def socket(self, state: str = "unbound", **options: int) -> int:
        """A datagram socket in a state of docs/rpc.md."""
        sock: int = self.app.ok("socket", type=2)["sock"]
        if state == "bound":
            self.app.ok("bind", sock, address=LOCAL, port=PORT)
        elif state == "connected":
            self.app.ok("connect", sock, address=REMOTE, port=PEER_PORT)
        return sock

    def port(self, sock: int) -> int:
        """Its local port."""
        number: int = self.app.ok("getsockname", sock)["port"]
        return number

    def sent(self) -> list[Segment]:
        """Datagrams that went to ip since the last look."""
        told, self.to_ip = self.to_ip, []
        return [frame for frame in told if isinstance(frame, Segment)]

    def answer(self, request: int) -> Reply:
        """The Reply to a SendDatagram."""
        reply = self.app.reply(request)
        assert reply is not None
        return reply

    def arrive(
        self, payload: bytes, *, port: int = PORT, src: bytes = REMOTE, src_port: int = PEER_PORT, dst: bytes = LOCAL,
        options: bytes = b"", age: int = 0,
    ) -> None:  # fmt: skip
        """A datagram comes from the network; `age` ns ago it entered the stack."""
        head = UdpHeader(src_port, port, 8 + len(payload)).serialize()
        self.udp.receive(
            Segment(
                id=1, causes=[], traced=False, ingress=self.now - age, iface=1, src=src, dst=dst, proto=17, ttl=61,
                tos=4, head=head, payload=payload, checksum=int(Checksum.VERIFIED), gso_size=0, options=options,
            ),
            self.now,
        )  # fmt: skip
        self._hear_udp()
        self.flush()

    def icmp(self, sock: int, kind: int, code: int, *, mtu: int = 0, quote: bytes = b"") -> None:
        """An ICMP error about a datagram of this socket to its peer."""
        head = self.port(sock).to_bytes(2, "big") + PEER_PORT.to_bytes(2, "big") + bytes(4) + quote
        self.udp.receive(
            IcmpError(
                id=1, causes=[], icmp_type=kind, icmp_code=code, mtu=mtu, reporter=REMOTE, src=LOCAL, dst=REMOTE,
                proto=17, head=head,
            ),
            self.now,
        )  # fmt: skip
        self._hear_udp()
        self.flush()


__all__ = ["GROUP", "HERE", "LOCAL", "MS", "PEER_PORT", "PORT", "REMOTE", "SAMPLES", "DatagramBench"]

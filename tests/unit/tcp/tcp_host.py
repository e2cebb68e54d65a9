"""A tcp core alone in virtual time, and its peer played by the test: tests read as packet traces.

Sequence numbers are relative, as tcpdump shows them: 0 is the SYN, 1 the first byte after it; `seq` counts from the
sender's ISN and `ack` from the other's. Times are in ms.

    c = established()
    c.inject("PA", seq=1, ack=1, data=b"hello")
    c.expect("A", seq=1, ack=6)
    c.expect_nothing()
"""

from __future__ import annotations

import random
import struct
from collections import deque
from typing import Any

from layers.tcp.config import TcpCoreConfig
from layers.tcp.connection import Connection
from layers.tcp.context import Context
from layers.tcp.core import TcpCore
from levelip.config import TcpConfig
from levelip.frames.packet import Checksum, Doubt, IcmpError, PathMtu, Progress, Route, Routes, Segment
from levelip.frames.seam import Bind, Close, Connect, Connected, Incoming, Listen, NeighbourUp, Result, Taken
from levelip.rpc.place import Rings
from levelip.rpc.stream import Consumed, Eof, Send
from levelip.wire.options import TcpOptions, parse_options
from levelip.wire.tcp import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG
from tests.netsim.net import MS, FakeMemory, check_frame
from tests.netsim.tcp_invariants import check_connections

OURS, THEIRS = b"\x0a\0\0\2", b"\x0a\0\0\1"
PORT, PEER_PORT = 80, 4711
LETTERS = {"F": FIN, "S": SYN, "R": RST, "P": PSH, "A": ACK, "U": URG, "E": ECE, "C": CWR}
MASK = 0xFFFF_FFFF
MSS = 1448  # of an Ethernet path with timestamps
START = 1_000_000 * MS
RING = 65_536

HOSTS: list[Host] = []
"""Those of the test that runs: conftest looks at their state at its end."""


def flag_bits(letters: str) -> int:
    """ "SA" → SYN | ACK."""
    return sum(LETTERS[letter] for letter in letters)


def flag_letters(bits: int) -> str:
    """SYN | ACK → "SA"; letters in the order F S R P A U E C."""
    return "".join(letter for letter, bit in LETTERS.items() if bits & bit)


class Got:
    """A segment that came out, taken apart. `seq` and `ack` relative."""

    def __init__(self, host: Host, segment: Segment) -> None:
        self.segment = segment
        fields = struct.unpack_from(">HHIIHHHH", segment.head)
        self.ports = fields[:2]
        self.bits = fields[4] & 0x1FF
        self.flags = "".join(sorted(flag_letters(self.bits)))
        self.seq = (fields[2] - host.isn) & MASK
        self.ack = (fields[3] - host.irs) & MASK if self.bits & ACK else None
        self.raw_seq, self.raw_ack = fields[2], fields[3]
        self.win = fields[5]
        self.options: TcpOptions = parse_options(segment.head[20:])
        self.data = host.memory.read(segment.payload)
        self.len = len(self.data)
        self.sack = [((left - host.irs) & MASK, (right - host.irs) & MASK) for left, right in self.options.sack]
        self.gso = segment.gso_size
        self.checksum = segment.checksum
        self.dst = segment.dst
        self.tos = segment.tos

    def __repr__(self) -> str:
        return f"<{self.flags} seq={self.seq} ack={self.ack} win={self.win} len={self.len} sack={self.sack}>"


class Host:
    """The core with what it wants to say, and numbers of one connection with the peer."""

    def __init__(self, *, isn: int = 1000, irs: int = 5000, mtu: int = 1500, gso_max: int = 0, seed: int = 1,
                 ts: bool = True, sack: bool = True, wscale: int | None = 7, mss: int | None = 1460, win: int = 65_535,
                 routes: bool = True, **tcp: Any) -> None:  # fmt: skip
        values: dict[str, Any] = {
            "send_ring": RING, "receive_ring": RING, "send_buffer": RING, "receive_buffer": RING, "connections": 8,
            "congestion": "newreno",  # its figures are easily worked out by hand
        }  # fmt: skip
        values.update(tcp)
        self.config = TcpCoreConfig(tcp=TcpConfig(**values), epoch=3, isn_secret=b"i" * 32, port_secret=b"p" * 32,
                                    fixed_isn=isn)  # fmt: skip
        self.isn, self.irs = isn & MASK, irs & MASK
        self.now = START
        self.core = TcpCore(self.config, random.Random(seed), self.now)
        HOSTS.append(self)
        self.memory = FakeMemory()
        self.segments: deque[Segment] = deque()
        self.messages: deque[Any] = deque()
        self.doubts: list[Doubt] = []
        self.progress: list[tuple[int, bytes]] = []
        self.path_mtus: list[tuple[bytes, int]] = []  # what ip was told
        self.ts, self.sack, self.wscale, self.mss, self.win = ts, sack, wscale, mss, win
        self.stamp = 100  # the peer's TSval
        self.agreed_ts = False
        self.last_tsval = 0
        self.rings: Rings | None = None
        self.sock = 0
        self.limit = 0
        self.sent = 0
        self.peer_port = PEER_PORT
        self.local_port = PORT
        self.frame = 0
        if routes:
            self.routes(mtu, gso_max)
        self.core.receive(NeighbourUp("gateway", 9), self.now)

    # time and frames

    def routes(self, mtu: int = 1500, gso_max: int = 0) -> None:
        """What ip tells."""
        rows = [Route(b"\x0a\0\0\0", 24, OURS, mtu, gso_max), Route(b"\x7f\0\0\0", 8, b"\x7f\0\0\1", 65_535, 0)]
        self.core.receive(Routes(rows, [OURS]), self.now)

    def flush(self, room: dict[str, int] | None = None) -> None:
        """One flush, as the shell does it."""
        output = self.core.outgoing(room or {})
        for port, frame in output:
            if port == "memory":
                self.memory.store(frame.place, frame.payload)
        for port, frame in output:
            check_frame(frame)
            if port == "ip" and isinstance(frame, Doubt):
                self.doubts.append(frame)
            elif port == "ip" and isinstance(frame, Progress):
                self.progress.append((self.now, frame.dst))
            elif port == "ip" and isinstance(frame, PathMtu):
                self.path_mtus.append((frame.dst, frame.mtu))
            elif port == "ip":
                self._well_formed(frame)
                self.segments.append(frame)
            elif port == "gateway":
                self.messages.append(frame)
        check_connections(self.core)

    def _well_formed(self, segment: Segment) -> None:
        """What is true of every segment that tcp gives to ip."""
        assert segment.id >> 60 == 3 and segment.id >> 40 & 0xFFFFF == self.config.epoch
        assert len(segment.causes) <= 1 and all(cause > 0 for cause in segment.causes)
        assert type(segment.traced) is bool and type(segment.dont_fragment) is bool
        assert (segment.iface, segment.proto, segment.checksum) == (0, 6, Checksum.PARTIAL)
        assert type(segment.src) is type(segment.dst) is bytes and len(segment.src) == len(segment.dst) in (4, 16)
        assert segment.ingress <= self.now and 0 <= segment.ttl <= 255 and 0 <= segment.tos <= 255
        size = (segment.head[12] >> 4) * 4
        assert size == len(segment.head) and segment.head[16:18] == b"\0\0"  # the checksum is still to be made
        if not segment.head[13] & URG:
            assert segment.head[18:20] == b"\0\0"
        assert not segment.gso_size or len(segment.payload) > segment.gso_size

    def advance(self, ms: float) -> None:
        """Let time pass; every timer fires when it is due."""
        end = self.now + int(ms * MS)
        for _ in range(10_000):
            due = self.core.next_timer()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.core.handle_timer(self.now)
            self.flush()
        else:
            raise AssertionError("timers without end")
        self.now = end
        self.stamp += int(ms)

    def call(self, frame: Any) -> None:
        """A message of the gateway, and the flush after it."""
        self.core.receive(frame, self.now)
        self.flush()

    def segment(self, flags: str, *, seq: int = 0, ack: int | None = None, data: bytes = b"", win: int | None = None,
                options: TcpOptions | None = None, ts: int | None = None, no_ts: bool = False,
                sack: list[tuple[int, int]] | None = None, gso: int = 0, src_port: int | None = None,
                dst_port: int | None = None, flags_frame: int = 0, tos: int = 0) -> Segment:  # fmt: skip
        """A segment of the peer."""
        if "A" in flags and ack is None:
            raise AssertionError("which ack?")
        if options is None:
            stamps = None
            if "S" in flags:
                stamps = (self.stamp if ts is None else ts, self.last_tsval if "A" in flags else 0) if self.ts else None
                options = TcpOptions(mss=self.mss, wscale=self.wscale, sack_permitted=self.sack, timestamps=stamps)
            else:
                if self.agreed_ts and not no_ts:
                    stamps = (self.stamp if ts is None else ts, self.last_tsval)
                blocks = tuple(((self.isn + a) & MASK, (self.isn + b) & MASK) for a, b in sack or ())
                options = TcpOptions(timestamps=stamps, sack=blocks)
        packed = options.serialize()
        head = struct.pack(
            ">HHIIHHHH", self.peer_port if src_port is None else src_port,
            self.local_port if dst_port is None else dst_port, (self.irs + seq) & MASK,
            (self.isn + ack) & MASK if ack is not None else 0, (20 + len(packed)) << 10 | flag_bits(flags),
            self.win if win is None else win, 0, 0,
        )  # fmt: skip
        self.frame += 1
        return Segment(self.frame, [], False, self.now, 0, THEIRS, OURS, 6, 64, tos, head + packed, data,
                       int(Checksum.VERIFIED), gso, True, flags_frame)  # fmt: skip

    def inject(self, flags: str, *, flush: bool = True, **fields: Any) -> None:
        """The peer sends a segment, and the flush after it."""
        self.core.receive(self.segment(flags, **fields), self.now)
        if flush:
            self.flush()

    def icmp(self, kind: int, code: int, *, seq: int, mtu: int = 0) -> None:
        """An ICMP error about our segment at `seq`."""
        head = struct.pack(">HHI", self.local_port, self.peer_port, (self.isn + seq) & MASK)
        self.core.receive(IcmpError(1, [], kind, code, mtu, b"\x0a\0\0\xfe", OURS, THEIRS, 6, head), self.now)
        self.flush()

    # expectations

    def expect(self, flags: str, **fields: Any) -> Got:
        """The next segment that came out has these flags (in any order) and fields."""
        assert self.segments, f"nothing was sent, wanted {flags} {fields}"
        got = Got(self, self.segments.popleft())
        if got.options.timestamps is not None:
            self.last_tsval = got.options.timestamps[0]
        assert got.flags == "".join(sorted(flags)), f"{got}, wanted {flags} {fields}"
        for name, wanted in fields.items():
            assert getattr(got, name) == wanted, f"{got}: {name} is {getattr(got, name)!r}, wanted {wanted!r}"
        return got

    def expect_nothing(self) -> None:
        """No segment came out."""
        assert not self.segments, [Got(self, segment) for segment in self.segments]

    def sizes(self) -> list[int]:
        """Payloads that came out since the last look."""
        found = [Got(self, segment).len for segment in self.segments]
        self.segments.clear()
        return found

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The figures of the events of one kind since the last look."""
        return [event.data for event in self.core.events() if event.kind == kind]

    def message(self, kind: type, **fields: Any) -> Any:
        """The next message to the gateway."""
        assert self.messages, f"nothing was told, wanted {kind.__name__} {fields}"
        got = self.messages.popleft()
        assert type(got) is kind, f"{got}, wanted {kind.__name__}"
        for name, wanted in fields.items():
            assert getattr(got, name) == wanted, f"{got}: wanted {name} {wanted!r}"
        return got

    def find_message(self, kind: type) -> Any:
        """The first message of a kind among those told; those before it are forgotten."""
        while self.messages:
            got = self.messages.popleft()
            if type(got) is kind:
                return got
        raise AssertionError(f"no {kind.__name__}")

    def no_message(self) -> None:
        """Nothing was told."""
        assert not self.messages, list(self.messages)

    def row(self, sock: int | None = None) -> dict[str, Any] | None:
        """What `lvlip ss` shows of a socket."""
        for row in self.core.control(1, "ss", {}, self.now)["sockets"]:
            if row["sock"] == (self.sock if sock is None else sock):
                return dict(row)
        return None

    @property
    def state(self) -> str:
        """The state of the connection; CLOSED if it is unknown."""
        row = self.row()
        return "CLOSED" if row is None else str(row["state"])

    def tcb(self) -> dict[str, Any]:
        """The whole TCB."""
        return dict(self.core.control(1, "conn", {"sock": self.sock}, self.now)["tcb"])

    def parts(self) -> tuple[Context, Connection]:
        """What the parts of tcp are given: for tests of one of them alone."""
        ctx = self.core._ctx
        return ctx, ctx.sockets[self.sock]

    def dropped(self, reason: str) -> int:
        """How often something was dropped for `reason`."""
        return self.core.counters.get(f"drop.{reason}", 0)

    def received(self, start: int, length: int) -> bytes:
        """What lies in the receive ring."""
        assert self.rings is not None
        return self.memory.read(self.rings.receive(start, length))

    # calls

    def listen(self, *, backlog: int = 16, sock: int = 50, options: dict[str, int] | None = None, port: int = PORT,
               reuse: bool = False) -> None:  # fmt: skip
        """A listener."""
        self.call(Bind(1, sock, b"", port, reuse))
        self.call(Listen(2, sock, "", backlog, options or {}))
        assert self.message(Result).errno == 0
        assert self.message(Result).errno == 0

    def connect(self, *, sock: int = 60, options: dict[str, int] | None = None) -> None:
        """An active open to the peer, port 4711; our port is learned from the SYN."""
        self.sock = sock
        self.call(Connect(sock, "", THEIRS, PEER_PORT, options or {}))

    def learn_port(self) -> None:
        """Our ephemeral port, from the segment that waits."""
        self.local_port = struct.unpack_from(">H", self.segments[0].head)[0]

    def write(self, data: bytes) -> None:
        """The application sends: bytes to the ring, then the word."""
        assert self.rings is not None
        self.memory.store(self.rings.send(self.sent, len(data)), data)
        offset, self.sent = self.sent, self.sent + len(data)
        self.call(Send(self.sock, offset, len(data)))

    def consume(self, upto: int) -> None:
        """The application took bytes."""
        self.call(Consumed(self.sock, upto))

    def shut(self) -> None:
        """shutdown(SHUT_WR)."""
        self.call(Eof(self.sock, self.sent))

    def close(self, *, abort: bool = False) -> None:
        """close()."""
        self.call(Close(self.sock, abort))

    def quiet(self) -> Host:
        """Forget what came out so far."""
        self.segments.clear()
        self.messages.clear()
        return self


# one factory a state


def closed(**how: Any) -> Host:
    """Nobody listens."""
    return Host(**how)


def listening(**how: Any) -> Host:
    """LISTEN on port 80."""
    host = Host(**how)
    host.listen()
    host.sock = 50
    return host


def syn_sent(*, connect: dict[str, int] | None = None, **how: Any) -> Host:
    """SYN-SENT: the SYN is out."""
    host = Host(**how)
    host.connect(options=connect)
    host.learn_port()
    host.expect("S", seq=0)
    return host


def syn_received(**how: Any) -> Host:
    """SYN-RECEIVED by a listener: the SYN-ACK is out."""
    host = listening(**how)
    host.inject("S", seq=0)
    got = host.expect("SA", seq=0, ack=1)
    host.agreed_ts = got.options.timestamps is not None
    host.sock = next(row["sock"] for row in host.core.control(1, "ss", {}, 0)["sockets"] if row["state"] != "LISTEN")
    return host


def established(**how: Any) -> Host:
    """ESTABLISHED by a listener."""
    host = syn_received(**how)
    host.inject("A", seq=1, ack=1)
    told = host.message(Incoming)
    host.sock, host.rings, host.limit = told.sock, told.rings, told.limit
    host.call(Taken(50, told.sock))
    host.expect_nothing()
    return host


def far(rtt: int = 100, **how: Any) -> Host:
    """ESTABLISHED by a listener over a path of `rtt` ms: SRTT = rtt, RTTVAR = rtt / 2, RTO = rtt + max(200, 2 rtt)."""
    host = syn_received(**how)
    host.advance(rtt)
    host.inject("A", seq=1, ack=1)
    told = host.message(Incoming)
    host.sock, host.rings, host.limit = told.sock, told.rings, told.limit
    host.call(Taken(50, told.sock))
    host.expect_nothing()
    return host


def connected(*, connect: dict[str, int] | None = None, **how: Any) -> Host:
    """ESTABLISHED by an active open; the peer's port is 4711."""
    host = syn_sent(connect=connect, **how)
    host.inject("SA", seq=0, ack=1)
    got = host.expect("A", seq=1, ack=1)
    host.agreed_ts = got.options.timestamps is not None
    told = host.message(Connected)
    host.rings, host.limit = told.rings, told.limit
    return host


def close_wait(**how: Any) -> Host:
    """The peer has closed."""
    host = established(**how)
    host.inject("FA", seq=1, ack=1)
    host.expect("A", seq=1, ack=2)
    return host.quiet()


def last_ack(**how: Any) -> Host:
    """Both have closed, the peer first."""
    host = close_wait(**how)
    host.shut()
    host.expect("FA", seq=1, ack=2)
    return host.quiet()


def fin_wait_1(**how: Any) -> Host:
    """We have closed, with shutdown()."""
    host = established(**how)
    host.shut()
    host.expect("FA", seq=1, ack=1)
    return host.quiet()


def fin_wait_2(**how: Any) -> Host:
    """Our FIN is acknowledged."""
    host = fin_wait_1(**how)
    host.inject("A", seq=1, ack=2)
    return host.quiet()


def closing(**how: Any) -> Host:
    """Both closed at once; our FIN is not acknowledged."""
    host = fin_wait_1(**how)
    host.inject("FA", seq=1, ack=1)
    host.expect("A", seq=2, ack=2)
    return host.quiet()


def time_wait(**how: Any) -> Host:
    """We closed first, and all is done."""
    host = fin_wait_2(**how)
    host.inject("FA", seq=1, ack=2)
    host.expect("A", seq=2, ack=2)
    return host.quiet()


STATES = {
    "CLOSED": closed,
    "LISTEN": listening,
    "SYN_SENT": syn_sent,
    "SYN_RECEIVED": syn_received,
    "ESTABLISHED": established,
    "FIN_WAIT_1": fin_wait_1,
    "FIN_WAIT_2": fin_wait_2,
    "CLOSE_WAIT": close_wait,
    "CLOSING": closing,
    "LAST_ACK": last_ack,
    "TIME_WAIT": time_wait,
}

"""A peer that acknowledges: what stands for the other end once a recording cannot.

It takes what it is sent, in order or not, and answers each segment that holds anything at once, one round trip after it
went out: cumulative ACK (RFC 9293 3.10.7.4), SACK blocks with the newest first (RFC 2018 4), timestamps (RFC 7323 4.3).
Nothing is lost on the way, the window stays as it last was, and it sends no data of its own, nor a FIN. Where it stands
is learned from what the recorded peer said, so a connection whose SYN that had not answered gets no answer here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from levelip.frames.packet import Checksum, FrameIds, Packet, Process
from levelip.wire.errors import Malformed
from levelip.wire.ipv4 import Ipv4Header
from levelip.wire.options import pack_sack, pack_timestamps, parse_options
from levelip.wire.tcp import TcpHeader, pack_tcp

FIN, SYN, RST, ACK = 1, 2, 4, 16
MASK: Final = 0xFFFF_FFFF
TICK: Final = 1_000_000  # ns of a timestamp's unit (RFC 7323 5.4: 1 ms to 1 s)
SACK_BLOCKS: Final = 3
_TCP = 6

Key = bytes  # our address and port, the peer's address and port


@dataclass(frozen=True, slots=True)
class Told:
    """What a packet says of a connection. `length` counts SYN and FIN."""

    key: Key
    tcp: TcpHeader
    length: int
    ttl: int
    timestamps: tuple[int, int] | None
    sack: tuple[tuple[int, int], ...]


def told(packet: Packet, *, ours: bool) -> Told | None:
    """None for what is no whole TCP segment. `ours`: it goes to the peer."""
    head, payload = packet.head, packet.payload
    if len(head) < 20 or head[0] >> 4 != 4 or head[9] != _TCP or head[6] & 0x3F or head[7]:
        return None
    try:
        ip_len = (head[0] & 15) * 4
        tcp = TcpHeader.parse(head, ip_len)
        options = parse_options(tcp.options, strict=False)
    except Malformed:
        return None
    size = len(head) - ip_len - tcp.length + (len(payload) if isinstance(payload, bytes) else payload.length)
    length = size + bool(tcp.flags & SYN) + bool(tcp.flags & FIN)
    ports = struct.pack(">HH", tcp.src_port, tcp.dst_port)
    one, other = head[12:16] + ports[:2], head[16:20] + ports[2:]
    key = one + other if ours else other + one
    return Told(key, tcp, length, head[8], options.timestamps, options.sack)


@dataclass(slots=True)
class _Side:
    """The peer's end of a connection. `ranges`: what came out of order, [left, right) after `rcv_nxt`, newest first."""

    rcv_nxt: int
    snd_nxt: int
    window: int
    ttl: int
    rtt: int  # ns
    sack: bool
    ranges: list[tuple[int, int]] = field(default_factory=list)
    stamp: tuple[int, int] | None = None  # its last TSval, and when
    ts_recent: int = 0

    def take(self, seq: int, length: int) -> bool:
        """Bytes came; whether they are worth an answer."""
        left = (seq - self.rcv_nxt + (1 << 31) & MASK) - (1 << 31)
        right = left + length
        if not length:
            return left != 0  # a keep-alive or a probe (RFC 9293 3.8.4)
        merged = [(max(left, 0), right)] if right > 0 else []
        kept: list[tuple[int, int]] = []
        for one in self.ranges:
            if merged and one[0] <= merged[0][1] and merged[0][0] <= one[1]:
                merged = [(min(one[0], merged[0][0]), max(one[1], merged[0][1]))]
            else:
                kept.append(one)
        self.ranges = merged + kept
        step = next((end for begin, end in self.ranges if begin <= 0), 0)
        if step:
            self.rcv_nxt = self.rcv_nxt + step & MASK
            self.ranges = [(begin - step, end - step) for begin, end in self.ranges if begin > step]
        return True

    def has(self, seq: int, length: int) -> bool:
        """Whether the bytes are there."""
        left = (seq - self.rcv_nxt + (1 << 31) & MASK) - (1 << 31)
        return left + length <= 0 or any(a <= left and left + length <= b for a, b in self.ranges)

    def blocks(self) -> list[tuple[int, int]]:
        """SACK blocks, in sequence numbers."""
        return [(self.rcv_nxt + a & MASK, self.rcv_nxt + b & MASK) for a, b in self.ranges[:SACK_BLOCKS]]


class AckingPeer:
    """All peers of a stack. `later(at, packet)` brings a packet to it; `rows` are the connections of tcp's snapshot."""

    def __init__(self, rows: list[dict[str, Any]], later: Callable[[int, Packet], None], *, since: int) -> None:
        self._later = later
        self._since = since  # no answer arrives before: until then it is the recorded peer that answers
        self._ids = FrameIds(Process.TOOL, 1)
        self._sides: dict[Key, _Side] = {}
        self._rows = {
            b"".join((row["local"], row["local_port"].to_bytes(2, "big"),
                      row["remote"], row["remote_port"].to_bytes(2, "big"))): row
            for row in rows
        }  # fmt: skip
        self._ident = 0

    def saw(self, packet: Packet, now: int) -> None:
        """A packet of the recorded peer: where it stood when it sent it."""
        said = told(packet, ours=False)
        row = self._rows.get(said.key) if said is not None else None
        if said is None or row is None or not said.tcp.flags & ACK:
            return
        if said.tcp.flags & RST:
            self._sides.pop(said.key, None)
            return
        side = self._sides.get(said.key)
        end = said.tcp.seq + said.length & MASK
        # the window of a SYN is not scaled (RFC 7323 2.2)
        window = said.tcp.window >> row["tx"]["shift"] if said.tcp.flags & SYN else said.tcp.window
        if side is None:
            side = _Side(said.tcp.ack, end, window, said.ttl, row["rto"]["min_rtt"] or TICK, row["sack"])
            self._sides[said.key] = side
        if (said.tcp.ack - side.rcv_nxt & MASK) < 1 << 31:
            side.rcv_nxt, side.window = said.tcp.ack, window
            side.ranges = [(a - said.tcp.ack & MASK, b - said.tcp.ack & MASK) for a, b in said.sack
                           if (a - said.tcp.ack & MASK) < 1 << 31]  # fmt: skip
        if (end - side.snd_nxt & MASK) < 1 << 31:
            side.snd_nxt = end
        if said.timestamps is not None:
            side.stamp = said.timestamps[0], now
            side.ts_recent = said.timestamps[1]

    def arrives(self, packet: Packet, sent: int, *, before: bool = False) -> None:
        """One of ours, which went out at `sent`: it is answered one round trip later. `before`: the recorded peer may
        have had and answered it."""
        said = told(packet, ours=True)
        side = self._sides.get(said.key) if said is not None else None
        if said is None or side is None:
            return
        if said.tcp.flags & RST:
            del self._sides[said.key]
            return
        if before and side.has(said.tcp.seq, said.length):
            return
        if said.timestamps is not None and (side.rcv_nxt - said.tcp.seq & MASK) < 1 << 31:
            side.ts_recent = said.timestamps[0]  # RFC 7323 4.3, (2)
        if side.take(said.tcp.seq, said.length):
            at = max(sent + side.rtt, self._since)
            self._later(at, self._answer(said.key, side, packet.iface, at))

    def strange(self) -> list[str]:
        """Connections of tcp that it knows nothing of, "10.0.0.2:80"."""
        return [f"{'.'.join(map(str, key[6:10]))}:{int.from_bytes(key[10:], 'big')}"
                for key, row in self._rows.items() if key not in self._sides and row["remote_port"]]  # fmt: skip

    def _answer(self, key: Key, side: _Side, iface: int, now: int) -> Packet:
        options = b""
        if side.stamp is not None:
            value, at = side.stamp
            options = pack_timestamps(value + max(0, now - side.rtt // 2 - at) // TICK & MASK, side.ts_recent)
        if side.sack and side.ranges:
            options += pack_sack(side.blocks())
        ours, peers = key[4:6], key[10:12]
        tcp = pack_tcp(int.from_bytes(peers, "big"), int.from_bytes(ours, "big"), seq=side.snd_nxt, ack=side.rcv_nxt,
                       flags=ACK, window=side.window, options=options)  # fmt: skip
        self._ident = self._ident + 1 & 0xFFFF
        header = Ipv4Header.build(key[6:10], key[:4], proto=_TCP, payload_length=len(tcp), ident=self._ident,
                                  ttl=side.ttl, flags=2)  # fmt: skip
        head = header.serialize(fill_checksum=True) + tcp
        return Packet(self._ids.next(), [], False, now, iface, head, b"", int(Checksum.VERIFIED), 0)

"""A capture file as records of the tap bus: for the web view's rows, for `why`, journeys and paths.

Ours (lvlip capture) have an interface a seam, and the stack's decisions as comments. Which frame led to which they do
not say: a packet is bound to the one with the same headers at the seam before, the pieces of a super-segment to that.
An answer is bound to nothing, and times are those at which packets went into each process. Of others' captures
everything is at seam "link"; whose side is ours, the file says, or the flow model takes the side that opened.

A frame is named after who made it and its number in the file: what Wireshark calls 12 is "tcp-00000-12".
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from levelip.debug.tap import SEAMS, Notice, Record
from levelip.frames.packet import Process
from levelip.tracing.capturefile import BEGINNINGS, CapturedPacket, CaptureFile
from levelip.tracing.comments import read_comment
from levelip.tracing.flow import Flow, FlowModel
from levelip.tracing.flowfile import event_of_text, tcp_of
from levelip.tracing.linktypes import ETHERNET, HEADER, ip_header, known
from levelip.wire.options import parse_options
from levelip.wire.tcp import CWR, FIN, PSH, SYN

OURS = frozenset(SEAMS[:4])
_UPPERMOST = ("ip-tcp", "link-ip", "link")
_TAKER = {  # who takes a frame in at a seam, upward and downward; at the device link puts it out
    "link": ("link", "link"), "link-ip": ("ip", "link"), "ip-tcp": ("tcp", "ip"), "ip-udp": ("udp", "ip"),
}  # fmt: skip
_MAKER = {  # who made it
    "link": (Process.DEVICE, Process.LINK), "link-ip": (Process.LINK, Process.IP),
    "ip-tcp": (Process.IP, Process.TCP), "ip-udp": (Process.IP, Process.UDP),
}  # fmt: skip
_TCP, _UDP = 6, 17
_CHECKSUM = {_TCP: 16, _UDP: 6, 1: 2}
"""Where it lies in the transport header: which process completes it depends on the offload."""
_SPLIT = CWR | FIN | PSH
"""Flags that a piece of a super-segment may lack (RFC 3168 6.1.2: CWR goes with the first alone)."""
_NEAR_NS = 5_000_000_000
"""Longer than a packet waits for ARP's answer, or in what lvlip fault keeps back."""
_WAITING = 4096
"""Packets of a seam and way for which the next seam is waited, at most."""
_COMPARED = 64
_LARGEST = 1500
"""Bytes of an IP packet beyond which it is a super-segment: no cable that we know of takes it."""


class Captured:
    """What a file has, packet by packet. `ours`: seams are known; `origin`: the first packet's time, ns since 1970;
    `flows` is given, and told of every segment once."""

    def __init__(self, stream: BinaryIO, flows: FlowModel) -> None:
        """CaptureError for what is no capture."""
        self.file = CaptureFile(stream)
        self.flows = flows
        self.ours = False
        self.origin = 0
        self._flow_seam = ""
        self._ways = _Ways()
        self._mss: dict[tuple[bytes, bytes, bytes], int] = {}
        self._frames = 0

    @property
    def damage(self) -> str:
        """What ended it early, once all was read."""
        return self.file.damage

    @property
    def seams(self) -> list[str]:
        """Those that it has packets of, of a capture of ours."""
        return [seam for seam in SEAMS if seam in self.file.interfaces] if self.ours else []

    def __iter__(self) -> Iterator[Record]:
        for packet in self.file:
            yield from self._take(packet)

    def _take(self, packet: CapturedPacket) -> Iterator[Record]:
        self._frames += 1
        if not self._flow_seam:
            names = set(self.file.interfaces)
            self.ours = bool(names) and names <= OURS
            self._flow_seam = next((one for one in _UPPERMOST if one in names), "*") if self.ours else "*"
            self.origin = packet.when
        flow: Flow | None = None
        gso = 0
        found = tcp_of(packet.linktype, packet.data, packet.length)
        if found is not None:
            src, dst, head, length = found
            gso = self._piece(packet.length, src, dst, head)
            if self._flow_seam in ("*", packet.interface):
                outward = None if not packet.direction else packet.direction == 2
                flow = self.flows.segment(
                    packet.when, src, dst, head, length, gso=gso, id_=str(self._frames), outward=outward
                )
        record = self._record(packet, self._outward(packet, flow, found), gso)
        yield record
        for text in packet.comments:
            yield self._comment(packet.when, text, flow, record[7])

    def _outward(
        self, packet: CapturedPacket, flow: Flow | None, found: tuple[bytes, bytes, bytes, int] | None
    ) -> bool:
        """Whether the local side sent it: as the file says, else as the flow's ends say."""
        if packet.direction:
            return packet.direction == 2
        if flow is None or found is None:
            return False
        src, _, head, _ = found
        return (src, int.from_bytes(head[:2], "big")) == flow.local

    def _piece(self, length: int, src: bytes, dst: bytes, head: bytes) -> int:
        """What a super-segment is cut to: what the other side's MSS leaves beside options; 0 for another packet."""
        if len(head) < 20:
            return 0
        size = head[12] >> 2 & 0x3C
        if head[13] & SYN and size > 20:
            mss = parse_options(head[20:size], strict=False).mss
            if mss:
                self._mss[dst, src, head[2:4] + head[:2]] = mss  # of what comes to it
        if length <= _LARGEST + 14:
            return 0
        mss = self._mss.get((src, dst, head[:4]), 0)
        return max(0, mss - (size - 20)) if mss else 0

    def _record(self, packet: CapturedPacket, outward: bool, gso: int) -> Record:
        """A packet as the tap bus would tell of it (docs/tracing.md)."""
        seam = packet.interface if self.ours else "link"
        data, length = packet.data, packet.length
        at = ip_header(packet.linktype, data)
        if packet.linktype == ETHERNET or not known(packet.linktype):
            kind = "DeviceFrame"
        else:
            cut = HEADER.get(packet.linktype, 0)
            data, length, kind = data[cut:], max(0, length - cut), "DeviceFrame" if seam == "link" else "Packet"
        fields: dict[str, Any] = {"next_hop": b"", "flags": 0} if kind == "Packet" else {"vnet": b""}
        direction = "out" if outward and seam == "link" else "in"  # ours are taken where frames come in
        id_ = int(_MAKER[seam][outward]) << 60 | self._frames
        causes = self._ways.bind(seam, outward, packet, at, id_) if self.ours and at is not None else []
        return [
            0, "f", _TAKER[seam][outward], seam, direction, packet.when, packet.when, id_, causes, kind, fields, data,
            b"", length - len(data), 0, gso,
        ]  # fmt: skip

    def _comment(self, when: int, text: str, flow: Flow | None, frame: int) -> Record:
        found = read_comment(text)
        if found is None:
            return [0, "e", "file", when, [when, "comment", "", 0, "", {"text": text}]]
        flow = (self.flows.named(found.conn) if found.conn else None) or flow
        if flow is not None:
            told = event_of_text(found.said, flow.out_mss())
            self.flows.said(flow, when, found.process, told, found.said, "")
        conn = found.conn or (flow.key.partition("#")[0] if flow else "")
        frame = 0 if found.loose else frame
        return [0, "e", found.process, when, [when, found.kind, found.reason, frame, conn, found.data]]

    def notes(self) -> list[Notice]:
        """What a reader of a story should know of its source."""
        if self.ours:
            text = (
                f"a capture of the seams {', '.join(self.seams)}: frames are named by their number in the file "
                "(Wireshark's 12 is tcp-00000-12), what became of one at the next seam is found by its headers, and "
                "what an ACK answers is not known"
            )
        else:
            text = (
                "not a capture of lvlip's: it has one place and no decisions, all is inferred from packets, and “we” "
                "is the side that the file calls outbound, else the one that opened the connection"
            )
        return [Notice(self.origin, text)]


class _Ways:
    """Which packet is which at the seam before."""

    def __init__(self) -> None:
        self._exact: dict[tuple[str, bool], dict[Any, list[tuple[int, int]]]] = defaultdict(dict)
        self._large: dict[tuple[str, bool], dict[Any, deque[tuple[int, int, int, int, Any]]]] = defaultdict(dict)

    def bind(self, seam: str, outward: bool, packet: CapturedPacket, at: int, id_: int) -> list[int]:
        """The frame that led to this one, as a list of causes; remembered for the next seam."""
        read = _key(packet.data[at:], packet.length - at)
        if read is None:
            return []
        key, stream = read
        causes: list[int] = []
        for before in _before(seam, outward):
            place = before, outward
            waiting = self._exact[place].get(key)
            while waiting:
                when, cause = waiting.pop()  # the newest: what is older was lost, and this is it sent again
                if not waiting:
                    del self._exact[place][key]
                if 0 <= packet.when - when <= _NEAR_NS:
                    causes = [cause]
                break
            if not causes and stream is not None:
                causes = self._piece_of(place, stream, packet.when)
            if causes:
                break
        self._remember(seam, outward, key, stream, packet.when, id_)
        return causes

    def _piece_of(self, place: tuple[str, bool], stream: tuple[Any, int, int, Any], when: int) -> list[int]:
        flow, seq, length, same = stream
        for then, cause, start, size, other in reversed(self._large[place].get(flow, ())):
            inside = (seq - start & 0xFFFF_FFFF) + length <= size
            if inside and length < size and other == same and 0 <= when - then <= _NEAR_NS:
                return [cause]
        return []

    def _remember(self, seam: str, outward: bool, key: Any, stream: Any, when: int, id_: int) -> None:
        exact = self._exact[seam, outward]
        exact.setdefault(key, []).append((when, id_))
        if len(exact) > _WAITING:
            for old in list(exact)[: _WAITING // 2]:
                del exact[old]
        if stream is not None and stream[2]:
            flow, seq, length, same = stream
            flows = self._large[seam, outward]
            flows.setdefault(flow, deque(maxlen=_COMPARED)).append((when, id_, seq, length, same))
            if len(flows) > _WAITING:
                del flows[next(iter(flows))]


def _before(seam: str, outward: bool) -> tuple[str, ...]:
    """Where a packet was before, the nearest seam first."""
    if outward:
        return {"link": ("link-ip", "ip-tcp", "ip-udp"), "link-ip": ("ip-tcp", "ip-udp")}.get(seam, ())
    return {"ip-tcp": ("link-ip", "link"), "ip-udp": ("link-ip", "link"), "link-ip": ("link",)}.get(seam, ())


def _key(data: bytes, length: int) -> tuple[Any, tuple[Any, int, int, Any] | None] | None:
    """(what a packet is told by, of a TCP segment its (flow, first number, bytes, what a piece of it shares)); None for
    a fragment, and what is no IPv4."""
    if len(data) < 20 or data[0] >> 4 != 4:
        return None
    header = (data[0] & 15) * 4
    if header < 20 or data[6] & 0x3F or data[7]:
        return None
    total = data[2] << 8 | data[3] or length
    transport = data[header : min(total, header + _COMPARED)]
    at = _CHECKSUM.get(data[9])
    if at is not None:
        transport = transport[:at] + transport[at + 2 :]
    ends = data[12:20]
    key = ends, data[9], total - header, transport
    tcp = data[header:]
    if data[9] != _TCP or len(tcp) < 20:
        return key, None
    size = tcp[12] >> 2 & 0x3C
    if size < 20:
        return key, None
    key = ends, _TCP, total - header, tcp[:16] + tcp[18:size]  # payload may be cut at one seam
    same = tcp[8:12], tcp[13] & ~_SPLIT, tcp[14:16], tcp[20:size]
    return key, ((ends, tcp[:4]), int.from_bytes(tcp[4:8], "big"), total - header - size, same)


def is_capture(path: Path) -> bool:
    """Whether a file begins as captures do, also gzipped."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        start = stream.read(4)
    return start in BEGINNINGS or start[:2] == b"\x1f\x8b"


def read_capture(path: Path) -> Iterator[Record | Notice]:
    """Its records, and what a reader should know of them. CaptureError."""
    with path.open("rb") as stream:
        file = Captured(stream, FlowModel(infer=True))
        yield from file
    if file.damage:
        yield Notice(file.origin, f"records were left out: {file.damage}")
    yield from file.notes()

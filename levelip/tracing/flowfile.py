"""Flow models from files: captures (pcapng, pcap; anybody's) and the JSON lines of `lvlip trace --json`.

A capture has packets; ours have decisions, too, as comments, and of these the states, windows and round trips are read
back, as exact as the comments are (a tenth of a segment, three digits). JSON lines have all as the stack told it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from levelip.tracing.capturefile import CapturedPacket, CaptureError, CaptureFile
from levelip.tracing.events import Event
from levelip.tracing.flow import Flow, FlowModel
from levelip.tracing.linktypes import ip_header
from levelip.tracing.tracefile import read_line

_OURS = ("ip-tcp", "link-ip", "link", "ip-udp")
"""Seams that a capture of ours has interfaces for: a packet stands at each; one is taken, the uppermost with TCP."""
_TCP = 6
_MS = 1_000_000

_COMMENT = re.compile(r"(?:\d\d:\d\d:\d\d\.\d+ )?(link|ip|tcp|gateway|udp): (.*?)(?: \[(\S+) > (\S+)\])?$", re.DOTALL)
_STATE = re.compile(r"([A-Z][A-Z_0-9]+) → ([A-Z][A-Z_0-9]+)(?:, (.*))?$")
_CWND = re.compile(r"cwnd (?:[\d.]+ → )?([\d.]+)(?:, ssthresh ([\d.]+))?(?:, (.*))?$")
_UNDO = re.compile(r"reduction undone, (.*), cwnd [\d.]+ → ([\d.]+)$")
_RTT = re.compile(r"RTT (.*?)(?:, srtt (.*?))?(?:, rttvar (.*?))?(?:, RTO (.*?))?$")
_RTO = re.compile(r"RTO expired.*?, next in ([\d.]+ m?s)")
_RECOVERY = re.compile(r"loss recovery ([A-Z]+) → ([A-Z]+)(?:, (.*))?$")
_LOSS = re.compile(r"\d+ bytes lost")
_TIME = re.compile(r"([\d.]+) (m?s)$")


class FlowFile:
    """A file and what was found in it: `model`, what `kind` of file it is ("pcapng", "pcap", "trace"), how many
    `packets` it has, how many of them are `others` (no TCP, or no whole header), `start`, the time of day in ns of the
    model's start, and its `damage`, if reading ended early."""

    def __init__(self, path: str | Path) -> None:
        self.kind = ""
        self.packets = 0
        self.others = 0
        self.damage = ""
        self.start = 0
        self.path = Path(path)
        with self.path.open("rb") as stream:
            start = stream.peek(1)[:1]
            if start == b"{":
                self.model = FlowModel()
                self._lines(stream)
            else:
                self.model = FlowModel(infer=True)
                self._capture(stream)
                self.start = self.model.start or 0

    def _capture(self, stream: BinaryIO) -> None:
        capture = CaptureFile(stream)
        self.kind = capture.kind
        packets: Iterable[tuple[int, CapturedPacket]] = enumerate(capture, 1)
        if self.kind == "pcapng":
            packets = _one_seam(packets, capture)
        for number, packet in packets:
            self.packets += 1
            flow = self._packet(number, packet)
            self.others += flow is None
            for comment in packet.comments:
                _comment(self.model, packet.when, comment, str(number), flow)
        self.damage = capture.damage

    def _packet(self, number: int, packet: CapturedPacket) -> Flow | None:
        found = tcp_of(packet.linktype, packet.data, packet.length)
        if found is None:
            return None
        src, dst, head, length = found
        outward = None if not packet.direction else packet.direction == 2
        gso = 0
        if length > 1500:
            gso = self._piece(src, dst, head)
        return self.model.segment(packet.when, src, dst, head, length, gso=gso, id_=str(number), outward=outward)

    def _piece(self, src: bytes, dst: bytes, head: bytes) -> int:
        """The size of the pieces of a packet that is larger than any on a cable: what the other side's MSS leaves."""
        found = self.model.between(src, dst, head)
        if found is None:
            return 0
        flow, outward = found
        mss = (flow.into if outward else flow.out).mss
        return mss - ((head[12] >> 2 & 0x3C) - 20) if mss else 0

    def _lines(self, stream: BinaryIO) -> None:
        self.kind = "trace"
        for number, text in enumerate(stream, 1):
            try:
                line = read_line(text)
            except ValueError:
                if number == 1:
                    raise CaptureError("its first line is no record of lvlip trace --json") from None
                self.damage = f"line {number} is no record of lvlip trace --json"
                return
            record = line.record
            if record is None:
                continue
            if self.model.start is None:
                self.start = line.time
            if record[1] == "f":
                self.packets += 1
            if self.model.add(record) is None and record[1] == "f":
                self.others += 1


def _one_seam(
    packets: Iterable[tuple[int, CapturedPacket]], capture: CaptureFile
) -> Iterator[tuple[int, CapturedPacket]]:
    """Of our captures one seam's packets, and the comments of all; of others' everything."""
    chosen = ""
    for number, packet in packets:
        if not chosen:
            ours = [name for name in _OURS if name in capture.interfaces]
            chosen = ours[0] if len(ours) == len(capture.interfaces) and ours else "*"
        if chosen in ("*", packet.interface):
            yield number, packet
        elif packet.comments:
            yield number, packet._replace(data=b"", linktype=-1)


def tcp_of(linktype: int, data: bytes, length: int) -> tuple[bytes, bytes, bytes, int] | None:
    """(source, destination, TCP header and what of the payload is there, length of both) of a captured packet; None if
    it is something else, or a fragment. IPv4 and IPv6."""
    at = ip_header(linktype, data)
    if at is None or len(data) < at + 20:
        return None
    version = data[at] >> 4
    if version == 4:
        header = (data[at] & 15) * 4
        total = data[at + 2] << 8 | data[at + 3] or length - at  # 0: a segment larger than 64 KB (Linux BIG TCP)
        if header < 20 or data[at + 9] != _TCP or data[at + 6] & 0x3F or data[at + 7]:
            return None
        src, dst = data[at + 12 : at + 16], data[at + 16 : at + 20]
    elif version == 6 and len(data) >= at + 40:
        header = 40
        total = 40 + (data[at + 4] << 8 | data[at + 5]) if data[at + 4 : at + 6] != b"\0\0" else length - at
        if data[at + 6] != _TCP:
            return None
        src, dst = data[at + 8 : at + 24], data[at + 24 : at + 40]
    else:
        return None
    head = data[at + header : at + total]
    return src, dst, head, total - header


# what our captures say in comments


def _comment(model: FlowModel, when: int, text: str, id_: str, flow: Flow | None) -> None:
    """A decision that was noted on a packet."""
    found = _COMMENT.fullmatch(text)
    if found is None:
        return
    process, said, local, remote = found.groups()
    if local and remote:
        flow = model.named(f"{local}>{remote}") or flow
    if flow is None:
        return
    event = event_of_text(said, flow.out_mss())
    model.said(flow, when, process, event, said, id_)


def event_of_text(text: str, mss: int) -> Event:
    """The event behind a sentence of formatting.py, with its values where graphs need them: state, cwnd, undo, rtt,
    rto, recovery; without any for others. Windows are told in segments of `mss` bytes, to a tenth.
    """
    if found := _STATE.fullmatch(text):
        cause = (found[3] or "").upper().replace(" ", "_")
        return Event(0, "state", data={"old": found[1], "new": found[2], "input": cause})
    if found := _CWND.fullmatch(text):
        ssthresh = round(float(found[2]) * mss) if found[2] else None
        return Event(0, "cwnd", data={"new": round(float(found[1]) * mss), "ssthresh": ssthresh, "why": found[3] or ""})
    if found := _UNDO.fullmatch(text):
        return Event(0, "undo", data={"new": round(float(found[2]) * mss), "why": found[1]})
    if found := _RTO.match(text):
        return Event(0, "rto", data={"rto": _ns(found[1])})
    if found := _RTT.fullmatch(text):
        told = zip(("rtt", "srtt", "rttvar", "rto"), found.groups(), strict=True)
        return Event(0, "rtt", data={name: _ns(value) for name, value in told if value})
    if found := _RECOVERY.fullmatch(text):
        return Event(0, "recovery", data={"old": found[1], "new": found[2], "why": found[3] or ""})
    if _LOSS.match(text):
        return Event(0, "loss")
    return Event(0, re.split(r"[ ,]", text, maxsplit=1)[0])


def _ns(text: str) -> int:
    found = _TIME.fullmatch(text)
    return round(float(found[1]) * (_MS if found[2] == "ms" else 1000 * _MS)) if found else 0


def open_flows(path: str | Path) -> FlowFile:
    """The connections in a file. CaptureError tells what is wrong with it, OSError if it cannot be read."""
    return FlowFile(path)

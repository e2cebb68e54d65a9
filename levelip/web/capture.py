"""A capture file as a source: packets become records like those of the tap bus, comments become events and notes.

Of our own captures the seams are those of their interfaces, and the comments are the stack's decisions; of others'
everything is at seam "link", and the flow model infers the states. Read in slices, so that the server goes on serving.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any, BinaryIO

from levelip.debug.tap import SEAMS, Notice, Record
from levelip.frames.packet import Process
from levelip.tracing.capturefile import CapturedPacket, CaptureError, CaptureFile
from levelip.tracing.flow import Flow
from levelip.tracing.flowfile import event_of_text, tcp_of
from levelip.tracing.linktypes import ETHERNET, HEADER, known
from levelip.web.packets import KEEP
from levelip.web.source import Source

MAX_BYTES = 512 << 20
SLICE_S = 0.02
_OURS = frozenset(SEAMS[:4])
_COMMENT = re.compile(r"(?:(\d\d:\d\d:\d\d\.\d+) )?(link|ip|tcp|gateway|udp): (.*?)(?: \[(\S+) > (\S+)\])?$", re.DOTALL)
_UPPERMOST = ("ip-tcp", "link-ip", "link")


class Capture(Source):
    """A file that was read whole, up to `keep` packets and comments (the newest)."""

    def __init__(self, name: str, title: str, *, keep: int = KEEP) -> None:
        super().__init__(name, "capture", title, keep=keep)
        self._ours = False
        self._flow_seam = ""

    async def read(self, stream: BinaryIO) -> None:
        """Read it all. CaptureError for what is no capture."""
        file = CaptureFile(stream)
        records: list[Record | Notice] = []
        begun = time.perf_counter()
        for packet in file:
            self._take(packet, file, records)
            if time.perf_counter() - begun > SLICE_S:
                self.packets.extend(records)
                records.clear()
                await asyncio.sleep(0)
                begun = time.perf_counter()
        self.packets.extend(records)
        self.damage = file.damage
        if self.damage:
            self.packets.extend([Notice(0, f"reading ended early: {self.damage}")])
        if not self.packets.frames:
            raise CaptureError(f"no packets in it{f': {file.damage}' if file.damage else ''}")

    def _take(self, packet: CapturedPacket, file: CaptureFile, records: list[Record | Notice]) -> None:
        if not self._flow_seam:
            names = set(file.interfaces)
            self._ours = bool(names) and names <= _OURS
            self._flow_seam = next((one for one in _UPPERMOST if one in names), "*") if self._ours else "*"
            self.origin = packet.when
        flow: Flow | None = None
        if self._flow_seam in ("*", packet.interface):
            flow = self._follow(packet)
        outward = self._outward(packet, flow)
        record = _record(packet, self._ours, outward)
        records.append(record)
        for comment in packet.comments:
            self._comment(packet.when, comment, flow, records)

    def _follow(self, packet: CapturedPacket) -> Flow | None:
        found = tcp_of(packet.linktype, packet.data, packet.length)
        if found is None:
            return None
        src, dst, head, length = found
        outward = None if not packet.direction else packet.direction == 2
        number = str(self.packets.frames + 1)
        return self.flows.segment(packet.when, src, dst, head, length, id_=number, outward=outward)

    def _outward(self, packet: CapturedPacket, flow: Flow | None) -> bool:
        """Whether the local side sent it: as the file says, else as the flow's ends say."""
        if packet.direction:
            return packet.direction == 2
        if flow is None:
            return False
        found = tcp_of(packet.linktype, packet.data, packet.length)
        if found is None:
            return False
        src, _, head, _ = found
        return (src, int.from_bytes(head[:2], "big")) == flow.local

    def _comment(self, when: int, text: str, flow: Flow | None, records: list[Record | Notice]) -> None:
        found = _COMMENT.fullmatch(text)
        if found is None:
            records.append([0, "e", "file", when, [when, "comment", "", 0, "", {"text": text}]])
            return
        _, process, said, local, remote = found.groups()
        name = f"{local}>{remote}" if local and remote else ""
        flow = (self.flows.named(name) if name else None) or flow
        event = event_of_text(said, flow.out_mss() if flow else 0)
        if flow is not None:
            self.flows.said(flow, when, process, event, said, "")
        kind = event.kind if event is not None else said.split(",")[0].split(" ")[0].lower()
        data: dict[str, Any] = {"text": said}
        records.append([0, "e", process, when, [when, kind, "", 0, name or (flow.key if flow else ""), data]])


def _record(packet: CapturedPacket, ours: bool, outward: bool) -> Record:
    """A packet as the tap bus would tell of it (docs/tracing.md)."""
    seam = packet.interface if ours else "link"
    data = packet.data
    length = packet.length
    if packet.linktype == ETHERNET or not known(packet.linktype):
        kind = "DeviceFrame"
    else:
        cut = HEADER.get(packet.linktype, 0)
        data, length, kind = data[cut:], max(0, length - cut), "Packet"
    if seam == "link" and kind == "Packet":
        kind = "DeviceFrame"
    process = {"link": "link", "link-ip": "ip", "ip-tcp": "tcp", "ip-udp": "udp"}[seam]
    fields: dict[str, Any] = {"next_hop": b"", "flags": 0} if kind == "Packet" else {"vnet": b""}
    direction = "out" if outward else "in"
    return [
        0, "f", process, seam, direction, packet.when, packet.when, int(Process.TOOL) << 60, [], kind, fields, data,
        b"", length - len(data), 0, 0,
    ]  # fmt: skip


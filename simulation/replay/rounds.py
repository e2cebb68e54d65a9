"""tcp's recording as rounds, and the connections that began in it.

A round is what tcp was given from one flush to the next: what it took at one instant, whether its timers ran, what it
had to say (levelip/ipc/loop.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from levelip.frames.packet import Segment
from levelip.frames.seam import Connect, Connected, Incoming
from levelip.tracing.recordedcalls import Flushed, Received, SetTo, TimerRan, decode_frame
from levelip.tracing.recording import Recording
from levelip.wire.addr import format_ipv4
from levelip.wire.errors import Malformed
from levelip.wire.tcp import ACK, RST, SYN, TcpHeader
from simulation.script.packets import MASK
from simulation.script.record import RecordError

SHOWN = 5  # connections that a message names

Ends = tuple[bytes, bytes, int, int]  # our address, the peer's, our port, the peer's


@dataclass(slots=True)
class Round:
    """`taken`: frames, and settings (SetTo); `out`: (port, frame)."""

    now: int
    taken: list[Any] = field(default_factory=list)
    timers: bool = False
    out: list[tuple[str, Any]] = field(default_factory=list)


def rounds_of(recording: Recording) -> Iterator[Round]:
    """All of a recording. What came behind the last flush has led to nothing yet, and is left out."""
    one = Round(recording.span[0])
    for _, entry in recording.entries(recording.first):
        one.now = getattr(entry, "now", one.now)
        match entry:
            case Received():
                one.taken.append(decode_frame(entry.code, entry.frame, entry.cuts))
            case SetTo(error=""):
                one.taken.append(entry)
            case TimerRan():
                one.timers = True
            case Flushed():
                one.out = [(port, decode_frame(code, raw, cuts)) for port, code, raw, cuts in entry.out]
                yield one
                one = Round(one.now)


def read_segment(frame: Any) -> tuple[TcpHeader, int] | None:
    """Header of a segment, and the length of its data; None of any other frame."""
    if type(frame) is not Segment:
        return None
    inline = frame.payload if isinstance(frame.payload, bytes) else b""
    try:
        tcp = TcpHeader.parse(frame.head + inline)
    except Malformed:
        return None
    return tcp, len(frame.head) + len(frame.payload) - tcp.length


def ends_of(frame: Segment, tcp: TcpHeader, *, outbound: bool) -> Ends:
    """Which connection a segment belongs to."""
    if outbound:
        return frame.src, frame.dst, tcp.src_port, tcp.dst_port
    return frame.dst, frame.src, tcp.dst_port, tcp.src_port


def ends_text(ends: Ends) -> str:
    """As in the events of tcp."""
    local, remote, ours, theirs = ends
    return f"{format_ipv4(local)}:{ours} > {format_ipv4(remote)}:{theirs}"


@dataclass(slots=True)
class Begun:
    """A connection whose first SYN was recorded, `at` that instant. `syn`: our own. `sock`: the gateway's number, 0:
    it never had one; `listener`: that of whose child it is."""

    ends: Ends
    active: bool
    at: int
    syn: TcpHeader
    sock: int = 0
    listener: int = 0


@dataclass(slots=True)
class _Search:
    begun: dict[Ends, Begun] = field(default_factory=dict)
    older: dict[Ends, None] = field(default_factory=dict)  # of which something came before a SYN
    syns: dict[tuple[Ends, int], int] = field(default_factory=dict)  # the peer's SYN → when it came first
    connects: dict[tuple[bytes, int], int] = field(default_factory=dict)

    def took(self, frame: Any, now: int) -> None:
        if type(frame) is Connect:
            self.connects[frame.address, frame.port] = frame.sock
        elif (seen := read_segment(frame)) is not None:
            tcp = seen[0]
            ends = ends_of(frame, tcp, outbound=False)
            if tcp.flags & (SYN | ACK | RST) == SYN:
                self.syns.setdefault((ends, tcp.seq), now)
            elif ends not in self.begun and not tcp.flags & (SYN | RST):
                self.older[ends] = None

    def said(self, frame: Any, now: int) -> None:
        if isinstance(frame, Connected | Incoming):
            ends = (frame.local_address, frame.remote_address, frame.local_port, frame.remote_port)
            one = self.begun.get(ends)
            if one is not None and not one.listener and (one.active or type(frame) is Incoming):
                one.sock = frame.sock
                one.listener = frame.listener if type(frame) is Incoming else 0
        elif (seen := read_segment(frame)) is not None and seen[0].flags & (SYN | RST) == SYN:
            tcp = seen[0]
            ends = ends_of(frame, tcp, outbound=True)
            active = not tcp.flags & ACK
            at = now if active else self.syns.get((ends, (tcp.ack - 1) & MASK))
            if at is not None and ends not in self.begun and ends not in self.older:
                sock = self.connects.get((ends[1], ends[3]), 0) if active else 0
                self.begun[ends] = Begun(ends, active, at, tcp, sock)


def find_connection(recording: Recording, port: int) -> tuple[Begun, list[Begun]]:
    """The first connection that began in a recording (that with this port, if it is not 0), and all of them.
    RecordError if there is none: it says what there is, and what to do."""
    search = _Search()
    for one in rounds_of(recording):
        for frame in one.taken:
            search.took(frame, one.now)
        for _, frame in one.out:
            search.said(frame, one.now)
    found = list(search.begun.values())
    for begun in found:
        if not port or port in begun.ends[2:]:
            return begun, found
    with_port = f" with port {port}" if port else ""
    text = f"no connection{with_port} begins in {recording.path.name}"
    older = [ends for ends in search.older if not port or port in ends[2:]]
    if older:
        raise RecordError(
            f"{text}: {_some(older)} had begun before, and a packet script begins with the SYN. Start the recording "
            "before it connects; or make a test, which may begin anywhere: --to-test, with --from and --to"
        )
    raise RecordError(f"{text}; those that do: {_some([one.ends for one in found])}" if found else text)


def _some(found: list[Ends]) -> str:
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(map(ends_text, found[:SHOWN])) + more

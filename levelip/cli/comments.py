"""Packets held back for a moment, so that the events that they cause can be noted on them; then written as pcapng."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from levelip.cli.tracelines import WallClock
from levelip.debug.tap import (
    CAUSES,
    CHECKSUM,
    DIRECTION,
    EVENT_MONO,
    FIELDS,
    HEAD,
    ID,
    KIND,
    LENGTH,
    MONO,
    PAYLOAD,
    PROCESS,
    SEAM,
    TYPE,
    Notice,
    Record,
    event_of,
    goes_up,
)
from levelip.tracing.events import Event
from levelip.tracing.formatting import event_line
from levelip.tracing.pcapng import (
    INBOUND,
    LINKTYPE_ETHERNET,
    LINKTYPE_RAW,
    OUTBOUND,
    Interface,
    PcapngWriter,
    packet_bytes,
)

HOLD_NS = 200_000_000
"""How long a packet waits for events about it, which are published within the round that handled it; and an event for
the frames that lead to its packet, which another reader may bring later than it."""
_REMEMBERED = 50_000
"""Frame ids whose causes are known, oldest forgotten first."""
_AWAITED = 2_000
"""Frames that are to come, as they are delayed, at most."""
_DEPTH = 8
"""How far an event's frame is followed back to a captured packet: four seams, and loops of the stack in itself."""

_DESCRIPTIONS = {
    "link": "the device's border",
    "link-ip": "IP packets between link and ip",
    "ip-tcp": "segments between ip and tcp, with an IP header rebuilt",
    "ip-udp": "datagrams between ip and udp, with an IP header rebuilt",
}


class _Held:
    """A packet that waits for comments."""

    __slots__ = ("comments", "data", "direction", "interface", "length", "mono")

    def __init__(self, mono: int, interface: int, data: bytes, length: int, direction: int) -> None:
        self.mono = mono
        self.interface = interface
        self.data = data
        self.length = length
        self.direction = direction
        self.comments: list[str] = []


def _when(held: _Held) -> int:
    return held.mono


class Commenter:
    """Takes records, writes packets. An event is noted on the captured packet that it names; if that one was not
    captured, on the one from which it came, once it is known which that is; one without a packet (a timer's) on the
    next packet captured after it. What lvlip fault does to a packet is told of before that passes: it waits for it.

    `packets` and `events` count what was written, `homeless` events for which there was no packet at all; `full` after
    `count` packets. With `filtered`, events that lead to no captured packet, and name no connection of one, are left
    out: they are about others.
    """

    def __init__(
        self,
        stream: BinaryIO,
        seams: Sequence[str],
        *,
        ethernet: bool,
        snaplen: int | None = None,
        count: int | None = None,
        filtered: bool = False,
        clock: WallClock | None = None,
    ) -> None:
        self._interfaces = {seam: number for number, seam in enumerate(seams)}
        self._ethernet = ethernet
        self._snaplen = snaplen
        self._count = count
        self._filtered = filtered
        self._clock = clock or WallClock()
        self._held: list[_Held] = []
        self._by_id: dict[int, _Held] = {}
        self._causes: dict[int, list[int]] = {}
        self._loose: list[str] = []
        self._awaited: dict[int, list[tuple[int, str]]] = {}  # frame → (time, comment) for when it comes
        self._undecided: list[tuple[int, Event, str]] = []  # (time, event, comment): not known yet whose
        self._known: dict[str, None] = {}  # connections of captured packets
        self._taken = 0
        self.packets = 0
        self.events = 0
        self.homeless = 0
        device = LINKTYPE_ETHERNET if ethernet else LINKTYPE_RAW
        self._writer = PcapngWriter(
            stream,
            [Interface(seam, device if seam == "link" else LINKTYPE_RAW, _DESCRIPTIONS[seam]) for seam in seams],
        )

    @property
    def full(self) -> bool:
        """Whether `count` packets were taken."""
        return self._count is not None and self._taken >= self._count

    def take(self, records: Iterable[Record | Notice], *, captured: bool) -> None:
        """Records in the order of their times; `captured` False: frames that only tell where others come from."""
        for record in records:
            if isinstance(record, Notice):
                if captured:
                    self._loose.append(record.text)
            elif record[KIND] == "e":
                self._event(record)
            else:
                self._note_causes(record)
                if captured and not self.full:
                    self._packet(record)

    def write(self, now: int) -> int:
        """Write the packets that have waited long enough; how many."""
        self._decide(now - HOLD_NS)
        return self._write_until(now - HOLD_NS)

    def finish(self) -> None:
        """Write all the rest."""
        self._decide(None)
        self._give_up(0)
        if self._loose and self._held:
            self._held[-1].comments += self._loose
            self.events += len(self._loose)
        else:
            self.homeless += len(self._loose)
        self._loose = []
        self._write_until(None)

    def _packet(self, record: Record) -> None:
        found = packet_bytes(
            record[TYPE],
            record[FIELDS],
            record[HEAD],
            record[PAYLOAD],
            record[LENGTH],
            record[CHECKSUM],
            ethernet=self._ethernet,
        )
        if found is None:
            return
        data, length = found
        if self._snaplen is not None:
            data = data[: self._snaplen]
        up = goes_up(record[PROCESS], record[SEAM], record[DIRECTION])
        held = _Held(record[MONO], self._interfaces[record[SEAM]], data, length, INBOUND if up else OUTBOUND)
        if self._loose:
            held.comments += self._loose
            self.events += len(self._loose)
            self._loose = []
        if awaited := self._awaited.pop(record[ID], None):
            held.comments += [text for _, text in awaited]
            self.events += len(awaited)
        if self._held and held.mono < self._held[-1].mono:  # came late, from a process that was slow to tell
            bisect.insort(self._held, held, key=_when)
        else:
            self._held.append(held)
        self._by_id[record[ID]] = held
        self._taken += 1

    def _note_causes(self, record: Record) -> None:
        self._causes[record[ID]] = record[CAUSES]
        if len(self._causes) > _REMEMBERED:
            for old in list(self._causes)[: _REMEMBERED // 2]:
                del self._causes[old]

    def _event(self, record: Record) -> None:
        event = event_of(record)
        text = event_line(record[PROCESS], event)
        if self._noted(event, text):
            return
        if event.kind == "fault" and event.frame:
            self._awaited.setdefault(event.frame, []).append((record[EVENT_MONO], text))
            self._give_up(_AWAITED)
        elif event.frame or not self._about_these(event):
            self._undecided.append((record[EVENT_MONO], event, text))
        else:
            self._loosen(record[EVENT_MONO], text)

    def _noted(self, event: Event, text: str) -> bool:
        """On its packet, if that is known."""
        held = self._packet_of(event.frame) if event.frame else None
        if held is None:
            return False
        held.comments.append(text)
        self.events += 1
        if event.conn:
            self._known[event.conn] = None
            if len(self._known) > _REMEMBERED:
                del self._known[next(iter(self._known))]
        return True

    def _about_these(self, event: Event) -> bool:
        """Whether an event without a packet is about what is captured."""
        return not self._filtered or event.conn in self._known

    def _decide(self, until: int | None) -> None:
        """Events of which it was not known where they belong: those of which it is by now, or that have waited until
        then."""
        undecided, self._undecided = self._undecided, []
        for mono, event, text in undecided:
            if self._noted(event, text):
                continue
            late = until is None or mono <= until
            if self._about_these(event) and (late or not event.frame):
                self._note_next(mono, text)
            elif not late:
                self._undecided.append((mono, event, text))

    def _note_next(self, mono: int, text: str) -> None:
        """On the first packet after it, with its time."""
        index = bisect.bisect_right(self._held, mono, key=_when)
        if index == len(self._held):
            self._loosen(mono, text)
            return
        self._held[index].comments.append(f"{self._clock.text(mono)} {text}")
        self.events += 1

    def _give_up(self, most: int) -> None:
        """Of frames that are waited for, the oldest: they pass where nothing is captured."""
        for frame in list(self._awaited)[: max(0, len(self._awaited) - most)]:
            for mono, text in self._awaited.pop(frame):
                if not self._filtered:
                    self._loosen(mono, text)

    def _loosen(self, mono: int, text: str) -> None:
        """For the next packet, with its time."""
        self._loose.append(f"{self._clock.text(mono)} {text}")

    def _packet_of(self, frame: int) -> _Held | None:
        wave = [frame]
        for _ in range(_DEPTH):
            for one in wave:
                held = self._by_id.get(one)
                if held is not None:
                    return held
            wave = [cause for one in wave for cause in self._causes.get(one, ())]
        return None

    def _write_until(self, until: int | None) -> int:
        written = len(self._held) if until is None else bisect.bisect_right(self._held, until, key=_when)
        for one in self._held[:written]:
            self._writer.packet(
                one.interface,
                self._clock.ns(one.mono),
                one.data,
                one.length,
                direction=one.direction,
                comments=one.comments,
            )
        if written:
            del self._held[:written]
            self.packets += written
            left = set(map(id, self._held))
            self._by_id = {number: one for number, one in self._by_id.items() if id(one) in left}
        return written

"""Records in order, with what binds them: frames to what they caused, events to frames, packets to connections."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from levelip.debug.facts import DATAGRAMS, MESSAGES, Fact, fact
from levelip.debug.streams import KNOWN, Streams
from levelip.debug.tap import EVENT_MONO, KIND, PROCESS, SEAMS, Notice, Record, event_of
from levelip.tracing.events import Event

MOST_RECORDS = 1_000_000
"""Records that a collection holds; the oldest half goes when there are more."""
_MASK = 0xFFFF_FFFF
_PLAUSIBLE = 1 << 30  # RFC 7323 2.3: no window is larger
DAMAGED = ("tcp_checksum", "ip_bad_checksum")
"""Reasons that say that a packet's headers cannot be trusted."""


T = TypeVar("T")


@dataclass(slots=True)
class Told:
    """An event, and who told it when."""

    mono: int
    process: str
    event: Event


@dataclass(slots=True)
class Seg:
    """A TCP segment as its connection sees it: numbers relative to the SYNs (a SYN is 0, the first byte 1), unwrapped.

    `ack` is in numbers of the other side; `edge`: the first number that its sender does not take, None without ACK.
    """

    fact: Fact
    seq: int
    ack: int
    edge: int | None
    window: int  # bytes

    @property
    def end(self) -> int:
        return self.seq + self.fact.room

    @property
    def mono(self) -> int:
        return self.fact.mono


class _Unwrap:
    """32-bit numbers to such that go on."""

    def __init__(self) -> None:
        self.base: int | None = None
        self._last = 0

    def start(self, number: int) -> None:
        """The number that is 0."""
        self.base, self._last = number, 0

    def __call__(self, number: int) -> int:
        if self.base is None:
            self.start((number - 1) & _MASK)  # the SYN was not seen: what is seen first is byte 1
        assert self.base is not None
        distance = (number - self.base - self._last + (1 << 31) & _MASK) - (1 << 31)
        value = self._last + distance
        if 0 < distance < _PLAUSIBLE:  # else it is forged, or damaged
            self._last = value
        return value


@dataclass
class Side:
    """What one side sent, as seen on the wire."""

    segs: list[Seg] = field(default_factory=list)
    syn: Fact | None = None  # the first SYN or SYN-ACK
    number: _Unwrap = field(default_factory=_Unwrap)
    older: list[Fact] = field(default_factory=list)  # what came before its SYN-ACK, with numbers of an older connection

    @property
    def fin(self) -> Seg | None:
        """Its first FIN."""
        return next((seg for seg in self.segs if seg.fact.fin), None)


class Conversation:
    """One connection: `ours` and `theirs` in the order seen, and the events about it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ours = Side()
        self.theirs = Side()
        self.events: list[Told] = []
        self.until = 0  # when the next one of its name began
        self.icmp: list[Fact] = []  # ICMP errors that came about it

    @property
    def remote(self) -> str:
        """The peer's address."""
        return self.name.partition(">")[2].rpartition(":")[0]

    @property
    def local(self) -> str:
        return self.name.partition(">")[0].rpartition(":")[0]

    def segs(self) -> list[Seg]:
        """Both sides' segments in the order seen."""
        return sorted([*self.ours.segs, *self.theirs.segs], key=lambda seg: seg.fact.mono)

    def scale_of(self, side: Side) -> int:
        """The shift of a side's windows (RFC 7323 2.2): both SYNs must have named one."""
        ours, theirs = self.ours.syn, self.theirs.syn
        if side.syn is None or ours is None or theirs is None:
            return 0
        if ours.options.wscale is None or theirs.options.wscale is None:
            return 0
        return min(14, side.syn.options.wscale or 0)

    def ends_before(self, one: Fact) -> bool:
        """Whether a segment is the SYN of the next connection of the same addresses and ports."""
        if not one.syn or one.has_ack:
            return False
        side = self.theirs if one.up else self.ours
        if side.syn is None and not one.up and self.segs():  # we open: what came before is of an older one
            self.until = one.mono
            return True
        if side.syn is None or side.syn.seq == one.seq:
            return False
        if any(seg.fact.rst for seg in (*self.ours.segs, *self.theirs.segs)) or (self.ours.fin and self.theirs.fin):
            self.until = one.mono
            return True
        return False

    def add(self, one: Fact) -> None:
        """A TCP segment."""
        side, other = (self.theirs, self.ours) if one.up else (self.ours, self.theirs)
        if one.syn and side.number.base is None:
            side.number.start(one.seq)
        elif one.syn and one.has_ack and side.syn is None and other.syn and one.ack == other.syn.seq + 1 & _MASK:
            side.number.start(one.seq)  # so far the peer spoke of an older connection, half-open (RFC 9293 3.5.1)
            side.older = [seg.fact for seg in side.segs]
            side.segs.clear()
        if one.syn and side.syn is None:
            side.syn = one
        seq = side.number(one.seq)
        ack = other.number(one.ack) if one.has_ack else 0
        window = one.window if one.syn else one.window << self.scale_of(side)
        side.segs.append(Seg(one, seq, ack, ack + window if one.has_ack else None, window))

    def kinds(self, *names: str) -> Iterator[Told]:
        """Its events of these kinds."""
        return (told for told in self.events if told.event.kind in names)


class Collection:
    """Everything that was recorded. `wire`: the outermost seam that records tell of."""

    def __init__(self, source: Iterable[Record | Notice] = ()) -> None:
        self.facts: list[Fact] = []
        self.events: list[Told] = []
        self.notices: list[Notice] = []
        self.by_id: dict[int, list[Fact]] = defaultdict(list)
        self.caused: dict[int, list[int]] = defaultdict(list)  # frame → frames that name it as their cause
        self.told: dict[int, list[Told]] = defaultdict(list)  # frame → events about it
        self.of_conn: dict[str, list[Fact]] = defaultdict(list)  # connection → its frames, each once
        self.conn_told: dict[str, list[Told]] = defaultdict(list)  # connection → events that name it
        self.streams = Streams()  # messages between tcp, gateway and client
        self._made: dict[Callable[[Collection], Any], Any] = {}
        self.extend(source)

    def extend(self, source: Iterable[Record | Notice]) -> None:
        """More records."""
        for record in source:
            self.add(record)

    def add(self, record: Record | Notice) -> None:
        """One more."""
        if self._made:
            self._made.clear()
        if isinstance(record, Notice):
            self.notices.append(record)
        elif record[KIND] == "e":
            self._take_event(Told(record[EVENT_MONO], record[PROCESS], event_of(record)))
        else:
            self._take_fact(fact(record))
        if len(self.facts) + len(self.events) > MOST_RECORDS:
            self._forget()

    def _take_event(self, told: Told) -> None:
        if told.event.kind == KNOWN:
            self.streams.know(told.event.conn, told.event)
            return
        self.events.append(told)
        if told.process == "gateway" and told.event.kind == "drop":
            self.streams.refused(told.event)
        if told.event.frame:
            self.told[told.event.frame].append(told)
        if told.event.conn:
            self.conn_told[told.event.conn].append(told)

    def _take_fact(self, one: Fact) -> None:
        if one.conn and one.causes and not one.up:
            before = self.by_id.get(one.causes[0])
            if before and before[0].conn and not before[0].up and before[0].is_tcp == one.is_tcp:
                one.conn = before[0].conn  # an addon at this seam, a NAT, may have given it other addresses and ports
        self.facts.append(one)
        if one.is_tcp and one.conn:
            self.streams.packet(one)
        elif one.type in MESSAGES and not one.id:
            self.streams.message(one)
        elif one.type in DATAGRAMS:
            self.streams.datagram(one)
        if not one.id:
            return
        known = self.by_id[one.id]
        if one.conn and not any(fact.seq == one.seq for fact in known):
            self.of_conn[one.conn].append(one)
        known.append(one)
        if len(known) == 1:
            for cause in one.causes:
                self.caused[cause].append(one.id)

    def _forget(self) -> None:
        """The older half."""
        times = sorted([one.mono for one in self.facts[::64]] + [told.mono for told in self.events[::64]])
        since = times[len(times) // 2]
        facts = [one for one in self.facts if one.mono >= since]
        events = [told for told in self.events if told.mono >= since]
        for index in (self.facts, self.events, self.by_id, self.caused, self.told, self.of_conn, self.conn_told):
            index.clear()
        self.streams.forget()
        for told in events:
            self._take_event(told)
        for one in facts:
            self._take_fact(one)
        self.notices.append(Notice(since, "older records were forgotten"))

    def once(self, make: Callable[[Collection], T]) -> T:
        """What a function makes of all records: kept until there is another, as rules ask for it at each connection."""
        if make not in self._made:
            self._made[make] = make(self)
        found: T = self._made[make]
        return found

    @property
    def wire(self) -> str:
        """The outermost seam of which there are frames."""
        return self.once(_outermost)

    @property
    def on_wire(self) -> list[Fact]:
        """Each frame of the outermost seam once."""
        return self.once(_on_wire)

    @property
    def conversations(self) -> dict[str, Conversation]:
        """The connections, by name."""
        return self.once(Collection._converse)

    def _converse(self) -> dict[str, Conversation]:
        found: dict[str, Conversation] = {}
        earlier: list[Conversation] = []
        damaged = {
            origin.id
            for told in self.events
            if told.event.reason in DAMAGED and (origin := self.origin(told.event.frame)) is not None
        }
        for one in self.on_wire:
            if not one.conn or one.id in damaged:
                continue
            conversation = found.get(one.conn)
            if conversation is None or conversation.ends_before(one):
                if conversation is not None:  # its addresses and ports were used again
                    earlier.append(conversation)
                conversation = found[one.conn] = Conversation(one.conn)
            if one.is_tcp:
                conversation.add(one)
            elif one.up:
                conversation.icmp.append(one)
        for number, before in enumerate(earlier, 1):
            found[f"{before.name} ({number})"] = before
        for told in self.events:
            event = told.event
            if event.kind in ("addon", "hand"):  # which may have given the packet other addresses and ports
                name = self.conn_of(event.frame) or event.conn
            else:
                name = event.conn or self.conn_of(event.frame)
            if name:
                owner = next((one for one in earlier if one.name == name and told.mono < one.until), None)
                (owner or found.setdefault(name, Conversation(name))).events.append(told)
        return found

    def conn_of(self, frame: int) -> str:
        """The connection of a frame, or of what it came from or led to; empty if none is known."""
        for id_ in [frame, *self.ancestors(frame), *self.caused.get(frame, ())]:
            for one in self.by_id.get(id_, ()):
                if one.conn:
                    return one.conn
        return ""

    def ancestors(self, frame: int, *, most: int = 16) -> list[int]:
        """Frames from which this one came, the nearest first: the first cause of each."""
        chain: list[int] = []
        while len(chain) < most:
            known = self.by_id.get(frame)
            if not known or not known[0].causes or known[0].causes[0] in chain:
                break
            frame = known[0].causes[0]
            chain.append(frame)
        return chain

    def origin(self, frame: int) -> Fact | None:
        """The frame as it stood on the wire, or as near to it as is known: what a reason's frame came from. Of what an
        addon or a debugger made of another it is the first."""
        known = self.by_id.get(frame)
        best = known[0] if known else None
        for id_ in self.ancestors(frame):
            if best is not None and any(told.event.data.get("what") == "made" for told in self.told.get(best.id, ())):
                break
            one = next(iter(self.by_id.get(id_, ())), None)
            if one is None or (best is not None and one.up != best.up):
                break
            best = one
        return best


def _outermost(collection: Collection) -> str:
    seen = {one.seam for one in collection.facts}
    return next((seam for seam in SEAMS if seam in seen), "link")


def _on_wire(collection: Collection) -> list[Fact]:
    wire = collection.wire
    found: dict[tuple[int, int], Fact] = {}
    for one in collection.facts:
        if one.seam == wire:
            found.setdefault((one.id, one.seq), one)  # pieces that a fault cut share an id
    return list(found.values())

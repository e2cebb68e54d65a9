"""A packet's way through the processes: when it entered and left each, how long pipes took, decisions, consequences.

A frame gets a new id in each process; its causes bind it to the one before. Those that go the same way are one packet;
one that goes back (the ACK of a segment) is what it led to. Times are the monotonic clock's, as the taps read it: in a
process from the record "in" to the record "out", in a pipe from "out" to the next process's "in". Above tcp messages
have no ids: there the way goes on by socket and offset (ends.py). Datagrams have ids up to the gateway.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field

from levelip.debug.collection import Collection, Told
from levelip.debug.ends import datagram, downward, upward
from levelip.debug.facts import DATAGRAMS, UDP, Fact
from levelip.debug.rules.case import ms
from levelip.debug.tap import PACKET_SEAMS, PROCESSES, Notice, Record
from levelip.debug.traces import Source
from levelip.frames.packet import Process, format_frame_id
from levelip.tracing.formatting import sentence
from levelip.tracing.reasons import FAULT_LOSS

_REMEMBERED = 500_000  # ids of frames that were told of
_NEAR = 500  # frames or events of a connection that are looked through for one that belongs to a frame
_LATE_NS = 3_000_000_000  # how long a packet that has not arrived anywhere is waited for
_HEIGHT = {"link": 0, "ip": 1, "tcp": 2, "udp": 2, "gateway": 3}
_TOP = 4
_MOST = 64  # frames that one frame leads to, followed at most


@dataclass(slots=True)
class Hop:
    """One process, or the device beyond the first or last. ns of monotonic time; None: not recorded."""

    process: str
    entered: int | None = None
    left: int | None = None
    came: Fact | None = None  # as it went in
    gone: Fact | None = None  # as it came out
    decisions: list[Told] = field(default_factory=list)

    @property
    def stay(self) -> int | None:
        """Time within the process."""
        return self.left - self.entered if self.entered is not None and self.left is not None else None


def _of_a_piece(hop: Hop, told: Told) -> bool:
    """Whether the fault that a process tells of lost only a part: the frame passed where the fault stands."""
    seam = told.event.data.get("seam")
    passed = any(fact is not None and fact.seam == seam for fact in (hop.came, hop.gone))
    return told.event.reason == FAULT_LOSS.name and passed


@dataclass
class Journey:
    """One packet. `led_to`: frames that it caused and that go elsewhere, with how; `began`: what made it, where no
    frame did; `pieces`: further frames that it was cut into."""

    ids: list[int]
    up: bool
    hops: list[Hop]
    began: str = ""
    led_to: list[tuple[str, Fact]] = field(default_factory=list)
    from_frame: Fact | None = None  # what caused it, where that went another way
    pieces: int = 0
    taken: Fact | None = None  # the client's word that the application has it

    @property
    def first(self) -> Fact:
        """The first record of it as a packet."""
        named = [fact for hop in self.hops for fact in (hop.came, hop.gone) if fact is not None and fact.id]
        return next((fact for fact in named if fact.seam in PACKET_SEAMS), named[0])

    @property
    def start(self) -> Fact:
        """The first record of it, which may be a message that brought its bytes."""
        return next(fact for hop in self.hops for fact in (hop.came, hop.gone) if fact is not None)

    @property
    def last(self) -> Fact:
        """The last record of it."""
        return next(fact for hop in reversed(self.hops) for fact in (hop.gone, hop.came) if fact is not None)

    @property
    def took(self) -> int:
        """From the first record to the last."""
        return max(0, self.last.mono - self.start.mono)

    @property
    def pipes(self) -> list[tuple[str, int | None]]:
        """(seam, time in it) between the hops."""
        found: list[tuple[str, int | None]] = []
        for before, after in zip(self.hops, self.hops[1:], strict=False):
            seam = (before.gone or after.came or self.first).seam
            took = None
            if before.left is not None and after.entered is not None:
                took = max(0, after.entered - before.left)  # a recording's clock is read before a round's frames come
            found.append((seam, took))
        return found

    @property
    def dropped(self) -> Told | None:
        """The discard that ended it."""
        return next((told for hop, told in self._drops() if not _of_a_piece(hop, told)), None)

    @property
    def thinned(self) -> list[Told]:
        """Discards of some of the packets that a super-segment stands for: lvlip fault cuts it to those."""
        return [told for hop, told in self._drops() if _of_a_piece(hop, told)]

    def _drops(self) -> Iterator[tuple[Hop, Told]]:
        return ((hop, told) for hop in self.hops for told in hop.decisions if told.event.kind == "drop")

    @property
    def outcome(self) -> str:
        """How it ended: a reason, what it led to, or where it was last seen."""
        if (told := self.dropped) is not None:
            return f"dropped in {told.process}: {told.event.reason}"
        if not self.up and self.last.seam == "link":
            return "sent in part" if self.thinned else "sent"
        if self.led_to:
            return "answered" if any(how == "answer" for how, _ in self.led_to) else "acknowledged later"
        where = self.hops[-1].process
        return "taken" if self.up and where in ("tcp", "udp", "gateway", "client") else f"last seen in {where}"

    @property
    def path(self) -> str:
        """Its processes in order: "link ↑ ip ↑ tcp"."""
        return f" {'↑' if self.up else '↓'} ".join(hop.process for hop in self.hops)


def journey(collection: Collection, id_: int) -> Journey:
    """The journey of a frame, whichever of its ids is given. KeyError if it was not recorded."""
    if id_ not in collection.by_id:
        raise KeyError(id_)
    up = collection.by_id[id_][0].up
    chain = [id_]
    for before in collection.ancestors(id_):
        if not _goes(collection, before, up):
            break
        chain.insert(0, before)
    pieces = 0
    while len(chain) < _MOST:
        onward = [child for child in collection.caused.get(chain[-1], ()) if _goes(collection, child, up)]
        if not onward:
            break
        pieces += len(onward) - 1
        chain.append(onward[0])
    made = Journey(chain, up, _hops(collection, chain), pieces=pieces)
    first = collection.by_id[chain[0]][0]
    if first.causes:
        known = collection.by_id.get(first.causes[0])
        made.from_frame = known[0] if known else None
    made.began = _began(collection, first, made.from_frame)
    made.led_to = list(_led_to(collection, chain, up))
    _go_on(collection, made)
    return made


def _go_on(collection: Collection, made: Journey) -> None:
    """The way above tcp or udp, at the end of one upward, before one downward."""
    hops = made.hops
    if hops[-1 if made.up else 0].process == "gateway":
        _go_on_from_gateway(collection, made)
        return
    tcp = hops[-1 if made.up else 0]
    edge = tcp.came if made.up else tcp.gone
    if tcp.process != "tcp" or edge is None or not edge.is_tcp:
        return
    end = upward(collection, edge) if made.up else downward(collection, edge)
    if end is None:
        return
    made.taken = end.taken
    gateway, client = Hop("gateway"), Hop("client")
    for one in end.messages:
        hop = tcp if one.process == "tcp" else gateway
        if one.direction == "in":
            hop.entered, hop.came = one.mono, one
        else:
            hop.left, hop.gone = one.mono, one
    edge = gateway.gone if made.up else gateway.came
    further = [gateway] if gateway.came or gateway.gone else []
    further += [client] if edge is not None else []
    made.hops = [*hops, *further] if made.up else [*reversed(further), *hops]


def _go_on_from_gateway(collection: Collection, made: Journey) -> None:
    """A datagram between the gateway and the client."""
    gateway = made.hops[-1 if made.up else 0]
    edge = gateway.came if made.up else gateway.gone
    end = datagram(collection, edge) if edge is not None else None
    if end is None:
        return
    made.taken = end.taken
    (message,) = end.messages
    if made.up:
        gateway.left, gateway.gone = message.mono, message
        made.hops.append(Hop("client"))
    else:
        gateway.entered, gateway.came = message.mono, message
        made.hops.insert(0, Hop("client"))


def _goes(collection: Collection, id_: int, up: bool) -> bool:
    known = collection.by_id.get(id_, [])
    return bool(known) and known[0].up == up


def _hops(collection: Collection, chain: list[int]) -> list[Hop]:
    hops: list[Hop] = []
    up = collection.by_id[chain[0]][0].up
    for id_ in chain:
        same = [one for one in collection.by_id[id_] if one.up == up]  # not so what udp refuses
        for one in sorted(same, key=lambda fact: (fact.direction == "in", fact.mono)):
            if not hops or hops[-1].process != one.process:
                hops.append(Hop(one.process))
            hop = hops[-1]
            if one.direction == "in":
                if hop.entered is None:
                    hop.entered, hop.came = one.mono, one
            else:
                hop.left, hop.gone = one.mono, one
        for told in collection.told.get(id_, ()):
            hop = next((hop for hop in hops if hop.process == told.process), None) or Hop(told.process)
            if hop not in hops:
                hops.append(hop)
            hop.decisions.append(told)
    return hops


def _led_to(collection: Collection, chain: list[int], up: bool) -> Iterator[tuple[str, Fact]]:
    answered = False
    for id_ in chain:
        for child in collection.caused.get(id_, ()):
            if collection.by_id.get(child) and not _goes(collection, child, up):
                answered = True
                yield "answer", collection.by_id[child][0]
    if up and not answered:
        later = _acknowledged(collection, collection.by_id[chain[-1]][0])
        if later is not None:
            yield "ack", later


def _acknowledged(collection: Collection, one: Fact) -> Fact | None:
    """The first segment of ours that acknowledges all of a segment of the peer's: by a timer, or with data."""
    if not one.room or one.rst:
        return None
    end = one.seq + one.room
    facts = collection.of_conn.get(one.conn, [])
    start = bisect_left(facts, one.mono, key=lambda fact: fact.mono)
    return next(
        (
            fact
            for fact in facts[start : start + _NEAR]
            if not fact.up and fact.has_ack and not (fact.ack - end) & 0x8000_0000
        ),
        None,
    )


_APPLICATION = {"ACTIVE_OPEN": "connect() of the application", "CLOSE": "close() or shutdown() of the application"}


def _began(collection: Collection, first: Fact, cause: Fact | None) -> str:
    """What made a frame that no frame of the same way did."""
    if first.up and first.seam == "link":
        return "came from the network"
    if _of_sendto(first):
        return "sendto() of the application"
    if cause is not None:
        return f"because of {cause.name}, which {'came' if cause.up else 'went'} {ms(first.mono - cause.mono)} before"
    if first.causes:
        return "because of a frame that was not recorded"
    if not first.conn or first.process not in ("tcp", "ip", "link"):
        return ""
    told_of = collection.conn_told.get(first.conn, [])
    start = bisect_left(told_of, first.stack, key=lambda told: told.event.at)
    near = [told for told in told_of[start : start + _NEAR] if told.event.at == first.stack and not told.event.frame]
    again = [told for told in near if told.event.kind == "retransmit"]
    if len(again) > 1:  # which of them: the one whose bytes these are, if the SYN was seen
        near = [told for told in again if _holds(collection, first, told)] or near
    for told in near:
        if told.event.kind in ("retransmit", "probe", "rto"):
            return f"a timer: {sentence(told.event)}"
    for told in near:
        if told.event.kind == "state" and (text := _APPLICATION.get(str(told.event.data.get("input")))):
            return text
    if first.syn and not first.has_ack:
        return "connect() of the application"
    if first.length:
        return "data of the application"
    if first.fin:
        return "close() or shutdown() of the application"
    return "a timer (a delayed ACK), or the application took data and the window grew"


def _of_sendto(first: Fact) -> bool:
    """Whether it is a datagram of the application's."""
    if first.type == "SendTo":
        return True
    called = not first.causes or first.causes[0] >> 60 == Process.GATEWAY
    return first.process == "udp" and first.type == "Segment" and not first.up and called


def _holds(collection: Collection, first: Fact, told: Told) -> bool:
    """Whether a retransmission's bytes are a segment's."""
    syn = next((fact for fact in collection.of_conn.get(first.conn, ()) if fact.syn and not fact.up), None)
    return syn is not None and (syn.seq + 1 + int(told.event.data.get("offset", -1))) & 0xFFFF_FFFF == first.seq


class Journeys:
    """Journeys from records that go on coming, each told of once, when nothing more of it is to be expected."""

    def __init__(
        self, collection: Collection, *, whole: bool = False, heard: Callable[[], Iterable[str]] = lambda: PROCESSES
    ) -> None:
        """`whole`: leave out packets that were on their way when the records began; both sides of each pipe must be
        recorded. `heard`: the processes of which records may come; no other is waited for."""
        self.collection = collection
        self._heard = heard
        self._whole = whole
        self._waiting: deque[Fact] = deque()
        self._done: dict[int, None] = {}

    def add(self, record: Record | Notice) -> None:
        """One more record."""
        before = len(self.collection.facts)
        self.collection.add(record)
        if len(self.collection.facts) == before + 1:
            one = self.collection.facts[-1]
            if one.id and one.seam in PACKET_SEAMS:
                self._waiting.append(one)

    def ready(self, until: int) -> Iterator[Journey]:
        """Those that began before `until` (ns of monotonic time), in that order. One that is still under way, as on a
        machine with much to do, and those behind it, are waited for, but not for ever."""
        heard = frozenset(self._heard())
        while self._waiting and self._waiting[0].mono < until:
            one = self._waiting[0]
            if one.id in self._done or one.id not in self.collection.by_id:
                self._waiting.popleft()
                continue
            made = journey(self.collection, one.id)
            if one.mono >= until - _LATE_NS and _goes_on(made, heard):
                return
            self._waiting.popleft()
            self._done.update(dict.fromkeys(made.ids))
            if len(self._done) > _REMEMBERED:
                self._done = dict.fromkeys(list(self._done)[_REMEMBERED // 2 :])
            if not self._whole or _from_its_beginning(made):
                yield made


def _goes_on(one: Journey, heard: Container[str]) -> bool:
    """Whether there is more to come for certain: what goes down ends at the device, a datagram that goes up at a
    client, or somewhere with a reason; but only what a process that is heard would tell of is to come."""
    if one.dropped is not None or one.led_to or (one.up and one.first.proto != UDP):
        return False
    last = one.last
    height = _HEIGHT.get(last.process, _TOP)
    further = {name for name, other in _HEIGHT.items() if (other > height if one.up else other < height)}
    further.discard("tcp" if one.first.proto == UDP else "udp")
    if last.direction == "in":
        further.add(last.process)
    return any(name in heard for name in further)


def _from_its_beginning(one: Journey) -> bool:
    """Whether what made it is recorded, or its first step: not so of what was on its way when the records began."""
    first = one.first
    if first.up and first.seam == "link":
        return True
    return first.direction == "out" and not (first.up and first.causes and one.from_frame is None)


def journeys(source: Source, *, whole: bool = False) -> Iterator[Journey]:
    """Every packet's, in the order in which they began, of records that are all there. `whole`: see Journeys."""
    stream = Journeys(Collection(), whole=whole)
    for record in source:
        stream.add(record)
    yield from stream.ready(1 << 63)


def journeys_of(collection: Collection) -> Iterator[Journey]:
    """Every packet's of a collection that is complete, in the order in which they began."""
    done: set[int] = set()
    for one in collection.facts:
        if one.id and one.id not in done and one.seam in PACKET_SEAMS:
            made = journey(collection, one.id)
            done.update(made.ids)
            yield made


def journey_lines(collection: Collection, one: Journey) -> list[str]:
    """A journey as text."""
    arrow = "↑" if one.up else "↓"
    lines = [f"{one.first.name} {arrow} {one.first.text()}"]
    if one.began:
        lines.append(f"    {one.began}")
    start = one.start.mono
    for number, hop in enumerate(one.hops):
        at = hop.entered if hop.entered is not None else hop.left
        if hop.process == "client":
            lines.append(f"                client   {_client(one)}")
            if not one.up:
                lines.append(f"                {arrow} in the pipe {one.pipes[number][0]}")
            continue
        after = one.hops[number + 1] if number + 1 < len(one.hops) else None
        stay = f"{_us(hop.stay)} in it" if hop.stay is not None else "ends here" if hop.left is None else "starts here"
        if hop.left is None and hop.entered is not None and after is not None and after.entered is not None:
            stay = f"{_us(after.entered - hop.entered)} to {after.process}"  # seen from one side alone
        where = " → ".join(f"{fact.seam} {fact.name}" for fact in (hop.came, hop.gone) if fact is not None)
        lines.append(f"    {_us(at - start if at is not None else None):>10}  {hop.process:<8} {stay:<16} {where}")
        lines += [f"                {sentence(told.event)}" for told in hop.decisions]
        if number < len(one.hops) - 1:
            seam, took = one.pipes[number]
            known = f"{_us(took)} in the pipe {seam}" if took is not None else f"in the pipe {seam}"
            lines.append(f"                {arrow} {known}")
    if thinned := one.thinned:
        lines.append(f"    without {len(thinned)} packet{'s' * (len(thinned) > 1)} of it, which lvlip fault lost")
    if one.pieces:
        what = "to {} more socket{}" if one.last.type in DATAGRAMS else "{} more piece{} of it"
        lines.append(f"    and {what.format(one.pieces, 's' * (one.pieces > 1))}")
    for how, fact in one.led_to:
        what = "led to" if how == "answer" else "acknowledged later by"
        lines.append(f"    {what} {fact.name} {'↑' if fact.up else '↓'} {_us(fact.mono - start)} after: {fact.text()}")
    lines.append(f"    {one.outcome}, {_us(one.took)} from the first seam to the last")
    return lines


def _client(one: Journey) -> str:
    if not one.up:
        return "starts here"
    if one.taken is None:
        return "ends here"
    return f"ends here; {one.taken.name}, {_us(one.taken.mono - one.start.mono)} after the start, says that it was read"


def journey_data(one: Journey) -> dict[str, object]:
    """A journey for JSON; ns."""
    return {
        "frames": [format_frame_id(id_) for id_ in one.ids],
        "way": "up" if one.up else "down",
        "conn": one.first.conn,
        "text": one.first.text(),
        "began": one.began,
        "path": one.path,
        "outcome": one.outcome,
        "took_ns": one.took,
        "sock": next((fact.sock for hop in one.hops for fact in (hop.came, hop.gone) if fact and fact.sock), None),
        "read_ns": one.taken.mono - one.start.mono if one.taken is not None else None,
        "hops": [
            {
                "process": hop.process,
                "entered_ns": hop.entered,
                "left_ns": hop.left,
                "stay_ns": hop.stay,
                "messages": [fact.name for fact in (hop.came, hop.gone) if fact is not None and not fact.id],
                "decisions": [sentence(told.event) for told in hop.decisions],
            }
            for hop in one.hops
        ],
        "pipes": [{"seam": seam, "ns": took} for seam, took in one.pipes],
        "led_to": [{"how": how, "frame": fact.name, "text": fact.text()} for how, fact in one.led_to],
    }


def _us(ns: int | None) -> str:
    """ "12.3 µs", "4.1 ms"."""
    if ns is None:
        return "?"
    return f"{ns / 1000:.1f} µs" if abs(ns) < 1_000_000 else ms(ns)


# groups


@dataclass
class Path:
    """All packets that took one way. Times in ns, in the order of the journeys."""

    what: str
    path: str
    outcome: str
    took: list[int] = field(default_factory=list)
    parts: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))  # process or seam → times
    example: Journey | None = None

    @property
    def count(self) -> int:
        return len(self.took)


def paths(source: Iterator[Journey]) -> list[Path]:
    """Packets grouped by what they are, the way they took and how it ended; the most frequent first."""
    groups: dict[tuple[str, str, str], Path] = {}
    for one in source:
        key = (_what(one.first), one.path, one.outcome)
        group = groups.get(key)
        if group is None:
            group = groups[key] = Path(*key, example=one)
        group.took.append(one.took)
        for hop in one.hops:
            if hop.stay is not None:
                group.parts[hop.process].append(hop.stay)
        for (seam, took), before, after in zip(one.pipes, one.hops, one.hops[1:], strict=False):
            if took is not None:
                group.parts[seam].append(took)
            elif before.entered is not None and after.entered is not None:  # seen from one side alone
                group.parts[f"{before.process} and {seam}"].append(max(0, after.entered - before.entered))
    return sorted(groups.values(), key=lambda group: (-group.count, group.path, group.what, group.outcome))


def _what(one: Fact) -> str:
    if one.arp is not None:
        return "ARP"
    if one.is_tcp:
        letters = one.letters
        if one.rst:
            return "TCP RST"
        if one.syn:
            return "TCP SYN-ACK" if one.has_ack else "TCP SYN"
        if one.fin:
            return "TCP FIN"
        return "TCP data" if one.length else "TCP ACK" if letters == "." else f"TCP {letters}"
    if one.proto == UDP:
        return "UDP" if one.sport or one.dport else "UDP fragment"
    if one.icmp is not None:
        return f"ICMP {one.icmp.name}"
    if one.type not in ("Packet", "Segment", "DeviceFrame"):
        return one.type
    return f"IP proto {one.proto}" if one.proto >= 0 else "other"


def percentile(times: list[int], share: float) -> int:
    """The time below which this share of them lies (nearest rank)."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1))]

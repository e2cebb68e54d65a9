"""A recorded stack that runs on by itself: gateway, tcp and ip, brought back to one instant and wired to each other.

One call of one layer is changed (a packet is lost, or another). That layer goes on with what was recorded until what it
puts out first differs; until then nobody else can have noticed. At that instant all three are brought back, with what
was under way between them, and from then on hear each other instead of the recording. Outside remain:

- the programs: their messages come when they came, but no bytes before the stack has room for them, and none are taken
  that were not told of;
- udp, which says what it said then;
- the network: what came from it comes again until one round trip after the difference, since what was sent before
  cannot know of it. After that there is silence, or `AckingPeer`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from layers.tcp.states import State
from levelip.frames.packet import LinkState, Packet
from levelip.frames.seam import ClientLost, FromClient
from levelip.rpc.messages import Reply, Request
from levelip.rpc.stream import Accepted, Consumed, Data, Send
from levelip.tracing.events import Event
from levelip.tracing.recordedcalls import Faulted, Flushed, Received, SetTo, TimerRan, decode_frame
from levelip.tracing.recording import Recording
from simulation.net import MS, Memory, NeverAtRest, Node
from simulation.replay.layers import where_in
from simulation.replay.player import Player
from simulation.replay.trust import check_setting

LAYERS: Final = ("ip", "tcp", "gateway")
LATE_NS: Final = 5 * MS  # a timer that the recording ran this late at most is left to it: a loop is not punctual
_PIPES: Final = (
    ("ip", "tcp", "tcp", "ip-tcp", "up"),
    ("tcp", "gateway", "gateway", "tcp-gateway", "up"),
    ("gateway", "tcp", "tcp", "tcp-gateway", "down"),
    ("tcp", "ip", "ip", "ip-tcp", "down"),
)
"""Sender, its port, receiver, seam, way."""
SAME_INSTANT: Final = 256  # calls of one layer that bear the same instant at most
UNDER_WAY: Final = 4096  # frames between two processes at most
STEPS: Final = 200_000
_ASIDE: Final = ("id", "causes", "traced", "ingress", "payload")  # of a frame: what may differ and matters to nobody


@dataclass(frozen=True, slots=True)
class Happened:
    """Something that came of it: `what` is "in" or "out" (a Packet at link-ip) or "event"; `layer` where."""

    now: int
    what: str
    layer: str
    content: Any


@dataclass(slots=True)
class Difference:
    """Where the changed layer first did something else. `core` is in the state behind that flush."""

    number: int
    now: int
    core: Any
    output: list[tuple[str, Any]]


class _NoMemory(Memory):
    """No core reads what lies in shared memory, and a recording does not have it."""

    def read(self, payload: Any) -> bytes:
        """Zeros."""
        return bytes(payload) if isinstance(payload, bytes) else bytes(payload.length)

    def store(self, place: Any, payload: Any) -> None:
        """Nowhere."""


def same_but_names(recorded: Any, frame: Any) -> bool:
    """Whether two frames are the same to whoever gets them: ids, and payloads but for their length, aside."""
    return bool(_plain(recorded) == _plain(frame))


def _plain(frame: Any) -> Any:
    inner = getattr(frame, "message", frame)
    names = [name for name in inner.__struct_fields__ if name not in _ASIDE]
    payload = getattr(inner, "payload", b"")
    size = payload.length if hasattr(payload, "length") else len(payload)
    head = getattr(inner, "head", None)
    if head is not None:  # a payload may stand in the head, whole or in part
        return type(inner), bytes(head[:60]), len(head) + size, [getattr(inner, n) for n in names if n != "head"]
    return type(inner), size, [getattr(inner, name) for name in names]


def first_difference(player: Player, number: int, changed: Any, now: int, end: int) -> Difference | None:
    """Run a layer on with what was recorded, call `number` being `changed` (None: it is lost), until it puts out what
    it did not. None: it does not before `end`. Its events are those of the last instant alone.

    A timer that was late in the recording is as late here: the layer as it was then runs beside it, and says which
    timers are its own.
    """
    other, reference = Player(player.recording), Player(player.recording)
    other.seek(number)
    reference.seek(number)
    reference.step()
    core, last = other.core, now
    if changed is not None:
        core.receive(changed, now)
    room: dict[str, int] = {}
    for at_call, entry in player.recording.entries(number + 1):
        at = getattr(entry, "now", last)
        if at > end:
            return None
        due = core.next_timer()
        if due is not None and due < at - LATE_NS and due != reference.core.next_timer():
            core.events()
            core.handle_timer(due)
            if output := core.outgoing(room):
                return Difference(at_call, due, core, output)
        if at != last:
            core.events()
        last = at
        reference.step()
        match entry:
            case Received():
                core.receive(decode_frame(entry.code, entry.frame, entry.cuts), at)
            case TimerRan():
                core.handle_timer(at)
            case SetTo():
                check_setting(player.process, entry.key, entry.value)
                core.set(entry.key, entry.value, at)
            case Flushed():
                room = entry.room
                output = core.outgoing(room)
                then = [(port, decode_frame(code, raw, cuts)) for port, code, raw, cuts in entry.out]
                same = len(then) == len(output) and all(
                    one[0] == two[0] and same_but_names(one[1], two[1]) for one, two in zip(then, output, strict=True)
                )
                if not same:
                    return Difference(at_call + 1, last, core, output)
    return None


def _received(recording: Recording, number: int, seam: str, way: str) -> Iterator[tuple[int, Any]]:
    """(instant, frame) of what a layer was given at a seam, from a call on."""
    for _, entry in recording.entries(number):
        if isinstance(entry, Received):
            frame = decode_frame(entry.code, entry.frame, entry.cuts)
            if where_in(recording.head.process, frame) == (seam, way):
                yield entry.now, frame


def _put_out(recording: Recording, number: int, port: str) -> list[Any]:
    """What a layer put out on a port before a call, the newest `UNDER_WAY` of it, in order."""
    found: list[Any] = []
    begin = number
    while begin > recording.first and len(found) < UNDER_WAY:
        stop, begin = begin, max(recording.first, begin - 256)
        part = [
            decode_frame(code, raw, cuts)
            for _, entry in recording.entries(begin, stop) if isinstance(entry, Flushed)
            for name, code, raw, cuts in entry.out if name == port
        ]  # fmt: skip
        found[:0] = part
    return found[-UNDER_WAY:]


def _key(frame: Any) -> Any:
    ident = getattr(frame, "id", 0)
    return (type(frame), ident) if ident else _plain(frame)


def under_way(sender: Recording, sent: int, receiver: Recording, got: int, port: str, seam: str, way: str) -> list[Any]:
    """What a layer had put out before its call `sent` and the next had not been given before its call `got`: the end of
    what the one put out is the beginning of what the other was given next."""
    tail = _put_out(sender, sent, port)
    following: list[Any] = []
    for _, frame in _received(receiver, got, seam, way):
        following.append(frame)
        if len(following) >= len(tail):
            break
    keys, next_keys = [_key(frame) for frame in tail], [_key(frame) for frame in following]
    for count in range(min(len(keys), len(next_keys)), 0, -1):
        if keys[-count:] == next_keys[:count]:
            return following[:count]
    return []


@dataclass(slots=True)
class Loop:
    """The stack after the difference. `happened` is all that came of it, in order; `on_packet` may answer (the network)
    by `later`. Instants are ns of stack time."""

    cores: dict[str, Any]
    now: int
    at: dict[str, int] = field(default_factory=dict)  # the recorded call that would have come next
    differs: int = 0  # 1 if the call before `at` of the changed layer is the flush that differs
    happened: list[Happened] = field(default_factory=list)
    on_packet: Callable[[Packet, int], None] | None = None
    node: Node = field(default_factory=lambda: Node("recorded", _NoMemory()))
    _due: list[tuple[int, int, Callable[[Any, int], None], Any]] = field(default_factory=list)
    _count: int = 0
    _held: deque[Any] = field(default_factory=deque)  # messages of programs that wait for the stack
    _limits: dict[int, int] = field(default_factory=dict)
    _connecting: dict[int, int] = field(default_factory=dict)  # request → socket
    _told: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in LAYERS:
            self.node.add(name, self.cores[name])
        wire = self.node.wire
        for one, port, other in (("ip", "tcp", "tcp"), ("tcp", "ip", "ip"), ("tcp", "gateway", "gateway"),
                                 ("gateway", "tcp", "tcp")):  # fmt: skip
            wire(one, port, self.cores[other].receive)
        wire("ip", "link", self._to_link)
        wire("gateway", "client", self._to_client)
        for name, port in (*((name, "control") for name in LAYERS), ("ip", "udp"), ("gateway", "udp")):
            wire(name, port, lambda _frame, _now: None)

    def dispatch(self, layer: str, output: list[tuple[str, Any]]) -> None:
        """What a layer has put out already."""
        for port, frame in output:
            if port != "memory":
                self.node.wires[layer, port](frame, self.now)

    def later(self, at: int, to: Callable[[Any, int], None], frame: Any) -> None:
        """Give `frame` to `to` at an instant."""
        self._count += 1
        heapq.heappush(self._due, (at, self._count, to, frame))

    def packet(self, packet: Packet, now: int) -> None:
        """One from the network."""
        self.happened.append(Happened(now, "in", "ip", packet))
        self.cores["ip"].receive(packet, now)

    def _to_link(self, frame: Any, now: int) -> None:
        if isinstance(frame, Packet):
            self.happened.append(Happened(now, "out", "ip", frame))
            if self.on_packet is not None:
                self.on_packet(frame, now)

    # programs

    def knows(self, message: Any) -> None:
        """What a program was told: how far it may send, what it may take."""
        if isinstance(message, Accepted):
            self._limits[message.sock] = max(self._limits.get(message.sock, 0), message.limit)
        elif isinstance(message, Data):
            size = message.payload.length if hasattr(message.payload, "length") else len(message.payload)
            self._told[message.sock] = max(self._told.get(message.sock, 0), message.offset + size)
        elif isinstance(message, Reply) and isinstance(message.data.get("limit"), int):
            sock = message.data.get("sock", self._connecting.get(message.request))
            if isinstance(sock, int):
                self._limits[sock] = max(self._limits.get(sock, 0), message.data["limit"])

    def asks(self, message: Any) -> None:
        """What a program wants, or wanted before: the answer to a connect does not name the socket."""
        if isinstance(message, Request) and message.op == "connect":
            self._connecting[message.request] = message.sock

    def _to_client(self, frame: Any, now: int) -> None:
        self.knows(getattr(frame, "message", None))

    def program(self, frame: Any, now: int) -> None:
        """A message of a program, which waits if those before it do, or if there is no room."""
        self.asks(getattr(frame, "message", None))
        self._held.append(frame)
        self._programs(now)

    def _programs(self, now: int) -> bool:
        moved = False
        while self._held and self._may(getattr(self._held[0], "message", None)):
            self.cores["gateway"].receive(self._held.popleft(), now)
            moved = True
        return moved

    def _may(self, message: Any) -> bool:
        if isinstance(message, Send):
            return message.offset + message.length <= self._limits.get(message.sock, -1)
        if isinstance(message, Consumed):
            return message.upto <= self._told.get(message.sock, message.upto)
        return True

    # time

    def run(self, end: int) -> None:
        """Until an instant. NeverAtRest: far more happens than anybody would read."""
        self._settle()
        for _ in range(STEPS):
            times = [due for core in self.cores.values() if (due := core.next_timer()) is not None]
            if self._due:
                times.append(self._due[0][0])
            at = min(times, default=end + 1)
            if at > end:
                self.now = end
                return
            self.now = max(self.now, at)
            while self._due and self._due[0][0] <= self.now:
                _, _, to, frame = heapq.heappop(self._due)
                to(frame, self.now)
            for core in self.cores.values():
                due = core.next_timer()
                if due is not None and due <= self.now:
                    core.handle_timer(self.now)
            self._settle()
        raise NeverAtRest(f"after {STEPS} steps something is still due at {self.now} ns")

    def _settle(self) -> None:
        while True:
            self.node.flush(self.now)
            if not self._programs(self.now):
                break
        for name, core in self.cores.items():
            events: list[Event] = core.events()
            self.happened += [Happened(self.now, "event", name, event) for event in events]


def make_loop(recordings: dict[str, Recording], layer: str, found: Difference) -> Loop:
    """All three layers at the instant of the difference, what was under way between them given to them."""
    players = {name: Player(recordings[name]) for name in LAYERS if name != layer}
    at = {name: player.find_time(found.now) for name, player in players.items()}
    at[layer] = found.number
    _causes_first(recordings, at, layer)
    cores: dict[str, Any] = {layer: found.core}
    for name, player in players.items():
        player.seek(at[name])
        player.core.events()
        cores[name] = player.core
    loop = Loop(cores, found.now, at)
    _tell_programs(loop, recordings["gateway"], at["gateway"])
    before = {**at, layer: _flush_before(recordings[layer], found.number)}
    loop.differs = found.number - before[layer]
    for one, port, other, seam, way in _PIPES:
        for frame in under_way(recordings[one], before[one], recordings[other], at[other], port, seam, way):
            cores[other].receive(frame, found.now)
    loop.dispatch(layer, found.output)
    for name, seam, way in (("ip", "ip-udp", "down"), ("gateway", "udp-gateway", "up")):
        for now, frame in _received(recordings[name], at[name], seam, way):
            loop.later(max(now, found.now), cores[name].receive, frame)
    for now, frame in _received(recordings["gateway"], at["gateway"], "gateway-client", "down"):
        if isinstance(frame, FromClient | ClientLost):
            loop.later(max(now, found.now), loop.program, frame)
    return loop


def _causes_first(recordings: dict[str, Recording], at: dict[str, int], layer: str) -> None:
    """Bring layers on until nobody has been given what nobody has put out: where calls bear the same instant, time
    alone does not tell. `layer` stays where it is."""
    for _ in range(len(_PIPES)):
        before = dict(at)
        for one, port, other, seam, way in _PIPES:
            newest = _newest(recordings[other], at[other], seam, way) if one != layer else None
            if newest is not None and (number := _behind(recordings[one], at[one], port, _key(newest))):
                at[one] = number
        if at == before:
            return


def _newest(recording: Recording, number: int, seam: str, way: str) -> Any:
    """The last frame that a layer was given at a seam before a call, of the instant of that call."""
    newest, now = None, None
    for place in range(number - 1, max(recording.first, number - SAME_INSTANT) - 1, -1):
        entry = recording.entry(place)
        if isinstance(entry, Received):
            now = entry.now if now is None else now
            if entry.now < now:
                break
            frame = decode_frame(entry.code, entry.frame, entry.cuts)
            if where_in(recording.head.process, frame) == (seam, way):
                newest = frame
                break
    return newest


def _behind(recording: Recording, number: int, port: str, key: Any) -> int:
    """The call behind the flush, from call `number` on, that put out a frame; 0 if none soon does."""
    for place, entry in recording.entries(number, number + SAME_INSTANT):
        if isinstance(entry, Flushed):
            for name, code, raw, cuts in entry.out:
                if name == port and _key(decode_frame(code, raw, cuts)) == key:
                    return place + 1
    return 0


def _flush_before(recording: Recording, number: int) -> int:
    """The call of the flush that differs, whose recorded output is not to be taken for what was put out; the call
    itself where a timer made the difference."""
    before = number - 1
    while before > recording.first and isinstance(recording.entry(before), Faulted):
        before -= 1
    return before if before >= recording.first and isinstance(recording.entry(before), Flushed) else number


def _tell_programs(loop: Loop, recording: Recording, stop: int) -> None:
    """What programs asked, and were told, before: from tcp's state and from the recording."""
    for row in loop.cores["tcp"].snapshot()["connections"]:
        if row["state"] not in (State.CLOSED, State.SYN_SENT, State.SYN_RECEIVED):
            loop.knows(Accepted(row["id"], 0, row["tx"]["limit"]))
    for _, entry in recording.entries(recording.first, stop):
        if isinstance(entry, Received):
            loop.asks(getattr(decode_frame(entry.code, entry.frame, entry.cuts), "message", None))
    for frame in _put_out(recording, stop, "client"):
        loop.knows(getattr(frame, "message", None))


def feed_network(loop: Loop, recording: Recording, until: int) -> list[Packet]:
    """What came from the network, until an instant; what else link says, to the end. The packets that are left out."""
    left: list[Packet] = []
    for now, frame in _received(recording, loop.at["ip"], "link-ip", "up"):
        if isinstance(frame, Packet):
            if now < until:
                loop.later(max(now, loop.now), loop.packet, frame)
            else:
                left.append(frame)
        elif isinstance(frame, LinkState) or now < until:
            loop.later(max(now, loop.now), loop.cores["ip"].receive, frame)
    return left

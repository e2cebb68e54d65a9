"""What an addon imports: a Python file with hooks, loaded into a running stack (docs/addons.md).

    from levelip import addon

    @addon.frame("tcp.flags.ack and tcp.len == 0")
    def every_tenth(packet, context):
        context.state.seen = getattr(context.state, "seen", 0) + 1
        if context.state.seen % 10 == 0:
            packet.drop()

Functions named `frame` and `event` are hooks without a decorator; `loaded(context)` and `unloaded(context)` are called
when the file comes and goes.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeVar

import msgspec

from levelip.frames.core import LONGEST_DELAY_NS
from levelip.frames.packet import DeviceFrame
from levelip.rpc.place import Place
from levelip.tracing.dissect import Dissector, looks_like_ip
from levelip.tracing.edit import change_text, edit
from levelip.tracing.events import Event
from levelip.tracing.fields import FIELDS, fields_of_view
from levelip.tracing.view import View, view

Seam = Literal["link", "link-ip", "ip-tcp", "ip-udp"]
Way = Literal["up", "down", "both"]
SEAMS: Final = ("link", "link-ip", "ip-tcp", "ip-udp")
WAYS: Final = ("up", "down", "both")
_MISSING: Final = object()
HOOK: Final = "_levelip_hooks"
"""The attribute of a function in which its decorators leave what they were told."""

_MS = 1_000_000

F = TypeVar("F", bound=Callable[..., object])


class FrameHook(NamedTuple):
    """What a function wants to see of frames. `frames` "wire": super-segments cut to packets first, as on a cable."""

    expression: str = ""
    seam: str = "link"
    way: str = "both"
    frames: str = "whole"


class EventHook(NamedTuple):
    """What a function wants to see of events."""

    expression: str = ""


def frame(
    expression: str = "", *, seam: Seam = "link", way: Way = "both", frames: Literal["whole", "wire"] = "whole"
) -> Callable[[F], F]:
    """Decorate `hook(packet, context)`: called for each frame that crosses `seam` and matches.

    At `link`, the device, one process sees both ways; at the others the process into which a frame passes
    calls the hook, so that what it remembers in `context.state` is of one way. ValueError for a seam or way unknown.
    """
    if seam not in SEAMS:
        raise ValueError(f"seam {seam!r}: an addon stands at {', '.join(SEAMS)}; streams lose nothing")
    if way not in WAYS:
        raise ValueError(f"way {way!r}: up (toward the applications), down or both")
    if frames not in ("whole", "wire"):
        raise ValueError(f"frames {frames!r}: whole or wire")
    return _mark(FrameHook(expression, seam, way, frames))


def event(expression: str = "") -> Callable[[F], F]:
    """Decorate `hook(event, context)`: called for each event of the process that matches (`retransmit` and so on)."""
    return _mark(EventHook(expression))


def _mark(hook: FrameHook | EventHook) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        setattr(function, HOOK, [*getattr(function, HOOK, []), hook])
        return function

    return decorate


class Bytes(Protocol):
    """Where payloads lie, as `levelip.ipc.memory.Memory`."""

    def read(self, place: Place) -> bytes: ...

    def free(self, place: Place) -> None: ...


class Verdict(NamedTuple):
    """What hooks have made of a packet so far: the frame, its delay, when copies follow, how many changes."""

    frame: Any
    delayed_ns: int
    copies_ns: list[int]
    changes: int


def _delay_ns(ms: float) -> int:
    """ValueError for what is less than nothing or longer than an hour."""
    if not 0 <= ms * _MS <= LONGEST_DELAY_NS:
        raise ValueError(f"a delay of {ms} ms")
    return round(ms * _MS)


class Packet:
    """A frame on its way. Reading and changing go by field names, Wireshark's: `packet["tcp.seq"]`.

    Nothing said: it passes. The payload is read from shared memory only when it is asked for, or has to be changed.
    """

    def __init__(self, frame: Any, seam: str, way: str, memory: Bytes) -> None:
        self.frame = frame
        self.seam = seam
        self.way = way
        self.dropped = False
        self.delayed_ns = 0
        self.copies_ns: list[int] = []  # when each further copy follows the first, ns
        self.changes: list[str] = []  # what hooks have changed, "ip.ttl=3", in their order
        self._memory = memory
        self._fields: dict[str, Any] | None = None
        self._view: View | None = None
        self._held: bytes | None = None

    @property
    def fields(self) -> Mapping[str, Any]:
        """Every field, in packet order."""
        if self._fields is None:
            self._fields = fields_of_view(self.view, aliases=True)
        return self._fields

    @property
    def view(self) -> View:
        """Where its headers lie: what expressions look at."""
        if self._view is None:
            self._view = view(self.frame, self.seam, self.way, read=self._memory.read)
        return self._view

    @property
    def payload(self) -> bytes:
        """What follows the headers that are in `frame.head`, from wherever it lies."""
        payload = self.frame.payload
        return self._memory.read(payload) if isinstance(payload, Place) else payload

    def __getitem__(self, name: str) -> Any:
        """KeyError where the frame has no such field, or there is none of this name."""
        value = self.get(name, _MISSING)
        if value is _MISSING:
            raise KeyError(f"{name}: this {type(self.frame).__name__} has no such field: {self}")
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name, _MISSING) is not _MISSING

    def get(self, name: str, default: Any = None) -> Any:
        """A field, or `default` where the frame has none; a list where it occurs several times. KeyError if no frame
        has a field of this name."""
        field = FIELDS.get(name)
        if field is None:
            raise KeyError(f"there is no field {name}")
        values = [field.show(value) for value in field.values(self.view)]
        return default if not values else values[0] if len(values) == 1 else values

    def __setitem__(self, name: str, value: Any) -> None:
        self.edit({name: value})

    def edit(self, changes: Mapping[str, Any], *, checksums: Literal["mend", "keep"] = "mend") -> None:
        """Change fields; "keep" leaves checksums as they were, wrong on purpose. EditError says what cannot be."""
        self.hold()
        self.frame = edit(self.frame, changes, checksums=checksums)
        self.changes += [change_text(name, value) for name, value in changes.items()]
        self._forget()

    def remove(self, *names: str) -> None:
        """Take options out: `packet.remove("tcp.options.sack_perm")`. EditError if it has none of them."""
        self.edit({f"-{name}": "" for name in names})

    def replace(self, frame: Any) -> None:
        """Let another frame of the same type go in its place."""
        if type(frame) is not type(self.frame):
            raise TypeError(f"a {type(self.frame).__name__} is expected here, not a {type(frame).__name__}")
        self.frame = frame
        self.changes.append("all of it")
        self._forget()

    def drop(self) -> None:
        """It does not arrive; counted as `drop.addon_drop`."""
        self.dropped = True

    def delay(self, ms: float) -> None:
        """It passes so much later, an hour at most; later packets overtake it."""
        delay = _delay_ns(ms)
        self.hold()
        self.delayed_ns += delay

    def duplicate(self, times: int = 1, *, ms: float = 0) -> None:
        """So many more of it follow, each `ms` later than the one before, the last within an hour."""
        if times < 0 or ms < 0:
            raise ValueError(f"{times} copies, {ms} ms apart")
        _delay_ns(ms * times)
        self.hold()
        self.copies_ns += [round(ms * _MS * (number + 1)) for number in range(times)]

    def copy(self) -> Packet:
        """Another packet like it, to be changed and injected; its payload is its own."""
        self.hold()
        return Packet(self.frame, self.seam, self.way, self._memory)

    def hold(self) -> None:
        """Take the payload out of the shared memory that may be reused while the frame waits."""
        payload = self.frame.payload
        if isinstance(payload, Place):
            data = self._held = self._memory.read(payload)
            self._memory.free(payload)
            self.frame = msgspec.structs.replace(self.frame, payload=data)
            self._forget()

    def _forget(self) -> None:
        self._fields = self._view = None

    # for what calls the hooks

    def verdict(self) -> Verdict:
        """What hooks have made of it so far, for `undo`."""
        return Verdict(self.frame, self.delayed_ns, list(self.copies_ns), len(self.changes))

    def undo(self, verdict: Verdict) -> None:
        """As it was; but a payload that left the shared memory is not put back there."""
        frame, self.delayed_ns, self.copies_ns, changes = verdict
        del self.changes[changes:]
        if self._held is not None and isinstance(frame.payload, Place):
            frame = msgspec.structs.replace(frame, payload=self._held)
        self.frame, self.dropped = frame, False
        self._forget()

    def with_frame(self, frame: Any) -> Packet:
        """Another frame with the same verdict: one of the pieces of this one."""
        packet = Packet(frame, self.seam, self.way, self._memory)
        packet.delayed_ns, packet.copies_ns = self.delayed_ns, list(self.copies_ns)
        packet.changes = list(self.changes)
        return packet

    def __str__(self) -> str:
        frame, dissector = self.frame, Dissector(absolute=True)
        length = len(frame.head) + len(frame.payload)
        head = frame.head + (frame.payload[:128] if isinstance(frame.payload, bytes) else b"")
        if hasattr(frame, "proto"):
            return dissector.transport(frame.src, frame.dst, frame.proto, head, length, frame.gso_size)
        if isinstance(frame, DeviceFrame) and not looks_like_ip(head, length):
            return dissector.ethernet(head, length)
        return dissector.ipv4(head, length)


class Host(Protocol):
    """What a context asks of the process that the addon is loaded into."""

    def say(self, addon: str, text: str) -> None: ...

    def tell(self, addon: str, event: Event) -> None: ...

    def insert(self, addon: str, packet: Packet, seam: str, way: str, after_ns: int) -> None: ...


class Context:
    """What a hook knows besides its packet. One an addon and process, kept when the file is loaded again.

    `process`: "link", "ip", "tcp", "udp" or "gateway"; `now`: stack time, ns; `options`: KEY=VALUE of `lvlip addon
    load`;
    `state`: yours, kept when the file is loaded again.
    """

    def __init__(self, name: str, process: str, options: Mapping[str, str], host: Host) -> None:
        self.name = name
        self.process = process
        self.options = dict(options)
        self.state = types.SimpleNamespace()
        self.now = 0
        self._host = host

    def log(self, text: object) -> None:
        """A line in the process's log (`lvlip logs LAYER`) and in `lvlip addon list`."""
        self._host.say(self.name, str(text))

    def emit(self, kind: str, *, frame: int | Packet = 0, conn: str = "", **data: Any) -> None:
        """An event that `lvlip trace` shows. `frame`: the packet, or its id, that it is about."""
        about = frame.frame.id if isinstance(frame, Packet) else frame
        self._host.tell(self.name, Event(self.now, kind, "", about, conn, data))

    def inject(self, packet: Packet, *, seam: str | None = None, way: str | None = None, ms: float = 0) -> None:
        """Send a packet (`Packet.copy()` of one, changed) on, at its seam and way or others of this process; it passes
        no hook. A frame must be of the kind that its seam carries: ValueError."""
        after_ns = _delay_ns(ms)
        packet.hold()
        self._host.insert(self.name, packet, seam or packet.seam, way or packet.way, after_ns)

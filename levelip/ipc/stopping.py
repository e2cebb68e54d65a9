"""The debugger's part of a process: what is held while stack time stands, where a breakpoint stops it, what a step is.

Stack time stands for all processes of a stack at once (levelip.ipc.clock). A process that sees it stand puts a debug
stage at each point whose frames are to be held: at what its ports take in, and at what goes out of the stack. Its
ports are read on, into the stages' bounded queues. The core is not fed, and no timer of it runs, but for what a
debugger asks for: a step hands it one frame at the instant at which time stands, and what it puts out then travels to
the next process, and is held there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from levelip.frames.core import ControlError, Core
from levelip.frames.packet import DeviceFrame, FrameIds, IcmpError, Packet, Process, Segment
from levelip.ipc.breakpoints import BREAKPOINTS, DUE, PACKETS, Breakpoint, Breakpoints, Stop
from levelip.ipc.clock import Hold
from levelip.ipc.debugstage import DebugStage, Held
from levelip.ipc.hostdesk import HostDesk
from levelip.ipc.memory import MemoryLost
from levelip.ipc.port import Port
from levelip.ipc.runtime import Runtime
from levelip.ipc.seampoint import SeamPoint
from levelip.ipc.tap import Tap
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.tracing.events import Event

_RANK = {"device": 0, "link": 1, "ip": 2, "tcp": 3, "udp": 3, "gateway": 4, "client": 5}
_KINDS: dict[str, Any] = {
    "link": DeviceFrame, "link-ip": Packet, "ip-tcp": Segment | IcmpError, "ip-udp": Segment | IcmpError,
}  # fmt: skip
"""What may be changed and injected, by seam: packets. Between the others are streams, which lose nothing."""
_STREAMS = "only packets can be changed; other frames can be held, shown and stepped (streams lose nothing)"
POINTS = 14
"""At which frames can be held, in all processes (levelip.debug.points.POINTS)."""
_ROW_BYTES = 128  # of payload, in a list
_ALL_BYTES = 1 << 17


class Host(Protocol):
    """What this part needs of the loop."""

    runtime: Runtime
    core: Core
    tap: Tap
    ports: dict[str, Port]
    inbound: dict[str, SeamPoint]
    outbound: dict[str, SeamPoint]
    watching: bool
    witness: list[tuple[Port, Any]] | None

    def feed(self, port: Port, frames: list[Any], now: int) -> None: ...
    def emit(self, port: Port, frames: list[Any], now: int) -> None: ...
    def flush(self, now: int) -> None: ...
    def tell(self, events: list[Event]) -> None: ...
    def tell_elsewhere(self, name: str, args: dict[str, Any]) -> None: ...


class _Side:
    """One way of one port, where frames can be held: `into` the core, or out of the stack."""

    def __init__(self, host: Host, port: Port, *, into: bool) -> None:
        upward = (_RANK.get(port.name, 0) < _RANK[host.runtime.name]) == into
        self.port = port
        self.into = into
        self.seam = port.seam
        self.way = "up" if upward else "down"
        self.name = f"{self.seam} {self.way}"
        self.points = host.inbound if into else host.outbound
        self.blank = SeamPoint(self.seam, self.way)

    @property
    def point(self) -> SeamPoint:
        return self.points.get(self.port.name, self.blank)

    @property
    def stage(self) -> DebugStage | None:
        stage = self.point.get("debug")
        return stage if isinstance(stage, DebugStage) else None


class Stopping:
    """See the module's text."""

    def __init__(self, host: Host) -> None:
        self._host = host
        runtime = host.runtime
        self._clock = runtime.clock
        self._process = runtime.name
        self._ids = FrameIds(Process.TOOL, runtime.epoch)
        self._sides = {side.name: side for side in self._find_sides()}
        self._count = 0
        self._generation = -1
        self._stepping: list[Event] | None = None  # events of the step that is being made
        self.standing = False
        """Whether this process has seen that stack time stands."""
        self.quiet = False
        """Whether all that comes in is held, so that the core has nothing to do."""
        self.draining = False
        """Whether time runs, and something that was held is still to go."""
        self.interest = False
        """Whether the core must tell of events for a breakpoint's sake."""
        self.stops: list[Stop] = []
        self.host = HostDesk(runtime, host.tell_elsewhere, POINTS)
        path = runtime.run.path / BREAKPOINTS
        self.breakpoints = Breakpoints(path, self._figures, runtime.memory.read, runtime.log)
        if path.exists():
            self._load({})

    def _find_sides(self) -> Iterator[_Side]:
        for port in self._host.ports.values():
            yield _Side(self._host, port, into=True)
            if port.name in ("device", "client"):
                yield _Side(self._host, port, into=False)

    # stack time

    @property
    def outdated(self) -> bool:
        """Whether the hold has changed since `look`."""
        return self._generation != self._clock.generation

    def look(self) -> None:
        """Stack time stands now, runs again, or something else is to be held: let the stages follow."""
        self._generation = self._clock.generation
        self.standing = self._clock.held
        why = self._clock.why()
        quiet = self.standing
        for side in self._sides.values():
            shut = self.standing and (why is None or not why.at or side.name in why.at)
            quiet = quiet and (shut or not side.into)
            self._set(side, shut)
        self.quiet = quiet
        self.draining = not self.standing and any(side.stage is not None for side in self._sides.values())
        if not self.standing:
            self.stops = []
        self.host.stopped(why if self.standing else None)

    def _set(self, side: _Side, shut: bool) -> None:
        """Let a stage stand there, or none, as is needed."""
        watched = self.breakpoints.wants(side.blank)
        stage = side.stage
        if stage is None:
            if not shut and not watched:
                return
            stage = DebugStage(
                self._admit,
                lambda frame: self.breakpoints.packet(side.blank, frame),
                self._packet_met,
            )
            side.points.setdefault(side.port.name, SeamPoint(side.seam, side.way)).put("debug", stage)
        stage.shut, stage.watched = shut, watched
        if stage.idle:
            self._remove(side)

    def _remove(self, side: _Side) -> None:
        point = side.point
        point.take("debug", 0)
        if not point:
            del side.points[side.port.name]

    def tidy(self) -> None:
        """Take away the stages that hold nothing any more."""
        draining = False
        for side in self._sides.values():
            stage = side.stage
            if stage is not None and stage.idle:
                self._remove(side)
            elif stage is not None and (stage.queue or stage.delayed):
                draining = True
        self.draining = draining

    def _admit(self, frame: Any) -> Held:
        """A frame to be held; its bytes must not lie in the device's pool, whose slots are lent for seconds."""
        payload = getattr(frame, "payload", None)
        memory = self._host.runtime.memory
        if type(payload) is Place and payload.region.startswith("pool-"):
            try:
                frame = msgspec.structs.replace(frame, payload=memory.read(payload))
                memory.free(payload)
            except MemoryLost:
                self._host.runtime.count(reasons.MEMORY_LOST.counter)
        self._count += 1
        return Held(self._count, frame, time.monotonic_ns())

    # breakpoints

    def _load(self, _args: dict[str, Any]) -> dict[str, Any]:
        refused = self.breakpoints.load()
        for text in refused:
            self._host.runtime.log.warning("%s", text)
        self._set_watching()
        for side in self._sides.values():
            stage = side.stage
            self._set(side, stage.shut if stage is not None else False)
        return {"refused": refused}

    def _set_watching(self) -> None:
        self.interest = bool(self.breakpoints.on_events)
        self._host.watching = self.interest or self._stepping is not None

    def _figures(self, conn: str) -> dict[str, Any]:
        """The figures of a connection, in the process that has it (tcp); elsewhere none."""
        from levelip.tracing.eventfields import connection_figures

        try:
            return connection_figures(self._host.core.control(0, "figures", {"conn": conn}, self._clock.now()))
        except ControlError:
            return {}

    def _packet_met(self, held: Held, found: Breakpoint) -> None:
        self._halt(Stop(found.number, found.text(), self._process, held=self._label(held)), found)

    def after_call(self) -> bool:
        """Look at the events of the call to the core that has just been made; whether one of them stopped the stack."""
        events = self._host.core.events()
        if not events:
            return False
        before = len(self.stops)
        self._host.tell(events)
        return len(self.stops) > before

    def saw(self, events: list[Event]) -> None:
        """Events that the core told of."""
        if self._stepping is not None:
            self._stepping += events
        for event in events:
            found = self.breakpoints.event(event)
            if found is not None:
                self._halt(Stop(found.number, found.text(), self._process, event=event), found)

    def met_deadline(self, due: int, now: int) -> None:
        """The core was told of the time since a deadline of it came up."""
        self.after_call()
        self.saw([Event(now, DUE, data={"deadline": due})])

    def _halt(self, stop: Stop, found: Breakpoint) -> None:
        """Let stack time stand, and everything be held, if that is not so yet."""
        told = msgspec.to_builtins(stop)
        self.stops.append(stop)
        self._host.runtime.log.info("stopped by breakpoint %d: %s", stop.breakpoint, stop.text)
        if not self._clock.hold(Hold(found.owner, time.time(), [], told)):
            why = self._clock.why()
            if why is not None:
                self._clock.explain(Hold(why.holder, why.since, [], told, why.hand))
        self._set_watching()
        self.look()

    def put_back(self, port: Port, frames: list[Any]) -> None:
        """The stack was stopped before these, which had passed, were fed."""
        stage = next((side.stage for side in self._sides.values() if side.port is port and side.into), None)
        if stage is not None:
            stage.put_back(frames)

    # commands

    def command(self, name: str, args: dict[str, Any]) -> dict[str, Any]:
        """Control commands "debug.*" (docs/debugging.md)."""
        commands: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "debug.state": self._state,
            "debug.held": self._list,
            "debug.frame": self._frame,
            "debug.step": self._step,
            "debug.timer": self._timer,
            "debug.drop": self._drop,
            "debug.dup": self._dup,
            "debug.delay": self._delay,
            "debug.move": self._move,
            "debug.replace": self._replace,
            "debug.inject": self._inject,
            "debug.breakpoints": self._load,
        }
        if name not in commands:
            raise ControlError(f"{name}: there are {', '.join(commands)}")
        if self.standing != self._clock.held or (self.standing and self.outdated):
            self.look()
        return commands[name](args)

    def _state(self, _args: dict[str, Any]) -> dict[str, Any]:
        deadlines = [self._host.core.next_timer()]
        deadlines += [point.next_timer() for point in (*self._host.inbound.values(), *self._host.outbound.values())]
        return {
            "standing": self.standing,
            "now": self._clock.now(),
            "next_deadline": min((at for at in deadlines if at is not None), default=None),
            "queues": [
                {
                    "seam": side.seam,
                    "way": side.way,
                    "held": len(stage.queue),
                    "delayed": len(stage.delayed),
                    "shut": stage.shut,
                    "full": stage.full,
                }
                for side in self._sides.values()
                if (stage := side.stage) is not None
            ],
            "breakpoints": self.breakpoints.counts(),
            "stops": [msgspec.to_builtins(stop) for stop in self.stops],
        }

    def _list(self, args: dict[str, Any]) -> dict[str, Any]:
        """The first `limit` (all) of each queue, of seam `seam` (all), that entered at or after `since`."""
        limit, since = args.get("limit", 1 << 30), args.get("since", 0)
        rows = []
        for side in self._sides.values():
            stage = side.stage
            if stage is None or args.get("seam") not in (None, side.seam):
                continue
            chosen = enumerate(stage.everything()[:limit])
            rows += [self._row(side, held, place) for place, held in chosen if held.entered >= since]
        return {"held": rows}

    def _row(self, side: _Side, held: Held, place: int, limit: int = _ROW_BYTES) -> dict[str, Any]:
        direction = "in" if side.into else "out"
        record = self._host.tap.record(held.frame, side.seam, direction, self._clock.now(), held.entered, limit)
        return {
            "held": self._label(held),
            "seam": side.seam,
            "way": side.way,
            "place": place,
            "entered": held.entered,
            "due": held.due,
            "record": record,
        }

    def _label(self, held: Held) -> str:
        return f"{self._process[0]}{held.number}"

    def _find(self, args: dict[str, Any]) -> tuple[_Side, DebugStage, Held]:
        name = args["held"]
        if not isinstance(name, str) or name[:1] != self._process[0] or not name[1:].isdigit():
            raise ControlError(f"{name!r} is not the name of a frame that {self._process} holds")
        for side in self._sides.values():
            stage = side.stage
            held = stage.find(int(name[1:])) if stage is not None else None
            if stage is not None and held is not None:
                return side, stage, held
        raise ControlError(f"{name} is not held any more; see: lvlip held list")

    def _packet(self, args: dict[str, Any]) -> tuple[_Side, DebugStage, Held]:
        side, stage, held = self._find(args)
        if side.seam not in _KINDS or not isinstance(held.frame, PACKETS):
            raise ControlError(f"{args['held']}: {_STREAMS}")
        return side, stage, held

    def _frame(self, args: dict[str, Any]) -> dict[str, Any]:
        """The whole frame, its payload with it."""
        side, stage, held = self._find(args)
        frame = held.frame
        payload = getattr(frame, "payload", b"")
        if isinstance(payload, Place):
            try:
                frame = msgspec.structs.replace(frame, payload=self._host.runtime.memory.read(payload))
            except MemoryLost as error:
                raise ControlError(f"{args['held']}: its payload is gone: {error}") from None
        row = self._row(side, held, stage.everything().index(held), _ALL_BYTES)
        data = msgspec.msgpack.encode(frame) if isinstance(frame, PACKETS) and side.seam in _KINDS else b""
        return {"row": row, "kind": type(frame).__name__, "frame": data}

    # steps

    def _step(self, args: dict[str, Any]) -> dict[str, Any]:
        """Hand one held frame on: to the core, and what it puts out then to the neighbours; or out of the stack."""
        self._need_standing()
        side, stage, held = self._find(args)
        row = self._row(side, held, stage.everything().index(held))
        stage.remove(held)
        pass_on = self._host.feed if side.into else self._host.emit
        return {"fed": row, **self._act(lambda now: pass_on(side.port, [held.frame], now))}

    def _timer(self, _args: dict[str, Any]) -> dict[str, Any]:
        """Run the timers of the core that are due at the instant at which time stands; frames that a fault delayed
        until now come to where they were going."""
        self._need_standing()
        return self._act(self._run_due)

    def _run_due(self, now: int) -> None:
        host = self._host
        for points, pass_on in ((host.inbound, host.feed), (host.outbound, host.emit)):
            for name, point in list(points.items()):
                if frames := point.due(now):
                    pass_on(host.ports[name], frames, now)
        due = host.core.next_timer()
        if due is not None and due <= now:
            host.core.handle_timer(now)

    def _need_standing(self) -> None:
        if not self.standing:
            raise ControlError("the stack runs; hold it first, with: lvlip hold")

    def _act(self, action: Callable[[int], None]) -> dict[str, Any]:
        """Do something to the core; what it put out, and its events."""
        host, now = self._host, self._clock.now()
        sent: list[tuple[Port, Any]] = []
        events: list[Event] = []
        interest, host.core.interest = host.core.interest, True
        host.witness, self._stepping = sent, events
        self._set_watching()
        try:
            action(now)
            self.after_call()
            host.flush(now)
        finally:
            host.witness = self._stepping = None
            host.core.interest = interest
            self._set_watching()
        up = {name for name, rank in _RANK.items() if rank > _RANK[self._process]}
        return {
            "output": [
                {
                    "port": port.name,
                    "seam": port.seam,
                    "way": "up" if port.name in up else "down",
                    "kind": type(frame).__name__,
                    "id": getattr(frame, "id", 0),
                }
                for port, frame in sent
            ],
            "events": [msgspec.to_builtins(event, builtin_types=(bytes,)) for event in events],
        }

    # changes

    def _drop(self, args: dict[str, Any]) -> dict[str, Any]:
        _, stage, held = self._packet(args)
        stage.remove(held)
        self._host.runtime.count(reasons.DEBUG_DROP.counter)
        return {"dropped": args["held"]}

    def _dup(self, args: dict[str, Any]) -> dict[str, Any]:
        _, stage, held = self._packet(args)
        changes: dict[str, Any] = {"id": self._ids.next(), "causes": [held.frame.id]}
        made = stage.insert_after(held, msgspec.structs.replace(held.frame, **changes))
        return {"held": self._label(made)}

    def _delay(self, args: dict[str, Any]) -> dict[str, Any]:
        _, stage, held = self._packet(args)
        ns = args["ns"]
        if not isinstance(ns, int) or ns < 0:
            raise ControlError("a delay is a number of nanoseconds from 0")
        due = self._clock.now() + ns
        stage.delay(held, due)
        return {"due": due}

    def _move(self, args: dict[str, Any]) -> dict[str, Any]:
        """{"held", "place": from 0, or -1 for the last}."""
        _, stage, held = self._packet(args)
        if not isinstance(args["place"], int):
            raise ControlError("a place is a number: 0 goes first, -1 last")
        stage.move(held, args["place"])
        return {"place": stage.everything().index(held)}

    def _replace(self, args: dict[str, Any]) -> dict[str, Any]:
        """{"held", "frame": another one, in msgpack}."""
        side, stage, held = self._packet(args)
        frame = self._decode(side.seam, args["frame"])
        if type(frame) is not type(held.frame):
            raise ControlError(f"{args['held']} is a {type(held.frame).__name__}, not a {type(frame).__name__}")
        stage.replace(held, frame)
        return {"row": self._row(side, held, stage.everything().index(held))}

    def _inject(self, args: dict[str, Any]) -> dict[str, Any]:
        """{"seam", "way", "frame": in msgpack}: a frame at a seam, past its faults; held there if that is held."""
        name = f"{args['seam']} {args['way']}"
        side = self._sides.get(name)
        if side is None:
            raise ControlError(f"{self._process} does not see {name}")
        if side.seam not in _KINDS:
            raise ControlError(f"nothing can be injected at {side.seam}: streams between processes are no packets")
        frame = self._decode(side.seam, args["frame"])
        if not frame.id:
            frame = msgspec.structs.replace(frame, id=self._ids.next())
        if side.seam == "link-ip" and not frame.ingress and side.way == "up":
            frame = msgspec.structs.replace(frame, ingress=self._clock.now())
        now, stage = self._clock.now(), side.stage
        frames = [frame] if stage is None else stage.push([frame], now)
        if not frames:
            assert stage is not None
            return {"id": frame.id, "held": self._label(stage.queue[-1])}
        (self._host.feed if side.into else self._host.emit)(side.port, frames, now)
        if not self.quiet:
            self._host.flush(now)
        return {"id": frame.id, "held": ""}

    @staticmethod
    def _decode(seam: str, data: bytes) -> Any:
        try:
            frame = msgspec.msgpack.decode(data, type=_KINDS[seam])
        except msgspec.DecodeError as error:
            raise ControlError(f"no frame for {seam}: {error}") from None
        if isinstance(getattr(frame, "payload", b""), Place):
            raise ControlError("a frame from a tool carries its payload itself")
        return frame

"""The debugger's part of a process: what is held while stack time stands, where a breakpoint stops it, what a step is.

Stack time stands for all processes of a stack at once (levelip.ipc.clock). A process that sees it stand puts a debug
stage at each point whose frames are to be held: at what its ports take in, and at what goes out of the stack. Its
ports are read on, into the stages' bounded queues. The core is not fed, and no timer of it runs, but for what a
debugger asks for: a step hands it one frame at the instant at which time stands, and what it puts out then travels to
the next process, and is held there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from levelip.frames.core import ControlError
from levelip.ipc.breakpoints import BREAKPOINTS, DUE, Breakpoint, Breakpoints, Stop
from levelip.ipc.clock import Hold
from levelip.ipc.debugside import Host, Side, sides_of
from levelip.ipc.debugstage import DebugStage, Held
from levelip.ipc.helddesk import HeldDesk
from levelip.ipc.hostdesk import HostDesk
from levelip.ipc.memory import MemoryLost
from levelip.ipc.port import Port, way_of
from levelip.ipc.seampoint import SeamPoint
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.tracing.events import Event

POINTS = 14
"""At which frames can be held, in all processes (levelip.debug.points.POINTS)."""


class Stopping:
    """See the module's text."""

    def __init__(self, host: Host) -> None:
        self._host = host
        runtime = host.runtime
        self._clock = runtime.clock
        self._process = runtime.name
        self._sides = {side.name: side for side in sides_of(host)}
        self._held = HeldDesk(host, self._sides, quiet=lambda: self.quiet)
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

    def _set(self, side: Side, shut: bool) -> None:
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

    def _remove(self, side: Side) -> None:
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
        self._halt(Stop(found.number, found.text(), self._process, held=self._held.label(held)), found)

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
            "debug.step": self._step,
            "debug.timer": self._timer,
            "debug.breakpoints": self._load,
            **self._held.commands,
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

    # steps

    def _step(self, args: dict[str, Any]) -> dict[str, Any]:
        """Hand one held frame on: to the core, and what it puts out then to the neighbours; or out of the stack."""
        self._need_standing()
        side, stage, held = self._held.find(args)
        row = self._held.row(side, held, stage.everything().index(held))
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
        return {
            "output": [
                {
                    "port": port.name,
                    "seam": port.seam,
                    "way": way_of(port.name, self._process, into=False),
                    "kind": type(frame).__name__,
                    "id": getattr(frame, "id", 0),
                }
                for port, frame in sent
            ],
            "events": [msgspec.to_builtins(event, builtin_types=(bytes,)) for event in events],
        }

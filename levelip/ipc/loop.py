"""The one loop that all shells share: ports on one side, a core on the other. It alone knows ZeroMQ and the clock.

Each round: take what has come, feed the core, run due timers, carry out Stores, flush in batches, tell the tap bus.
While stack time stands, what comes is held before the core and no timer runs (levelip.ipc.stopping); control, tap bus
and hellos go on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import zmq

from levelip import __version__
from levelip.frames.core import BAD_ARGUMENTS, ControlError, Core
from levelip.frames.seam import Store, StoreFailed
from levelip.ipc.commandlog import CommandLog
from levelip.ipc.control import ControlServer
from levelip.ipc.faults import Faults
from levelip.ipc.memory import MemoryLost
from levelip.ipc.pipe import Came, Pipe
from levelip.ipc.poller import Poller, Wanted, sure
from levelip.ipc.port import Pollable, Port
from levelip.ipc.processdesk import ProcessDesk
from levelip.ipc.recorder import Recorded
from levelip.ipc.relay import Relay
from levelip.ipc.runtime import Runtime
from levelip.ipc.seampoints import SeamPoints
from levelip.ipc.stopping import Stopping
from levelip.ipc.tap import Tap
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.tracing.callencoder import Encoded, Outlet
from levelip.tracing.events import Event

if TYPE_CHECKING:
    from levelip.ipc.addondesk import AddonDesk

_RECEIVE = 128  # frames from one port in one round
_IDLE_MS = 250  # longest sleep: hellos, housekeeping
_HELD_MS = 20  # longest sleep while stack time stands: how late its going on may be noticed

Extra = Callable[[str, dict[str, Any]], dict[str, Any] | None]
Command = Callable[[str, dict[str, Any]], dict[str, Any]]


class Loop:
    """One process. `extra` answers control commands that only this shell knows (None: not mine)."""

    def __init__(self, runtime: Runtime, core: Core, ports: Sequence[Port], *, extra: Extra | None = None) -> None:
        self.runtime = runtime
        self.core = core
        self._recorded = core if isinstance(core, Recorded) else None
        self.ports = {port.name: port for port in ports}
        self._extra = extra
        self._pipes = [port for port in ports if isinstance(port, Pipe)]
        if self._recorded is not None:
            names = frozenset(pipe.name for pipe in self._pipes)
            shared = frozenset(pipe.name for pipe in self._pipes if not pipe.remote)
            self._recorded.outlet = Outlet(names, runtime.config.ipc.batch, shared)
        run = runtime.run
        self._control = ControlServer(runtime.context, f"ipc://{run.control(runtime.name)}", self._command)
        self.tap = Tap(runtime.context, f"ipc://{run.tap(runtime.name)}", runtime.name, runtime.memory)
        self.faults = Faults(runtime)
        self._addons: AddonDesk | None = None  # made when the first addon comes
        self._points = SeamPoints(runtime.name, self.ports, feed=self.feed, emit=self.emit, now=runtime.clock.now)
        self.inbound, self.outbound = self._points.inbound, self._points.outbound
        self._pooled: list[Place] = []  # slots that came with this round's frames
        self._poller = Poller()
        self._sources: list[list[Pollable]] | None = None  # what the poller sleeps on
        self._doors: list[tuple[zmq.Socket[Any], Any, bool]] = []  # ports' sockets that are sent on, too
        self._everything: set[Any] = {*self.ports.values(), *(pipe.monitor for pipe in self._pipes)}
        # what may hold more than was taken of it; at first everything: a ZeroMQ socket tells nothing until it was asked
        self._again = set(self._everything)
        self._command_log = CommandLog(runtime.log)
        self._asked = True  # the control socket was used since it was last seen to be empty
        self._interest = False
        self._full: set[Port] = set()  # ports that are not read, since what stands before the core can hold no more
        self.watching = False  # events are looked at after each call, not after each round
        self.witness: list[tuple[Port, Any]] | None = None  # told what the core puts out, during a debugger's step
        self.stopping = Stopping(self)
        self._relay = Relay(runtime.name, {pipe.name: pipe for pipe in self._pipes}, self._relayed, self._answer_late)
        self._desk = ProcessDesk(
            runtime, core, self._pipes, control=self._control, tap=self.tap, faults=self.faults, points=self._points,
        )  # fmt: skip
        # control commands of the parts of this package, by what stands before the first dot
        self._part_commands: dict[str, Command] = {
            "debug": self.stopping.command, "host": self.stopping.host.command, "addon": self._addon,
        }  # fmt: skip

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        runtime, log = self.runtime, self.runtime.log
        log.info("level-ip %s %s starts, pid %d", __version__, runtime.name, os.getpid())
        try:
            with runtime.signals():
                self._restore_addons()
                while not runtime.stopping:
                    self._round()
                    self.tap.flush()
        finally:
            log.info("%s stops", runtime.name)
            self.close()

    def close(self) -> None:
        """Close every socket."""
        if self._addons is not None and self.runtime.stopping:
            self._addons.close()
        for port in self.ports.values():
            port.close()
        self._control.close()
        self.tap.close()
        self.runtime.close()

    @property
    def _recording(self) -> bool:
        return self._recorded is not None and self._recorded.recording

    # one round

    def _round(self) -> None:
        ready = self._wait()
        core, clock = self.core, self.runtime.clock
        if self.tap in ready:
            self.tap.subscriptions()
        if self._control in ready:
            self._control.serve()
            self._asked = True
        stopping = self.stopping
        interest = self.tap.interest or stopping.interest
        if interest is not self._interest:
            core.interest = self._interest = interest
        self.faults.teller.interest = interest or self._recording
        now = clock.running()
        if (now is None) is not stopping.standing or (now is None and stopping.outdated):
            stopping.look()
            self._again = set(self._everything)
        if self._full:
            self._look_for_room()
        if now is None:
            self._stand_still(ready)
        else:
            for port in self.ports.values():
                if port in ready:
                    self._take(port, now)
            if self.inbound:
                for name, point in list(self.inbound.items()):
                    self.feed(self.ports[name], point.due(now), now)
            due = core.next_timer()
            if due is not None and due <= now and not stopping.standing:
                core.handle_timer(now)
                if self.watching:
                    stopping.met_deadline(due, now)
            self.flush(now)
            self.runtime.memory.sweep(now)
            if stopping.draining:
                stopping.tidy()
        for pipe in self._pipes:
            pipe.tick()
            if pipe.words:
                self._relay.hear(pipe)

    def _stand_still(self, ready: set[Any]) -> None:
        """A round while stack time stands: what comes is held; layers that are not held go on at this one instant."""
        now = self.runtime.clock.now()
        for port in self.ports.values():
            if port in ready:
                self._take(port, now)
        if not self.stopping.quiet:
            self.flush(now)
        if done := self._done_between():
            self.tell(done)

    def _look_for_room(self) -> None:
        """Read the ports again that had to wait."""
        for port in list(self._full):
            point = self.inbound.get(port.name)
            if point is None or not point.full:
                self._full.discard(port)
                self._again.add(port)
            elif isinstance(port, Pipe):
                port.look_ahead()

    def _wait(self) -> set[Any]:
        """Sleep until something can be done; the ports, control server and tap bus that something has come for."""
        held = self.stopping.standing
        sources: list[list[Pollable]] = []
        for port in self.ports.values():
            sources += (port.readable() if port not in self._full else [], port.writable())
        if sources != self._sources:
            self._sources = sources
            self._watch(sources)
        unsure = self._doors
        if self._asked or self.tap.interest or self.tap.frames:
            self._asked = False
            unsure = [*unsure, (self._control.socket, self._control, False), (self.tap.socket, self.tap, False)]
        ready = sure(unsure) if unsure else set()
        if self._again:
            ready |= self._again
            self._again.clear()
        patience = 0 if ready else _HELD_MS if held else self._patience_ms()
        ready |= self._poller.wait(patience)
        if not ready and patience == _IDLE_MS:
            self._again = set(self._everything)  # were news ever missed, this would be how late they come
        for pipe in self._pipes:
            pipe.alarmed = pipe.monitor in ready
            pipe.expected = pipe.pull in ready
            if pipe.alarmed or pipe.expected:
                ready.add(pipe)
        return ready

    def _watch(self, sources: list[list[Pollable]]) -> None:
        """Sleep on what the ports name now."""
        wanted: Wanted = [(self._control.socket, self._control, False), (self.tap.socket, self.tap, False)]
        self._doors = []
        for port, readable, writable in zip(self.ports.values(), sources[::2], sources[1::2], strict=False):
            pipe = isinstance(port, Pipe)
            for source in readable:
                wanted.append((source, source if pipe else port, False))
                if not isinstance(source, int) and not pipe:
                    self._doors.append((source, port, False))
            for source in writable:
                wanted.append((source, port, True))
                if not isinstance(source, int):
                    self._doors.append((source, port, True))
        self._poller.watch(wanted)

    def _patience_ms(self) -> int:
        """Until the next deadline of the core or a seam's stage, rounded up."""
        deadline = self.core.next_timer()
        for points in (self.inbound, self.outbound):
            for point in points.values():
                due = point.next_timer()
                if due is not None and (deadline is None or due < deadline):
                    deadline = due
        if deadline is None:
            return _IDLE_MS
        left = deadline - self.runtime.clock.now()
        return 0 if left <= 0 else min(_IDLE_MS, -(-left // 1_000_000))

    def _take(self, port: Port, now: int) -> None:
        point = self.inbound.get(port.name)
        if point is not None and point.full:
            self._full.add(port)
            return
        frames = port.receive(_RECEIVE, now)
        if not frames:
            return
        if len(frames) >= _RECEIVE:
            self._again.add(port)
        if point is not None:
            self.feed(port, point.push(frames, now), now)
        else:
            self.feed(port, frames, now, port.came if isinstance(port, Pipe) else None)

    def feed(self, port: Port, frames: list[Any], now: int, came: Came | None = None) -> None:
        """Frames into the core (`came`: as the pipe had them, where that is known). While events are waited for, one by
        one: what comes after a stop is held."""
        if not self.watching:
            self._feed(port, frames, now, came)
            return
        for index, frame in enumerate(frames):
            self._feed(port, [frame], now)
            if self.stopping.after_call():
                self.stopping.put_back(port, frames[index + 1 :])
                return

    def _feed(self, port: Port, frames: list[Any], now: int, came: Came | None = None) -> None:
        if not frames:
            return
        if self.tap.frames:
            self.tap.publish_frames(port.seam, "in", frames, now)
        pooled = self._pooled
        if self._recorded is not None and self._recorded.recording:
            for frame in frames:
                payload = getattr(frame, "payload", None)
                if type(payload) is Place:
                    pooled.append(payload)
            self._recorded.receive_all(frames, now, came)
            return
        receive = self.core.receive
        for frame in frames:
            payload = getattr(frame, "payload", None)
            if type(payload) is Place:
                pooled.append(payload)
            receive(frame, now)

    def flush(self, now: int) -> None:
        """Send what the core has to send, and tell of its events."""
        ports = self.ports
        gone: set[tuple[int, int]] = set()  # slots that went on to the next process
        again = True
        while again:
            room = {name: port.room() for name, port in ports.items()}
            again = False
            batches: dict[str, list[Any]] = {}
            for name, frame in self.core.outgoing(room):
                if name == "memory":
                    again |= not self._store(frame, now)
                elif name == "control":
                    self._control.answer(frame.token, frame.data)
                    self._asked = True
                elif (batch := batches.get(name)) is not None:
                    batch.append(frame)
                else:
                    batches[name] = [frame]
            if self.watching:
                self.stopping.after_call()
            for name, frames in batches.items():
                again |= room[name] <= len(frames)  # it took what there was room for; there may be more
                self._send(ports[name], frames, now, gone)
        if self.outbound:
            for name, point in list(self.outbound.items()):
                if frames := point.due(now):
                    self._emit(self.ports[name], frames, now, gone)
        events = self.core.events()
        if done := self._done_between():
            events = done + events
        if events:
            self.tell(events)
            if done := self._done_between():  # what addons' hooks on events had to say
                self.tell(done)
        if self._pooled:
            free = self.runtime.memory.free
            for place in self._pooled:
                if (place.base, place.generation) not in gone:
                    free(place)
            self._pooled.clear()

    def _done_between(self) -> list[Event]:
        """What faults and addons did since the last time, which a recording has to know of, too."""
        done = self.faults.teller.take()
        if done and self._recorded is not None:
            self._recorded.faulted(done)
        return done

    def did(self, event: Event) -> None:
        """A debugger did something to a frame: told and recorded at once, as the stack may stand for long."""
        self.faults.teller.add(event)
        if done := self._done_between():
            self.tell(done)

    def tell(self, events: list[Event]) -> None:
        """Events to whoever listens."""
        if self.tap.interest:
            self.tap.publish_events(events)
        if self.watching:
            self.stopping.saw(events)

    def _send(self, port: Port, frames: list[Any], now: int, gone: set[tuple[int, int]]) -> None:
        if self.witness is not None:
            self.witness += [(port, frame) for frame in frames]
        point = self.outbound.get(port.name)
        encoded = self._recorded.outlet.take(port.name, len(frames)) if self._recorded is not None else None
        if point is not None:
            frames, encoded = point.push(frames, now), None
        self._emit(port, frames, now, gone, encoded)

    def emit(self, port: Port, frames: list[Any], now: int) -> None:
        """Frames out of a port, past what stands there."""
        self._emit(port, frames, now, set())

    def _emit(
        self, port: Port, frames: list[Any], now: int, gone: set[tuple[int, int]], encoded: Encoded | None = None
    ) -> None:
        if self.tap.frames:
            self.tap.publish_frames(port.seam, "out", frames, now)
        if encoded is not None and isinstance(port, Pipe):
            port.send(frames, now, encoded)
        else:
            port.send(frames, now)
        if self._pooled and isinstance(port, Pipe):
            for frame in frames:  # a payload that the pipe had to copy is no Place any more
                payload = getattr(frame, "payload", None)
                if type(payload) is Place:
                    gone.add((payload.base, payload.generation))

    def _store(self, store: Store, now: int) -> bool:
        """Copy a payload to its place; False if that failed and the core was told."""
        try:
            self.runtime.memory.store(store.place, store.payload)
        except (MemoryLost, OSError) as error:
            if isinstance(store.payload, Place) and not self.runtime.memory.check(store.payload):
                raise RuntimeError("a slot of the device pool was reclaimed while it was read") from error
            self.runtime.count(reasons.MEMORY_LOST.counter)
            self.runtime.log.warning("cannot write to region %s: %s", store.place.region, error)
            self.core.receive(StoreFailed(store.place), now)
            return False
        return True

    # control

    def _command(self, token: int, name: str, args: dict[str, Any]) -> dict[str, Any]:
        try:
            own = self._desk.commands.get(name)
            if own is not None:
                return own(args)
            if name == "relay.ask":
                return self._relay.ask(token, args)
            part = self._part_commands.get(name.partition(".")[0])
            if part is not None:
                return part(name, args)
            if self._extra is not None and (answer := self._extra(name, args)) is not None:
                return answer
            now = self.runtime.clock.now()
            answer = self.core.control(token, name, args, now)
        except BAD_ARGUMENTS as error:
            self._command_log.failed(name, error)
            raise ControlError(f"{name}: bad arguments: {error!r}") from None
        if not self.runtime.clock.held:
            self.flush(now)
        return answer

    def _relayed(self, name: str, args: dict[str, Any]) -> dict[str, Any]:
        """A command that came from another process."""
        return self._command(0, name, args)

    def _answer_late(self, token: int, data: dict[str, Any]) -> None:
        self._control.answer(token, data)
        self._asked = True

    def tell_elsewhere(self, name: str, args: dict[str, Any]) -> None:
        """A command to every neighbour on another host."""
        for pipe in self._pipes:
            if pipe.remote:
                self._relay.tell(pipe.name, name, args)

    def _addon(self, name: str, args: dict[str, Any]) -> dict[str, Any]:
        """Commands about addons."""
        return self._addon_desk().command(name, args)

    def _addon_desk(self) -> AddonDesk:
        """What addons need; made when the first one comes."""
        if self._addons is None:
            from levelip.ipc.addondesk import AddonDesk

            self._addons = AddonDesk(self.runtime, self.tap, self.faults.teller, self._points)
        return self._addons

    def _restore_addons(self) -> None:
        """The addons that the process before had. What they say then is recorded; nobody listens yet."""
        if (self.runtime.run.path / f"{self.runtime.name}.addons.json").exists():
            self.faults.teller.interest = self._recording
            self._addon_desk().restore()

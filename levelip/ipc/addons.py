"""Addons of one process: hooks that see, change, drop, delay, repeat and add frames where they pass, and see events.

Nothing here knows ZeroMQ or a clock, so the same addons stand between cores in virtual time. A hook that raises takes
its addon out, and the frame passes as it was; the file is tried again when it changes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from levelip.addon import Bytes, Context, EventHook, FrameHook, Packet
from levelip.frames.packet import DeviceFrame, FrameIds, Process, Segment
from levelip.frames.packet import Packet as IpPacket
from levelip.ipc.addonfile import AddonError, AddonFile, Hook, Stamp, load_file, sayable, stamp_of, trace
from levelip.ipc.addonstage import AddonStage
from levelip.ipc.faults import packet_place
from levelip.ipc.memory import MemoryLost
from levelip.ipc.watchdog import TookTooLong
from levelip.tracing import reasons
from levelip.tracing.events import Event
from levelip.tracing.view import view

SLOW_MS = 20
"""A hook that takes longer is told of: all of the stack waits for it."""
_CHECK_NS = 500_000_000  # how often the files are looked at
_LOG_LINES = 20
_TYPES: dict[str, type] = {"link": DeviceFrame, "link-ip": IpPacket, "ip-tcp": Segment, "ip-udp": Segment}
_encode = msgspec.msgpack.Encoder().encode
_decode_event = msgspec.msgpack.Decoder(Event).decode

Side = tuple[str, str]  # seam, way


class World(Protocol):
    """What is around the addons of a process."""

    process: str

    @property
    def memory(self) -> Bytes:
        """Where payloads lie."""

    @property
    def interest(self) -> bool:
        """Whether somebody listens to what addons do, or it is recorded."""

    def count(self, name: str, n: int = 1) -> None:
        """Add to a counter of the process."""

    def log(self, text: str) -> None:
        """A warning in its log."""

    def publish(self, event: Event) -> None:
        """An event for whoever listens."""

    def listen(self, on: bool) -> None:
        """Whether `Addons.event` shall be given the events of the process."""

    def changed(self) -> None:
        """Addons came, went, or were taken out."""

    def arm(self, addon: str) -> None:
        """Code of an addon runs from here on: TookTooLong is raised in it if it does not come back."""

    def disarm(self) -> None:
        """It came back."""


@dataclass(slots=True)
class Addon:
    """One file that was loaded; without `file` it is out, for `error`, until it changes."""

    name: str
    path: str
    context: Context
    file: AddonFile | None = None
    stamp: Stamp | None = None  # of what was tried last
    error: str = ""
    loads: int = 0
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LOG_LINES))


class Addons:
    """All addons of a process. `sides`: the (seam, way)s at which frames can be had here."""

    def __init__(self, world: World, sides: Iterable[Side], *, slow_ms: float = SLOW_MS, epoch: int = 0) -> None:
        self.world = world
        self.sides = tuple(sides)
        self.slow_ns = round(slow_ms * 1_000_000)
        self.addons: dict[str, Addon] = {}
        self.stages: dict[Side, AddonStage] = {}
        self.ids = FrameIds(Process.TOOL, epoch)
        self.now = 0
        self._listening = False  # an addon wants events
        self._checked = 0

    # loading

    def load(self, path: str, options: dict[str, str], now: int) -> Addon | None:
        """Load a file, or load it again. None if none of its hooks has a place in this process. AddonError."""
        name = Path(path).stem
        old = self.addons.get(name)
        if old is not None and old.path != path:
            raise AddonError(f"an addon named {name} is loaded already, from {old.path}; unload it first")
        file = self._read(path, name)
        if not any(self._has_place(hook) for hook in file.hooks):
            return None
        self.now = now
        addon = old or Addon(name, path, Context(name, self.world.process, options, self))
        if old is not None:
            self._call_end(old)
            addon.context.options = dict(options)
        self.addons[name] = addon
        self._take_in(addon, file)
        if addon.error:
            raise AddonError(addon.error)
        return addon

    def keep_out(self, path: str, options: dict[str, str], why: str, stamp: Stamp | None) -> None:
        """An addon that is not loaded until its file changes, which had `stamp`."""
        name = Path(path).stem
        addon = Addon(name, path, Context(name, self.world.process, options, self), stamp=stamp, error=why)
        self.addons[name] = addon
        self._report(addon, "not loaded after the restart", why)
        self._see_listening()

    def restored(self, addon: Addon) -> None:
        """An addon of the process before is here, too."""
        self._report(addon, "loaded after the restart", "")

    def unload(self, name: str, now: int) -> Addon:
        """Take an addon away; its `lines` are what it said at its end. AddonError if there is none of this name."""
        self.now = now
        addon = self.addons.get(name)
        if addon is None:
            raise AddonError(f"no addon {name!r} is loaded here")
        addon.lines.clear()
        self._call_end(addon)
        del self.addons[name]
        self._see_listening()
        return addon

    def check(self) -> None:
        """Load again what has changed on disk; looks at most twice a second."""
        now = time.monotonic_ns()
        if now - self._checked < _CHECK_NS:
            return
        self._checked = now
        for addon in list(self.addons.values()):
            stamp = stamp_of(addon.path)
            if stamp is not None and stamp != addon.stamp:
                self._again(addon, stamp)

    def _again(self, addon: Addon, stamp: Stamp) -> None:
        addon.stamp = stamp
        try:
            file = self._read(addon.path, addon.name)
        except AddonError as error:
            # half-written, perhaps: what ran goes on
            addon.error = str(error)
            self._report(addon, "not loaded again", str(error))
            return
        self._call_end(addon)
        self._take_in(addon, file)
        if not addon.error:
            self._report(addon, "loaded again", "")

    def _take_in(self, addon: Addon, file: AddonFile) -> None:
        addon.file, addon.stamp, addon.error = file, file.stamp, ""
        addon.loads += 1
        if file.loaded is not None:
            addon.context.now = self.now
            if (error := self._call(addon, file.loaded, addon.context)) is not None:
                self._fail(addon, "loaded", error)
        self._see_listening()

    def _call_end(self, addon: Addon) -> None:
        file = addon.file
        addon.file = None
        if file is not None and file.unloaded is not None:
            addon.context.now = self.now
            if (error := self._call(addon, file.unloaded, addon.context)) is not None:
                self._report(addon, "failed", trace(error, addon.path), hook="unloaded")

    def _has_place(self, hook: Hook) -> bool:
        return isinstance(hook.wants, EventHook) or any(_wants(hook.wants, side) for side in self.sides)

    def _see_listening(self) -> None:
        hooks = [hook for addon in self.addons.values() if addon.file is not None for hook in addon.file.hooks]
        listening = any(isinstance(hook.wants, EventHook) for hook in hooks)
        if listening is not self._listening:
            self._listening = listening
            self.world.listen(listening)
        for stage in self.stages.values():
            stage.refresh()
        self.world.changed()

    # where frames pass

    def stage(self, seam: str, way: str) -> AddonStage:
        """What stands at a side; one for all addons."""
        return self.stages.setdefault((seam, way), AddonStage(self, seam, way))

    def hooks(self, seam: str, way: str) -> list[tuple[Addon, Hook]]:
        """Frame hooks of a side, in the order in which they were loaded."""
        return [
            (addon, hook)
            for addon in self.addons.values()
            if addon.file is not None
            for hook in addon.file.hooks
            if isinstance(hook.wants, FrameHook) and _wants(hook.wants, (seam, way))
        ]

    def run(self, addon: Addon, hook: Hook, subject: Any, now: int) -> bool:
        """Call a hook; False if that took its addon out."""
        context = addon.context
        context.now = self.now = now
        started = time.perf_counter_ns()
        if (error := self._call(addon, hook.call, subject, context)) is not None:
            self._fail(addon, hook.name, error)
            return False
        took = time.perf_counter_ns() - started
        hook.calls += 1
        hook.worst_ns = max(hook.worst_ns, took)
        if took > self.slow_ns:
            hook.slow += 1
            if hook.slow & (hook.slow - 1) == 0:  # the 1st, 2nd, 4th, 8th ... time
                self._report(addon, "slow", "", hook=hook.name, ms=took // 1_000_000, times=hook.slow)
        return True

    def _call(self, addon: Addon, function: Callable[..., Any], *args: Any) -> BaseException | None:
        """Call code of an addon; what it raised, whatever that is."""
        try:
            self.world.arm(addon.name)
            function(*args)
            self.world.disarm()
        except MemoryLost:
            self.world.disarm()
            raise
        except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit, TookTooLong) as error:
            self.world.disarm()
            return error
        return None

    def _read(self, path: str, name: str) -> AddonFile:
        """Load a file, within the time that its code has."""
        self.world.arm(name)
        try:
            return load_file(path, name)
        finally:
            self.world.disarm()

    def event(self, event: Event) -> None:
        """Give an event of the process to the hooks that want it; those of addons themselves are not."""
        if "addon" in event.data or event.reason == reasons.ADDON_QUEUE.name:
            return
        self.check()  # where no frames pass, as in the gateway, files are watched so
        for addon in list(self.addons.values()):
            for hook in addon.file.hooks if addon.file is not None else ():
                if not isinstance(hook.wants, EventHook):
                    continue
                try:
                    wanted = hook.expression is None or hook.expression.matches_event(event)
                except Exception as error:
                    self._fail(addon, hook.name, error)
                    break
                if wanted and not self.run(addon, hook, event, event.at):
                    break

    def matches(self, addon: Addon, hook: Hook, packet: Packet) -> bool:
        """Whether a hook wants a frame; a field that makes an expression fail takes the addon out."""
        if hook.expression is None:
            return True
        try:
            return hook.expression.matches_view(packet.view)
        except MemoryLost:
            raise
        except Exception as error:
            self._fail(addon, hook.name, error)
            return False

    # what a context asks for

    def say(self, addon: str, text: str) -> None:
        """`context.log`."""
        text = sayable(text)
        self.world.log(f"addon {addon}: {text}")
        if (found := self.addons.get(addon)) is not None:
            found.lines.append(text)

    def tell(self, addon: str, event: Event) -> None:
        """`context.emit`: the event as it is now. One that messages cannot hold is the addon's fault, here and now:
        TypeError, ValueError or OverflowError."""
        event.data.setdefault("addon", addon)
        self.world.publish(_decode_event(_encode(event)))

    def did(self, addon: str, what: str, frame: Any, seam: str, way: str, **data: Any) -> None:
        """Tell what a hook did to a frame that passes: "changed", "delayed", "repeated" or "made" it."""
        conn, place = packet_place(view(frame, seam, way), seam, way)
        self.world.publish(
            Event(self.now, "addon", "", frame.id, conn, {"addon": addon, "what": what, **place, **data})
        )

    def insert(self, addon: str, packet: Packet, seam: str, way: str, after_ns: int) -> None:
        """`context.inject`."""
        stage = self.stages.get((seam, way))
        if stage is None:
            there = ", ".join(f"{seam} {way}" for seam, way in self.stages)
            raise ValueError(f"nothing can be injected at {seam} {way} in {self.world.process}; here is {there}")
        if type(packet.frame) is not _TYPES[seam]:
            raise ValueError(f"{seam} carries a {_TYPES[seam].__name__}, not a {type(packet.frame).__name__}")
        frame: Any = packet.frame
        causes = [frame.id] if frame.id else []
        made: Any = msgspec.structs.replace(frame, id=self.ids.next(), causes=causes)
        if self.world.interest:
            self.did(addon, "made", made, seam, way)
        stage.add(self.now + after_ns, made, not after_ns)

    # failures

    def _fail(self, addon: Addon, hook: str, error: BaseException) -> None:
        addon.error = trace(error, addon.path)
        addon.file = None
        self._see_listening()
        self._report(addon, "failed", addon.error, hook=hook)

    def _report(self, addon: Addon, what: str, text: str, **data: Any) -> None:
        line = " ".join([what, *(f"{name} {value}" for name, value in data.items())])
        self.world.log(f"addon {addon.name}: {line}" + (f"\n{text}" if text else ""))
        addon.lines.append(line)
        if text:
            data["error"] = text.rpartition("\n")[2]
            data["traceback"] = text
        self.world.publish(Event(self.now, "addon", "", 0, "", {"addon": addon.name, "what": what, **data}))

    def show(self) -> list[dict[str, Any]]:
        """What `lvlip addon list` prints."""
        return [_shown(addon, self.stages) for addon in self.addons.values()]


def _wants(hook: FrameHook, side: Side) -> bool:
    seam, way = side
    return hook.seam == seam and hook.way in (way, "both")


def _shown(addon: Addon, stages: dict[Side, AddonStage]) -> dict[str, Any]:
    file = addon.file
    hooks = []
    for hook in file.hooks if file is not None else ():
        wants = hook.wants
        where = f"{wants.seam} {wants.way}" if isinstance(wants, FrameHook) else "events"
        hooks.append(
            {
                "hook": hook.name,
                "where": where,
                "expression": wants.expression,
                "calls": hook.calls,
                "slow": hook.slow,
                "worst_ns": hook.worst_ns,
            }
        )
    return {
        "addon": addon.name,
        "path": addon.path,
        "doc": file.doc if file is not None else "",
        "running": file is not None,
        "error": addon.error,
        "loads": addon.loads,
        "options": addon.context.options,
        "hooks": hooks,
        "log": list(addon.lines),
        "waiting": sum(stage.kept for stage in stages.values()),
    }

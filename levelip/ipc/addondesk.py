"""The control commands by which addons come and go in a process, and the stages that its loop gets for them.

    addon.load {path, options}  → {loaded, hooks}        loaded: false where no hook has a place in this process
    addon.list {}               → {addons}
    addon.unload {addon}        → {unloaded, log}         empty: all; what each said at its end

What is loaded is kept (addonkeep.py), and a process that is started again loads it before the first frame.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from levelip.addon import SEAMS
from levelip.frames.core import ControlError
from levelip.ipc.addonfile import stamp_of
from levelip.ipc.addonkeep import LOOP_S, MOST_STARTS, Keeping, Kept
from levelip.ipc.addons import AddonError, Addons
from levelip.ipc.memory import Memory
from levelip.ipc.port import Port
from levelip.ipc.runtime import Runtime
from levelip.ipc.seampoint import SeamPoint, Stage
from levelip.ipc.tap import Tap
from levelip.ipc.watchdog import Watchdog
from levelip.tracing.events import Event

MOST_S = 2.0
"""A hook that has not come back by then is ended, and its addon taken out. The process does nothing else meanwhile."""

Sides = Callable[[str, str], list[tuple[dict[str, SeamPoint], Port, str]]]
Stand = Callable[[dict[str, SeamPoint], Port, str, str, Stage], None]
Remove = Callable[[dict[str, SeamPoint], str, str], None]


class _Load(msgspec.Struct, forbid_unknown_fields=True):
    path: str
    options: dict[str, str] = {}


class _Unload(msgspec.Struct, forbid_unknown_fields=True):
    addon: str = ""


class _World:
    def __init__(self, runtime: Runtime, tap: Tap) -> None:
        self.process = runtime.name
        self.memory: Memory = runtime.memory
        self.count = runtime.count
        self._runtime = runtime
        self._tap = tap
        self.addons: Addons | None = None
        self.watchdog = Watchdog(MOST_S)
        self.keeping = Keeping(runtime.run.path, runtime.name)
        self.restoring = False
        self._numbers: dict[str, int] = {}

    def arm(self, addon: str) -> None:
        self.keeping.enter(self._numbers.get(addon, 0))
        self.watchdog.arm()

    def disarm(self) -> None:
        self.watchdog.disarm()
        self.keeping.leave()

    def number(self, names: list[str]) -> None:
        """By which number each is known while its code runs."""
        self._numbers = {name: number for number, name in enumerate(names, 1)}

    def changed(self) -> None:
        if self.restoring or self.addons is None:
            return
        addons = self.addons.addons
        self.number(list(addons))
        self.keeping.keep(
            Kept(one.path, dict(one.context.options), one.stamp, one.error if one.file is None else "")
            for one in addons.values()
        )

    def listen(self, on: bool) -> None:
        self._tap.watch(self.addons.event if on and self.addons is not None else None)

    def log(self, text: str) -> None:
        self._runtime.log.warning("%s", text)

    def publish(self, event: Event) -> None:
        if self._tap.interest:
            self._tap.publish_events([event])


class AddonDesk:
    """One a process, made when the first addon comes. `sides`, `stand` and `remove` are its loop's, for seam points."""

    def __init__(self, runtime: Runtime, tap: Tap, *, sides: Sides, stand: Stand, remove: Remove) -> None:
        self._runtime = runtime
        self._stand = stand
        self._remove = remove
        self._sides = [side for seam in SEAMS for side in sides(seam, "both")]
        where = [(port.seam, way) for _, port, way in self._sides]
        self._world = _World(runtime, tap)
        self.addons = self._world.addons = Addons(self._world, where, epoch=runtime.epoch)
        self._standing = False

    def command(self, name: str, args: dict[str, Any]) -> dict[str, Any]:
        """Carry out one of the commands. ControlError says what was wrong."""
        try:
            match name:
                case "addon.load":
                    return self._load(msgspec.convert(args, _Load))
                case "addon.unload":
                    return self._unload(msgspec.convert(args, _Unload).addon)
                case "addon.list":
                    return {"addons": self.addons.show()}
        except msgspec.ValidationError as error:
            raise ControlError(f"{name}: {error}") from None
        except AddonError as error:
            raise ControlError(str(error)) from None
        raise ControlError(f"no command {name}")

    def restore(self) -> None:
        """Load what the process before had, but what was taken out, and what it ended by."""
        world, process = self._world, self._runtime.name
        keeping = world.keeping
        try:
            kept = keeping.read()
        except ValueError as error:
            self._runtime.log.error("the addons of before are lost: %s", error)
            keeping.keep([])
            return
        culprit = keeping.culprit()
        loops = keeping.begin()
        world.number([Path(one.path).stem for one in kept])
        world.restoring = True
        self._put_up()
        for number, one in enumerate(kept, 1):
            out = one.out
            if number == culprit:
                out = f"{process} ended while code of it ran: it crashed there, or hung and was killed"
            elif loops:
                out = f"{process} ended {MOST_STARTS} times within {LOOP_S:g} s, perhaps by what its addons did"
            self._restore(one, out)
        world.restoring = False
        world.changed()
        self._tidy()

    def _restore(self, one: Kept, out: str) -> None:
        addons, stamp = self.addons, stamp_of(one.path)
        if out and stamp == one.stamp:
            addons.keep_out(one.path, one.options, out, stamp)
            return
        try:
            addon = addons.load(one.path, one.options, self._runtime.clock.now())
        except AddonError as error:
            if Path(one.path).stem not in addons.addons:  # else it is there, and out
                addons.keep_out(one.path, one.options, str(error), stamp)
            return
        if addon is not None:
            addons.restored(addon)

    def close(self) -> None:
        """The process ends as it was asked to."""
        self._world.keeping.end()

    def _load(self, wanted: _Load) -> dict[str, Any]:
        addons, now = self.addons, self._runtime.clock.now()
        self._put_up()
        try:
            addon = addons.load(wanted.path, wanted.options, now)
        finally:
            self._tidy()
        if addon is None:
            return {"loaded": False, "hooks": []}
        self._runtime.log.info("addon %s loaded from %s", addon.name, addon.path)
        shown = next(one for one in addons.show() if one["addon"] == addon.name)
        return {"loaded": True, "hooks": shown["hooks"]}

    def _unload(self, name: str) -> dict[str, Any]:
        names = [name] if name else list(self.addons.addons)
        now = self._runtime.clock.now()
        said = {}
        for one in names:
            said[one] = list(self.addons.unload(one, now).lines)
            self._runtime.log.info("addon %s unloaded", one)
        self._tidy()
        return {"unloaded": names, "log": said}

    def _put_up(self) -> None:
        """Stages stand at every side of the process as long as there is an addon: by them files are watched, too."""
        if self._standing:
            return
        self._standing = True
        self._world.watchdog.install()
        for points, port, way in self._sides:
            self._stand(points, port, way, "addon", self.addons.stage(port.seam, way))

    def _tidy(self) -> None:
        """Without addons no stage is left."""
        if self._standing and not self.addons.addons:
            self._standing = False
            self._world.watchdog.remove()
            for points, port, _ in self._sides:
                self._remove(points, port.name, "addon")
            self.addons.stages.clear()

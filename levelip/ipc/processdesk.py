"""The control commands that every process knows: status, counters, snapshot, settings, listeners, faults."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from levelip import __version__
from levelip.config import Config
from levelip.frames.core import ControlError, Core
from levelip.ipc.control import ControlServer
from levelip.ipc.faults import Faults
from levelip.ipc.pipe import Pipe
from levelip.ipc.runtime import Runtime
from levelip.ipc.seampoints import SeamPoints
from levelip.ipc.tap import Tap


class ProcessDesk:
    """One a process, from its start on."""

    def __init__(
        self,
        runtime: Runtime,
        core: Core,
        pipes: Sequence[Pipe],
        *,
        control: ControlServer,
        tap: Tap,
        faults: Faults,
        points: SeamPoints,
    ) -> None:
        self._runtime = runtime
        self._core = core
        self._pipes = pipes
        self._control = control
        self._faults = faults
        self._points = points
        self._started = time.monotonic_ns()
        self.commands: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "status": self._status,
            "counters": self._counters,
            "snapshot": self._snapshot,
            "get": self._get,
            "set": self._set,
            "tap.listen": tap.listen,
            "tap.confirm": tap.confirm,
            "fault.set": self._fault_set,
            "fault.show": self._fault_show,
            "fault.clear": self._fault_clear,
        }

    def _status(self, _args: dict[str, Any]) -> dict[str, Any]:
        neighbours = {
            pipe.name: {
                "up": pipe.up is not None,
                "epoch": pipe.up or 0,
                "waiting": pipe.waiting,
                "remote": pipe.remote,
            }
            for pipe in self._pipes
        }
        waiting = [name for name, facts in neighbours.items() if not facts["up"]]
        return {
            "process": self._runtime.name,
            "pid": os.getpid(),
            "version": __version__,
            "epoch": self._runtime.epoch,
            "uptime_ns": time.monotonic_ns() - self._started,
            "ready": not waiting,
            "waiting_for": waiting,
            "neighbours": neighbours,
            "held": self._runtime.clock.held,
        }

    def _counters(self, _args: dict[str, Any]) -> dict[str, Any]:
        """Those of the core and of the shell, in one."""
        merged = dict(self._core.counters)
        for name, value in self._runtime.counters.items():
            merged[name] = merged.get(name, 0) + value
        if self._control.refused:
            merged["control_refused"] = self._control.refused
        return {"counters": merged}

    def _snapshot(self, _args: dict[str, Any]) -> dict[str, Any]:
        return {"snapshot": self._core.snapshot()}

    def _get(self, args: dict[str, Any]) -> dict[str, Any]:
        section: dict[str, Any] = msgspec.to_builtins(getattr(self._runtime.config, args["section"]))
        return {"values": section}

    def _set(self, args: dict[str, Any]) -> dict[str, Any]:
        """Change one tunable of the core, {section, key, value}; validated as the configuration file is."""
        section, key, value = args["section"], args["key"], args["value"]
        config = self._runtime.config
        current = msgspec.to_builtins(config)
        if section not in current or key not in current[section]:
            raise ControlError(f"{section}.{key}: no such setting")
        old = current[section][key]
        current[section][key] = value
        try:
            changed = msgspec.convert(current, Config)
        except msgspec.ValidationError as error:
            raise ControlError(f"{section}.{key}: {error}") from None
        value = getattr(getattr(changed, section), key)
        self._core.set(key, value, self._runtime.clock.now())
        setattr(getattr(config, section), key, value)
        self._runtime.log.info("%s.%s = %r (was %r)", section, key, value, old)
        return {"old": old, "new": value}

    def _fault_set(self, args: dict[str, Any]) -> dict[str, Any]:
        ways = self._points.ways(args["seam"], args["direction"])
        for one in ways:
            self._points.stand(one, "fault", self._faults.gate(one.port, one.way, args))
        return {"sides": [f"{one.port.name} {one.way}" for one in ways]}

    def _fault_show(self, _args: dict[str, Any]) -> dict[str, Any]:
        return {"faults": self._faults.show()}

    def _fault_clear(self, args: dict[str, Any]) -> dict[str, Any]:
        """Those of one {seam}, or all."""
        cleared = [one for one in self._points.standing("fault") if args.get("seam") in (None, one.port.seam)]
        for one in cleared:
            self._faults.forget(one.port.name, one.way)
            self._points.remove(one, "fault")
        return {"cleared": [one.port.seam for one in cleared]}

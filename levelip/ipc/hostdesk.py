"""What a host does for a debugger on another one: its clock page and its breakpoints, by commands (`host.*`).

Also how a stop gets around: a breakpoint holds the clock of its host, and each process of that host that has a pipe to
another one says so there, whose clock then is held as well.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from levelip.frames.core import ControlError
from levelip.ipc.breakpoints import BREAKPOINTS, Breakpoint, read_breakpoints, write_breakpoints
from levelip.ipc.clock import Hold, Holder, StackClock
from levelip.ipc.runtime import Runtime


def started(pid: int) -> int:
    """When a process started, in ticks since boot; 0 if there is none (or but its remains)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def hold_more(clock: StackClock, why: Hold, points: int, *, alive: Callable[[Holder], bool], force: bool) -> None:
    """Let a clock stand; of one that stands already more is held, by whom it was held if that one lives. `points`: how
    many there are in all."""
    if clock.hold(why):
        return
    old = clock.why()
    if old is None:
        clock.explain(why)
        return
    wider = sorted({*old.at, *why.at}) if old.at and why.at else []
    holder = why.holder if force or not alive(old.holder) else old.holder
    clock.explain(Hold(holder, old.since, [] if len(wider) == points else wider, old.stop, old.hand))


class HostDesk:
    """One a process. `points`: how many there are at which frames can be held."""

    def __init__(self, runtime: Runtime, tell: Callable[[str, dict[str, Any]], None], points: int) -> None:
        self._clock = runtime.clock
        self._file = runtime.run.path / BREAKPOINTS
        self._tell = tell
        self._points = points
        self._spread: dict[str, Any] = {}  # the stop that was told of last

    def command(self, name: str, args: dict[str, Any]) -> dict[str, Any]:
        """Carry out one. ControlError says what was wrong."""
        commands = {
            "host.clock": self._show, "host.hold": self._hold, "host.halt": self._halt, "host.resume": self._resume,
            "host.advance": self._advance, "host.breakpoints": self._breakpoints, "host.alive": self._lives,
        }  # fmt: skip
        if name not in commands:
            raise ControlError(f"{name}: there are {', '.join(commands)}")
        return commands[name](args)

    def stopped(self, why: Hold | None) -> None:
        """The clock of this host stands: if a breakpoint did that, the neighbours elsewhere are to know."""
        stop = why.stop if why is not None else {}
        if why is not None and stop and stop != self._spread:
            via = [*stop.get("via", []), self._clock.page]
            there = Hold(self._abroad(why.holder), why.since, [], {**stop, "via": via})
            self._tell("host.halt", {"why": msgspec.to_builtins(there)})
        self._spread = stop

    def _abroad(self, holder: Holder) -> Holder:
        return holder if holder.page else msgspec.structs.replace(holder, page=self._clock.page, host=platform.node())

    def _alive(self, holder: Holder) -> bool:
        return holder.page in ("", self._clock.page) and started(holder.pid) == holder.start != 0

    def _show(self, _args: dict[str, Any]) -> dict[str, Any]:
        clock = self._clock
        why = clock.why()
        return {
            "page": clock.page,
            "host": platform.node(),
            "held": clock.held,
            "now": clock.now(),
            "mono": time.monotonic_ns(),
            "why": msgspec.to_builtins(why) if why is not None else None,
        }

    def _hold(self, args: dict[str, Any]) -> dict[str, Any]:
        """{why, force}: as a debugger's hold does here."""
        why, force = msgspec.convert(args["why"], Hold), bool(args["force"])
        hold_more(self._clock, why, self._points, alive=lambda one: one.page != why.holder.page and self._alive(one),
                  force=force)  # fmt: skip
        return {"held": self._clock.held}

    def _halt(self, args: dict[str, Any]) -> dict[str, Any]:
        """{why}: a breakpoint elsewhere has stopped the stack."""
        why = msgspec.convert(args["why"], Hold)
        if why.holder.page == self._clock.page:  # the breakpoint was set here
            why.holder = msgspec.structs.replace(why.holder, page="", host="")
        if self._clock.page not in why.stop.get("via", ()):
            self._clock.hold(why)
        return {}

    def _resume(self, _args: dict[str, Any]) -> dict[str, Any]:
        return {"done": self._clock.resume()}

    def _advance(self, args: dict[str, Any]) -> dict[str, Any]:
        """{ns}: let the clock, which stands, jump so far."""
        return {"done": self._clock.advance(self._clock.now() + int(args["ns"]))}

    def _breakpoints(self, args: dict[str, Any]) -> dict[str, Any]:
        """Those of this host; {rows}: others in their place."""
        try:
            if "rows" in args:
                write_breakpoints(self._file, msgspec.convert(args["rows"], list[Breakpoint]))
            return {"rows": [msgspec.to_builtins(one) for one in read_breakpoints(self._file)]}
        except OSError as error:
            raise ControlError(f"{self._file}: {error.strerror}") from None

    def _lives(self, args: dict[str, Any]) -> dict[str, Any]:
        return {"alive": self._alive(msgspec.convert(args["holder"], Holder))}

"""The other hosts of a stack whose layers run on several (docs/two-hosts.md), as a debugger sees them.

They are found by asking: each layer knows its neighbours. What is asked of a layer elsewhere goes through a layer here,
over the pipes (levelip.ipc.relay). Each host has a clock page of its own, and CLOCK_MONOTONIC of its own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from levelip.debug.holding import elsewhere
from levelip.debug.tap import PROCESSES
from levelip.ipc.clock import Hold, Holder
from levelip.ipc.control import ControlError, NotRunning
from levelip.ipc.patience import FAR_S
from levelip.ipc.relay import LINKS, next_hop

_KNOWN_S = 1.0
"""How long it is taken for granted where the layers are."""

Ask = Callable[..., dict[str, Any]]


class FarHost:
    """One other host: `name`, for people; `page`, its clock page; `processes`, its layers."""

    def __init__(self, hosts: Hosts, info: Mapping[str, Any], process: str) -> None:
        self._hosts = hosts
        self.name = str(info["host"])
        self.page = str(info["page"])
        self.processes = [process]
        self.held = bool(info["held"])
        self.why = msgspec.convert(info["why"], Hold) if info["why"] is not None else None
        """Who holds it; a process of that host as one of another host than ours."""
        if self.why is not None:
            self.why.holder = abroad(self.why.holder, self.page, self.name)

    def command(self, name: str, **args: Any) -> dict[str, Any]:
        """One of its `host.*` commands. NotRunning if none of its layers answers."""
        for process in self.processes[:-1]:
            with contextlib.suppress(NotRunning):
                return self._hosts.ask(process, name, args)
        return self._hosts.ask(self.processes[-1], name, args)


class Hosts:
    """Those of one stack. `ask` asks a layer here; `here()` names them."""

    def __init__(self, ask: Ask, here: Callable[[], list[str]]) -> None:
        self._ask = ask
        self._here = here
        self._found: list[FarHost] = []
        self._at = float("-inf")
        self._offsets: dict[str, int] = {}  # process → what its CLOCK_MONOTONIC is ahead of ours, at least
        self.silent: list[str] = []
        """Layers that are connected with ours and run elsewhere, and do not answer a debugger."""

    def all(self, *, anew: bool = False) -> list[FarHost]:
        """The other hosts, as they were within the last second, or as they are."""
        if anew or time.monotonic() - self._at > _KNOWN_S:
            self._find()
        return self._found

    def has(self, process: str) -> bool:
        """Whether a layer runs on another host and answers."""
        return any(process in one.processes for one in self.all())

    def ask(self, process: str, request: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """One control command of a layer elsewhere."""
        via = self._via(process)
        try:
            answer = self._ask(via, "relay.ask", timeout=FAR_S, layer=process, command=request, arguments=dict(args))
        except NotRunning:
            raise NotRunning(f"{process}, which runs on another host, does not answer; see: lvlip status") from None
        if not answer["ok"]:
            raise ControlError(str(answer["data"]))
        data: dict[str, Any] = answer["data"]
        if request == "host.clock":
            self._offsets[process] = data["mono"] - time.monotonic_ns()
        return data

    def ahead(self, process: str) -> int:
        """ns by which a layer's CLOCK_MONOTONIC is ahead of ours; too small by the time that an answer takes."""
        for one in self._found:
            if process in one.processes:
                return self._offsets.get(one.processes[0], 0)
        return 0

    def _via(self, process: str) -> str:
        here = self._here()
        if not here:
            raise NotRunning("the stack is not running here; start it with: lvlip up")
        near = [one for one in here if process in LINKS.get(one, ())]
        return near[0] if near else next((one for one in here if next_hop(one, process, LINKS[one])), here[0])

    def _find(self) -> None:
        here = self._here()
        statuses = []
        for process in here:
            with contextlib.suppress(NotRunning):
                statuses.append(self._ask(process, "status"))
        todo = elsewhere(here, statuses)
        found: dict[str, FarHost] = {}
        known, silent = set(here), []
        while todo:
            process = todo.pop(0)
            known.add(process)
            try:
                info = self.ask(process, "host.clock", {})
                status = self.ask(process, "status", {})
            except ControlError:
                silent.append(process)
                continue
            if info["page"] in found:
                found[info["page"]].processes.append(process)
            else:
                found[info["page"]] = FarHost(self, info, process)
            todo += [one for one in elsewhere(known, [status]) if one not in todo]
        for one in found.values():
            one.processes.sort(key=PROCESSES.index)
            self._offsets[one.processes[0]] = next(self._offsets[name] for name in one.processes
                                                   if name in self._offsets)  # fmt: skip
        self._found, self.silent, self._at = list(found.values()), silent, time.monotonic()


def abroad(holder: Holder, page: str, host: str) -> Holder:
    """A process of this host, as the page of another one names it."""
    return holder if holder.page else msgspec.structs.replace(holder, page=page, host=host)

"""What a page asks of the past: calls, states and differences of a recording, the story of a packet or connection, and
by which ways packets went.

Where the running stack is shown, its flight recorders are written out for a story. All of it takes its time, and is
answered beside the page's other requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from levelip.web.capture import Capture
from levelip.web.commands import Command, Refused, text_of
from levelip.web.desk import Desk
from levelip.web.measure import measure
from levelip.web.recorded import Recorded
from levelip.web.replay import Asked, ReplayError
from levelip.web.source import Source

MAX_PATHS = 500
ROUNDS = (
    "Recorded times are those that each process reads once a round: within a process they are mostly 0, and those of a "
    "pipe go from one round to the next."
)
SourceOf = Callable[[dict[str, Any]], Source]


class Looking:
    """`commands` by name."""

    def __init__(self, desk: Desk, source_of: SourceOf) -> None:
        self._desk = desk
        self._source = source_of
        self.commands: dict[str, Command] = {
            "replay.steps": self._steps,
            "replay.time": self._time,
            "replay.find": self._find,
            "replay.state": self._state,
            "replay.check": self._check,
            "replay.whatif": self._whatif,
            "flight.open": self._open_flight,
            "why": self._why,
            "paths": self._paths,
        }

    def _recorded(self, request: dict[str, Any]) -> Recorded:
        source = self._source(request)
        if not isinstance(source, Recorded):
            raise Refused("only a recording can be run again (lvlip record, or what the flight recorders hold)")
        return source

    async def _steps(self, request: dict[str, Any]) -> dict[str, Any]:
        """Of the calls in the list, with or without those of which nothing came, those from position `at` on."""
        source = self._recorded(request)
        at = max(0, int(request["at"]))
        answer: dict[str, Any] = await _asked(source, "steps", at=at, count=int(request["count"]), **_which(request))
        for row in answer["rows"]:
            row["t"] = _seconds(source, row["ns"])
        return {**answer, "at": at}

    async def _time(self, request: dict[str, Any]) -> dict[str, Any]:
        """The call that comes next at an instant."""
        source = self._recorded(request)
        ns = source.origin + int(float(request["time"]) * 1e9)
        place: dict[str, Any] = await _asked(source, "time", ns=ns, **_which(request))
        return place

    async def _find(self, request: dict[str, Any]) -> dict[str, Any]:
        source = self._recorded(request)
        place: dict[str, Any] = await _asked(
            source, "find", at=int(request["at"]), place=text_of(request, "place"), back=bool(request.get("back")),
            **_which(request),
        )  # fmt: skip
        return place

    async def _state(self, request: dict[str, Any]) -> dict[str, Any]:
        """The state before call `at`, and what changed since call `since`."""
        source = self._recorded(request)
        answer: dict[str, Any] = await _asked(
            source, "state", layer=text_of(request, "layer"), at=int(request["at"]), since=int(request["since"]),
            conn=text_of(request, "conn"),
        )  # fmt: skip
        answer["t"], answer["since_t"] = _seconds(source, answer["ns"]), _seconds(source, answer["since_ns"])
        return answer

    async def _check(self, request: dict[str, Any]) -> dict[str, Any]:
        """Whether the replay does the same as was recorded, a row a layer, and where it first does not."""
        source = self._recorded(request)
        try:
            rows = await source.replay.check()
        except ReplayError as error:
            raise Refused(str(error)) from None
        for row in rows:
            row.pop("file", None)
        return {"layers": rows}

    async def _whatif(self, request: dict[str, Any]) -> dict[str, Any]:
        source = self._recorded(request)
        lines = await _asked(
            source, "whatif", layer=text_of(request, "layer"), at=int(request["at"]), change=text_of(request, "change")
        )
        return {"lines": lines}

    async def _open_flight(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {"source": (await self._desk.open_flight()).about()}

    async def _why(self, request: dict[str, Any]) -> dict[str, Any]:
        """The stories of a connection, an address, a port or a frame. Of the running stack: as far back as the flight
        recorders reach, and until now, unless `anew` is false."""
        source, subject = self._source(request), text_of(request, "subject").strip()
        if not subject:
            raise Refused("why what? a connection, one end of it, an address, a port, or a frame's id")
        asked = await self._answering(source, anew=bool(request.get("anew", True)))
        answer: dict[str, Any] = await _answer(asked, "why", subject=subject.partition("#")[0])
        for story in answer["stories"]:
            if (journey := story.get("journey")) is not None:
                journey["t"] = _seconds(source, journey["start_ns"]) if isinstance(source, Recorded) else None
        return answer

    async def _answering(self, source: Source, *, anew: bool) -> Asked:
        """Who tells stories of a source; of the running stack what its flight recorders hold."""
        if isinstance(source, Recorded):
            return source.replay
        if isinstance(source, Capture):
            return source.asked
        return await self._desk.flight(anew=anew)

    async def _paths(self, request: dict[str, Any]) -> dict[str, Any]:
        """Packets grouped by their way: of a file all of them; of the running stack those of the next `seconds`, or of
        what the flight recorders hold."""
        source = self._source(request)
        if source is self._desk.live and request.get("seconds"):
            async with self._desk.measuring:
                found = await measure(self._desk.live.run, float(request["seconds"]), text_of(request, "words"))
        else:
            found = await _answer(await self._answering(source, anew=True), "paths")
            if not isinstance(source, Capture):
                found["notes"].append(ROUNDS)
        groups = found["paths"]
        return {"paths": groups[:MAX_PATHS], "all": len(groups), "notes": found["notes"]}


def _which(request: dict[str, Any]) -> dict[str, Any]:
    return {"layer": text_of(request, "layer"), "idle": bool(request.get("idle"))}


async def _asked(source: Recorded, do: str, **args: Any) -> Any:
    return await _answer(source.replay, do, **args)


async def _answer(asked: Asked, do: str, **args: Any) -> Any:
    try:
        return await asked.ask(do, **args)
    except ReplayError as error:
        raise Refused(str(error)) from None


def _seconds(source: Source, ns: int) -> float:
    return round((ns - source.origin) / 1e9, 9)

"""One open page: requests with answers over its WebSocket, and what is new, some times a second.

request  {"id": n, "do": name, ...arguments}       answer  {"id": n, "ok": data} or {"id": n, "error": text, ...}
push     {"push": "tick", "stack": .., "sockets": .., "views": {id: [start, count, scanned]}, "sources": [..]}

A page gets states, not streams: counts of its views, the rows that it asks for, the newest figures. So what is sent a
second is bounded whatever the stack does, and a page that is slow gets fewer, newer ticks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from levelip import __version__
from levelip.debug.faultspec import BadFault
from levelip.debug.tap import KIND, SEAMS, event_of
from levelip.frames.core import ControlError
from levelip.frames.packet import format_frame_id
from levelip.tracing.build import BuildError
from levelip.tracing.edit import EditError
from levelip.tracing.expression import ExpressionError, compile_expression
from levelip.tracing.flow import Flow
from levelip.tracing.packetline.values import ScriptError
from levelip.tracing.recording import RecordingError
from levelip.web.acting import Acting
from levelip.web.commands import MAX_TEXT, Command, Refused
from levelip.web.desk import Desk
from levelip.web.dissection import dissect
from levelip.web.graphs import graph
from levelip.web.ladder import Ladder
from levelip.web.looking import Looking
from levelip.web.packets import DOWN
from levelip.web.source import Source, choose
from levelip.web.views import View, Wanted

TICK_S = 0.25
MAX_ROWS = 500
MAX_VIEWS = 8
MAX_MESSAGE = 1 << 16
SCAN_IDLE_S = 0.05
GRAPH_S = 0.5
GRAPH_REST = 8.0
"""A graph is made again after so long, or after so many times as long as making it took."""
MAX_BESIDE = 8
"""Requests that are answered beside the others, at once."""
MAX_ORDERED = 64
"""Commands to the stack that wait for their turn."""
log = logging.getLogger("web")


class Session:
    """From accept to the end of the WebSocket."""

    def __init__(self, socket: WebSocket, desk: Desk) -> None:
        self._socket = socket
        self._desk = desk
        self._views: dict[int, tuple[View | Ladder, Source]] = {}
        self._next_view = 1
        self._sent: dict[str, Any] = {}
        self._connections: dict[str, Any] | None = None
        self._graph: dict[str, Any] | None = None
        self._graph_at = 0.0
        self._commands: dict[str, Command] = {
            "hello": self._hello,
            "connections": self._watch_connections,
            "view": self._open_view,
            "close_view": self._close_view,
            "ladder": self._open_ladder,
            "rows": self._rows,
            "graph": self._watch_graph,
            "states": self._states,
            "density": self._density,
            "packet": self._packet,
            "seek": self._seek,
            "settings": self._settings,
            "close_source": self._close_source,
        }
        self._ordered: dict[str, Command] = {
            "fault.set": self._fault_set,
            "fault.clear": self._fault_clear,
            "hold": self._hold,
            "continue": self._continue,
            "step": self._step,
            "step.timer": self._step_timer,
            "held.frame": self._held_frame,
            "held.edit": self._held_edit,
            "held.change": self._held_change,
            "break.add": self._break_add,
            "break.change": self._break_change,
            **Acting(desk).commands,
        }
        self._slow = Looking(desk, self._source).commands
        self._beside: set[asyncio.Task[None]] = set()
        self._turn: asyncio.Queue[tuple[Any, Command, dict[str, Any]] | None] = asyncio.Queue()
        self._commanding: asyncio.Task[None] | None = None
        self._left = False

    async def run(self) -> None:
        """Serve until the page goes away."""
        await self._socket.accept()
        tasks = [asyncio.create_task(self._tick()), asyncio.create_task(self._scan())]
        self._commanding = commanding = asyncio.create_task(self._command_stack())
        try:
            while True:
                text = await self._socket.receive_text()
                await self._answer(text)
        except (WebSocketDisconnect, KeyError):  # KeyError: a binary message, which we never send for
            pass
        except asyncio.CancelledError:
            if not self._desk.live.ended:  # else a page that does not read: the server has waited long enough
                raise
        finally:
            self._left = True
            self._turn.put_nowait(None)
            tasks += self._beside
            for task in tasks:
                task.cancel()
            for task in [*tasks, commanding]:
                with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                    await task

    async def _answer(self, text: str) -> None:
        number: Any = None
        try:
            request = msgspec.json.decode(text.encode()) if len(text) <= MAX_MESSAGE else None
            if not isinstance(request, dict) or not isinstance(request.get("do"), str):
                raise Refused("a request is an object with id and do")
            number, name = request.get("id"), request["do"]
            if name in self._ordered:
                if self._commanding is not None and self._commanding.done():
                    await self._commanding  # raises our fault, which ends the session
                if self._turn.qsize() >= MAX_ORDERED:
                    raise Refused("the stack is behind with what it was asked; wait for the answers")
                self._turn.put_nowait((number, self._ordered[name], request))
                return
            if name in self._slow:
                if len(self._beside) >= MAX_BESIDE:
                    raise Refused("too much is asked at once; wait for the answers")
                task = asyncio.create_task(self._carry_out(number, self._slow[name], request))
                self._beside.add(task)
                task.add_done_callback(self._beside.discard)
                return
            command = self._commands.get(name)
            if command is None:
                raise Refused(f"there is no command {name[:40]!r}")
        except Refused as error:
            await self._send({"id": number, "error": str(error), "where": error.where})
        except (ValueError, RecursionError) as error:
            await self._send({"id": number, "error": f"bad request: {error}"})
        else:
            await self._carry_out(number, command, request)

    async def _command_stack(self) -> None:
        """Carry out what asks the stack's processes, one after the other and to the last, though the page may be gone:
        who closes it after "continue" has said so. One that is silent keeps nobody from scrolling meanwhile."""
        while (asked := await self._turn.get()) is not None:
            with contextlib.suppress(WebSocketDisconnect):  # nobody is left to be answered
                await self._carry_out(*asked)

    async def _carry_out(self, number: Any, command: Command, request: dict[str, Any]) -> None:
        try:
            answer: dict[str, Any] = {"id": number, "ok": await command(request)}
        except Refused as error:
            answer = {"id": number, "error": str(error), "where": error.where}
        except ExpressionError as error:
            answer = {"id": number, "error": str(error), "where": error.position}
        except (ControlError, BadFault, EditError, BuildError, ScriptError, RecordingError) as error:
            answer = {"id": number, "error": str(error)}
        except OSError as error:
            answer = {"id": number, "error": f"{error.filename or ''}: {error.strerror or error}"}
        except (KeyError, TypeError, ValueError, IndexError, OverflowError, RecursionError) as error:
            answer = {"id": number, "error": f"bad request: {error}"}
        except Exception:  # else whoever carries out commands ends, and the page waits in vain
            log.exception("command %s", request["do"])
            answer = {"id": number, "error": "a fault of the web view's own; what it printed says more"}
        await self._send(answer)

    async def _send(self, data: dict[str, Any]) -> None:
        if not self._left and self._socket.application_state is WebSocketState.CONNECTED:
            await self._socket.send_text(msgspec.json.encode(data).decode())

    # what is new

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            push = self._news()
            if push:
                await self._send({"push": "tick", **push})

    async def _scan(self) -> None:
        """Look through what the views have not seen, a slice at a time, and let others have their turn between."""
        while True:
            done = [view.scan() for view, _ in self._views.values()]
            await asyncio.sleep(SCAN_IDLE_S if all(done) else 0)

    def _news(self) -> dict[str, Any]:
        """What changed since the last tick."""
        desk = self._desk
        push: dict[str, Any] = {}
        views = {}
        for number, (view, _) in self._views.items():
            views[str(number)] = [view.start, view.count, round(view.scanned, 3)]
        self._new(push, "views", views)
        live = desk.live
        if self._sent.get("polled") != live.polled:
            self._sent["polled"] = live.polled
            push["stack"] = live.state
            push["settings"] = live.settings()
            push["debug"] = live.debug
            push["sources"] = [source.about() for source in desk.sources.values()]
            push["changed"] = desk.changed
        if (wanted := self._connections) is not None:
            source = desk.sources.get(wanted["source"])
            version = (wanted, live.polled if source is live else 0)
            if source is not None and self._sent.get("connections") != version:
                self._sent["connections"] = version
                push["connections"] = _chosen(source, wanted)
        graph = self._graph
        if graph is not None and graph["flow"].count != graph["count"] and time.monotonic() >= self._graph_at:
            push["graph"] = self._draw(graph)
        return push

    def _new(self, push: dict[str, Any], name: str, value: Any) -> None:
        if self._sent.get(name) != value:
            self._sent[name] = push[name] = value

    # requests

    async def _hello(self, _request: dict[str, Any]) -> dict[str, Any]:
        self._sent.clear()
        return {
            "version": __version__,
            "stack": self._desk.live.run.name,
            "seams": list(SEAMS),
            "sources": [source.about() for source in self._desk.sources.values()],
            "settings": self._desk.live.settings(),
            "reasons": self._desk.reasons,
            "history": list(self._desk.live.history),
        }

    def _source(self, request: dict[str, Any]) -> Source:
        source = self._desk.sources.get(str(request.get("source", "live")))
        if source is None:
            raise Refused("that file is closed")
        return source

    async def _watch_connections(self, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("off"):
            self._connections = None
            return {}
        source = self._source(request)
        self._connections = {
            "source": source.name,
            "search": str(request.get("search", ""))[:MAX_TEXT],
            "sort": str(request.get("sort", "local")),
            "descending": bool(request.get("descending")),
        }
        wanted = self._connections
        return _chosen(source, wanted)

    async def _open_view(self, request: dict[str, Any]) -> dict[str, Any]:
        source = self._source(request)
        conn: int | None = None
        if request.get("conn"):
            conn = source.packets.number(str(request["conn"])[:200].partition("#")[0])
        seams = request.get("seams")
        chosen = None if seams is None else frozenset(SEAMS.index(str(seam)) for seam in seams)
        text = str(request.get("filter", "")).strip()[:MAX_TEXT]
        wanted = Wanted(
            conn=conn,
            seams=chosen,
            frames=bool(request.get("frames", True)),
            events=bool(request.get("events", True)),
            matches=self._matches(text) if text else None,
        )
        return self._keep(View(source.packets, wanted, source.origin), source)

    def _matches(self, text: str) -> Callable[[list[Any], int], bool]:
        """Whether a row's record is what an expression means; Refused shows the spot of a mistake."""
        try:
            expression = compile_expression(text)
        except ExpressionError as error:
            raise Refused(str(error), error.position) from None
        figures = self._desk.live.figures

        def matches(record: list[Any], kind: int) -> bool:
            if record[KIND] == "e":
                return expression.about_events and expression.matches_event(event_of(record), figures)
            return record[KIND] == "f" and expression.matches_record(
                record, "down" if kind & DOWN else "up", figures=figures
            )

        return matches

    async def _open_ladder(self, request: dict[str, Any]) -> dict[str, Any]:
        source = self._source(request)
        decisions = str(request.get("decisions", "main"))
        if decisions not in ("main", "all", "none"):
            raise Refused("decisions are main, all or none")
        flow = self._flow(request, source)
        return self._keep(Ladder(flow, source.flows.start or 0, source.origin, decisions), source)

    def _keep(self, view: View | Ladder, source: Source) -> dict[str, Any]:
        if len(self._views) >= MAX_VIEWS:
            del self._views[min(self._views)]
        number, self._next_view = self._next_view, self._next_view + 1
        self._views[number] = view, source
        view.scan()
        return {"view": number, "start": view.start, "count": view.count, "scanned": view.scanned}

    def _flow(self, request: dict[str, Any], source: Source) -> Flow:
        flow = source.flow(str(request["conn"])[:200])
        if flow is None:
            raise Refused("nothing was seen of this connection yet")
        return flow

    async def _close_view(self, request: dict[str, Any]) -> dict[str, Any]:
        self._views.pop(int(request["view"]), None)
        return {}

    def _view(self, request: dict[str, Any]) -> tuple[View | Ladder, Source]:
        found = self._views.get(int(request["view"]))
        if found is None:
            raise Refused("that view is closed")
        return found

    async def _rows(self, request: dict[str, Any]) -> dict[str, Any]:
        view, _ = self._view(request)
        at, count = int(request["at"]), min(int(request["count"]), MAX_ROWS)
        if at < 0 or count < 0:
            raise Refused("rows count from 0")
        at = max(at, view.start)
        return {"at": at, "rows": view.rows(at, count), "start": view.start, "count": view.count}

    async def _watch_graph(self, request: dict[str, Any]) -> dict[str, Any]:
        """A connection's series now, and again whenever there is more, until another is asked for, or "off"."""
        self._graph = None
        if request.get("off"):
            return {}
        source = self._source(request)
        if request["way"] not in ("out", "in"):
            raise Refused("way is out or in")
        wanted = {
            "source": source, "flow": self._flow(request, source), "way": request["way"], "count": -1,
            "width": int(request["width"]),
            "from": None if request.get("from") is None else float(request["from"]),
            "to": None if request.get("to") is None else float(request["to"]),
            "last": None if request.get("last") is None else float(request["last"]),
        }  # fmt: skip
        answer = self._draw(wanted)
        self._graph = wanted
        return answer

    def _draw(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """The series, and when they may be made again: what they cost bounds how often."""
        begun = time.monotonic()
        flow: Flow = wanted["flow"]
        source: Source = wanted["source"]
        shift = source.shift
        first, last = flow.first or 0, flow.last
        low = first if wanted["from"] is None else int(wanted["from"] * 1e9) - shift
        high = last if wanted["to"] is None else int(wanted["to"] * 1e9) - shift
        if wanted["last"] is not None:
            low = max(first, high - int(wanted["last"] * 1e9))
        wanted["count"] = flow.count
        answer = graph(flow, wanted["way"], low, high, wanted["width"])
        answer.update(
            conn=flow.key, way=wanted["way"], shift=shift, low=low, high=max(high, low + 1), first=first, last=last,
            state=flow.state, left_out=flow.segments.left_out, mss=flow.out.mss, summary=flow.summary(),
        )
        now = time.monotonic()
        self._graph_at = now + max(GRAPH_S, GRAPH_REST * (now - begun))
        return answer

    async def _states(self, request: dict[str, Any]) -> dict[str, Any]:
        """The way that a connection took through RFC 9293's states: [t, old, new, input]."""
        source = self._source(request)
        flow = self._flow(request, source)
        shift = source.shift
        rows = [[round((row.t + shift) / 1e9, 9), row.old, row.new, row.input] for row in flow.states.rows[-200:]]
        return {"state": flow.state, "rows": rows, "told": flow.told}

    async def _density(self, request: dict[str, Any]) -> dict[str, Any]:
        """How many rows there are over the time that is kept, in so many bins."""
        source = self._source(request)
        packets, bins = source.packets, max(1, min(int(request["bins"]), 2000))
        if not packets.times:
            return {"from": 0.0, "to": 0.0, "bins": []}
        low, high = packets.times[0], packets.times[-1] + 1
        origin = source.origin
        return {
            "from": (low - origin) / 1e9, "to": (high - origin) / 1e9, "bins": packets.density(low, high, bins),
        }  # fmt: skip

    async def _packet(self, request: dict[str, Any]) -> dict[str, Any]:
        source, n = self._source(request), int(request["n"])
        row = source.packets.row(n, source.origin)
        if row[2] != "f":
            frame = event_of(source.packets.record(n)).frame if row[2] == "e" else 0
            told = {"row": row, "layers": [], "bytes": "", "length": 0}
            return {**told, "frame_id": format_frame_id(frame) if frame else ""}
        return {"row": row, **dissect(source.packets.record(n), row[4])}

    async def _seek(self, request: dict[str, Any]) -> dict[str, Any]:
        """Where a time (seconds from the origin) lies in a view."""
        view, source = self._view(request)
        return {"position": view.at(source.origin + int(float(request["time"]) * 1e9))}

    async def _settings(self, request: dict[str, Any]) -> dict[str, Any]:
        live = self._desk.live
        live.listen_for(
            [str(seam) for seam in request["seams"]],
            events=bool(request["events"]),
            detail=str(request["detail"]),
            listening=bool(request["listening"]),
        )
        return live.settings()

    async def _fault_set(self, request: dict[str, Any]) -> dict[str, Any]:
        words = str(request["words"])[:MAX_TEXT].split()
        live = self._desk.live
        answer: dict[str, Any] = await live.ask(live.layers.set_fault, str(request["seam"]), words)
        await live.refresh()
        return answer

    async def _fault_clear(self, request: dict[str, Any]) -> dict[str, Any]:
        live = self._desk.live
        answer: dict[str, Any] = await live.ask(live.layers.clear_fault, str(request["seam"]))
        await live.refresh()
        return answer

    # stopping

    async def _command(self, call: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
        """Carry out something that changes how the stack stands, and look at once what it did."""
        live = self._desk.live
        try:
            answer: dict[str, Any] = await live.ask(call, *args)
        finally:
            await live.refresh()
        return answer

    async def _hold(self, request: dict[str, Any]) -> dict[str, Any]:
        return await self._command(self._desk.live.stopping.hold, str(request.get("where", "")))

    async def _continue(self, _request: dict[str, Any]) -> dict[str, Any]:
        return await self._command(self._desk.live.stopping.resume)

    async def _step(self, request: dict[str, Any]) -> dict[str, Any]:
        stopping = self._desk.live.stopping
        frame, at = str(request.get("frame", "")), str(request.get("at", ""))
        return await self._command(stopping.step, int(request.get("count", 1)), frame, at)

    async def _step_timer(self, _request: dict[str, Any]) -> dict[str, Any]:
        return await self._command(self._desk.live.stopping.step_timer)

    async def _held_frame(self, request: dict[str, Any]) -> dict[str, Any]:
        live = self._desk.live
        answer: dict[str, Any] = await live.ask(live.stopping.frame, str(request["frame"]))
        return answer

    async def _held_edit(self, request: dict[str, Any]) -> dict[str, Any]:
        changes = request["changes"]
        if not isinstance(changes, dict):
            raise Refused("changes is an object of fields")
        plain = {str(name): str(value) for name, value in changes.items()}
        checksums = str(request.get("checksums", "mend"))
        return await self._command(self._desk.live.stopping.edit, str(request["frame"]), plain, checksums)

    async def _held_change(self, request: dict[str, Any]) -> dict[str, Any]:
        stopping, what, frame = self._desk.live.stopping, request["what"], str(request["frame"])
        if what == "drop":
            return await self._command(stopping.drop, frame)
        if what == "duplicate":
            return await self._command(stopping.duplicate, frame)
        if what == "delay":
            return await self._command(stopping.delay, frame, float(request["ms"]))
        if what == "move":
            return await self._command(stopping.move, frame, int(request["place"]))
        raise Refused("what is drop, duplicate, delay or move")

    async def _break_add(self, request: dict[str, Any]) -> dict[str, Any]:
        texts = [str(request.get(name, ""))[:MAX_TEXT] for name in ("expression", "on", "at")]
        once, after = bool(request.get("once")), int(request.get("after", 0))
        return await self._command(self._desk.live.stopping.add_breakpoint, *texts, once, after)

    async def _break_change(self, request: dict[str, Any]) -> dict[str, Any]:
        stopping, number = self._desk.live.stopping, int(request["number"])
        if request.get("remove"):
            return await self._command(stopping.remove_breakpoint, number)
        return await self._command(stopping.enable_breakpoint, number, bool(request["enabled"]))

    async def _close_source(self, request: dict[str, Any]) -> dict[str, Any]:
        source = self._source(request)
        if source is self._desk.live:
            raise Refused("the stack cannot be closed here; see lvlip down")
        await self._desk.close(source.name)
        return {}


def _chosen(source: Source, wanted: dict[str, Any]) -> dict[str, Any]:
    """The connections that a page asked for; it is told of which source, since it may show another by then."""
    chosen = choose(source.connections(), wanted["search"], wanted["sort"], wanted["descending"])
    return {**chosen, "source": source.name}

"""The web application: the page's files, its WebSocket, and captures that are sent to it, behind the guard."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from levelip.debug.tap import PROCESSES
from levelip.frames.core import ControlError
from levelip.tracing.recording import RecordingError
from levelip.web.acting import Acting
from levelip.web.capture import MAX_BYTES
from levelip.web.commands import MAX_TEXT, Refused
from levelip.web.desk import Desk
from levelip.web.live import Ended, Live
from levelip.web.security import Access, Guard
from levelip.web.session import Session

MAX_INJECT_BYTES = 32 << 20
"""A capture whose packets are injected."""


def static_directory() -> Path:
    """Where the page's files lie, in a checkout and in a wheel."""
    return Path(str(resources.files("levelip.web") / "static"))


def _parts(content: bytes, sizes: list[str]) -> list[bytes]:
    """The files that one body is. ValueError where the sizes are not its."""
    if not sizes:
        return [content]
    ends = list(itertools.accumulate(int(size) for size in sizes))
    if len(ends) > len(PROCESSES) or min(ends) < 0 or ends != sorted(ends) or ends[-1] != len(content):
        raise ValueError("the sizes of the files are not right")
    return [content[begin:end] for begin, end in itertools.pairwise([0, *ends])]


async def _uploaded(
    live: Live, request: Request, most: int, use: Callable[[str, bytes], Awaitable[dict[str, Any]]]
) -> Response:
    """What comes of the body of a request, whose name is in its query; or why nothing does, in words."""
    title = request.query_params.get("name", "capture")[:100]

    async def answer() -> Response:
        content = await _body(request, most)
        if content is None:
            return JSONResponse({"error": f"{title}: larger than {most >> 20} MiB"}, status_code=413)
        return JSONResponse(await use(title, content))

    try:
        return await live.unless_ended(answer())
    except Ended as error:
        return JSONResponse({"error": f"{title}: {error}"}, status_code=503)
    except (Refused, ControlError, RecordingError, ValueError) as error:
        # CaptureError, BuildError and EditError are ValueErrors
        return JSONResponse({"error": f"{title}: {error}"}, status_code=422)


async def _body(request: Request, most: int) -> bytes | None:
    """What was sent; None if it is more than that."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > most:
            return None
    return bytes(content)


def make_app(desk: Desk, access: Access) -> Starlette:
    """The application; starts and stops the live source with the server."""
    static = static_directory()
    acting = Acting(desk)

    async def page(_request: Request) -> Response:
        return FileResponse(static / "index.html", media_type="text/html; charset=utf-8")

    async def opened(request: Request) -> Response:
        """A capture or recording in the body, its name in the query; what can be shown of it, or an error in words.
        Of several recordings of one stack the bodies follow each other, and the query has the `size` of each."""

        async def use(title: str, content: bytes) -> dict[str, Any]:
            source = await desk.open(title, _parts(content, request.query_params.getlist("size")))
            return {"source": source.about()}

        return await _uploaded(desk.live, request, MAX_BYTES, use)

    async def injected(request: Request) -> Response:
        """Packets of the capture in the body, put into the running stack: `where` and which `numbers` in the query."""

        async def use(_title: str, content: bytes) -> dict[str, Any]:
            query = request.query_params
            return await acting.inject_file(query.get("where", "")[:50], content, query.get("numbers", "")[:MAX_TEXT])

        return await _uploaded(desk.live, request, MAX_INJECT_BYTES, use)

    async def socket(websocket: WebSocket) -> None:
        await Session(websocket, desk).run()

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await desk.live.start()
        try:
            yield
        finally:
            await desk.end()
            await desk.live.stop()

    return Starlette(
        routes=[
            Route("/", page, methods=["GET"]),
            Route("/captures", opened, methods=["POST"]),
            Route("/inject", injected, methods=["POST"]),
            WebSocketRoute("/ws", socket),
            Mount("/static", StaticFiles(directory=static)),
        ],
        middleware=[Middleware(Guard, access=access)],
        lifespan=lifespan,
    )

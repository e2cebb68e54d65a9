"""The web application: the page's files, its WebSocket, and the upload of a capture, behind the guard."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from levelip.debug.tap import PROCESSES
from levelip.tracing.recording import RecordingError
from levelip.web.capture import MAX_BYTES
from levelip.web.desk import Desk
from levelip.web.security import Access, Guard
from levelip.web.session import Session


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


def make_app(desk: Desk, access: Access) -> Starlette:
    """The application; starts and stops the live source with the server."""
    static = static_directory()

    async def page(_request: Request) -> Response:
        return FileResponse(static / "index.html", media_type="text/html; charset=utf-8")

    async def opened(request: Request) -> Response:
        """A capture or recording in the body, its name in the query; what can be shown of it, or an error in words.
        Of several recordings of one stack the bodies follow each other, and the query has the `size` of each."""
        query = request.query_params
        title = query.get("name", "capture")[:100]
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > MAX_BYTES:
                return JSONResponse({"error": f"{title}: larger than {MAX_BYTES >> 20} MiB"}, status_code=413)
        try:
            source = await desk.open(title, _parts(bytes(content), query.getlist("size")))
        except (ValueError, RecordingError) as error:  # CaptureError is a ValueError
            return JSONResponse({"error": f"{title}: {error}"}, status_code=422)
        return JSONResponse({"source": source.about()})

    async def socket(websocket: WebSocket) -> None:
        await Session(websocket, desk).run()

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await desk.live.start()
        try:
            yield
        finally:
            await desk.close_all()
            await desk.live.stop()

    return Starlette(
        routes=[
            Route("/", page, methods=["GET"]),
            Route("/captures", opened, methods=["POST"]),
            WebSocketRoute("/ws", socket),
            Mount("/static", StaticFiles(directory=static)),
        ],
        middleware=[Middleware(Guard, access=access)],
        lifespan=lifespan,
    )

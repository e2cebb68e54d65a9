"""The web application: the page's files, its WebSocket, and captures that are sent to it, behind the guard."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from levelip.frames.core import ControlError
from levelip.tracing.recording import RecordingError
from levelip.web.acting import Acting
from levelip.web.capture import MAX_BYTES
from levelip.web.commands import MAX_TEXT, Refused
from levelip.web.desk import Desk
from levelip.web.live import Ended, Live
from levelip.web.security import Access, Guard
from levelip.web.session import Session
from levelip.web.upload import Upload, UploadError, stored

MAX_INJECT_BYTES = 32 << 20
"""A capture whose packets are injected."""


def static_directory() -> Path:
    """Where the page's files lie, in a checkout and in a wheel."""
    return Path(str(resources.files("levelip.web") / "static"))


async def _uploaded(
    live: Live, request: Request, most: int, use: Callable[[str, Upload], Awaitable[dict[str, Any]]]
) -> Response:
    """What comes of the body of a request, whose name is in its query; or why nothing does, in words."""
    title = request.query_params.get("name", "capture")[:100]
    length = request.headers.get("content-length", "")

    async def answer() -> Response:
        upload = await stored(
            request.stream(), most=most, length=int(length) if length.isdecimal() else None,
            sizes=request.query_params.getlist("size"),
        )  # fmt: skip
        return JSONResponse(await use(title, upload))

    try:
        return await live.unless_ended(answer())
    except ClientDisconnect:
        return Response(status_code=400)  # nobody is left to read it
    except UploadError as error:
        return JSONResponse({"error": f"{title}: {error}"}, status_code=error.status)
    except Ended as error:
        return JSONResponse({"error": f"{title}: {error}"}, status_code=503)
    except (Refused, ControlError, RecordingError, ValueError) as error:
        # CaptureError, BuildError and EditError are ValueErrors
        return JSONResponse({"error": f"{title}: {error}"}, status_code=422)


def make_app(desk: Desk, access: Access) -> Starlette:
    """The application; starts and stops the live source with the server."""
    static = static_directory()
    acting = Acting(desk)

    async def page(_request: Request) -> Response:
        return FileResponse(static / "index.html", media_type="text/html; charset=utf-8")

    async def opened(request: Request) -> Response:
        """A capture or recording in the body, its name in the query; what can be shown of it, or an error in words.
        Of several recordings of one stack the bodies follow each other, and the query has the `size` of each."""

        async def use(title: str, upload: Upload) -> dict[str, Any]:
            return {"source": (await desk.open_upload(title, upload)).about(), "changed": desk.changed}

        return await _uploaded(desk.live, request, MAX_BYTES, use)

    async def injected(request: Request) -> Response:
        """Packets of the capture in the body, put into the running stack: `where` and which `numbers` in the query."""

        async def use(_title: str, upload: Upload) -> dict[str, Any]:
            query = request.query_params
            return await acting.inject_upload(query.get("where", "")[:50], upload, query.get("numbers", "")[:MAX_TEXT])

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

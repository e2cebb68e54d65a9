"""What a page sends by POST, without a server: the application over its ASGI interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec

from levelip.web.app import make_app
from levelip.web.desk import Desk
from levelip.web.security import Access
from levelip.web.upload import Upload, stored

MOST = 64 << 20


async def parts(*content: bytes) -> AsyncIterator[bytes]:
    """A body as it comes."""
    for one in content:
        yield one


async def uploaded(*files: bytes) -> Upload:
    """Files as a page sends them."""
    return await stored(parts(*files), most=MOST, sizes=[str(len(one)) for one in files] if len(files) > 1 else ())


def post(
    desk: Desk, path: str, body: Sequence[bytes], *, origin: str = "http://127.0.0.1:8420", gone: bool = False,
    length: int | None = None, **query: str,
) -> tuple[int, dict[str, Any]]:  # fmt: skip
    """(status, answer) of a body in parts. `gone`: the browser goes away before the end; `length`: what it said."""
    access = Access(8420)
    cookie = access.set_cookie().partition(";")[0]
    headers = [(b"host", b"127.0.0.1:8420"), (b"origin", origin.encode()), (b"cookie", cookie.encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "root_path": "",
             "query_string": urlencode(query).encode(), "headers": headers, "http_version": "1.1", "scheme": "http",
             "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8420)}  # fmt: skip
    sent: list[Any] = []
    coming: list[dict[str, Any]] = [{"type": "http.request", "body": one, "more_body": True} for one in body]
    coming.append({"type": "http.disconnect"} if gone else {"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        return coming.pop(0) if coming else await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        await make_app(desk, access)(scope, receive, send)
        await desk.end()
        await desk.live.stop()

    asyncio.run(main())
    told = b"".join(one.get("body", b"") for one in sent)
    return sent[0]["status"], msgspec.json.decode(told) if told.startswith(b"{") else {"text": told.decode()}

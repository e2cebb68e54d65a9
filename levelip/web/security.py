"""Who may ask the web view: the first thing that each request and each WebSocket meets.

- **Host** must name us, so that a foreign name which was made to resolve to us (DNS rebinding) gets nothing.
- The **token** of the printed URL becomes a cookie (HttpOnly, SameSite=Strict) and leaves the URL; without the cookie
  there is nothing to be had, not even the page.
- **Origin** must be ours wherever something can change: on each POST and on each WebSocket, which browsers let any page
  open to any host.
- GET and HEAD change nothing; methods other than these and POST do not exist.
- What is sent may load nothing from elsewhere and run no inline script (Content-Security-Policy).
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_BYTES = 32
_MAX_QUERY = 4096
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_WS_REFUSED = 1008  # policy violation (RFC 6455 7.4.1)

_ENTER = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Level-IP</title>
<link rel="icon" href="/static/icon.svg">
<meta http-equiv="refresh" content="0;url=/"></head><body><p><a href="/">Level-IP</a></p></body></html>"""
"""Not a redirect: a browser would leave a Strict cookie out of one that a link on another site started."""
_NO_COOKIE = "Level-IP: open the URL that `lvlip web` printed; it carries the token that lets you in.\n"


class Access:
    """What is accepted: addresses by which we are known, the token, the cookie."""

    def __init__(self, port: int, *, bind: str = "127.0.0.1", names: Iterable[str] = (), token: str = "") -> None:
        """`names`: further host names by which a browser may reach us (a proxy's, this machine's)."""
        self.token = token or secrets.token_urlsafe(TOKEN_BYTES)
        self.cookie = f"lvlip-{port}"
        self._session = secrets.token_urlsafe(TOKEN_BYTES)
        self._any_address = not is_loopback(bind)
        self._port = port
        self._hosts = {f"{name}:{port}" for name in _LOOPBACK}
        for name in names:
            self._hosts |= {name.lower(), f"{name.lower()}:{port}"}

    def host_is_ours(self, host: str) -> bool:
        """Whether a Host header names us. Where we listen beyond loopback, an address (never a name) does."""
        host = host.lower()
        if host in self._hosts:
            return True
        if not self._any_address:
            return False
        name, _, port = host.rpartition(":")
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return port == str(self._port)

    def origin_is_ours(self, origin: str, host: str) -> bool:
        """Whether a page of ours asks: the same scheme, name and port as the host asked (which was checked)."""
        return bool(origin) and origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")

    def token_is_right(self, token: str) -> bool:
        """Compared in constant time."""
        return hmac.compare_digest(token.encode(), self.token.encode())

    def cookie_is_right(self, header: str) -> bool:
        """Whether a Cookie header holds our session."""
        try:
            found = SimpleCookie(header).get(self.cookie)
        except CookieError:
            return False
        return found is not None and hmac.compare_digest(found.value.encode(), self._session.encode())

    def set_cookie(self) -> str:
        """The Set-Cookie header that lets a browser in until we end, or it does."""
        return f"{self.cookie}={self._session}; HttpOnly; SameSite=Strict; Path=/"


class Guard:
    """ASGI middleware that refuses what Access does not admit, and puts the safe headers on every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            host = Headers(scope=scope).get("host", "")
            await self._http(scope, receive, _with_headers(send, host))
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        access, headers = self._access, Headers(scope=scope)
        host = headers.get("host", "")
        if not access.host_is_ours(host):
            return await _refuse(421, "Level-IP: this is not the host that you asked for.\n")(scope, receive, send)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return await _refuse(405, "Level-IP: GET, HEAD or POST.\n")(scope, receive, send)
        query = scope["query_string"][:_MAX_QUERY].decode("latin-1")
        if scope["path"] == "/" and "token=" in query and scope["method"] == "GET":
            if not access.token_is_right(parse_qs(query).get("token", [""])[0]):
                return await _refuse(403, "Level-IP: wrong token; it changes with each `lvlip web`.\n")(
                    scope, receive, send
                )
            response = HTMLResponse(_ENTER, headers={"set-cookie": access.set_cookie()})
            return await response(scope, receive, send)
        if not access.cookie_is_right(headers.get("cookie", "")):
            return await _refuse(401, _NO_COOKIE)(scope, receive, send)
        if scope["method"] == "POST" and not access.origin_is_ours(headers.get("origin", ""), host):
            return await _refuse(403, "Level-IP: only the page itself may ask for changes.\n")(scope, receive, send)
        return await self._app(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        access, headers = self._access, Headers(scope=scope)
        host = headers.get("host", "")
        if (
            access.host_is_ours(host)
            and access.origin_is_ours(headers.get("origin", ""), host)
            and access.cookie_is_right(headers.get("cookie", ""))
        ):
            await self._app(scope, receive, send)
            return
        await receive()  # websocket.connect
        await send({"type": "websocket.close", "code": _WS_REFUSED})  # before accept: the server answers 403


def _refuse(status: int, text: str) -> PlainTextResponse:
    return PlainTextResponse(text, status_code=status)


def content_security_policy(host: str) -> str:
    """Everything from us, nothing inline; older browsers do not count ws: as 'self'."""
    sockets = f" ws://{host} wss://{host}" if host and all(c.isalnum() or c in ".-:[]" for c in host) else ""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'{sockets}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )


def _with_headers(send: Send, host: str) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["content-security-policy"] = content_security_policy(host)
            headers["x-content-type-options"] = "nosniff"
            headers["referrer-policy"] = "no-referrer"
            headers["cross-origin-resource-policy"] = "same-origin"
            headers["cross-origin-opener-policy"] = "same-origin"
            headers["cache-control"] = "no-store"
        await send(message)

    return wrapped


def is_loopback(bind: str) -> bool:
    """Whether an address to listen at is reachable from this machine alone."""
    if bind == "localhost":
        return True
    try:
        return ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return False

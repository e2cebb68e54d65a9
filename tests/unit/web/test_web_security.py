"""Who gets something from the web view, and who does not."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from levelip.web.security import Access, Guard, content_security_policy, is_loopback

PORT = 8420
HOST = f"127.0.0.1:{PORT}"
ORIGIN = f"http://{HOST}"


class Inside:
    """The application behind the guard: notes what came through."""

    def __init__(self) -> None:
        self.served: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.served.append(f"{scope['type']} {scope.get('method', '')} {scope['path']}")
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"inside"})
        else:
            await send({"type": "websocket.accept"})


def ask(access: Access, inside: Inside, path: str = "/", *, method: str = "GET", kind: str = "http",
        query: str = "", **headers: str) -> tuple[int, dict[str, str]]:  # fmt: skip
    """(status, headers) of one request; of a WebSocket 101 or 403."""
    raw = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "method": method, "path": path, "query_string": query.encode(), "headers": raw,
             "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", PORT),
             "subprotocols": [], "extensions": {}, "state": {}}  # fmt: skip
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    asyncio.run(Guard(inside, access)(scope, receive, send))
    if kind == "websocket":
        return (101 if sent[0]["type"] == "websocket.accept" else 403), {}
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def cookie(access: Access) -> str:
    return access.set_cookie().partition(";")[0]


def test_nothing_without_the_cookie() -> None:
    """A request without the session's cookie gets nothing, not even the page."""
    access, inside = Access(PORT), Inside()
    assert ask(access, inside, Host=HOST)[0] == 401
    assert ask(access, inside, "/static/app.js", Host=HOST)[0] == 401
    assert ask(access, inside, Host=HOST, Cookie=f"{access.cookie}=wrong")[0] == 401
    assert ask(access, inside, Host=HOST, Cookie="; ;=; \x00")[0] == 401
    assert inside.served == []


def test_the_token_becomes_a_cookie_and_leaves_the_url() -> None:
    """The right token answers with a cookie that scripts cannot read and other sites do not send, and a page that goes
    on without the token."""
    access, inside = Access(PORT), Inside()
    status, headers = ask(access, inside, query=f"token={access.token}", Host=HOST)
    assert status == 200
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(headers["set-cookie"].split("; "))
    assert access.token not in headers["set-cookie"]
    assert headers["referrer-policy"] == "no-referrer"
    assert inside.served == [], "the page itself comes with the next request"
    assert ask(access, inside, Host=HOST, Cookie=headers["set-cookie"].partition(";")[0])[0] == 200


@pytest.mark.parametrize("token", ["", "x", "\u00e9", "a" * 10_000])
def test_a_wrong_token_is_refused(token: str) -> None:
    """No token but the right one opens, and refusing costs no exception."""
    access, inside = Access(PORT), Inside()
    status, headers = ask(access, inside, query=f"token={quote(token)}", Host=HOST)
    assert status == 403 and "set-cookie" not in headers


@pytest.mark.parametrize("host", ["", "evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1",
                                  f"127.0.0.1.evil.example:{PORT}", f"10.0.0.1:{PORT}"])  # fmt: skip
def test_another_host_is_refused(host: str) -> None:
    """A name that resolves to us without being ours (DNS rebinding) gets nothing, with cookie and token."""
    access, inside = Access(PORT), Inside()
    assert ask(access, inside, Host=host, Cookie=cookie(access))[0] == 421
    assert ask(access, inside, Host=host, query=f"token={access.token}")[0] == 421
    ours = {"Cookie": cookie(access), "Origin": f"http://{host}"}
    assert ask(access, inside, "/ws", kind="websocket", Host=host, **ours)[0] == 403
    assert inside.served == []


@pytest.mark.parametrize("host", [HOST, f"localhost:{PORT}", f"[::1]:{PORT}", f"LOCALHOST:{PORT}"])
def test_our_own_names_are_taken(host: str) -> None:
    """All names of loopback are ours."""
    access, inside = Access(PORT), Inside()
    assert ask(access, inside, Host=host, Cookie=cookie(access))[0] == 200


def test_beyond_loopback_addresses_are_taken_but_no_names() -> None:
    """Where we listen at all addresses, any address will do, since a rebinding needs a name; and the names that were
    allowed."""
    access = Access(PORT, bind="0.0.0.0", names=["box.lan"])
    assert access.host_is_ours(f"192.168.7.7:{PORT}")
    assert access.host_is_ours(f"[fe80::1]:{PORT}")
    assert access.host_is_ours(f"box.lan:{PORT}") and access.host_is_ours("box.lan")
    assert not access.host_is_ours("192.168.7.7:1")
    assert not access.host_is_ours(f"evil.example:{PORT}")
    assert not access.host_is_ours(f"evil.example:{PORT}:{PORT}")


@pytest.mark.parametrize("origin", ["", "null", "http://evil.example", "http://127.0.0.1", "http://127.0.0.1:9999",
                                    f"https://evil.example#{ORIGIN}", f"{ORIGIN}.evil.example"])  # fmt: skip
def test_changes_come_from_our_page_alone(origin: str) -> None:
    """A POST and a WebSocket need our origin beside the cookie: other sites' pages may send both (RFC 6455 10.2)."""
    access, inside = Access(PORT), Inside()
    headers = {"Host": HOST, "Cookie": cookie(access), **({"Origin": origin} if origin else {})}
    assert ask(access, inside, "/captures", method="POST", **headers)[0] == 403
    assert ask(access, inside, "/ws", kind="websocket", **headers)[0] == 403
    assert inside.served == []


def test_our_page_may_change() -> None:
    """With cookie and origin a POST and a WebSocket get through; without the cookie they do not."""
    access, inside = Access(PORT), Inside()
    assert ask(access, inside, "/captures", method="POST", Host=HOST, Cookie=cookie(access), Origin=ORIGIN)[0] == 200
    assert ask(access, inside, "/ws", kind="websocket", Host=HOST, Cookie=cookie(access), Origin=ORIGIN)[0] == 101
    assert ask(access, inside, "/captures", method="POST", Host=HOST, Origin=ORIGIN)[0] == 401
    assert ask(access, inside, "/ws", kind="websocket", Host=HOST, Origin=ORIGIN)[0] == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_do_not_exist(method: str) -> None:
    access, inside = Access(PORT), Inside()
    assert ask(access, inside, method=method, Host=HOST, Cookie=cookie(access), Origin=ORIGIN)[0] == 405


def test_every_answer_has_the_safe_headers() -> None:
    """No inline script, nothing from elsewhere, no framing, no guessing of types: refusals too."""
    access, inside = Access(PORT), Inside()
    for status, headers in (ask(access, inside, Host=HOST), ask(access, inside, Host=HOST, Cookie=cookie(access))):
        policy = headers["content-security-policy"]
        assert status in (200, 401)
        assert "default-src 'none'" in policy and "script-src 'self';" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"


def test_a_host_cannot_write_the_policy() -> None:
    """What a Host header says gets into the policy only if it is a plain name."""
    assert "ws:" not in content_security_policy("x; script-src *")
    assert f"ws://{HOST}" in content_security_policy(HOST)


def test_loopback() -> None:
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost") and is_loopback("127.9.9.9")
    assert not is_loopback("0.0.0.0") and not is_loopback("::") and not is_loopback("box.lan")


def test_each_server_has_secrets_of_its_own() -> None:
    """Neither token nor cookie of one opens another."""
    one, other = Access(PORT), Access(PORT)
    assert one.token != other.token and not other.token_is_right(one.token)
    assert not other.cookie_is_right(cookie(one))

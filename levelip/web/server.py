"""Listening for browsers: a socket, uvicorn, and an end by Ctrl-C or SIGTERM."""

from __future__ import annotations

import socket

import uvicorn

from levelip.web.app import make_app
from levelip.web.desk import Desk
from levelip.web.security import Access
from levelip.web.session import MAX_MESSAGE

PORT = 8420
_BACKLOG = 32


def listen(bind: str, port: int) -> socket.socket:
    """A listening socket; OSError names the address."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((bind, port))
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def make_server(desk: Desk, access: Access) -> uvicorn.Server:
    """A server that `serve(sockets=[...])` runs; `should_exit = True` ends it."""
    config = uvicorn.Config(
        make_app(desk, access),
        http="h11",
        ws="websockets-sansio",
        ws_max_size=2 * MAX_MESSAGE,
        ws_per_message_deflate=False,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)

"""Listening for browsers: a socket, uvicorn, and an end by Ctrl-C or SIGTERM."""

from __future__ import annotations

import faulthandler
import gc
import socket
from types import FrameType

import uvicorn

from levelip.web.app import make_app
from levelip.web.desk import Desk
from levelip.web.security import Access
from levelip.web.session import MAX_MESSAGE

PORT = 8420
PAGES_S = 2
"""How long pages may take to say goodbye."""
END_S = 8.0
"""From SIGTERM to the end at the latest."""
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


class Server(uvicorn.Server):
    """Runs from `serve(sockets=[...])` until Ctrl-C, SIGTERM or `should_exit = True`, and ends in time.

    Whoever waits for a process of the stack, or for what is asked of a file, is told first; then pages have PAGES_S to
    close, then the application (its lifespan) has what it needs, which is bounded. What holds the process nevertheless
    after END_S is a fault of ours: faulthandler writes where every thread is, and ends it.
    """

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self._desk = desk

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal handler. A second Ctrl-C changes nothing: the end is bounded, and in order."""
        if self.should_exit:
            return
        faulthandler.dump_traceback_later(END_S, exit=True)
        gc.freeze()  # the interpreter's last collections, over all rows that are kept, are seconds on a busy machine
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Once it is to end."""
        await self._desk.end()
        await super().shutdown(sockets)


def make_server(desk: Desk, access: Access) -> Server:
    """A server of the application."""
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
        timeout_graceful_shutdown=PAGES_S,
    )
    return Server(config, desk)

"""`lvlip web` and SIGTERM: it ends in time and without a complaint, whatever pages and processes do."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from levelip.ipc.rundir import RunDirectory
from levelip.web.server import END_S
from tests.silent import silent_layers

ROOT = Path(__file__).parents[2]
_APART_S = 0.02
ENDS_S = END_S + 20.0
"""In time is what returns 130: after END_S from the signal's handler on the server ends itself with 1, and tells of it.
What comes before the handler and behind that (an interpreter's end) is the machine's."""


@pytest.fixture
def run() -> Iterator[RunDirectory]:
    """A stack whose processes live (their locks are held) and are silent."""
    root = tempfile.mkdtemp(prefix="lv", dir="/tmp")
    made = RunDirectory("t", root)
    made.create()
    with silent_layers(made):
        yield made
    shutil.rmtree(made.memory, ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)


class Web:
    """A server, and pages of it."""

    def __init__(self, run: RunDirectory, program: tuple[str, ...] = ("-m", "levelip.cli")) -> None:
        words = ["--name", "t", "--run", str(run.root), "--json", "web", "--port", "0"]
        self.process = subprocess.Popen(
            [sys.executable, *program, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd="/",
        )  # fmt: skip
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.port: int = told["port"]
        self.origin = f"http://127.0.0.1:{self.port}"
        self._token = urlsplit(told["url"]).query
        self.cookie = ""

    def enter(self) -> None:
        """Get the cookie; the server serves."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", f"/?{self._token}")
        entered = connection.getresponse()
        self.cookie = (entered.getheader("Set-Cookie") or "").partition(";")[0]
        assert entered.status == 200 and self.cookie
        connection.close()

    @contextmanager
    def page(self) -> Iterator[ClientConnection]:
        """A WebSocket as the page opens it; what it does not receive stays unread, and soon on the server's side."""
        with connect(
            f"ws://127.0.0.1:{self.port}/ws", additional_headers={"Cookie": self.cookie}, origin=Origin(self.origin),
            max_queue=1, close_timeout=0.1, ping_interval=None,
        ) as made:  # fmt: skip
            yield made

    @contextmanager
    def upload(self, size: int, part: bytes) -> Iterator[socket.socket]:
        """A file of which only a part comes."""
        head = (
            f"POST /captures?name=x HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nOrigin: {self.origin}\r\n"
            f"Cookie: {self.cookie}\r\nContent-Length: {size}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as made:
            made.sendall(head.encode() + part)
            yield made

    def end(self, *signals: int) -> tuple[float, str]:
        """SIGTERM, or other signals; how long the end took, until nobody has its output open any more, and what it
        said."""
        begun = time.monotonic()
        for number in signals or (signal.SIGTERM,):
            self.process.send_signal(number)
            time.sleep(_APART_S)  # two of one number would be one
        _, said = self.process.communicate(timeout=60)
        return time.monotonic() - begun, said

    def close(self) -> None:
        """Whatever the test did."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def web(run: RunDirectory) -> Iterator[Web]:
    with closing(Web(run)) as made:
        yield made


@pytest.mark.parametrize("after", [0.0, 0.01, 0.02, 0.05, 0.1, 0.2])
def test_before_it_serves(web: Web, after: float) -> None:
    """The URL is told, and the server, its loop and its threads are at various points of their beginning."""
    time.sleep(after)
    took, said = web.end()
    assert took < ENDS_S and web.process.returncode == 130
    assert said.strip() == ""


@pytest.mark.parametrize("times", [1, 2])
def test_interrupts(web: Web, times: int) -> None:
    """Ctrl-C, also by a person who has no patience: an end in order."""
    web.enter()
    took, said = web.end(*[signal.SIGINT] * times)
    assert took < ENDS_S and web.process.returncode == 130
    assert said.strip() == ""


def test_nobody_is_there(web: Web) -> None:
    """Only its own threads wait for the silent stack."""
    web.enter()
    time.sleep(0.5)
    took, said = web.end()
    assert took < ENDS_S and web.process.returncode == 130
    assert said.strip() == ""


def test_pages_that_wait_do_not_read_and_do_not_go(web: Web) -> None:
    """One waits for a silent stack to be held, one for a story and for packets to be measured, one reads nothing of
    what it asked, an upload does not come to its end, and a request was never finished."""
    web.enter()
    with ExitStack() as stack:
        holds, looks, deaf = (stack.enter_context(web.page()) for _ in range(3))
        holds.send(json.dumps({"id": 1, "do": "hold"}))
        looks.send(json.dumps({"id": 1, "do": "why", "subject": "80"}))
        looks.send(json.dumps({"id": 2, "do": "paths", "seconds": 60}))
        for number in range(2000):
            deaf.send(json.dumps({"id": number, "do": "hello"}))
        upload = stack.enter_context(web.upload(1 << 20, bytes(1000)))
        half = stack.enter_context(socket.create_connection(("127.0.0.1", web.port)))
        half.sendall(b"GET / HTTP/1.1\r\nHost: ")
        web.enter()  # one loop serves all: it has come to what was asked before
        took, said = web.end()
        assert took < ENDS_S and web.process.returncode == 130
        assert "Traceback" not in said and "Timeout" not in said, said
        answer = upload.recv(4096)
        assert answer.startswith(b"HTTP/1.1 503 "), answer


def test_twice(web: Web) -> None:
    """Who is impatient gets no worse end."""
    web.enter()
    with web.page() as page:
        page.send(json.dumps({"id": 1, "do": "hold"}))
        time.sleep(0.5)
        web.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        took, said = web.end()
    assert took < ENDS_S and web.process.returncode == 130
    assert "Traceback" not in said, said


HANGS = """
import sys, time
from levelip.cli.main import main
from levelip.web import server
from levelip.web.live import Live

async def hang(self):
    time.sleep(60)

Live.stop, server.END_S = hang, 1.0
sys.exit(main(sys.argv[1:]))
"""
"""`lvlip web` with a fault that holds its end."""


def test_a_fault_of_its_own_does_not_hold_the_end(run: RunDirectory) -> None:
    """It is ended, and every thread's place is told."""
    with closing(Web(run, ("-c", HANGS))) as web:
        web.enter()
        took, said = web.end()
        assert took < ENDS_S and web.process.returncode == 1
        assert "Timeout" in said and "in hang" in said, said

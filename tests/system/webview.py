"""What the tests of the web view share: a stack, a browser, a page, and three transfers that were captured."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from levelip.ipc.rundir import LAYERS
from tests.system.browser import chromium, new_page, opened, until, web_view
from tests.system.harness import Stack
from tests.system.namespace import Namespace, lack

PORT = 9000
AFRESH = """async (settings) => {
    const others = app.sources.filter((one) => one.name !== 'live');
    for (const { name } of others) await app.ask('close_source', { source: name });
    for (const { number } of app.debug?.breakpoints ?? []) await app.ask('break.change', { number, remove: true });
    if (app.debug?.held) await app.ask('continue');
    for (const seam of new Set(app.stack.faults.map((one) => one.seam))) await app.ask('fault.clear', { seam });
    const { addons } = await app.ask('addon.list');
    for (const name of new Set(addons.map((one) => one.addon))) await app.ask('addon.unload', { name });
    await app.ask('settings', settings);
    app.sources = app.sources.filter((one) => one.name === 'live');
    app.choose('live');
    app.to('stack');
}"""
"""Whatever a test left, by the page's own commands."""
SETTINGS = {"seams": ["link", "ip-tcp"], "events": True, "detail": "first128", "listening": True}
"""What `lvlip web` listens to unless told otherwise."""
NAMES = "() => [...document.querySelectorAll('#connections tbody tr')].map((row) => row.dataset.name)"


def fetch(host: str, port: int, send: int) -> tuple[int, float]:
    """Send so much, then read until the end; what came, and how long it took."""
    from levelip.client import socket as levelip_socket

    connection = levelip_socket.socket()
    connection.connect((host, port))
    begun = time.monotonic()
    if send:
        connection.sendall(bytes(send))
        connection.shutdown(socket.SHUT_WR)
    came = 0
    while data := connection.recv(1 << 20):
        came += len(data)
    connection.close()
    return came, time.monotonic() - begun


@dataclass
class View:
    """What the tests share."""

    stack: Stack
    namespace: Namespace
    browser: Browser
    url: str
    page: Page
    errors: list[str]
    listener: socket.socket
    capture: Path
    lossy: str = ""

    @contextmanager
    def afresh(self) -> Iterator[View]:
        """A new page at its first place, of a stack that runs and in which nothing is set, held or left waiting; after
        the test, no errors of that page. So what one test left, or in which it failed, is not the next one's."""
        for layer in LAYERS:
            if self.stack.run_directory.holder(layer) is None:
                self.stack.start_layer(layer)
        self.listener.settimeout(0)
        with suppress(BlockingIOError):
            while True:
                self.listener.accept()[0].close()
        self.listener.settimeout(30)
        page, errors = opened(self.browser, self.url)
        self.page, self.errors = page, errors
        try:
            page.wait_for_selector("#source option", state="attached")  # the page behind that of the token
            until(lambda: page.evaluate("() => Boolean(app.stack)"), "what the stack is doing")
            page.evaluate(AFRESH, SETTINGS)
            until(lambda: self.count(".process[data-state=ready]") == len(LAYERS), "the stack runs", timeout=60)
            yield self
        finally:
            page.close()
        assert errors == []

    def download(self, size: int, *, rate: int = 0) -> tuple[int, float]:
        """The kernel sends, at `rate` bit/s where one is given."""
        done = self.stack.submit(fetch, self.stack.host, PORT, 0)
        peer, _ = self.listener.accept()
        block, sent, begun = bytes(1 << 18), 0, time.monotonic()
        with peer:
            while sent < size:
                peer.sendall(block[: size - sent])
                sent += len(block)
                if rate and (ahead := sent * 8 / rate - (time.monotonic() - begun)) > 0:
                    time.sleep(ahead)
        came: tuple[int, float] = done.result(60)
        return came

    def upload(self, size: int) -> None:
        """The stack sends."""
        done = self.stack.submit(fetch, self.stack.host, PORT, size)
        peer, _ = self.listener.accept()
        with peer:
            while peer.recv(1 << 20):
                pass
        done.result(60)

    def hold(self) -> None:
        """By the button of Stop and step."""
        self.key("4")
        self.page.click("#debug-hold")
        until(lambda: self.text("#state") == "held", "the stack stands")

    def go_on(self) -> None:
        """By the button of Stop and step."""
        self.page.click("#debug-continue")
        until(lambda: self.text("#state") == "ready", "the stack goes on")

    def open(self, file: Path) -> None:
        """As Open… does; it is shown."""
        self.page.set_input_files("#file", file)
        until(lambda: self.page.input_value("#source") != "live", "the file is shown", timeout=60)

    def close_file(self) -> None:
        """The one that is shown; the stack is shown again."""
        self.page.locator("button[title='Close this file']").click()
        until(lambda: self.page.input_value("#source") == "live", "the stack again")

    def one_packet(self, expression: str, what: str) -> None:
        """The packet list has one row of which an expression is true."""
        self.key("3")
        self.page.wait_for_selector("#filter")
        self.filter(expression)
        until(lambda: self.text("#packet-count").startswith("1 row"), what)

    def key(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).first.text_content() or ""

    def count(self, selector: str) -> int:
        return self.page.locator(selector).count()

    def filter(self, text: str) -> None:
        self.page.fill("#filter", text)
        self.page.press("#filter", "Enter")
        self.page.locator("#filter").blur()


@contextmanager
def viewed(directory: Path) -> Iterator[View]:
    """A stack, its web view, a page, and three transfers that were captured, the last over a lossy link."""
    if missing := lack():
        pytest.skip(f"not to be had here: {missing}")
    capture = directory / "three.pcapng"
    with Namespace() as namespace, Stack(namespace) as stack, web_view(stack) as url, chromium() as browser:
        page, errors = new_page(browser, url)
        listener = namespace.socket()
        listener.bind((stack.host, PORT))
        listener.listen()
        shared = View(stack, namespace, browser, url, page, errors, listener, capture)
        writer = stack.popen(["-m", "levelip.cli", "capture", "-w", str(capture)])
        stack.wait_until(lambda: capture.exists() and capture.stat().st_size > 0, "lvlip capture listens")
        shared.download(2_000_000)
        shared.upload(1_000_000)
        stack.lvlip("fault", "set", "link", "loss=2%", "delay=5ms", "seed=3")
        shared.upload(1_500_000)
        stack.lvlip("fault", "clear")
        writer.terminate()
        writer.wait(60)
        lossy(shared)
        page.close()
        yield shared
        listener.close()


def lossy(view: View) -> str:
    """The name of the connection that lost packets, the third of the fixture's, by its port; the page lists all."""
    view.page.evaluate("() => { app.connectionSearch = ''; app.to('connections'); }")
    until(lambda: view.count("#connections tbody tr") >= 3, "all connections")
    if not view.lossy:
        view.lossy = sorted(view.page.evaluate(NAMES))[2]
    return view.lossy

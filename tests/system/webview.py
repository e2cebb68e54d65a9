"""What the tests of the web view share: a stack, a browser, a page, and three transfers that were captured."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from levelip.ipc.rundir import LAYERS
from tests.system.browser import WAIT_S, chromium, new_page, opened, until, web_view
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
HEARD = "() => app.settings?.heard.length ?? 0"
TRIES = 5
LEFT_OUT = "() => Object.values(app.settings.lost).reduce((sum, one) => sum + one, app.settings.passed_over)"
WHOLE = """async (bytes) => {
    for (const { name } of app.page.rows ?? []) {
        const wanted = { source: 'live', conn: name, way: 'out', width: 1000, from: null, to: null, last: null };
        const { data, state } = await app.ask('graph', wanted).catch(() => ({ data: [] }));
        await app.ask('graph', { off: true });
        const all = data.reduce((most, row) => Math.max(most, row[2]), 0) === bytes + 2; // and SYN and FIN
        if (all && ['TIME_WAIT', 'CLOSED'].includes(state)) return name;
    }
    return '';
}"""
"""The connection that sent so many bytes, once all of it was seen, to its end."""
DRAWN = """async () => {
    for (let i = 0; i < 3; i += 1) await new Promise((done) => requestAnimationFrame(done));
}"""
"""What a size, a pointer or an answer that has come brings about is drawn: it may take a frame to be noticed."""
CHOSEN_SHOWN = """async () => {
    const { panel } = app.page, at = panel.list.selected, row = panel.list.row(at);
    if (!row || panel.chosen !== row[0]) return false;
    await panel.shown;
    return panel.list.selected === at && panel.chosen === row[0];
}"""
LOSSY = 1_500_000
"""Bytes of the transfer over a lossy link."""
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
        missing = [layer for layer in LAYERS if self.stack.run_directory.holder(layer) is None]
        for layer in missing:
            self.stack.start_layer(layer)
        if missing:
            self.stack.wait_ready()
        self.listener.settimeout(0)
        with suppress(BlockingIOError):
            while True:
                self.listener.accept()[0].close()
        self.listener.settimeout(WAIT_S)
        page, errors = opened(self.browser, self.url)
        self.page, self.errors = page, errors
        try:
            page.wait_for_selector("#source option", state="attached")  # the page behind that of the token
            until(lambda: page.evaluate("() => Boolean(app.stack)"), "what the stack is doing")
            page.evaluate(AFRESH, SETTINGS)
            until(lambda: self.count(".process[data-state=ready]") == len(LAYERS), "the stack runs")
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
        came: tuple[int, float] = done.result(WAIT_S)
        return came

    def upload(self, size: int) -> None:
        """The stack sends."""
        done = self.stack.submit(fetch, self.stack.host, PORT, size)
        peer, _ = self.listener.accept()
        with peer:
            while peer.recv(1 << 20):
                pass
        done.result(WAIT_S)

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
        until(lambda: self.page.input_value("#source") not in ("", "live"), "the file is shown")

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

    def says(self, selector: str, *words: str) -> str:
        """Wait until all these words stand in what a selector finds first; that text."""
        seen = ""

        def said() -> bool:
            nonlocal seen
            seen = self.text(selector) if self.count(selector) else ""
            return all(word in seen for word in words)

        deadline = time.monotonic() + WAIT_S
        while not said():
            assert time.monotonic() < deadline, f"{selector} does not say {words}, but {seen!r}"
            time.sleep(0.05)
        return seen

    def holds(self, script: str, argument: Any = None, *, what: str = "") -> Any:
        """Wait until a script says something that is true; that."""
        return until(lambda: self.page.evaluate(script, argument), what or script)

    def toasted(self, words: str) -> None:
        """Wait until a toast has said so: it may be gone by now."""
        until(lambda: [one for one in self.page.evaluate("() => told") if words in one], f"a toast: {words}")

    def refused(self, status: str) -> None:
        """The browser notes that the server refused something, once, and that is no error of the page."""
        until(lambda: self.count("body") and self.errors, f"{status} in the console")
        assert status in self.errors.pop() and not self.errors, "the browser notes the refusal"

    def rows(self, least: int = 1) -> None:
        """Wait until so many rows of the list are there, and not only their places."""
        until(lambda: self.count(".list-row:not(.pending):not([hidden])") >= least, f"{least} rows")

    def heard(self) -> None:
        """Wait until the web view hears every process of the stack, so that it misses nothing of what comes now."""
        until(lambda: self.page.evaluate(HEARD) == len(LAYERS), "what comes is heard, from all processes")

    def counted(self, *, whole: bool = False) -> int:
        """How many rows pass the filter that is set; `whole`: once all were looked at."""
        count = self.page.locator("#packet-count")
        if whole:
            until(lambda: count.get_attribute("data-scanned") == "1", "all rows were looked at")
        text = until(lambda: said if (said := self.text("#packet-count"))[:1].isdigit() else "", "how many rows")
        return int(text.partition(" ")[0].replace(",", ""))

    def drawn(self) -> None:
        """What the page knows is drawn."""
        self.page.evaluate(DRAWN)

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
        listener.settimeout(WAIT_S)
        shared = View(stack, namespace, browser, url, page, errors, listener, capture)
        shared.heard()
        for _ in range(TRIES):
            if transfers(shared):
                break
        else:
            raise AssertionError(f"the web view was too slow for each of {TRIES} times three transfers")
        page.close()
        yield shared
        listener.close()


def transfers(view: View) -> bool:
    """Three transfers that are captured. Whether the web view saw the last of them whole: it says how many records it
    left out, as it may on a machine that is too slow."""
    stack, page, capture = view.stack, view.page, view.capture
    capture.unlink(missing_ok=True)
    before = page.evaluate(LEFT_OUT)
    writer = stack.popen(["-m", "levelip.cli", "capture", "-w", str(capture)])
    stack.wait_until(lambda: capture.exists() and capture.stat().st_size > 0, "lvlip capture listens")
    view.download(2_000_000)
    view.upload(1_000_000)
    stack.lvlip("fault", "set", "link", "loss=2%", "delay=5ms", "seed=3")
    view.upload(LOSSY)
    stack.lvlip("fault", "clear")
    writer.terminate()
    writer.wait(WAIT_S)
    page.evaluate("() => { app.connectionSearch = ''; app.to('connections'); }")
    until(lambda: page.evaluate(WHOLE, LOSSY) or page.evaluate(LEFT_OUT) > before, "the last transfer is seen")
    if page.evaluate(LEFT_OUT) > before:
        return False
    view.lossy = page.evaluate(WHOLE, LOSSY)
    return True


def lossy(view: View) -> str:
    """The name of the connection that lost packets, the third of the fixture's; the page lists all."""
    view.page.evaluate("() => { app.connectionSearch = ''; app.to('connections'); }")
    until(lambda: view.count("#connections tbody tr") >= 3, "all connections")
    return view.lossy

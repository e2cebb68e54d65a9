"""A headless Chromium (Debian's) and the web view that it looks at, for tests.

The page's Content-Security-Policy forbids eval, and so Playwright's wait_for_function; `until` asks from here instead.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.system.harness import Stack

CHROMIUM = shutil.which("chromium") or ""
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
WIDTH, HEIGHT = 1360, 850
_SHOTS = os.environ.get("LEVELIP_SCREENSHOTS", "")


@contextmanager
def chromium() -> Iterator[Browser]:
    """One browser; every page of it is gone afterwards."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def web_view(stack: Stack, *arguments: str) -> Iterator[str]:
    """`lvlip web` for a stack; its URL with the token. SIGTERM ends it, in time and without a complaint."""
    command = ["-m", "levelip.cli", "web", "--port", "0", "--json", *arguments]
    server = stack.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None and server.stderr is not None
    try:
        yield json.loads(server.stdout.readline())["url"]
    finally:
        server.terminate()
        try:
            _, errors = server.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            server.kill()
            raise
        assert "Traceback" not in errors, errors
        assert server.returncode == 130, errors


def until(condition: Callable[[], Any], what: str, *, timeout: float = 10.0) -> Any:
    """What `condition()` says as soon as it is true of something; AssertionError if it stays false."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.05)
    return found


def opened(browser: Browser, url: str, *, dark: bool = False) -> tuple[Page, list[str]]:
    """A page with cookies and choices of its own, and the list in which its errors gather."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark" if dark else "light")
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(url)
    return page, errors


def new_page(browser: Browser, url: str, *, dark: bool = False) -> tuple[Page, list[str]]:
    """The same, once it shows that the stack runs."""
    page, errors = opened(browser, url, dark=dark)
    page.wait_for_selector(".process[data-state=ready]")
    return page, errors


def picture(page: Page, name: str) -> None:
    """A screenshot for the docs, where LEVELIP_SCREENSHOTS names a directory."""
    if _SHOTS:
        path = Path(__file__).resolve().parents[2] / _SHOTS
        path.mkdir(exist_ok=True)
        page.evaluate("() => document.getElementById('toasts').replaceChildren()")
        page.screenshot(path=path / f"{name}.png")


FRAMES = """async ([seconds, step]) => {
  const list = document.querySelector(".list"), deltas = [];
  const end = performance.now() + 1000 * seconds;
  let last = null, n = 0;
  await new Promise((done) => {
    const frame = (now) => {
      if (last !== null) deltas.push(now - last);
      last = now;
      if (step) list.scrollTop = (n * step) % Math.max(1, list.scrollHeight - list.clientHeight);
      n += 1;
      if (now < end) requestAnimationFrame(frame); else done();
    };
    requestAnimationFrame(frame);
  });
  deltas.sort((a, b) => a - b);
  return { frames: deltas.length, p95: deltas[Math.floor(deltas.length * 0.95)] };
}"""
"""Scrolls the list by so many pixels a frame, for so many seconds; how long frames took, in ms."""

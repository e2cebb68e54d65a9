"""A headless Chromium (Debian's) and the web view that it looks at, for tests.

The page's Content-Security-Policy forbids eval, and so Playwright's wait_for_function; `until` asks from here instead.

What a page shows comes a while after what brings it about: an answer over the WebSocket, a tick, the next frame. So
nothing of a page is read once and asserted, unless what was waited for is drawn by the same task of its script. With
LEVELIP_SLOW_PAGE set ("500" or "500,6") each message comes to the page up to so many ms late, in order, and its script
runs so many times slower: tests that do not wait fail then.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests import waiting
from tests.system.harness import Stack

CHROMIUM = shutil.which("chromium") or ""
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
WIDTH, HEIGHT = 1360, 850
WAIT_S = 60.0
"""Ends what hangs; no statement about how fast anything is."""
_SHOTS = os.environ.get("LEVELIP_SCREENSHOTS", "")
_SLOW = os.environ.get("LEVELIP_SLOW_PAGE", "")
LATE = """(() => {
  const Real = window.WebSocket;
  window.WebSocket = class extends Real {
    set onmessage(take) {
      const waiting = [];
      const next = () => {
        take(waiting[0]);
        waiting.shift();
        if (waiting.length) setTimeout(next, Math.random() * MOST);
      };
      super.onmessage = (message) => { if (waiting.push(message) === 1) setTimeout(next, Math.random() * MOST); };
    }
  };
})()"""
"""Messages of the server come late, in order."""
TOLD = """(() => {
  window.told = [];
  new MutationObserver((all) => all.forEach(({ addedNodes }) => addedNodes.forEach((one) => {
    if (one.matches?.(".toast")) window.told.push(one.textContent);
  }))).observe(document, { childList: true, subtree: true });
})()"""
"""What toasts said: they go after seconds."""


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


until = partial(waiting.until, timeout=WAIT_S, every=0.05)
"""As elsewhere, but a question takes the browser some milliseconds."""


def opened(browser: Browser, url: str, *, dark: bool = False) -> tuple[Page, list[str]]:
    """A page with cookies and choices of its own, and the list in which its errors gather."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark" if dark else "light")
    page.set_default_timeout(WAIT_S * 1000)
    page.add_init_script(TOLD)
    if _SLOW:
        late, _, times = _SLOW.partition(",")
        page.add_init_script(LATE.replace("MOST", str(int(late))))
        if times:
            page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": float(times)})
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


FRAMES = """async ([frames, step, most]) => {
  const list = document.querySelector(".list"), deltas = [], end = performance.now() + 1000 * most;
  let last = null, n = 0;
  await new Promise((done) => {
    const frame = (now) => {
      if (last !== null) deltas.push(now - last);
      last = now;
      if (n < frames && now < end) {
        list.scrollTop = (n * step) % Math.max(1, list.scrollHeight - list.clientHeight);
        n += 1;
        requestAnimationFrame(frame);
      } else done();
    };
    requestAnimationFrame(frame);
  });
  deltas.sort((a, b) => a - b);
  return { frames: deltas.length, apart: deltas[Math.floor(deltas.length * 0.95)] };
}"""
"""Scrolls the list by so many pixels a frame, for so many frames or seconds; how far apart they came, in ms."""
_TASKS = ("RunTask", "ThreadPool_RunTask")
_TRACED = ["toplevel", "devtools.timeline", "disabled-by-default-devtools.timeline"]


def frames(browser: Browser, page: Page, step: int, *, count: int = 100, seconds: float = 20.0) -> dict[str, float]:
    """Scroll the list by so many pixels a frame: `frames` that were drawn, `took` the processor time of one and
    `apart` the time from one to the next, both in ms at the 95th percentile.

    `took` is of the busiest thread of the browser or the page, from one call of the frame's script to the next: their
    work on frames overlaps, and so frames come no faster, nor slower where each has a processor. How late they come
    elsewhere is a matter of who else wants the processors.
    """
    browser.start_tracing(page=page, categories=_TRACED)
    try:
        shown: dict[str, float] = page.evaluate(FRAMES, [count, step, seconds])
    finally:
        traced = json.loads(browser.stop_tracing())["traceEvents"]
    begun = sorted(one["ts"] for one in traced if one["name"] == "FireAnimationFrame")
    spent: list[Counter[tuple[int, int]]] = [Counter() for _ in begun[1:]]
    for one in traced:
        if one["name"] in _TASKS and "tdur" in one and (frame := bisect_right(begun, one["ts"])) and frame < len(begun):
            spent[frame - 1][one["pid"], one["tid"]] += one["tdur"]
    took = sorted(max(threads.values(), default=0) / 1000 for threads in spent)
    assert took, "frames were drawn and traced"
    return {**shown, "took": took[int(len(took) * 0.95)]}

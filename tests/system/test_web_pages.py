"""Pages of the web view that go on while something else ends: another page closes their file, they are loaded anew, the
server is started again, a layer falls silent, the stack goes down; and what a page says where there is nothing.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket

import pytest

from levelip.ipc.rundir import LAYERS
from tests.system.browser import CHROMIUM, opened, until, web_view
from tests.system.webview import View, lossy

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed; as root: apt-get install -y chromium"),
    pytest.mark.timeout(900),
]
WHILE_HOLDING = """async () => {
    let held = false;
    const holding = app.ask('hold', {}).then(() => { held = true; }, () => { held = true; });
    await app.ask('density', {source: 'live', bins: 100});
    const waited = !held;
    await holding;
    return waited;
}"""
"""Whether what needs no layer is answered before a command that waits for one."""
APART = """() => {
    const { y } = app.page.tab.plots[2];
    return y ? [y(12) - y(24), y(24) - y(200)] : null;
}"""
TIP = "() => { const box = document.querySelector('.tip').getBoundingClientRect(); return [box.left, box.right]; }"


def loaded(view: View) -> bool:
    """Whether the page's script runs and knows the stack."""
    return view.count("#source option") > 0 and bool(view.page.evaluate("() => Boolean(window.app && app.stack)"))


def test_a_file_is_shown_until_it_is_closed_wherever(view: View) -> None:
    """A page that is loaded anew shows the file that it showed; once another page closes it, the stack, and says so."""
    view.open(view.capture)
    name = view.page.input_value("#source")
    view.key("3")
    view.page.reload()
    until(lambda: loaded(view) and view.page.input_value("#source") == name, "the file is shown again")
    until(lambda: view.counted() > 0, "and its packets")
    view.holds("() => app.history.length > 3 && app.history.at(-1).seams.link", what="what crossed the seams before")
    other, errors = opened(view.browser, view.url)
    until(lambda: other.locator(f"#source option[value={name}]").count(), "the other page knows it")
    other.evaluate("(source) => app.ask('close_source', {source})", name)
    until(lambda: view.page.input_value("#source") == "live", "the stack is shown")
    view.toasted("three.pcapng was closed elsewhere")
    until(lambda: view.counted() > 0, "the stack's packets")
    other.close()
    assert errors == []


LATER = """() => {
    const { take } = app.net;
    window.now = () => { app.net.take = take; kept.forEach((data) => app.net.take(data)); };
    window.kept = [];
    app.net.take = (data) => { kept.push(data); };
}"""
"""What the server sends comes when now() is called, in order."""


def test_a_file_that_is_closed_here_is_left_first(view: View) -> None:
    """While the server's answer is on its way nothing is asked of the file, what the server told before does not bring
    it back, and what is chosen meanwhile stays."""
    view.open(view.capture)
    first = view.page.input_value("#source")
    until(lambda: view.count("#source option") == 2, "it is listed")
    view.page.set_input_files("#file", view.capture)
    until(lambda: view.page.input_value("#source") not in ("live", first), "another is shown")
    second = view.page.input_value("#source")
    view.page.evaluate(LATER)
    view.page.locator("button[title='Close this file']").click()
    assert view.page.input_value("#source") == "live"
    view.page.evaluate("(name) => app.choose(name)", first)
    view.holds("() => kept.some((one) => one.sources)", what="a tick")
    view.page.evaluate("(name) => app.serve([...app.sources, { name, title: 'told before' }])", second)
    assert view.page.evaluate("() => app.sources.map((one) => one.name)") == ["live", first]
    view.page.evaluate("() => now()")
    view.key("2")
    view.says("#connection-count", "3 connections")
    assert view.page.input_value("#source") == first
    assert (
        view.page.evaluate("() => told.filter((one) => one.includes('elsewhere') || one.includes('is closed'))") == []
    )
    view.close_file()


LISTS = """() => {
    const { serve } = app;
    window.lists = [];
    app.serve = (all) => { serve.call(app, all); lists.push(app.select.value); };
    now();
}"""
"""What is said to be shown, behind each list of sources."""


def test_an_older_list_of_sources_takes_no_file_away(view: View) -> None:
    """A file that was sent is answered beside the WebSocket: what was told there before comes later, and knows
    nothing of it."""
    view.page.evaluate(LATER)
    view.holds("() => kept.some((one) => one.sources)", what="a tick from before")
    view.open(view.capture)
    name = view.page.input_value("#source")
    view.page.evaluate(LISTS)
    view.holds("() => lists.length > 1", what="later lists")
    assert set(view.page.evaluate("() => lists")) == {name}
    view.close_file()


NO_SERVER = ("net::ERR_", "WebSocket connection to", "status of 401", "status of 403", "status of 503")
"""What a browser notes by itself of a server that ends, is gone, or has another token."""


def lasting_port() -> int:
    """A free port that no client's socket takes meanwhile: below those that the kernel gives (32768 and more)."""
    for _ in range(100):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port := random.randrange(20_000, 32_000)))
            return port
    raise AssertionError("no port is free")


def test_a_server_that_is_started_anew(view: View) -> None:
    """The page says that nobody answers; then, since the token is another one, what is to be done; then it goes on."""
    port = str(lasting_port())
    with web_view(view.stack, "--port", port) as url:
        page, errors = opened(view.browser, url)
        page.wait_for_selector(".process[data-state=ready]")
        until(lambda: page.locator("#lost").is_hidden(), "nothing is lost")
    until(lambda: page.locator("#lost").is_visible(), "that the connection is lost")
    until(lambda: "does not answer" in (page.locator("#lost").text_content() or ""), "that nobody is there")
    until(lambda: page.locator("#state").text_content() == "not connected", "that is said")
    with web_view(view.stack, "--port", port) as url:
        until(lambda: "open the URL that it printed" in (page.locator("#lost").text_content() or ""), "what to do")
        page.goto(url)
        page.wait_for_selector(".process[data-state=ready]")
        until(lambda: page.locator("#lost").is_hidden(), "nothing is lost")
        page.close()
    assert all(any(text in one for text in NO_SERVER) for one in errors), errors


def test_a_silent_layer_holds_nothing_up(view: View) -> None:
    """It is shown as silent within seconds; while a command waits for it, what needs no layer is answered at once."""
    view.key("1")
    view.page.wait_for_selector(".process")
    pid = view.stack.pid("tcp")
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: view.page.locator("#process-tcp").get_attribute("data-state") == "silent", "it is silent")
        until(lambda: view.text("#state") == "tcp silent", "so it stands above")
        assert view.page.evaluate(WHILE_HOLDING)
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: view.page.locator("#process-tcp").get_attribute("data-state") == "held", "it is back, and held")
    view.key("4")
    view.go_on()


def test_a_stack_that_goes_down_and_comes_up_again(view: View) -> None:
    """The page says that it does not run, on each of its pages, and shows it again."""
    for layer in reversed(LAYERS):
        view.stack.kill(layer)
    until(lambda: view.text("#state") == "not running", "it does not run")
    view.key("4")
    view.says("#debug-told", "lvlip up")
    until(lambda: view.page.locator("#debug-hold").is_disabled(), "nothing to be held")
    until(lambda: view.page.locator("#hold").is_disabled(), "nor from elsewhere")
    for layer in LAYERS:
        view.stack.start_layer(layer)
    view.stack.wait_ready()
    until(lambda: view.text("#state") == "ready", "it runs again")
    view.heard()
    view.key("3")
    view.filter("tcp.flags.syn")
    before = view.counted(whole=True)
    view.upload(1000)
    until(lambda: view.counted() > before, "what comes is heard")


def test_where_there_is_nothing_that_is_said(view: View) -> None:
    """A filter that nothing passes, a search that finds nothing: in words, and no packet of before beside it."""
    view.key("3")
    view.rows(2)
    view.key("Home")
    until(lambda: view.count(".byte") or view.count(".facts"), "one of them")
    view.filter("tcp.port == 1")
    until(lambda: view.page.locator(".nothing").is_visible(), "nothing")
    view.says(".nothing", "passes this filter")
    view.says(".tree", "Choose a packet")
    assert view.count(".byte") == 0
    view.filter("")
    until(lambda: view.counted() > 0, "rows again")
    assert view.page.locator(".nothing").is_hidden()
    view.key("2")
    view.page.fill("#search", "nowhere")
    view.says(".nothing", "No connection has these words")


def test_what_the_graphs_say_can_be_read(view: View) -> None:
    """Round trips of milliseconds beside an RTO of hundreds stand well apart; what lies under the pointer is told
    within the window, wherever the pointer is."""
    name = lossy(view)
    view.page.evaluate("(name) => app.to('connection', name, 'graphs')", name)
    view.holds("() => app.page.tab?.data?.rtts.length", what="the graph's data")
    apart = view.holds(APART, what="the third plot is drawn")
    assert apart[0] > 10 and apart[1] > 2 * apart[0]
    assert view.page.locator(".plot-sequence .key", has_text="D-SACK").count() == 1
    size = view.page.viewport_size
    assert size is not None
    try:
        for width in (1360, 900, 640):
            view.page.set_viewport_size({"width": width, "height": 800})
            for x in range(100, width - 20, 60):
                view.page.mouse.move(x, 350)
                view.drawn()
                left, right = view.page.evaluate(TIP)
                assert left >= 0 and right <= width, (width, x)
    finally:
        view.page.set_viewport_size(size)

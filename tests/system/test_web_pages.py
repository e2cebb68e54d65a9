"""Pages of the web view that go on while something else ends: another page closes their file, they are loaded anew, the
server is started again, a layer falls silent, the stack goes down; and what a page says where there is nothing.
"""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest

from levelip.ipc.rundir import LAYERS
from tests.system.browser import CHROMIUM, opened, until, web_view
from tests.system.webview import View, lossy

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed; as root: apt-get install -y chromium"),
    pytest.mark.timeout(180),
]
AT_ONCE_MS = 1500
"""What takes no process of the stack, on a busy machine."""
WHILE_HOLDING = """async () => {
    let held = false;
    const holding = app.ask('hold', {}).then(() => { held = true; }, () => { held = true; });
    const begun = performance.now();
    await app.ask('density', {source: 'live', bins: 100});
    const took = performance.now() - begun, waited = !held;
    await holding;
    return [took, waited];
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
    until(lambda: view.text("#packet-count") not in ("", "0 rows"), "and its packets")
    history = view.page.evaluate("() => app.history")
    assert len(history) > 3 and history[-1]["seams"]["link"], "what crossed the seams before"
    other, errors = opened(view.browser, view.url)
    until(lambda: other.locator(f"#source option[value={name}]").count(), "the other page knows it")
    other.evaluate("(source) => app.ask('close_source', {source})", name)
    until(lambda: view.page.input_value("#source") == "live", "the stack is shown")
    assert "three.pcapng was closed elsewhere" in view.text("#toasts")
    assert view.text("#packet-count") != ""
    other.close()
    assert errors == []


def test_a_server_that_is_started_anew(view: View) -> None:
    """The page says that nobody answers; then, since the token is another one, what is to be done; then it goes on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with web_view(view.stack, "--port", port) as url:
        page, errors = opened(view.browser, url)
        page.wait_for_selector(".process[data-state=ready]")
        assert page.locator("#lost").is_hidden()
    until(lambda: page.locator("#lost").is_visible(), "that the connection is lost")
    until(lambda: "does not answer" in (page.locator("#lost").text_content() or ""), "that nobody is there")
    assert page.locator("#state").text_content() == "not connected"
    with web_view(view.stack, "--port", port) as url:
        until(lambda: "open the URL that it printed" in (page.locator("#lost").text_content() or ""), "what to do")
        page.goto(url)
        page.wait_for_selector(".process[data-state=ready]")
        assert page.locator("#lost").is_hidden()
        page.close()
    assert all("ERR_CONNECTION_REFUSED" in one or "40" in one for one in errors), errors


def test_a_silent_layer_holds_nothing_up(view: View) -> None:
    """It is shown as silent within seconds; while a command waits for it, what needs no layer is answered at once."""
    view.key("1")
    view.page.wait_for_selector(".process")
    pid = view.stack.pid("tcp")
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: view.page.locator("#process-tcp").get_attribute("data-state") == "silent", "it is silent")
        assert view.text("#state") == "tcp silent"
        took, waited = view.page.evaluate(WHILE_HOLDING)
        assert waited and took < AT_ONCE_MS
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
    until(lambda: "lvlip up" in view.text("#debug-told"), "how it is started")
    assert view.page.locator("#debug-hold").is_disabled() and view.page.locator("#hold").is_disabled()
    for layer in LAYERS:
        view.stack.start_layer(layer)
    view.stack.wait_ready()
    until(lambda: view.text("#state") == "ready", "it runs again")
    view.upload(1000)
    view.key("3")
    view.filter("tcp.flags.syn")
    view.key("End")
    until(lambda: str(view.listener.getsockname()[1]) in view.text(".list-row:not([hidden])"), "what comes is heard")


def test_where_there_is_nothing_that_is_said(view: View) -> None:
    """A filter that nothing passes, a search that finds nothing: in words, and no packet of before beside it."""
    view.key("3")
    until(lambda: view.count(".list-row:not(.pending):not([hidden])") > 1, "rows")
    view.key("Home")
    until(lambda: view.count(".byte") or view.count(".facts"), "one of them")
    view.filter("tcp.port == 1")
    until(lambda: view.page.locator(".nothing").is_visible(), "nothing")
    assert "passes this filter" in view.text(".nothing")
    assert "Choose a packet" in view.text(".tree") and view.count(".byte") == 0
    view.filter("")
    until(lambda: view.page.locator(".nothing").is_hidden(), "rows again")
    view.key("2")
    view.page.fill("#search", "nowhere")
    until(lambda: "No connection has these words" in view.text(".nothing"), "nothing found")


def test_what_the_graphs_say_can_be_read(view: View) -> None:
    """Round trips of milliseconds beside an RTO of hundreds stand well apart; what lies under the pointer is told
    within the window, wherever the pointer is."""
    name = lossy(view)
    view.page.evaluate("(name) => app.to('connection', name, 'graphs')", name)
    until(lambda: view.page.evaluate("() => app.page.tab?.data?.rtts.length"), "the graph's data")
    apart = view.page.evaluate("() => { const { y } = app.page.tab.plots[2]; return [y(12) - y(24), y(24) - y(200)]; }")
    assert apart[0] > 10 and apart[1] > 2 * apart[0]
    assert view.page.locator(".plot-sequence .key", has_text="D-SACK").count() == 1
    size = view.page.viewport_size
    assert size is not None
    try:
        for width in (1360, 900, 640):
            view.page.set_viewport_size({"width": width, "height": 800})
            for x in range(100, width - 20, 60):
                view.page.mouse.move(x, 350)
                time.sleep(0.02)
                left, right = view.page.evaluate(TIP)
                assert left >= 0 and right <= width, (width, x)
    finally:
        view.page.set_viewport_size(size)

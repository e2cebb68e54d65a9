"""The web view in headless Chromium, from the token to a changed packet: one stack, one browser, one story.

`make screenshots` runs it too, and keeps pictures.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from levelip.tracing.pcapng import LINKTYPE_RAW, Interface, PcapngWriter
from levelip.wire.ipv4 import Ipv4Header
from tests.system.browser import CHROMIUM, WAIT_S, frames, new_page, picture, until
from tests.system.webview import CHOSEN_SHOWN, LOSSY, NAMES, PORT, View, fetch, lossy

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed; as root: apt-get install -y chromium"),
    pytest.mark.timeout(900),
]
FRAME_MS = 50.0  # of processor time, at the 95th percentile
PACKETS = 100_000
SET_FILTER = "(text) => { app.page.panel.filter.value = text; app.page.panel.open(); }"
LISTEN = """async (on) => {
    const wanted = {seams: ['link', 'ip-tcp'], events: true, detail: 'first128', listening: on};
    app.settings = await app.ask('settings', wanted);
}"""
RATE = 1_000_000_000  # bit/s


def request(url: str, method: str = "GET", path: str = "/", **headers: str) -> http.client.HTTPResponse:
    """One HTTP request to the web view, as somebody else would make it."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(url).port or 0, timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        answer.read()
        return answer


def test_who_may_ask(view: View) -> None:
    """Without the cookie, under another name, or from another origin, there is nothing to be had: RFC 6455 10.2."""
    parts = urlsplit(view.url)
    own = f"127.0.0.1:{parts.port}"
    assert request(view.url).status == 401
    assert request(view.url, path=f"/?{parts.query}", Host="evil.example").status == 421
    assert request(view.url, path="/?token=wrong").status == 403
    entered = request(view.url, path=f"/?{parts.query}")
    cookie = entered.getheader("Set-Cookie") or ""
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    cookie = cookie.partition(";")[0]
    assert request(view.url, Cookie=cookie).status == 200
    assert request(view.url, "POST", "/captures", Cookie=cookie, Origin="http://evil.example").status == 403
    assert request(view.url, "DELETE", "/", Cookie=cookie).status == 405
    handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13",
                 "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==", "Cookie": cookie}  # fmt: skip
    assert request(view.url, path="/ws", **handshake, Origin="http://evil.example").status == 403
    assert request(view.url, path="/ws", **handshake).status == 403
    assert request(view.url, path="/ws", **handshake, Origin=f"http://{own}").status == 101


def test_the_token_leaves_the_url(view: View) -> None:
    """What the address bar and scripts see of the token is nothing."""
    assert urlsplit(view.page.url).query == ""
    assert view.page.evaluate("() => document.cookie") == ""


def test_processes_and_faults(view: View) -> None:
    """Five processes are ready; a fault set on the page acts, is counted there, and goes again."""
    view.key("1")
    view.page.wait_for_selector(".process")
    until(lambda: view.count(".process[data-state=ready]") == 5, "five that are ready")
    until(lambda: view.text("#process-tcp dd") == str(view.stack.pid("tcp")), "tcp's pid")
    view.page.fill("#fault-words", "loss=wrong")
    view.page.click("#fault-set")
    view.says("#faults .error", "must be a percentage")
    view.page.fill("#fault-words", "delay=2ms loss=1%")
    view.page.click("#fault-set")
    until(lambda: view.count("[data-seam=link] .fault") == 2, "the fault stands at its seam")
    assert "delay=2ms" in view.stack.lvlip("fault", "show").stdout
    view.upload(200_000)
    view.says(".fault-table", "packets")
    view.says(".drops", "fault_loss")
    picture(view.page, "web-stack")
    view.page.locator(".fault-table button").first.hover()
    view.page.mouse.down()
    view.holds("() => app.net.later?.filter((one) => one.stack).length > 1", what="news, which wait for the release")
    view.page.mouse.up()
    until(lambda: view.count("[data-seam=link] .fault") == 0, "the fault is gone, though the press was a long one")
    assert "no faults" in view.stack.lvlip("fault", "show").stdout


def in_order(view: View, descending: bool) -> bool:
    """Whether the connections' rows stand by what each sent."""
    sent: list[int] = view.page.evaluate("() => app.page.rows.map((row) => row.acked ?? 0)")
    return len(set(sent)) > 1 and sent == sorted(sent, reverse=descending)


def test_connections(view: View) -> None:
    """All that were seen are listed, sorted by what a heading says, found by a part of their name, and opened by
    keyboard."""
    name = lossy(view)
    heading = view.page.locator("#connections thead th", has_text="Sent")
    for key, order in (("Enter", "descending"), ("Space", "ascending")):
        heading.press(key)
        until(lambda order=order: heading.get_attribute("aria-sort") == order, order)  # type: ignore[misc]
        until(lambda order=order: in_order(view, order == "descending"), "by what was sent")  # type: ignore[misc]
    until(lambda: view.text("#state") == "ready", "a key for a heading is no key for the stack")
    view.page.fill("#search", name.partition(">")[0].partition(":")[2])
    until(lambda: view.count("#connections tbody tr") == 1, "one is found")
    view.page.locator("#search").blur()
    view.key("j", "Enter")
    view.says("h1", name.partition(">")[0])


def test_one_connection(view: View) -> None:
    """Ladder, graphs and state machine show what happened: retransmissions, SACKs, the way from CLOSED to TIME-WAIT."""
    name = lossy(view)
    view.page.evaluate("(name) => app.to('connection', name, 'graphs')", name)
    data = until(lambda: view.page.evaluate("() => app.page.tab?.data"), "the graph's data")
    kinds = {row[3] for row in data["data"]}
    assert kinds >= {0, 1, 2}, "data, sent again, SYN and FIN"
    assert data["sacks"] and data["windows"] and data["rtts"] and data["exact"]
    highest = max(row[2] for row in data["data"])
    assert highest == LOSSY + 2, "1,500,000 bytes between SYN and FIN (RFC 9293 3.4)"
    assert max(row[1] for row in data["acks"]) == highest
    view.page.mouse.move(500, 300)
    until(lambda: view.page.locator(".tip").is_visible(), "what lies under the pointer")
    picture(view.page, "web-graphs")
    view.key("]")
    view.says(".way-taken tbody", "SYN-SENT", "ESTABLISHED", "FIN-WAIT-1", "TIME-WAIT")
    view.page.locator(".way-taken tbody tr", has_text="→ TIME-WAIT").click()  # which after 2 MSL it has left
    view.says(".state-box.here", "TIME-WAIT")
    view.key("n")
    picture(view.page, "web-states")
    view.key("[", "[")
    until(lambda: view.count(".seg:not([hidden])") > 5, "the ladder's rows")
    view.says(".list-canvas", "CLOSED → SYN-SENT")
    again = next(row[0] for row in data["data"] if row[3] == 1)
    just_after = 1000  # ns: a float of seconds since the machine's start is off by some
    view.page.evaluate("(seconds) => app.seek(seconds)", (again + data["shift"] + just_after) / 1e9)
    until(lambda: view.count(".seg.again:not([hidden])"), "the retransmission, where the cursor stands")
    view.says(".seg.again:not([hidden]) .findings", "sent again")
    picture(view.page, "web-ladder")


ROWS = "() => [...app.page.panel.list.pages.values()].flat()"


def test_packets_and_filter(view: View) -> None:
    """A filter leaves what it says, its mistakes are shown with a caret, and a field becomes a condition."""
    lossy(view)
    names = set(view.page.evaluate(NAMES))
    view.key("3")
    view.rows()
    view.filter('tcp.flags.syn and not tcp.flags.ack and seam == "link"')
    until(lambda: {row[10] for row in view.page.evaluate(ROWS)} == names, "a SYN each")
    assert {row[11] for row in view.page.evaluate(ROWS)} == {"S"}, "and nothing else"
    view.filter("tcp.flags.sin")
    view.says(".filter-error", "^", "did you mean tcp.flags.syn")
    view.filter("event retransmit")
    until(lambda: view.count(".list-row.event:not([hidden])") > 0, "events by kind")
    view.filter("tcp.len > 0")
    until(lambda: view.count(".proto-tcp:not([hidden])") > 10, "segments")
    view.counted(whole=True)
    view.key("Home", "j", "j")
    view.holds(CHOSEN_SHOWN, what="the packet that was chosen last")
    until(lambda: view.count(".byte") > 60, "bytes")
    field = view.page.locator(".field", has_text="tcp.dstport").first
    field.hover()
    until(lambda: view.count(".byte.lit") == 2, "its two bytes")
    picture(view.page, "web-packets")
    field.dblclick()
    until(lambda: view.page.input_value("#filter").startswith("tcp.len > 0 and tcp.dstport == "), "a condition")


def test_stop_look_change_go_on(view: View) -> None:
    """A breakpoint set on the page stops the stack at a SYN; a field is changed there, and the kernel sees it."""
    until(lambda: view.page.locator("#hold").is_visible(), "a button")
    view.key("4")
    until(lambda: view.page.locator("#hold").is_hidden(), "the page has the button itself")
    view.page.fill("#break-expression", "tcp.flags.sin")
    view.page.click("#break-add")
    view.says("#break-error", "^")
    view.page.fill("#break-expression", f"tcp.flags.syn and tcp.dstport == {PORT}")
    view.page.click("#break-add")
    until(lambda: view.count("#breakpoints tr") == 1, "it is listed")
    coming = view.stack.submit(fetch, view.stack.host, PORT, 10)
    until(lambda: view.text("#state") == "held", "the stack stands")
    assert json.loads(view.stack.lvlip("status", "--json", check=False).stdout)["held"]
    until(lambda: view.count("#held tbody tr.selected") == 1, "the frame that a step takes is shown at once")
    window = view.page.locator(".field.editable", has_text="tcp.window_size_value").first
    window.click()
    view.page.keyboard.type("1234")
    view.page.keyboard.press("Enter")
    until(lambda: "1234" in (window.text_content() or ""), "the field is changed")
    picture(view.page, "web-stop")
    view.page.click("#debug-step")
    view.says("#steps", "ip took")
    view.says("#held tbody tr.selected", "link-ip")  # what it made of the frame
    view.page.locator("#breakpoints button").first.click()
    until(lambda: view.count("#breakpoints tr") == 0, "the breakpoint is gone")
    view.go_on()
    peer, _ = view.listener.accept()
    with peer:
        info = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        assert peer.recv(10, socket.MSG_WAITALL) == bytes(10)
    coming.result(WAIT_S)
    assert len(info) > 100
    left = 'tcp.flags.syn and tcp.window_size_value == 1234 and seam == "link"'
    view.one_packet(left, "the changed SYN left by the device")


def test_why_and_the_way_of_a_packet(view: View) -> None:
    """`w` on a connection tells its story from the flight recorders: the lost segment is found, with its rule; its
    frames lead to their journeys, from tcp through ip and link."""
    name = lossy(view)
    view.page.evaluate("(name) => app.to('connection', name, 'ladder')", name)
    view.key("w")
    until(lambda: view.count(".story"), "the story")
    assert view.text(".story h1") == name
    found = " ".join(view.page.locator(".finding").all_text_contents())
    assert "lvlip fault lost packets of it" in found
    picture(view.page, "web-why")
    view.page.locator(".finding a.frame-id").first.click()
    until(lambda: view.count("#journey"), "the journey of the first wrong packet")
    hops = [text.split("\n")[0] for text in view.page.locator("#journey .hop > b").all_text_contents()]
    assert hops[-1] == "link" or hops[0] == "link"
    assert "in the pipe" in view.text("#journey") and "ns" not in view.text("#journey .hop .num")
    view.page.locator(".story a.button", has_text="In the packet list").click()
    until(lambda: view.page.input_value("#filter").startswith('frame.id == "'), "its rows")
    view.rows()
    view.key("Home", "e")  # the fields by keyboard: down to the first that is a condition, and Enter
    view.holds(CHOSEN_SHOWN, what="the packet that was chosen")
    until(lambda: view.count(".detail .field"), "its fields")
    view.key("e", "ArrowDown", "Enter")
    until(lambda: " and seam == " in view.page.input_value("#filter"), "a field becomes a condition without a pointer")


def other_state(view: View, seen: set[int]) -> Any:
    """The state that the page shows, if it is of none of these calls."""
    state = view.page.evaluate(STATE_AT)
    return state if state and state["at"] not in seen else None


STATE_AT = """() => {
  const { panel } = app.page, { data } = panel;
  return data && data.here === panel.here && data.conn === panel.conn ? data : null;
}"""


STATE_AT_CURSOR = """() => {
  const { panel } = app.page, { data, list } = panel, next = list.row(list.selected + 1);
  if (app.cursor === null || !data || data.here !== panel.here || data.conn !== panel.conn) return false;
  return data.t <= app.cursor && (list.selected === list.count - 1 || next?.t > app.cursor);
}"""


def test_what_just_happened_is_run_again(view: View) -> None:
    """The flight recorders are opened as a recording: calls with decisions and their rules, the state at any instant
    while scrubbing, what changed between two, and whether all of it is the same again."""
    name = lossy(view)
    view.key("6")
    until(lambda: view.page.locator("#flight").is_enabled(), "what can be run again")
    view.page.click("#flight")
    until(lambda: view.count(".call-row.list-row:not(.pending):not([hidden])") > 10, "calls")
    port = name.partition(">")[0].rpartition(":")[2]  # another may have sent a probe for nothing
    view.page.fill("#replay-place", f"event retransmit and conn.local_port == {port}")
    view.page.press("#replay-place", "Enter")
    view.says("#replay-came", "retransmit", "RFC")
    state = until(lambda: view.page.evaluate(STATE_AT), "the state behind it")
    assert state["conn"] == name
    assert state["sockets"] and "tx.retransmits" in [name for name, _, _ in state["changes"]]
    picture(view.page, "web-replay")
    again = state["at"]
    view.key("m")
    way = [again]
    for key in ("ArrowRight", "j", "ArrowLeft", "j"):
        view.key(key)
        state = until(lambda: other_state(view, {way[-1]}), "another call")
        way.append(state["at"])
    assert again < way[1] < way[2] == way[4] and way[3] == way[1]
    assert state["since"] == again and state["since_t"] <= state["t"]
    assert view.text("#replay-since").startswith(f"from #{again}")
    view.holds("() => app.timeline.data?.bins.length", what="the line at the foot")
    box = view.page.locator("#scrub").bounding_box()
    assert box is not None
    for share in (0.99, 0.9, 0.5):
        view.page.mouse.click(box["x"] + box["width"] * share, box["y"] + 10)
        view.holds(STATE_AT_CURSOR, what="the state behind the last call until that instant")
    view.key("c")
    until(lambda: view.count("#replay-checked b") == 5, "all five layers", timeout=180)
    assert view.page.locator("#replay-checked b").all_text_contents() == [
        f"{name}: the same " for name in ("link", "ip", "tcp", "udp", "gateway")
    ]
    view.page.fill("#replay-place", "tcp.flags.sin")
    view.page.press("#replay-place", "Enter")
    view.says("#replay-error", "^")
    view.close_file()


BROKEN = """from levelip import addon
from levelip.addon import Context, Packet


@addon.frame("tcp.flags.syn", way="up")
def broken(packet: Packet, context: Context) -> None:
    raise ValueError("<b id=evil>not markup</b>")
"""


def test_addons_and_injected_packets(view: View, tmp_path: Path) -> None:
    """An addon is loaded, raises, and its exception stands there as text; a packet that nobody sent is held."""
    addon = tmp_path / "broken.py"
    addon.write_text(BROKEN)
    view.key("1")
    view.page.fill("#addon-path", str(addon))
    view.page.click("#addon-load")
    until(lambda: view.count("[data-addon=broken]"), "it is listed")
    view.upload(1000)
    view.says("[data-addon=broken]", "was taken out")
    view.says("[data-addon=broken] .error", "ValueError: <b id=evil>")
    assert view.count("#evil") == 0
    view.page.locator("[data-addon=broken] button").click()
    until(lambda: view.count("[data-addon=broken]") == 0, "it is gone")
    view.page.fill("#addon-path", "/no/such/file.py")
    view.page.click("#addon-load")
    until(lambda: view.text("#addon-error"), "what is wrong")
    view.hold()
    view.page.select_option("#inject-where", "link-ip:up")
    view.page.fill("#inject-text", "4711 > 80 S 0:0(0) win 1234x")
    view.page.click("#inject-put")
    view.says("#inject-error", "^")
    view.page.fill("#inject-text", "4711 > 80 S 0:0(0) win 1234")
    view.page.fill("#inject-conn", f"{view.stack.address}:80>{view.stack.host}:4711")
    view.page.click("#inject-put")
    view.says("#held", "win 1234")
    view.go_on()


def udp_socket() -> None:
    """A UDP socket, until a datagram comes."""
    from levelip.client import socket as levelip_socket

    one = levelip_socket.socket(type=socket.SOCK_DGRAM)
    one.bind(("0.0.0.0", 5353))
    one.recv(100)


def test_udp_sockets_are_listed(view: View) -> None:
    """Beside tcp's; Enter leads to its datagrams."""
    done = view.stack.submit(udp_socket)
    view.key("2")
    view.page.fill("#search", "udp 5353")
    view.page.locator("#search").blur()
    until(lambda: view.count("#connections tbody tr") == 1, "it is found")
    view.says("#connections tbody tr", "udp", "*:5353")
    view.key("j", "Enter")
    until(lambda: view.page.input_value("#filter") == "udp.port == 5353", "its datagrams")
    with view.namespace.socket(kind=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (view.stack.address, 5353))
        done.result(WAIT_S)


ROW_AT_CURSOR = """() => {
  const { list } = app.page.panel, [before, at] = [list.selected - 1, list.selected].map((one) => list.row(one));
  return Boolean(before && at) && before[1] < app.cursor && at[1] >= app.cursor;
}"""


def test_open_a_capture_and_scrub(view: View) -> None:
    """A pcapng file of `lvlip capture` is opened beside the stack; dragging the line at the foot moves all of it."""
    view.key("2")
    view.open(view.capture)
    view.says("#connection-count", "3 connections")
    view.key("3")
    view.rows()
    view.holds("() => app.timeline.data?.bins.length", what="the line at the foot")
    box = view.page.locator("#scrub").bounding_box()
    assert box is not None
    view.page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 10)
    view.page.mouse.down()
    view.page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 10, steps=5)
    view.page.mouse.up()
    about = view.page.evaluate("() => app.about()")
    middle = (about["from"] + about["to"]) / 2
    assert abs(view.page.evaluate("() => app.cursor") - middle) < 0.05 * about["to"]
    view.holds(ROW_AT_CURSOR, what="the first packet from that instant on is chosen")
    view.key("n")
    view.page.set_input_files("#file", {"name": "no.pcapng", "mimeType": "", "buffer": b"GIF89a, no capture"})
    view.toasted("no capture")
    view.refused("422")
    view.close_file()


def many(path: Path) -> None:
    """A capture of 100,000 packets of 50 connections."""
    ours, theirs = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
    sent = dict.fromkeys(range(50), 1000)
    with path.open("wb") as stream:
        writer = PcapngWriter(stream, [Interface("eth0", LINKTYPE_RAW)])
        for i in range(PACKETS):
            port, out = i % 50, (i // 50) % 3 != 2
            ends = (40_000 + port, 80) if out else (80, 40_000 + port)
            numbers = (sent[port], 5000) if out else (5000, sent[port])
            segment = struct.pack(">HHIIHHHH", *ends, *numbers, 0x5018 if out else 0x5010, 1000, 0, 0)
            segment += bytes(100 * out)
            sent[port] += 100 * out
            src, dst = (ours, theirs) if out else (theirs, ours)
            header = Ipv4Header.build(src, dst, proto=6, payload_length=len(segment)).serialize(fill_checksum=True)
            writer.packet(0, 1_700_000_000_000_000_000 + i * 20_000, header + segment, len(header + segment))


def test_a_hundred_thousand_packets(view: View, tmp_path: Path) -> None:
    """With 100,000 packets scrolling and filtering stay within 50 ms a frame at the 95th percentile: of processor time
    of the browser's busiest thread. How late frames come besides is what else the machine does, and printed."""
    path = tmp_path / "many.pcapng"
    many(path)
    view.open(path)
    view.key("3")
    until(lambda: view.counted() == PACKETS, "all of it")
    runs: list[dict[str, dict[str, float]]] = []
    for _ in range(3):  # the best: a processor that others use, too, is slower, by what they push out of its caches
        view.page.evaluate(SET_FILTER, "")
        until(lambda: view.counted() == PACKETS, "all of it")
        scrolling = frames(view.browser, view.page, 1131)
        view.page.evaluate(SET_FILTER, "tcp.flags.push and tcp.srcport > 40010")
        filtering = frames(view.browser, view.page, 1131)
        runs.append({"scrolling": scrolling, "filtering": filtering})
        if max(one["took"] for one in runs[-1].values()) <= FRAME_MS:
            break
    print("p95 of frames, ms:", runs)
    expected = sum(1 for i in range(PACKETS) if (i // 50) % 3 != 2 and i % 50 > 10)
    until(lambda: view.counted(whole=True) == expected, "the filter has seen all", timeout=180)
    view.key("End")
    view.rows(16)
    assert min(max(one["took"] for one in run.values()) for run in runs) <= FRAME_MS, runs
    view.close_file()


LEFT_OUT = """() => {
    const {lost, passed_over} = app.settings;
    const number = Object.values(lost).reduce((sum, one) => sum + one, passed_over);
    const told = document.querySelector('#figures').textContent.match(/([0-9,]+) left out/);
    return [number, told ? Number(told[1].replaceAll(',', '')) : 0];
}"""


def test_right_and_current_under_load(view: View) -> None:
    """While 1 Gbit/s pass (or what this machine can) the page shows that bytes come; when they rest, how many came, and
    no rate; at their end the last of them, or how many records it was too slow for. (What that costs: make bench.)"""
    view.key("2")
    view.page.fill("#search", "ESTABLISHED")
    view.page.locator("#search").blur()
    view.page.evaluate(LISTEN, True)
    view.heard()
    done = view.stack.submit(fetch, view.stack.host, PORT, 0)
    peer, _ = view.listener.accept()
    name = f"{view.stack.address}:{peer.getpeername()[1]}>{view.stack.host}:{PORT}"

    def row() -> dict[str, float]:
        rows = view.page.evaluate("() => app.page.rows ?? []")
        return next((one for one in rows if one["name"] == name), {"up": 0, "received": 0})

    seen, sent, block, begun = threading.Event(), 0, bytes(1 << 18), time.monotonic()

    def send() -> None:
        nonlocal sent
        while not seen.is_set():
            peer.sendall(block)
            sent += len(block)
            if (ahead := sent * 8 / RATE - (time.monotonic() - begun)) > 0:
                time.sleep(ahead)

    sending = threading.Thread(target=send)
    with peer:
        sending.start()
        try:
            until(lambda: row()["up"] > 0, "a rate")
        finally:
            seen.set()
            sending.join()
        until(lambda: (now := row())["up"] == 0 and now["received"] == sent, "all that came, at rest", timeout=180)
    assert done.result(WAIT_S)[0] == sent
    view.page.fill("#search", "")
    view.page.locator("#search").blur()
    view.key("3")
    view.holds("() => app.page.panel?.list.count", what="rows")
    view.key("End")
    # what is seen last is what came last: the end of the transfer
    view.page.evaluate("(name) => app.to('connection', name, 'graphs')", name)
    view.page.wait_for_selector("#graph-way")
    view.key("d")
    data = until(lambda: view.page.evaluate("() => app.page.tab?.data?.way === 'in' && app.page.tab.data"), "the graph")

    def at_its_end() -> bool:
        nonlocal data
        data = view.page.evaluate("() => app.page.tab.data")
        number, told = view.page.evaluate(LEFT_OUT)
        whole = max((one[2] for one in data["data"]), default=0) == sent + 2
        return number == told and (whole or number > 0)

    until(at_its_end, "every byte, SYN and FIN, or how many records were left out", timeout=180)
    assert len(data["data"]) < 3 * 4000, "what is sent to the page is bounded"


def test_keyboard_and_theme(view: View) -> None:
    """Everything is reached by keys, which `?` lists; the theme follows the system or the switch."""
    view.key("1", "?")
    until(lambda: view.page.locator("dialog[open]").is_visible(), "the overview")
    assert view.count("dialog kbd") > 25 and "Shift+Enter" in view.text("dialog")
    view.key("Escape")
    until(lambda: view.count("dialog") == 0, "closed")
    background = "() => getComputedStyle(document.body).backgroundColor"
    light = view.page.evaluate(background)
    view.key("t", "t")
    assert view.page.evaluate(background) != light
    name = lossy(view)
    view.page.evaluate("(name) => app.to('connection', name, 'graphs')", name)
    until(lambda: view.page.evaluate("() => app.page.tab?.data"), "the graph")
    picture(view.page, "web-graphs-dark")
    dark, errors = new_page(view.browser, view.url, dark=True)
    assert dark.evaluate(background) != light
    dark.close()
    assert errors == []


RESTARTS = "#process-ip .figures > div:has(dt:text-is('restarts')) dd"


def test_a_layer_that_is_killed_is_told(view: View) -> None:
    """A process that ends is shown as stopped at once, and one that came back counts a restart."""
    view.key("1")
    view.page.wait_for_selector(".process")
    restarts = int(view.text(RESTARTS))
    view.stack.kill("ip")
    until(lambda: view.page.locator("#process-ip").get_attribute("data-state") == "stopped", "ip is stopped")
    view.stack.start_layer("ip")
    view.stack.wait_ready()
    until(lambda: view.page.locator("#process-ip").get_attribute("data-state") == "ready", "ip is back")
    until(lambda: view.text(f"{RESTARTS}.warn") == str(restarts + 1), "one restart more")

"""The web view in headless Chromium: ways of packets, captures with their stories, captures put into the stack; and
that each page can be used without eyes, without a pointer, and in a narrow window.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from levelip.tracing.pcapng import LINKTYPE_RAW, Interface, PcapngWriter
from levelip.wire.ipv4 import Ipv4Header
from tests.system.browser import CHROMIUM, WAIT_S, picture, until
from tests.system.webview import CHOSEN_SHOWN, PORT, View, lossy

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed; as root: apt-get install -y chromium"),
    pytest.mark.timeout(900),
]
PAGES = ("stack", "connections", "packets", "debug", "why", "replay", "paths")
TABS = ("ladder", "graphs", "states", "packets")


def counts(view: View) -> dict[str, int]:
    """The table as it is shown: what, way and end → count."""
    rows = view.page.evaluate("() => app.page.rows ?? []")
    return {f"{one['what']}, {one['path']}, {one['outcome']}": one["count"] for one in rows}


def send_on(host: str) -> None:
    """Some 1 MB/s, until the other side is gone."""
    from levelip.client import socket as levelip_socket

    connection = levelip_socket.socket()
    connection.connect((host, PORT))
    with contextlib.suppress(OSError):
        while True:
            connection.sendall(bytes(20_000))
            time.sleep(0.02)
    connection.close()


def test_the_ways_of_packets(view: View) -> None:
    """Measured while a file goes out, as `lvlip paths` does: counts and percentiles by way, of each process and pipe
    too, sorted and searched; an example leads to its journey."""
    view.key("7")
    view.says("#paths-hint", "Measure listens")
    view.page.fill("#paths-words", "port=http")
    view.page.click("#paths-ask")
    view.says("#paths-error", "port")
    view.page.fill("#paths-words", "proto=tcp")
    view.page.select_option("#paths-span", "3")
    sending = view.stack.submit(send_on, view.stack.host)
    peer, _ = view.listener.accept()
    ended = threading.Event()

    def read() -> None:
        with peer:
            while not ended.is_set() and peer.recv(1 << 20):
                pass

    reading = threading.Thread(target=read)
    reading.start()
    try:
        view.page.click("#paths-ask")
        until(lambda: view.count("#paths tbody tr"), "the ways", timeout=180)
    finally:
        ended.set()
        reading.join(WAIT_S)
    sending.result(WAIT_S)
    found = counts(view)
    ways = {name.split(", ")[1] for name in found}
    assert "client ↓ gateway ↓ tcp ↓ ip ↓ link" in ways and "link ↑ ip ↑ tcp" in ways, ways
    shown = view.page.evaluate("() => app.page.rows.map((one) => one.count)")
    assert shown == sorted(shown, reverse=True)
    assert f"{sum(shown):,} packets" in view.text("#paths-told")
    for one in view.page.evaluate("() => app.page.rows"):
        assert 0 <= one["p50_ns"] <= one["p90_ns"] <= one["p99_ns"]
    view.page.fill("#paths-search", "data client")
    until(lambda: (those := counts(view)) and all("client" in name for name in those), "only those")
    view.page.locator("#paths-search").blur()
    view.key("j", "Enter")
    parts = until(lambda: view.page.locator("#paths tr.part").all_text_contents(), "the parts of it, by keyboard")
    assert any("in tcp" in part for part in parts) and any("in the pipe link-ip" in part for part in parts)
    view.page.fill("#paths-search", "")
    view.page.locator("#paths-search").blur()
    until(lambda: len(counts(view)) == len(found), "all of them again")
    picture(view.page, "web-paths")
    view.page.fill("#paths-search", "data client")
    view.page.locator("#paths-search").blur()
    view.page.locator("#paths thead th", has_text="p99").click()
    heading = view.page.locator("#paths thead th", has_text="p99")
    until(lambda: heading.get_attribute("aria-sort") == "descending", "sorted")
    longest = view.page.evaluate("() => app.page.rows.map((one) => one.p99_ns)")
    assert longest == sorted(longest, reverse=True)
    view.key("w")
    until(lambda: view.count("#journey") or view.count("#why .error"), "its journey")
    assert view.count("#journey"), view.text("#why .error")
    view.key("7")
    view.page.fill("#paths-search", "")
    view.page.locator("#paths-search").blur()
    view.page.select_option("#paths-span", "0")
    view.page.click("#paths-ask")
    until(lambda: sum(counts(view).values()) > sum(found.values()), "those of the flight recorders", timeout=180)


def test_a_capture_of_ours_has_stories_journeys_and_ways(view: View) -> None:
    """What lvlip fault lost stands in its comments; frames are named as Wireshark counts them; a journey goes over the
    seams. That an answer is bound to nothing is said."""
    name = lossy(view)
    view.open(view.capture)
    view.page.evaluate("(name) => app.to('connection', name, 'ladder')", name)
    view.key("w")
    until(lambda: view.count(".story"), "the story")
    assert view.text(".story h1") == name
    view.says(".finding", "lvlip fault lost packets of it")
    view.says("#why", "a capture of the seams link, link-ip, ip-tcp, ip-udp")
    view.page.locator(".finding a.frame-id").first.click()
    until(lambda: view.count("#journey"), "the journey of the first wrong packet")
    hops = view.page.locator("#journey .hop > b").all_text_contents()
    assert hops in (["ip", "link"], ["ip"], ["link"], ["link", "ip", "tcp"]), hops
    view.page.locator(".story a.button", has_text="In the packet list").click()
    until(lambda: view.page.input_value("#filter").startswith('frame.id == "'), "its rows")
    view.rows()
    view.filter("tcp.flags.syn and seam == ip-tcp and direction == up")
    count = view.counted(whole=True)
    until(lambda: view.count(".list-row:not(.pending):not([hidden])") == count, "are there")
    those = view.page.evaluate("() => app.page.panel.list.pages.get(0)")
    assert len({row[10] for row in those}) == 3 and {row[11] for row in those} == {"S."}, "the SYN-ACKs"
    view.key("Home", "w")
    until(lambda: view.count("#journey"), "the journey of one")
    assert view.page.locator("#journey .hop > b").all_text_contents() == ["link", "ip", "tcp"]
    view.says("#journey", "then in ip")
    assert view.text(".story h1").startswith("device-00000-")
    picture(view.page, "web-capture-journey")
    view.key("3")
    view.filter("")
    view.key("7")
    until(lambda: counts(view), "the ways of all packets")
    assert any(name.startswith("TCP data, link ↑ ip ↑ tcp, ") for name in counts(view))
    view.key("6")
    view.says("#page", "recording")  # that a capture cannot be run again


def test_anothers_capture(view: View, tmp_path: Path) -> None:
    """Its story rests on packets alone, and says so; ways there are none."""
    path = tmp_path / "other.pcap"
    syn(view, path, interface="eth0")
    view.open(path)
    view.page.evaluate("() => app.to('why', '4711')")
    until(lambda: view.count(".story"), "the story")
    view.says("#why", "not a capture of lvlip's")
    view.says(".story", "SYN")
    view.key("7")
    view.says("#paths-error", "one place alone")  # why there are no ways


def syn(view: View, path: Path, *, interface: str = "x", count: int = 1) -> None:
    """A capture of a SYN from the host to a port of the stack where nobody listens."""
    src, dst = (bytes(map(int, text.split("."))) for text in (view.stack.host, view.stack.address))
    segment = (4711).to_bytes(2, "big") + (81).to_bytes(2, "big") + bytes(8) + b"\x50\x02\x04\xd2" + bytes(4)
    pseudo = src + dst + b"\0\x06" + len(segment).to_bytes(2, "big") + segment
    total = sum(int.from_bytes(pseudo[i : i + 2], "big") for i in range(0, len(pseudo), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    segment = segment[:16] + (total ^ 0xFFFF).to_bytes(2, "big") + segment[18:]
    packet = Ipv4Header.build(src, dst, proto=6, payload_length=len(segment)).serialize(fill_checksum=True) + segment
    with path.open("wb") as stream:
        writer = PcapngWriter(stream, [Interface(interface, LINKTYPE_RAW)])
        for i in range(count):
            writer.packet(0, i, packet, len(packet))


def test_a_capture_is_put_into_the_stack(view: View, tmp_path: Path) -> None:
    """The browser sends it; its packet is held where the stack is, and answered when it goes on. What is no capture,
    too large, or has not that packet is refused, and nothing is put in."""
    path = tmp_path / "syn.pcapng"
    syn(view, path)
    view.hold()
    view.page.select_option("#inject-where", "link-ip:up")
    view.page.select_option("#inject-kind", "file")
    view.page.click("#inject-put")
    view.says("#inject-error", "choose a capture file")
    for content, numbers, words in ((b"GIF89a, no capture", "", "no capture"), (path.read_bytes(), "2", "no packet 2"),
                                    (path.read_bytes(), "x", "numbers and ranges")):  # fmt: skip
        view.page.set_input_files("#inject-file", {"name": "x.pcapng", "mimeType": "", "buffer": content})
        view.page.fill("#inject-numbers", numbers)
        view.page.click("#inject-put")
        view.says("#inject-error", words)
        view.refused("422")
    assert "win 1234" not in view.text("#held"), "whatever else is held"
    view.page.set_input_files("#inject-file", path)
    view.page.fill("#inject-numbers", "")
    view.page.click("#inject-put")
    view.says("#held", "win 1234")
    view.go_on()
    view.one_packet('tcp.flags.reset and tcp.dstport == 4711 and seam == "link"', "it was answered: RFC 9293 3.10.7.1")


def test_breakpoints_at_a_seam_after_some(view: View) -> None:
    """One seam and way, once, and only after so many have passed."""
    view.key("4")
    view.page.fill("#break-expression", "tcp.dstport == 9000")
    view.page.select_option("#break-at", "link:down")
    view.page.fill("#break-after", "3")
    view.page.locator(".debug-left form label", has_text="once").locator("input").check()
    view.page.click("#break-add")
    view.says("#breakpoints", "--at link down --after 3 --once")
    done = threading.Thread(target=view.upload, args=(1000,))
    done.start()
    until(lambda: view.text("#state") == "held", "the stack stands")
    frame = view.page.locator("#held tbody tr").filter(has=view.page.get_by_text("↓ link", exact=True)).first
    frame.click()
    until(lambda: "selected" in (frame.get_attribute("class") or ""), "it is chosen")
    view.page.fill("#held-ms", "5")
    view.page.locator(".debug-right button", has_text="Delay").click()
    view.says("#held", "delayed")
    view.go_on()
    done.join(WAIT_S)
    assert not done.is_alive(), "and the transfer ends"
    until(lambda: view.count("#breakpoints tr") == 0, "it was for once")


UNNAMED = """() => {
  const label = (one) => [...(one.labels ?? [])].map((each) => each.textContent).join("");
  const text = (one) => one.matches("button, a, summary, th, tr") ? one.textContent : "";
  const named = (one) => (one.getAttribute("aria-label") || one.title || label(one) || text(one)).trim();
  const seen = (one) => one.checkVisibility() && one.getAttribute("aria-hidden") !== "true";
  const what = "button, a, input, select, textarea, canvas, summary, [role=listbox], [tabindex='0'], dialog, nav";
  return [...document.querySelectorAll(what)].filter((one) => seen(one) && !named(one))
    .map((one) => one.outerHTML.slice(0, 160));
}"""
CHOSEN = """() => {
  const [one, ...others] = document.querySelectorAll("[aria-selected=true]");
  return one && !others.length && one.id === document.querySelector(".list").getAttribute("aria-activedescendant");
}"""
WIDER = "() => document.documentElement.scrollWidth - innerWidth"
CUT = """() => [...document.querySelectorAll("header, .bar")]
  .flatMap((bar) => [...bar.querySelectorAll("button, a, select, input")]).filter((one) => one.checkVisibility())
  .map((one) => [one.outerHTML.slice(0, 120), one.getBoundingClientRect()])
  .filter(([, box]) => box.left < -1 || box.right > innerWidth + 1).map(([text]) => text)"""


def places(view: View) -> Iterator[str]:
    """Every page, and every tab of a connection, shown one after the other."""
    name = lossy(view)
    for page in PAGES:
        view.page.evaluate("(page) => app.to(page)", page)
        view.drawn()
        yield page
    for tab in TABS:
        view.page.evaluate("([name, tab]) => app.to('connection', name, tab)", [name, tab])
        view.drawn()
        yield f"connection, {tab}"


def test_everything_has_a_name(view: View) -> None:
    """All that can be reached by keyboard or shows something has a name for those who do not see it."""
    for place in places(view):
        until(lambda: view.page.evaluate("() => document.getElementById('page').children.length"), place)
        assert view.page.evaluate(UNNAMED) == [], place
    view.page.evaluate("() => app.to('packets')")
    view.rows(4)
    view.key("Home", "j")
    view.holds(CHOSEN_SHOWN, what="the second is chosen")
    until(lambda: view.page.evaluate(CHOSEN), "which one row is chosen, and that it is the list's")
    view.holds("() => app.timeline.data?.bins.length", what="the line at the foot")
    view.page.locator("#scrub").focus()
    before = view.page.evaluate("() => app.cursor")
    view.key("ArrowLeft")
    after = until(lambda: view.page.evaluate("() => app.cursor"), "the instant is moved by keyboard")
    assert before is None
    said = view.page.locator("#scrub")
    until(lambda: said.get_attribute("aria-valuetext") == f"{after:.6f} s", "the instant is said")
    view.key("n")


def test_narrow_windows(view: View) -> None:
    """Down to a phone's width nothing is wider than the window, and every control is within it."""
    size = view.page.viewport_size
    assert size is not None
    try:
        for width in (1000, 640, 390):
            view.page.set_viewport_size({"width": width, "height": 800})
            for place in places(view):
                assert view.page.evaluate(WIDER) <= 0, (width, place)
                assert view.page.evaluate(CUT) == [], (width, place)
    finally:
        view.page.set_viewport_size(size)

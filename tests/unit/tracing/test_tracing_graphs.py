"""What graphs show of a connection, as points, as xplot files and as pictures."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from levelip.tracing import flowgraph, pictures
from levelip.tracing.flow import Flow
from levelip.tracing.flowgraph import Sequence
from levelip.tracing.xplot import XplotWriter
from levelip.wire.tcp import ACK, FIN, PSH, RST, SYN
from tests.netsim.net import MS
from tests.unit.tracing.test_tracing_flow import Wire, transferred

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def lossy() -> Flow:
    model, _, _, _ = transferred(2)
    (flow,) = model.flows.values()
    return flow


def test_the_sequence_graph_has_every_byte_sent_and_the_ack_line_under_the_window_line(lossy: Flow) -> None:
    graph = flowgraph.sequence(lossy, "out")
    new = {(start, end) for _, start, end in graph.segments}
    assert min(start for start, _ in new) == 0
    assert sum(end - start for start, end in new) == lossy.out.nxt
    assert sum(end - start for _, start, end in graph.again) >= sum(
        row.again for row in lossy.segments.rows if row.way == "out"
    )
    assert len(graph.again) == sum(bool(row.again) for row in lossy.segments.rows if row.way == "out") > 0
    assert all(ack < edge for (_, ack), (_, edge) in zip(graph.acks, graph.edges, strict=True))
    acks = [ack for _, ack in graph.acks]
    assert acks == sorted(acks)
    assert graph.sacks and graph.duplicates
    assert [name for _, _, name in graph.marks] == ["SYN", "FIN"]


def test_the_other_way_shows_the_peers_data(lossy: Flow) -> None:
    assert flowgraph.busier(lossy) == "out"
    graph = flowgraph.sequence(lossy, "in")
    assert graph.segments[0][1:] == (0, 1)
    assert all(ack == 1 for _, ack in graph.acks)


def test_the_window_graph_follows_the_stack(lossy: Flow) -> None:
    graph = flowgraph.windows(lossy)
    assert graph.cwnd[0][1] == 10 * 1448
    assert graph.cwnd[-1][1] == lossy.windows.rows[-1].cwnd
    assert graph.ssthresh[0][1] is None and graph.ssthresh[-1][1] is not None
    assert {state for _, _, state in graph.recovery} <= {"RECOVERY", "LOSS", "CWR"}
    assert graph.recovery and all(begin <= end for begin, end, _ in graph.recovery)
    assert len(graph.again) == len(flowgraph.sequence(lossy, "out").again)
    for begin, end, state in graph.recovery:  # what is sent again is sent in recovery
        if state == "RECOVERY":
            assert any(begin <= t <= end for t in graph.again)


def test_round_trips_are_the_stacks_own_where_it_told_any_and_else_the_onlookers() -> None:
    wire = Wire()
    flow = wire.open()
    wire.out(ACK, 1, 1, 100)
    wire.into(ACK, 1, 101, after=30 * MS)
    seen = flowgraph.rtts(flow)
    assert (seen.seen, seen.samples[-1][1], seen.srtt) == (True, 30 * MS, [])
    wire.event("rtt", rtt=31 * MS, srtt=31 * MS, rttvar=1, rto=231 * MS)
    wire.event("rto", rto=462 * MS, attempt=1, flight=1)
    told = flowgraph.rtts(flow)
    assert (told.seen, [value for _, value in told.samples], [value for _, value in told.rto]) == (
        False, [31 * MS], [231 * MS, 462 * MS],
    )  # fmt: skip
    assert len(told.timeouts) == 1


def test_a_span_of_time_can_be_chosen(lossy: Flow) -> None:
    span = (100 * MS, 200 * MS)
    for _, instants in vars(flowgraph.windows(lossy, span)).items():
        for one in instants:
            t = one[0] if isinstance(one, tuple) else one
            assert span[0] <= t <= span[1]
    assert all(span[0] <= step.t <= span[1] for step in flowgraph.ladder(lossy, span))


def test_the_ladder_says_what_went_and_what_was_decided() -> None:
    wire = Wire()
    flow = wire.open()
    wire.event("state", old="SYN_RECEIVED", new="ESTABLISHED", input="SYN_ACKED")
    wire.event("rtt", rtt=1)
    wire.out(ACK | PSH, 1, 1, 2000, gso=1000)
    wire.event("retransmit", why="rto", offset=0, length=1000, attempt=1)
    wire.out(ACK, 1, 1, 1000)
    wire.into(RST | ACK, 1, 1)
    assert [(step.way, step.text, step.bad) for step in flowgraph.ladder(flow)][1:] == [
        ("out", "SYN 0 ack 1 win 1000", False),
        ("in", "ack 1 win 4000", False),
        ("", "SYN_RECEIVED → ESTABLISHED, syn acked", False),
        ("out", "1:2001 (2000 = 2 × 1000) ack 1 win 8000", False),
        ("", "retransmit, RTO, seq 1:1001, attempt 1", False),
        ("out", "1:1001 (1000) ack 1 win 8000, retransmission", True),
        ("in", "RST 1 ack 1 win 4000", True),
    ]


# xplot

_NUMBER = r"-?\d+"
_TIME = r"\d+\.\d{6}"
_POINT = rf"{_TIME} {_NUMBER}"
COMMANDS = {
    "line": rf"{_POINT} {_POINT}", "dline": rf"{_POINT} {_POINT}",
    **dict.fromkeys(["darrow", "uarrow", "larrow", "rarrow", "dot", "x", "plus", "box", "diamond"], _POINT),
    **dict.fromkeys(["dtick", "utick", "ltick", "rtick", "htick", "vtick"], _POINT),
}  # fmt: skip
TEXTS = ("atext", "btext", "ltext", "rtext", "ctext")
COLOURS = {"white", "green", "red", "blue", "yellow", "purple", "orange", "magenta", "pink"}


def read_xplot(text: str) -> list[tuple[str, str, list[float]]]:
    """(colour, command, coordinates) of an xplot file, by the grammar of its README and demo.0, which it asserts."""
    lines = text.splitlines()
    assert re.fullmatch(r"timeval (unsigned|signed|double)", lines[0])
    unsigned = lines[0].endswith("unsigned")
    found, colour, at = [], "", 1
    while lines[at] != "go":
        word, _, rest = lines[at].partition(" ")
        at += 1
        if word in ("title", "xlabel", "ylabel"):
            assert not rest and lines[at]
            at += 1
        elif word in COLOURS:
            assert not rest
            colour = word
        elif word in TEXTS:
            assert re.fullmatch(_POINT, rest), lines[at - 1]
            assert lines[at]
            at += 1
        else:
            assert re.fullmatch(COMMANDS[word], rest), lines[at - 1]
        if rest:
            numbers = [float(part) for part in rest.split()]
            assert not unsigned or all(0 <= number < 1 << 32 for number in numbers[1::2])
            found.append((colour, word, numbers))
    assert at == len(lines) - 1
    return found


def xplot(graph: Sequence) -> str:
    out = io.StringIO()
    XplotWriter(out).graph(graph, "a2b_==>_b2a (time sequence graph)")
    return out.getvalue()


def test_an_xplot_file_has_segments_acks_windows_sacks_and_what_was_sent_again(lossy: Flow) -> None:
    graph = flowgraph.sequence(lossy, "out")
    drawn = read_xplot(xplot(graph))
    arrows = [(colour, numbers) for colour, word, numbers in drawn if word == "uarrow"]
    assert [numbers[1] for colour, numbers in arrows if colour == "white"] == [end for _, _, end in graph.segments]
    assert [numbers[1] for colour, numbers in arrows if colour == "red"] == [end for _, _, end in graph.again]
    assert [numbers[0] for colour, numbers in arrows if colour == "white"] == [
        pytest.approx(t / SECOND, abs=1e-6) for t, _, _ in graph.segments
    ]
    green = [numbers for colour, word, numbers in drawn if (colour, word) == ("green", "line")]
    assert green[-1][3] == graph.acks[-1][1]
    ticks = [numbers for colour, word, numbers in drawn if (colour, word) == ("green", "dtick")]
    assert len(ticks) == sum(one[1] == two[1] for one, two in zip(graph.acks, graph.acks[1:], strict=False))
    yellow = [numbers for colour, word, numbers in drawn if (colour, word) == ("yellow", "line")]
    assert yellow[-1][3] == graph.edges[-1][1]
    purple = [numbers for colour, word, numbers in drawn if (colour, word) == ("purple", "line")]
    assert [(numbers[1], numbers[3]) for numbers in purple] == [(left, right) for _, left, right in graph.sacks]


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """An X display of our own, without a screen; it goes on when a client ends, else the next would be refused."""
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "640x480x8", "-nolisten", "tcp", "-noreset"],
        pass_fds=[write], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read) as told:
        number = told.readline().strip()  # it is written when the server is ready
    assert number, "Xvfb did not start"
    yield f":{number}"
    server.terminate()
    server.wait(60)


def read_by_xplot(display: str, path: Path) -> str:
    """What xplot 0.90 says of a file: nothing, if it can read it. The file behind it, which is none, ends it, and only
    that is complained of if the first was good."""
    last = path.with_name("none.xpl")
    last.write_text("none none\n")
    done = subprocess.run(
        ["xplot.org", path, last], env={**os.environ, "DISPLAY": display}, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    return said.replace("in line number 1: unknown coord type\noffending line: none none \n", "")


@pytest.mark.skipif(not shutil.which("xplot.org") or not shutil.which("Xvfb"), reason="xplot or Xvfb is not installed")
def test_xplot_reads_what_we_write(lossy: Flow, display: str, tmp_path: Path) -> None:
    """Of a lossy transfer both ways, numbers beyond 32 bits, and nothing; and it does complain of what is wrong."""
    path = tmp_path / "x.xpl"
    wide = Sequence("out", segments=[(0, 1 << 32, (1 << 32) + 5)], marks=[(5, 7, "SYN")], zero=[(6, 8)])
    for graph in (*(flowgraph.sequence(lossy, way) for way in ("out", "in")), wide, Sequence("out")):
        path.write_text(xplot(graph))
        assert read_by_xplot(display, path) == ""
    path.write_text(xplot(wide).replace("darrow", "sparrow"))
    assert "input format error\noffending line: sparrow" in read_by_xplot(display, path)


def test_numbers_beyond_32_bits_make_the_axis_double(lossy: Flow) -> None:
    graph = Sequence("out", segments=[(0, 1 << 32, (1 << 32) + 5)])
    assert xplot(graph).startswith("timeval double\n")
    read_xplot(xplot(graph))
    assert xplot(flowgraph.sequence(lossy, "out")).startswith("timeval unsigned\n")


def test_a_connection_with_nothing_in_it_is_an_empty_graph() -> None:
    assert read_xplot(xplot(Sequence("out"))) == []


# pictures


def svg_text(data: bytes) -> str:
    root = ET.fromstring(data)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return " ".join("".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text"))


@pytest.mark.parametrize(
    ("kind", "words"),
    [("sequence", ["sent again", "SACK blocks", "acknowledged", "window's end", "FIN", "data of 10.0.0.1:43099"]),
     ("window", ["cwnd", "ssthresh", "in flight", "peer's window", "shaded: loss recovery"]),
     ("rtt", ["RTT", "SRTT", "RTO", "ms"]),
     ("ladder", ["10.0.0.2:80", "SYN 0", "fast", "more; choose a time with --from and --to"])],
)  # fmt: skip
def test_each_kind_of_picture_names_what_it_shows(lossy: Flow, kind: str, words: list[str]) -> None:
    text = svg_text(pictures.draw(lossy, [kind]))
    for word in words:
        assert word in text, word


def test_pictures_are_the_same_bytes_each_time_and_png_too(lossy: Flow) -> None:
    kinds = ["sequence", "window", "rtt"]
    assert pictures.draw(lossy, kinds) == pictures.draw(lossy, kinds)
    png = pictures.draw(lossy, kinds, form="png")
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and png == pictures.draw(lossy, kinds, form="png")


@pytest.mark.parametrize("kind", pictures.KINDS)
def test_next_to_nothing_can_be_drawn(kind: str) -> None:
    wire = Wire()
    flow = wire.into(SYN, 0)
    assert flow is not None
    svg_text(pictures.draw(flow, [kind]))
    wire.out(FIN | ACK, 5, 1)
    svg_text(pictures.draw(flow, [kind], span=(10 * SECOND, 11 * SECOND)))


def test_without_matplotlib_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, lossy: Flow) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(pictures.NoMatplotlib, match=re.escape("pip install 'level-ip[plots]'")):
        pictures.draw(lossy)



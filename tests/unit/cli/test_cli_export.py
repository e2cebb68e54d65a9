"""graph, qlog and metrics: from a stack as it runs, from files, and what they say when something is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_layer import FakeLayer
from click.testing import Result
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from levelip.cli.comments import Commenter
from levelip.cli.tracelines import JsonLines
from levelip.debug import metrics
from levelip.debug.metrics import registry
from levelip.debug.tap import PROCESSES
from levelip.frames.packet import Segment
from levelip.ipc.rundir import RunDirectory
from levelip.tracing.events import Event
from levelip.tracing.flow import FlowModel
from levelip.wire.tcp import ACK, FIN, SYN, pack_tcp
from tests.unit.replay.replay_bench import dump, transfer
from tests.unit.tracing.test_tracing_flow import Wire

A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
CONN = "10.0.0.2:80>10.0.0.1:4711"


def segment(outward: bool, flags: int, seq: int, ack: int, size: int = 0, *, number: int) -> Segment:
    src, dst, ports = (B, A, (80, 4711)) if outward else (A, B, (4711, 80))
    head = pack_tcp(*ports, seq=seq, ack=ack if flags & ACK else 0, flags=flags, window=1000)
    return Segment(number, [], False, 0, 1, src, dst, 6, 64, 0, head, bytes(size), 1, 0)


def play(tcp: FakeLayer) -> None:
    """A short connection, to whoever listens."""
    tcp.wait_for_listener()
    tcp.frames("ip-tcp", "in", [segment(False, SYN, 100, 0, number=1)], 1_000)
    tcp.frames("ip-tcp", "out", [segment(True, SYN | ACK, 200, 101, number=2)], 2_000)
    established = {"old": "SYN_RECEIVED", "new": "ESTABLISHED", "input": "SYN_ACKED"}
    tcp.events(Event(3_000, "state", conn=CONN, data=established))
    tcp.events(Event(3_000, "cwnd", conn=CONN, data={"old": None, "new": 14_600, "ssthresh": 1 << 31, "why": "start"}))
    tcp.frames("ip-tcp", "out", [segment(True, ACK, 201, 101, 500, number=3)], 4_000)
    tcp.frames("ip-tcp", "out", [segment(True, ACK, 201, 101, 500, number=4)], 5_000)
    tcp.frames("ip-tcp", "in", [segment(False, FIN | ACK, 101, 701, number=5)], 6_000)
    tcp.events(Event(7_000, "state", data={"old": "LAST_ACK", "new": "CLOSED", "input": "FIN_ACKED"}, conn=CONN))


PLAYED = 8
"""Records that `play` makes."""


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ctrl-C, pressed once the command has taken so many records: called in a thread beside it."""
    taken = threading.Semaphore(0)
    add = FlowModel.add

    def noted(model: FlowModel, record: list[Any]) -> Any:
        try:
            return add(model, record)
        finally:
            taken.release()

    def press(after: int) -> None:
        for _ in range(after):
            taken.acquire()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(FlowModel, "add", noted)
    return press


@pytest.fixture
def live(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> Callable[..., Result]:
    """Calls `lvlip` while tcp tells of a connection."""
    tcp = layer("tcp", ss={"sockets": []})

    def call(*args: str) -> Result:
        tcp.wait_for_nobody()
        thread = threading.Thread(target=play, args=(tcp,), daemon=True)
        thread.start()
        result = lvlip(*args)
        thread.join()
        return result

    return call


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Of two connections, 80 with more data than 81."""
    wire = Wire()
    records = []
    wire.model.add = records.append  # type: ignore[method-assign, assignment, return-value]
    wire.into(SYN, 0)
    wire.out(SYN | ACK, 0, 1)
    wire.out(ACK, 1, 1, 500)
    path = tmp_path / "x.pcapng"
    with path.open("wb") as stream:
        commenter = Commenter(stream, ["ip-tcp"], ethernet=False)
        commenter.take(records, captured=True)
        for record in records[:2]:
            other = list(record)
            other[11] = record[11].replace(b"\0\x50", b"\0\x51")
            commenter.take([other], captured=True)
        commenter.finish()
    return path


def test_a_connection_is_drawn_while_it_lasts_and_until_it_ends(live: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / "x.svg"
    result = live("graph", CONN, "-o", str(path), "--kind", "sequence", "--kind", "window", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"file": str(path), "connection": CONN, "segments": 5, "left_out": 0}
    text = path.read_text(encoding="utf-8")
    assert "sent again" in text and "cwnd" in text and "CLOSED" in text


def test_a_ladder_and_an_xplot_file_of_a_running_stack(live: Callable[..., Result], tmp_path: Path) -> None:
    assert live("graph", "80", "-o", str(tmp_path / "x.png"), "--kind", "ladder").exit_code == 0
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
    result = live("graph", ":4711", "-o", "-", "--format", "xplot")
    assert result.stdout.startswith("timeval unsigned\ntitle\n10.0.0.2:80_==>_10.0.0.1:4711 (time sequence graph)\n")


def test_windows_are_scaled_by_what_tcp_says_of_a_connection_that_was_there_before(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], interrupt: Callable[[int], None]
) -> None:
    info = {"options": 4, "snd_wscale": 2, "rcv_wscale": 3}
    row = {"local": "10.0.0.2", "local_port": 80, "remote": "10.0.0.1", "remote_port": 4711, "state": "ESTABLISHED",
           "info": info}  # fmt: skip
    tcp = layer("tcp", ss={"sockets": [row]})

    def tell() -> None:
        tcp.wait_for_listener()
        tcp.frames("ip-tcp", "out", [segment(True, ACK, 201, 101, 5, number=1)])
        tcp.frames("ip-tcp", "in", [segment(False, ACK, 101, 206, number=2)])
        interrupt(2)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    result = lvlip("qlog", "80", "-o", "-")
    thread.join()
    events = [json.loads(text) for text in result.stdout_bytes.split(b"\x1e")[1:]]
    windows = [event["data"]["header"]["window"] for event in events if "packet" in event.get("name", "")]
    assert windows == [8000, 4000]


def test_qlog_is_json_or_a_sequence_by_the_files_name(live: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / "x.qlog"
    assert live("qlog", CONN, "-o", str(path)).exit_code == 0
    (trace,) = json.loads(path.read_bytes())["traces"]
    names = [event["name"] for event in trace["events"]]
    assert names.count("tcp:packet_sent") == 3 and names[-1] == "tcp:connection_closed"
    assert trace["vantage_point"]["type"] == "server"
    result = live("qlog", CONN, "-o", str(tmp_path / "x.sqlog"), "--json")
    assert json.loads(result.stdout)["events"] == len(names)
    assert (tmp_path / "x.sqlog").read_bytes()[:1] == b"\x1e"


def test_what_has_happened_already(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], tmp_path: Path
) -> None:
    """--flight: from what the flight recorders hold of it, whether it goes on or has ended; nothing is left behind."""
    kept = tmp_path / "kept.rec"
    dump(transfer(None, size=50_000, flight=32 << 20)[0], kept)
    asked: list[Path] = []

    def write(args: dict[str, Any]) -> dict[str, Any]:
        asked.append(Path(args["file"]))
        shutil.copy(kept, asked[-1])
        return {}

    status = {"flight": {"on": True}, "writing": {"busy": False, "error": "", "path": "", "bytes": 1}}
    layer("tcp", **{"record.status": status, "record.dump": write})
    out = tmp_path / "x.xpl"
    result = lvlip("graph", "80", "--flight", "-o", str(out))
    assert result.exit_code == 0 and ":80: " in result.stderr, result.output
    assert out.read_text().startswith("timeval")
    assert not asked[0].parent.exists()
    result = lvlip("qlog", "99", "--flight", "-o", str(tmp_path / "x.qlog"))
    assert result.exit_code == 1 and "the flight recorders have no connection '99'; there is" in result.stderr
    assert lvlip("graph", "80", "--flight", "--seconds", "1", "-o", str(out)).exit_code == 2


def test_what_happened_already_while_a_layer_is_silent(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], run: RunDirectory, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The story of the layers that answer, which says what it lacks, and an exit status that does."""
    monkeypatch.setattr("levelip.cli.common.ANSWER_S", 60.0)  # of tcp; of ip it is known at once
    kept = tmp_path / "kept.rec"
    dump(transfer(None, size=50_000, flight=32 << 20)[0], kept)

    def write(args: dict[str, Any]) -> dict[str, Any]:
        shutil.copy(kept, args["file"])
        return {}

    status = {"flight": {"on": True}, "writing": {"busy": False, "error": "", "path": "", "bytes": 1}}
    layer("tcp", **{"record.status": status, "record.dump": write})
    lock = run.lock("ip")
    result = lvlip("why", "80", "--flight")
    assert result.exit_code == 1 and "lvlip: ip did not answer" in result.stderr
    assert "We opened " in result.stdout and "left out: what ip did; it did not answer" in result.stdout
    assert "left out: what ip did" in lvlip("graph", "80", "--flight", "-o", str(tmp_path / "x.xpl")).stderr
    os.close(lock)


def test_what_was_not_seen_is_said_with_what_was(
    live: Callable[..., Result], interrupt: Callable[[int], None], tmp_path: Path
) -> None:
    pressing = threading.Thread(target=interrupt, args=(PLAYED,), daemon=True)
    pressing.start()
    result = live("graph", "10.0.0.9", "-o", str(tmp_path / "x.xpl"))
    pressing.join()
    assert result.exit_code == 1
    assert f"nothing of a connection '10.0.0.9' was seen while it was watched; seen: {CONN}" in result.stderr
    assert "what happened before, as far as it is kept: lvlip graph 10.0.0.9 --flight" in result.stderr


def test_of_a_file_with_several_connections_the_one_with_most_data_is_taken(
    lvlip: Callable[..., Result], capture: Path, tmp_path: Path
) -> None:
    result = lvlip("graph", str(capture), "-o", str(tmp_path / "x.xpl"))
    assert result.exit_code == 0, result.output
    assert "2 connections; this is 10.0.0.2:80>10.0.0.1:4711, the one with most data" in result.stderr
    result = lvlip("qlog", str(capture), "--conn", "81", "-o", "-")
    assert b'"title":"10.0.0.2:81>10.0.0.1:4711"' in result.stdout_bytes
    result = lvlip("graph", str(capture), "--conn", "82", "-o", str(tmp_path / "x.xpl"))
    assert "no connection '82'; there is 10.0.0.2:81>10.0.0.1:4711, 10.0.0.2:80>10.0.0.1:4711" in result.stderr


def test_a_time_in_which_there_was_nothing_is_not_drawn(
    lvlip: Callable[..., Result], capture: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.xpl"
    words = ["graph", str(capture), "--conn", "80", "-o", str(out)]
    result = lvlip(*words, "--from", "100")
    assert result.exit_code == 1 and not out.exists()
    assert "10.0.0.2:80>10.0.0.1:4711 has no segment then: they are from 0.000000 s to " in result.stderr
    assert lvlip(*words, "--from", "5", "--to", "1").exit_code == 2
    whole = json.loads(lvlip(*words, "--json").stdout)["segments"]
    assert 0 < json.loads(lvlip(*words, "--to", "0.0000001", "--json").stdout)["segments"] < whole


def test_a_trace_is_drawn_too(lvlip: Callable[..., Result], tmp_path: Path) -> None:
    lines, wire = JsonLines(), Wire()
    records: list[Any] = []
    wire.model.add = records.append  # type: ignore[method-assign, assignment, return-value]
    wire.into(SYN, 0)
    wire.event("cwnd", old=None, new=14_600, why="start")
    path = tmp_path / "t.jsonl"
    for record in records:  # what a real record has more
        if record[1] == "f":
            record[10].update(iface=0, ttl=64, tos=0, ingress=0)
    path.write_text("".join(lines.line(record) + "\n" for record in records), encoding="utf-8")
    result = lvlip("graph", str(path), "-o", str(tmp_path / "x.svg"), "--kind", "window")
    assert result.exit_code == 0, result.output
    assert "cwnd" in (tmp_path / "x.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [(["graph", "NOTHING.pcapng", "-o", "x.svg"], 1, "NOTHING.pcapng: No such file"),
     (["graph", "80", "-o", "x.gif"], 2, "name it .svg, .png or .xpl, or say --format"),
     (["graph", "80", "-o", "x.svg", "--kind", "ladder", "--kind", "rtt"], 2, "a ladder is drawn alone"),
     (["graph", "80", "-o", "x.xpl", "--kind", "rtt"], 2, "holds the sequence graph alone"),
     (["graph", "80", "-o", "x.xpl"], 1, "is not running; start it with"),
     (["qlog", "80", "--conn", "81", "-o", "-"], 2, "--conn chooses from a file"),
     (["metrics", "--once"], 1, "is not running; start it with")],
)  # fmt: skip
def test_what_is_wrong_is_said(lvlip: Callable[..., Result], args: list[str], code: int, said: str) -> None:
    result = lvlip(*args)
    if "OSError" in repr(result.exception) or isinstance(result.exception, FileNotFoundError):
        assert "No such file" in str(result.exception) and code == 1  # main's own text is lvlip's
        return
    assert (result.exit_code, said in result.stderr) == (code, True), result.output


@pytest.mark.parametrize(("data", "said"), [(b"", "the file is empty"), (b"hello world", "it starts with 'hell'")])
def test_a_file_of_something_else_is_refused(
    lvlip: Callable[..., Result], tmp_path: Path, data: bytes, said: str
) -> None:
    path = tmp_path / "x.pcapng"
    path.write_bytes(data)
    result = lvlip("graph", str(path), "-o", str(tmp_path / "x.xpl"))
    assert result.exit_code == 1 and said in result.stderr and "captures (pcapng, pcap)" in result.stderr


def test_a_file_without_tcp_says_so(lvlip: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    head = bytes.fromhex("d4c3b2a1020004000000000000000000ffff000065000000")
    path.write_bytes(head + bytes(8) + b"\4\0\0\0" * 2 + b"abcd")
    result = lvlip("graph", str(path), "-o", "x.xpl")
    assert "no TCP connection among 1 packets" in result.stderr


# metrics

COUNTERS = {"segments_in": 7, "in.bytes": 9, "drop.tcp_rst_outside": 2, "drop.garbage": 1}
STATES = {"ESTABLISHED": 3, "LISTEN": 1, "TIME_WAIT": 40}
TOTALS = {"states": STATES, "half_open": 2, "untaken": 4, "orphans": 5, "waiting": {"ip": 6, "gateway": 0}}


@pytest.fixture
def stack(layer: Callable[..., FakeLayer]) -> dict[str, Any]:
    """tcp and gateway; the status that tcp tells, to be changed."""
    status: dict[str, Any] = {
        "epoch": 7, "uptime_ns": 61_000_000_000, "ready": False, "held": False,
        "neighbours": {"ip": {"up": False, "epoch": 0, "waiting": 16},
                       "gateway": {"up": True, "epoch": 5, "waiting": 0}},
    }  # fmt: skip
    layer("tcp", status=lambda _: dict(status), counters={"counters": COUNTERS}, totals=TOTALS)
    layer("gateway", counters={"counters": {"calls": 3}}, clients={"clients": [{"sockets": 2}, {"sockets": 5}]})
    return status


def samples(text: str) -> dict[tuple[str, ...], float]:
    """What Prometheus reads: (name, values of the labels by their names' order) → value. Its parser refuses what is
    malformed."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        assert family.type in ("counter", "gauge"), family.name
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
            key = (sample.name, *(value for _, value in sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def test_metrics_are_what_the_processes_say(stack: dict[str, Any], lvlip: Callable[..., Result]) -> None:
    result = lvlip("metrics", "--once")
    assert result.exit_code == 0, result.output
    found = samples(result.stdout)
    for key, value in {
        ("levelip_process_up", "tcp"): 1, ("levelip_process_up", "link"): 0, ("levelip_process_ready", "tcp"): 0,
        ("levelip_stack_held",): 0, ("levelip_neighbour_up", "ip", "tcp"): 0,
        ("levelip_queue_frames", "ip", "tcp", "pipe"): 16, ("levelip_queue_frames", "ip", "tcp", "core"): 6,
        ("levelip_drops_total", "tcp", "tcp_rst_outside", "notice"): 2,
        ("levelip_tcp_segments_in_total",): 7, ("levelip_tcp_in_bytes_total",): 9,
        ("levelip_gateway_calls_total",): 3, ("levelip_tcp_connections", "ESTABLISHED"): 3,
        ("levelip_tcp_connections", "TIME_WAIT"): 40, ("levelip_tcp_half_open",): 2, ("levelip_tcp_accept_queue",): 4,
        ("levelip_tcp_orphans",): 5, ("levelip_gateway_clients",): 2, ("levelip_gateway_sockets",): 7,
        ("levelip_process_restarts_total", "tcp"): 0,
    }.items():  # fmt: skip
        assert found[key] == value, key
    assert ("levelip_process_ready", "link") not in found


def test_metrics_as_json_lines(stack: dict[str, Any], lvlip: Callable[..., Result]) -> None:
    lines = [json.loads(line) for line in lvlip("metrics", "--once", "--json").stdout.splitlines()]
    assert {"metric": "levelip_tcp_half_open", "labels": {}, "value": 2} in lines


def test_a_restart_is_counted_and_several_scrapers_cost_as_much_as_one(
    stack: dict[str, Any], run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "KEEP_S", 1000.0)
    made = registry(run)
    key = ("levelip_process_restarts_total", "tcp")
    assert samples(generate_latest(made).decode())[key] == 0
    stack.update(epoch=8, held=True)
    assert samples(generate_latest(made).decode())[key] == 0  # the answer is kept for a while
    monkeypatch.setattr(metrics, "KEEP_S", 0.0)
    found = samples(generate_latest(made).decode())
    assert (found[key], found["levelip_stack_held",]) == (1, 1)


def test_a_process_that_does_not_answer_is_down_and_nobody_waits_long(
    layer: Callable[..., FakeLayer], run: RunDirectory, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    monkeypatch.setattr(metrics, "SCRAPE_S", 0.05)
    silent = threading.Event()
    layer("tcp", counters=lambda _: {"counters": {}} if silent.wait(100) else {})
    found = samples(generate_latest(registry(run)).decode())
    silent.set()
    assert found["levelip_scrape_duration_seconds",] < 50
    assert ("levelip_tcp_segments_in_total",) not in found


def test_processes_are_asked_at_once(
    layer: Callable[..., FakeLayer], run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are silent take a scraper's patience once, not one after the other: each of these answers as soon as
    the others have been asked, too."""
    monkeypatch.setattr(metrics, "SCRAPE_S", 60.0)
    asked = threading.Barrier(len(PROCESSES))

    def status(_args: dict[str, Any]) -> dict[str, Any]:
        asked.wait(60)
        return {"epoch": 7, "uptime_ns": 1, "ready": True, "held": False, "neighbours": {}}

    for name in PROCESSES:
        layer(name, status=status, counters={"counters": {}})
    found = samples(generate_latest(registry(run)).decode())
    assert [found["levelip_process_up", name] for name in PROCESSES] == [1] * len(PROCESSES)


def test_a_port_that_is_taken_is_said(stack: dict[str, Any], lvlip: Callable[..., Result]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = lvlip("metrics", "--port", str(port))
    assert result.exit_code == 1 and f"127.0.0.1:{port}: Address already in use; choose another" in result.stderr

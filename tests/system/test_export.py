"""A lossy transfer through a real stack, seen by every exporter at once: graph, qlog, capture, trace and metrics agree
with each other, with tcp's own counters, and with tshark."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from levelip.tracing.flow import Flow
from levelip.tracing.flowfile import open_flows
from tests.system import streams
from tests.system.harness import Stack
from tests.system.listening import Listening
from tests.system.namespace import Namespace
from tests.system.streams import KernelServer, digest, stream

pytestmark = pytest.mark.timeout(400)
LIMIT_S = 60.0
SIZE = 1_500_000
NEEDS_TSHARK = pytest.mark.skipif(not shutil.which("tshark"), reason="not to be had here: the program tshark")


@dataclass
class Exports:
    """What one transfer left."""

    directory: Path
    port: int
    counters: dict[str, int]
    metrics: dict[str, float]
    rows: list[dict[str, Any]]  # JSON of the commands

    def flow(self, name: str) -> Flow:
        (flow,) = open_flows(self.directory / name).model.find(str(self.port))
        return flow


def read_metrics(text: str) -> dict[str, float]:
    """Sums of the samples by name."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        text: str = answer.read().decode()
    return text


@pytest.fixture(scope="module")
def exports(module_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    stack = module_stack
    assert stack.namespace is not None
    path = tmp_path_factory.mktemp("exports")
    stack.lvlip("fault", "set", "link", "loss=2%", "delay=5ms")
    served = stack.popen(["-m", "levelip.cli", "metrics", "--port", "0", "--json"], stdout=subprocess.PIPE, text=True)
    assert served.stdout is not None
    url = json.loads(served.stdout.readline())["url"]
    with KernelServer(stack.namespace, stack.host, streams.answers_digest) as server:
        where = f"{stack.host}:{server.port}"
        kinds = [word for kind in ("sequence", "window", "rtt") for word in ("--kind", kind)]
        ending = [
            Listening(stack, "graph", where, "-o", str(path / "live.svg"), *kinds, "--json"),
            Listening(stack, "qlog", where, "-o", str(path / "live.qlog"), "--json"),
        ]
        watching = [
            Listening(stack, "capture", "-w", str(path / "all.pcapng"), "--json"),
            Listening(stack, "capture", "-w", str(path / "one.pcapng"), "--at", "ip-tcp", "--json"),
        ]
        trace = Listening(stack, "trace", "--json", "--layer", "tcp")
        before = stack.counters("tcp")
        got = stack.submit(streams.app_upload, stack.host, server.port, 1, SIZE)
        assert got.result(LIMIT_S) == digest(stream(1, SIZE))
        rows = [json.loads(one.finish()) for one in ending]
        rows += [json.loads(one.stop()) for one in watching]
        (path / "trace.jsonl").write_text(trace.stop(), encoding="utf-8")
    after = stack.counters("tcp")
    metrics = read_metrics(get(url))
    served.send_signal(2)
    assert served.wait(60) == 130
    stack.lvlip("fault", "clear")
    counters = {name: value - before.get(name, 0) for name, value in after.items()}
    return Exports(path, server.port, counters, metrics, rows)


@pytest.fixture(scope="module")
def module_stack() -> Iterator[Stack]:
    from tests.system.namespace import lack

    if missing := lack():
        pytest.skip(f"not to be had here: {missing}")
    with Namespace() as namespace, Stack(namespace) as stack:
        yield stack


def test_the_trace_has_every_byte_and_every_retransmission(exports: Exports) -> None:
    flow = exports.flow("trace.jsonl")
    assert flow.state in ("TIME_WAIT", "CLOSED")
    assert flow.out.nxt == SIZE + 2
    again = [row for row in flow.segments.rows if row.way == "out" and row.again]
    assert len(again) == exports.counters["retransmissions"] > 0
    assert flow.out.bytes == exports.counters["bytes_out"]
    assert flow.windows.rows and [row for row in flow.rtts.rows if row.why == "rtt"]


@pytest.mark.parametrize("name", ["all.pcapng", "one.pcapng"])
def test_captures_give_the_same_segments_as_the_trace(exports: Exports, name: str) -> None:
    """One of all seams, where each packet stands three times, and one of ip-tcp alone."""
    told, read = exports.flow("trace.jsonl"), exports.flow(name)
    for way in ("out", "in"):
        mine = [(row.seq, row.len, row.ack) for row in read.segments.rows if row.way == way]
        assert mine == [(row.seq, row.len, row.ack) for row in told.segments.rows if row.way == way]
    assert read.windows.rows and [row.new for row in read.states.rows if row.input != "inferred"]


def test_the_picture_and_the_qlog_are_of_the_same_transfer(exports: Exports) -> None:
    graph, log = exports.rows[:2]
    assert graph["connection"] == log["connection"] and graph["left_out"] == log["left_out"] == 0
    text = (exports.directory / "live.svg").read_text(encoding="utf-8")
    for word in ("sent again", "SACK blocks", "cwnd", "SRTT"):
        assert word in text
    (trace,) = json.loads((exports.directory / "live.qlog").read_bytes())["traces"]
    sent = [event["data"] for event in trace["events"] if event["name"] == "tcp:packet_sent"]
    assert sum(one.get("retransmitted", 0) > 0 for one in sent) == exports.counters["retransmissions"]
    assert trace["vantage_point"]["type"] == "client"


def test_metrics_are_tcps_own_counters(exports: Exports) -> None:
    metrics = exports.metrics
    assert metrics["levelip_process_up"] == 5
    assert metrics["levelip_tcp_retransmissions_total"] >= exports.counters["retransmissions"]
    assert metrics["levelip_tcp_connections_established_total"] >= 1
    assert metrics["levelip_tcp_connections"] >= 1  # the one in TIME-WAIT
    assert 0 < metrics["levelip_scrape_duration_seconds"] < 50


def tshark(*argv: str) -> str:
    done = subprocess.run(["tshark", *argv], capture_output=True, timeout=LIMIT_S, check=False)
    errors = [line for line in done.stderr.decode().splitlines() if "Running as user" not in line]
    assert done.returncode == 0 and not errors, errors
    return done.stdout.decode()


@NEEDS_TSHARK
def test_tshark_reads_all_seams_without_a_complaint(exports: Exports) -> None:
    """No malformed packet, wrong checksum or length, in any dissector; what it warns of is what the network did."""
    file = str(exports.directory / "all.pcapng")
    checks = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]
    fields = ["-T", "fields", "-E", "occurrence=a", "-e", "_ws.expert.group", "-e", "_ws.expert.message"]
    groups = tshark("-r", file, *checks, "-Y", "_ws.expert", *fields)
    for line in groups.splitlines():
        for group, name in zip(*(part.split(",") for part in line.split("\t", 1)), strict=False):
            assert int(group) & 0xFF000000 not in (0x01000000, 0x07000000), (name, line)  # checksum, malformed
    assert tshark("-r", file, *checks, "-Y", "_ws.malformed || _ws.short || tcp.checksum.status == 0") == ""
    names = set(tshark("-r", file, "-T", "fields", "-e", "frame.interface_name").split())
    assert names == {"link", "link-ip", "ip-tcp"}
    assert "cwnd" in tshark("-r", file, "-Y", "frame.comment", "-T", "fields", "-e", "frame.comment")


@NEEDS_TSHARK
def test_tshark_finds_the_retransmissions_that_we_find(exports: Exports) -> None:
    """Those that come within 3 ms of the ACK that asked for them it calls out of order."""
    flow = exports.flow("one.pcapng")
    names = ("retransmission", "fast_retransmission", "spurious_retransmission", "out_of_order")
    chosen = " || ".join(f"tcp.analysis.{name}" for name in names)
    file = str(exports.directory / "one.pcapng")
    asked = f"tcp.dstport == {exports.port} && ({chosen})"
    found = tshark("-r", file, "-Y", asked, "-T", "fields", "-e", "frame.number")
    assert found.split() == [row.id for row in flow.segments.rows if row.way == "out" and row.again]


@NEEDS_TSHARK
def test_a_capture_that_another_tool_wrote_is_read(exports: Exports, tmp_path: Path) -> None:
    """tshark writes it anew as pcap, without our interfaces and comments."""
    other = tmp_path / "x.pcap"
    tshark("-r", str(exports.directory / "one.pcapng"), "-F", "nsecpcap", "-w", str(other))
    (flow,) = open_flows(other).model.find(str(exports.port))
    same = exports.flow("one.pcapng")
    assert [row[3:10] for row in flow.segments.rows] == [row[3:10] for row in same.segments.rows]
    assert flow.states.rows[0].new == "SYN_SENT" and {row.input for row in flow.states.rows} == {"inferred"}


@NEEDS_TSHARK
def test_tshark_reads_a_capture_from_a_pipe(module_stack: Stack) -> None:
    """`lvlip capture -w - | tshark -i -`."""
    capture = module_stack.popen(
        ["-m", "levelip.cli", "capture", "-w", "-", "--at", "link", "--proto", "icmp", "--count", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert capture.stderr is not None and b"capturing" in capture.stderr.readline()
    reader = subprocess.Popen(
        ["tshark", "-l", "-i", "-", "-T", "fields", "-e", "frame.interface_name", "-e", "icmp.type"],
        stdin=capture.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    module_stack.ask("ip", "ping", dst=module_stack.host)
    assert capture.wait(LIMIT_S) == 0
    output, _ = reader.communicate(timeout=LIMIT_S)
    assert {tuple(line.split()) for line in output.splitlines()} >= {("link", "8"), ("link", "0")}


SHOWING = (
    "status", "list", "ss -a", "stat", "stat --drops", "neigh", "route", "route cache", "address", "group", "get tcp",
    "config", "fault show", "explain", "ping -c 1 10.0.0.1", "metrics --once",
)  # fmt: skip


def test_every_command_that_shows_something_writes_one_json_value_a_line(module_stack: Stack, exports: Exports) -> None:
    empty = set()
    for command in SHOWING:
        lines = module_stack.lvlip(*command.split(), "--json").stdout.splitlines()
        for line in lines:
            assert isinstance(json.loads(line), dict), (command, line)
        if not lines:
            empty.add(command)
    assert empty <= {"fault show", "route cache", "group"}, empty

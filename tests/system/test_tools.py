"""The commands for debugging with a stack that carries traffic: trace, capture, ss, stat, fault, neigh, route, set."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.system import streams
from tests.system.harness import Stack
from tests.system.listening import Listening
from tests.system.namespace import Namespace, end
from tests.system.streams import KernelServer, digest, stream

pytestmark = pytest.mark.timeout(400)
LIMIT_S = 60.0
SEAMS = ("link", "link-ip", "ip-tcp", "tcp-gateway", "gateway-client")  # where TCP passes
PACKET_SEAMS = SEAMS[:3]


def rows(text: str) -> list[dict[str, Any]]:
    """The objects of a command's --json."""
    return [json.loads(line) for line in text.splitlines()]


def transfer(stack: Stack, host: Namespace, size: int = 100_000) -> int:
    """Our client downloads from the kernel; the port of the server."""
    with KernelServer(host, stack.host, streams.sends(1, size)) as server:
        got = stack.submit(streams.app_download, stack.host, server.port)
        assert got.result(LIMIT_S) == digest(stream(1, size))
    stack.wait_ended(server.port)
    return int(server.port)


def covered(segments: Iterable[tuple[int, int]]) -> int:
    """How many bytes of a stream, without a hole from its begin (1) on, segments hold: (sequence number, length). What
    the kernel sends again on a busy machine is no more of it."""
    end = 1
    for seq, length in sorted(one for one in segments if one[1]):
        assert seq <= end, f"nothing has {end} to {seq}"
        end = max(end, seq + length)
    return end - 1


def test_trace_shows_a_handshake_at_every_seam(shared_stack: Stack, host: Namespace) -> None:
    """SYN, SYN-ACK and ACK appear at all three packet seams in the order of their way, each caused by the one before,
    and tcp tells of its states."""
    trace = Listening(shared_stack, "trace", "--json")
    port = transfer(shared_stack, host)
    found = rows(trace.stop())
    packets = [row for row in found if "seam" in row and f".{port}" in row["text"]]
    for flags, order in (("[S]", PACKET_SEAMS[::-1]), ("[S.]", PACKET_SEAMS)):
        seen = sorted((row for row in packets if f"Flags {flags}," in row["text"]), key=lambda row: row["mono_ns"])
        told = "\n".join(f"{row['mono_ns']} {row['process']} {row['seam']} {row['text']}" for row in seen)
        ways = [[row] for row in seen if row["seam"] == order[0]]  # several if it was sent again, on a busy machine
        for way in ways:
            for row in seen:
                if row["causes"] == [way[-1]["frame"]]:
                    way.append(row)
        assert ways and all([row["seam"] for row in way] == list(order) for way in ways), told
        assert sum(map(len, ways)) == len(seen), told
    seams = {row["seam"] for row in found if "seam" in row}
    assert seams == set(SEAMS)
    states = [row["text"] for row in found if row.get("event") == "state" and f":{port}" in row["conn"]]
    for step in ("SYN_SENT", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK"):
        assert any(step in text for text in states), f"{step} in {states}"


def test_trace_filters_run_in_the_stack(shared_stack: Stack, host: Namespace) -> None:
    """--port, --host, --proto, --flags, --seam, --layer leave only what was asked for."""
    with KernelServer(host, shared_stack.host, streams.sends(1, 10_000)) as server:
        wanted = str(server.port)
        traces = {
            "port": Listening(shared_stack, "trace", "--json", "--no-events", "--port", wanted),
            "flags": Listening(shared_stack, "trace", "--json", "--no-events", "--port", wanted, "--flags", "S"),
            "seam": Listening(shared_stack, "trace", "--json", "--no-events", "--seam", "ip-tcp", "--port", wanted),
            "layer": Listening(shared_stack, "trace", "--json", "--no-events", "--layer", "ip"),
            "icmp": Listening(shared_stack, "trace", "--json", "--no-events", "--proto", "icmp"),
            "nobody": Listening(shared_stack, "trace", "--json", "--no-events", "--host", "10.0.0.99"),
        }
        got = shared_stack.submit(streams.app_download, shared_stack.host, server.port)
        assert got.result(LIMIT_S) == digest(stream(1, 10_000))
        shared_stack.ask("ip", "ping", dst=shared_stack.host)
    transfer(shared_stack, host, 10_000)  # on another port
    found = {name: rows(trace.stop()) for name, trace in traces.items()}
    for name in ("port", "flags", "seam"):
        packets = [row for row in found[name] if row["seam"] in PACKET_SEAMS]
        assert packets, name
        assert all(f".{wanted}" in row["text"] for row in packets), name
    assert all("Flags [S" in row["text"] for row in found["flags"])
    assert {row["seam"] for row in found["seam"]} == {"ip-tcp"}
    assert {row["process"] for row in found["layer"]} == {"ip"}
    assert {row["seam"] for row in found["layer"]} == {"link-ip", "ip-tcp"}
    assert len(found["icmp"]) == 4 and all("ICMP echo" in row["text"] for row in found["icmp"])
    assert found["nobody"] == []


def test_trace_as_text(shared_stack: Stack, host: Namespace) -> None:
    """Lines in tcpdump's habit, with the reason of each drop; --count ends it."""
    trace = Listening(shared_stack, "trace", "--count", "12")
    with host.socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect((shared_stack.address, 9))
    transfer(shared_stack, host, 10_000)
    lines = trace.finish().splitlines()
    assert len(lines) == 12
    text = "\n".join(lines)
    assert "Flags [S]" in text
    assert "Flags [R.]" in text
    assert "RFC 9293 3.10.7.1" in text, "the reason of the reset"


def test_trace_loses_nothing_of_a_moderate_load(shared_stack: Stack, host: Namespace) -> None:
    """Bytes of a transfer that the trace shows add up to the payload, at each seam."""
    size = 2_000_000
    trace = Listening(shared_stack, "trace", "--json", "--no-events", "--seam", "ip-tcp")
    port = transfer(shared_stack, host, size)
    found = [row for row in rows(trace.stop()) if "seam" in row and row["way"] == "up" and f".{port} >" in row["text"]]
    heads = [(bytes.fromhex(row["head"]), row["length"]) for row in found]
    numbers = [(int.from_bytes(head[4:8], "big"), length - (head[12] >> 4) * 4) for head, length in heads]
    begin = numbers[0][0]  # the SYN's
    assert covered(((seq - begin) % (1 << 32), length) for seq, length in numbers) == size


@pytest.mark.skipif(not shutil.which("tshark"), reason="not to be had here: the program tshark")
def test_capture_is_read_by_tshark(shared_stack: Stack, host: Namespace, tmp_path: Path) -> None:
    """One interface a seam; every checksum right, also where the device was to finish it; events as comments; the
    stream that tshark follows is the one that was sent."""
    file = tmp_path / "all.pcapng"
    capture = Listening(shared_stack, "capture", "-w", str(file))
    port = transfer(shared_stack, host, 200_000)
    capture.stop()
    fields = ["frame.interface_name", "ip.checksum.status", "tcp.checksum.status", "tcp.flags.str", "tcp.len",
              "tcp.seq_raw", "tcp.srcport"]  # fmt: skip
    options = ["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"]
    command = ["tshark", "-r", str(file), *options, "-Y", f"tcp.port=={port}", "-T", "fields"]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    packets = [line.split("\t") for line in done.stdout.splitlines()]
    assert {packet[0] for packet in packets} == set(PACKET_SEAMS)
    assert {packet[1] for packet in packets} == {"1"}, "IP checksums that are not good"
    assert {packet[2] for packet in packets} == {"1"}, "TCP checksums that are not good"
    for seam in PACKET_SEAMS:
        data = [(int(packet[5]), int(packet[4])) for packet in packets if packet[0] == seam and packet[6] == str(port)]
        begin = data[0][0]  # the SYN's
        assert covered(((seq - begin) % (1 << 32), length) for seq, length in data) == 200_000
    comments = subprocess.run(
        ["tshark", "-r", str(file), "-Y", "frame.comment", "-T", "fields", "-e", "frame.comment"],
        capture_output=True, text=True, timeout=LIMIT_S, check=True,
    ).stdout  # fmt: skip
    assert "ESTABLISHED" in comments


def test_capture_at_one_seam_is_a_file_for_others(shared_stack: Stack, host: Namespace, tmp_path: Path) -> None:
    """--at, --count and --port; the file is pcapng with an Ethernet interface."""
    file = tmp_path / "link.pcapng"
    capture = Listening(shared_stack, "capture", "-w", str(file), "--at", "link", "--count", "5", "--json")
    transfer(shared_stack, host, 100_000)
    (facts,) = rows(capture.finish())
    assert facts["packets"] == 5
    data = file.read_bytes()
    assert data[:4] == bytes.fromhex("0a0d0d0a")  # section header block (pcapng draft, 4.1)
    assert data.count(bytes.fromhex("01000000")) >= 1


def test_ss_shows_connections_and_listeners(shared_stack: Stack, host: Namespace) -> None:
    """ss: who is connected to whom, in which state, with TCP's figures."""
    done = threading.Event()

    def hold(sock: Any) -> None:
        sock.sendall(bytes(50_000))
        done.wait(LIMIT_S)

    with KernelServer(host, shared_stack.host, hold) as server:
        got = shared_stack.submit(streams.app_download, shared_stack.host, server.port)
        shared_stack.wait_until(
            lambda: any(row["remote_port"] == server.port and row["info"].get("bytes_received") == 50_000
                        for row in shared_stack.ask("tcp", "ss")["sockets"]), "the bytes have come")  # fmt: skip
        (row,) = rows(shared_stack.lvlip("ss", "-ti", "--json", "--port", str(server.port)).stdout)
        assert (row["state"], row["remote"], row["remote_port"]) == ("ESTABLISHED", shared_stack.host, server.port)
        text = shared_stack.lvlip("ss", "-ti", "--port", str(server.port)).stdout
        assert "ESTAB" in text and "bytes_received:50000" in text and "cwnd:" in text
        assert "LISTEN" not in text
        done.set()
        got.result(LIMIT_S)


def test_stat_tells_what_was_dropped_and_why(shared_stack: Stack, host: Namespace) -> None:
    """stat --drops: each counter with the sentence of its reason and the rule behind it."""
    with host.socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect((shared_stack.address, 9))
    found = rows(shared_stack.lvlip("stat", "--drops", "--json").stdout)
    (row,) = [row for row in found if row["counter"] == "drop.tcp_no_connection"]
    assert row["layer"] == "tcp" and row["value"] >= 1 and "RFC 9293" in row["means"]
    assert "drop.tcp_no_connection" in shared_stack.lvlip("stat", "--layer", "tcp").stdout


def test_fault_set_show_clear(shared_stack: Stack, host: Namespace) -> None:
    """fault: set at a seam, shown with what it has done, cleared again; a mistake is named and changes nothing."""
    stack = shared_stack
    stack.lvlip("fault", "set", "link-ip", "loss=5%", "dup=1%", "delay=1ms±1ms", "seed=7")
    try:
        transfer(stack, host, 300_000)
        shown = rows(stack.lvlip("fault", "show", "--json").stdout)
        assert {(row["seam"], row["direction"]) for row in shown} == {("link-ip", "up"), ("link-ip", "down")}
        assert sum(row["lost"] for row in shown) > 0
        assert "loss=5%" in stack.lvlip("fault", "show").stdout
        wrong = stack.lvlip("fault", "set", "link-ip", "lost=5%", check=False)
        assert wrong.returncode != 0 and "did you mean loss" in wrong.stderr
        wrong = stack.lvlip("fault", "set", "link-ip", "loss=101%", check=False)
        assert wrong.returncode != 0 and "0% to 100%" in wrong.stderr
        assert len(rows(stack.lvlip("fault", "show", "--json").stdout)) == 2
    finally:
        stack.lvlip("fault", "clear")
    assert rows(stack.lvlip("fault", "show", "--json").stdout) == []
    before = stack.counters("ip").get("drop.fault_loss", 0) + stack.counters("link").get("drop.fault_loss", 0)
    transfer(stack, host, 300_000)
    assert stack.counters("ip").get("drop.fault_loss", 0) + stack.counters("link").get("drop.fault_loss", 0) == before


def test_neigh_and_route(shared_stack: Stack, host: Namespace) -> None:
    """neigh shows the kernel's MAC address as it is, route the network and the default gateway."""
    transfer(shared_stack, host, 1000)
    mac = json.loads(host.run(["ip", "-json", "link", "show", "type", "tun"]).stdout)[0]["address"]
    (neighbour,) = [row for row in rows(shared_stack.lvlip("neigh", "--json").stdout) if row["address"] == "10.0.0.1"]
    assert neighbour["mac"] == mac
    text = shared_stack.lvlip("route").stdout
    assert "10.0.0.0/24" in text and "default via 10.0.0.1" in text


def test_get_and_set(shared_stack: Stack) -> None:
    """set changes a running layer and says what was; a wrong value or key is refused with what is allowed."""
    stack = shared_stack
    assert "tcp.delayed_ack_ms = 40" in stack.lvlip("get", "tcp.delayed_ack_ms").stdout
    stack.lvlip("set", "tcp.delayed_ack_ms=7")
    try:
        assert stack.ask("tcp", "get", section="tcp")["values"]["delayed_ack_ms"] == 7
        for setting, text in (
            ("tcp.delayed_ack_ms=501", "from 0 to 500"),
            ("tcp.delayed_ack=1", "did you mean"),
            ("ip.address=10.0.0.9/24", "restart"),
        ):
            wrong = stack.lvlip("set", setting, check=False)
            assert wrong.returncode != 0 and text in wrong.stderr, (setting, wrong.stderr)
        assert stack.ask("tcp", "get", section="tcp")["values"]["delayed_ack_ms"] == 7
    finally:
        stack.lvlip("set", "tcp.delayed_ack_ms=40")


def waits_for_tcp(stack: Stack, layer: str) -> bool:
    return "tcp" in stack.ask(layer, "status")["waiting_for"]


def test_status_names_who_is_missing(make_stack: Callable[..., Stack], namespace: Namespace) -> None:
    """With tcp killed and no supervisor, status says that it does not run and who waits for it."""
    stack = make_stack(namespace)
    stack.kill("tcp")
    for layer in ("ip", "gateway"):
        stack.wait_until(partial(waits_for_tcp, stack, layer), f"{layer} notices")
    done = stack.lvlip("status", check=False)
    assert done.returncode != 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "waits for tcp" in lines["ip"]
    assert "waits for tcp" in lines["gateway"]
    assert str(stack.pid("link")) in lines["link"]


@pytest.fixture(autouse=True)
def _ended(shared_stack: Stack) -> Iterator[None]:
    """No listener outlives its test."""
    yield
    for program in shared_stack._programs:
        end(program, 9)

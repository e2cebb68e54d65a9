"""Recordings of a stack that carries traffic over a lossy link, replayed: identical to the last frame and event."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from levelip.debug.recorded import files_of, open_all, records
from levelip.debug.tap import DIRECTION, HEAD, KIND, LENGTH, PAYLOAD, SEAM, Notice
from simulation.replay.player import Player
from simulation.replay.report import open_recordings
from tests.system import streams
from tests.system.harness import ROOT, Stack
from tests.system.streams import KernelServer, digest, stream

SIZE = 5_000_000  # bytes each way
LIMIT_S = 100.0
LONG_S = 400.0  # for ten times as much
pytestmark = pytest.mark.timeout(400)
LAYERS = ["link", "ip", "tcp", "udp", "gateway"]


@pytest.fixture
def stack(shared_stack: Stack) -> Iterator[Stack]:
    """The module's stack, which loses 1 % each way."""
    shared_stack.ask("link", "fault.set", seam="link", direction="both", loss=0.01, seed=7)
    yield shared_stack
    shared_stack.ask("link", "fault.clear")
    shared_stack.lvlip("record", "stop", check=False)  # of a test that failed


def exchange(stack: Stack, size: int, limit: float = LIMIT_S) -> None:
    """`size` bytes each way at the same time."""
    assert stack.namespace is not None
    got: list[str] = []
    with KernelServer(stack.namespace, stack.host, lambda sock: got.append(streams.both_ways(sock, 1, size))) as server:
        ours = stack.submit(streams.app_both_ways, stack.host, server.port, 2, size)
        assert ours.result(limit) == digest(stream(1, size))
    assert got == [digest(stream(2, size))]


def receive(stack: Stack, size: int) -> None:
    """`size` bytes each way between the kernel and a server of ours."""
    assert stack.namespace is not None
    serving = stack.submit(streams.app_serve, 9001, 1, 1, size)
    with streams.kernel_connect(stack.namespace, stack.address, 9001) as sock:
        assert streams.both_ways(sock, 2, size) == digest(stream(1, size))
    assert serving.result(LIMIT_S) == [digest(stream(2, size))]


def replay(path: Path, limit: float = LIMIT_S, **env: str) -> list[dict[str, Any]]:
    """What `lvlip replay --json` says of each layer; it succeeded."""
    done = subprocess.run(
        [sys.executable, "-m", "levelip.cli", "replay", str(path), "--json"],
        capture_output=True, text=True, timeout=limit, check=False, cwd=ROOT, env={**os.environ, **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_ten_megabytes_replayed_three_times(stack: Stack, tmp_path: Path) -> None:
    """Under 1 % loss: all four layers, three fresh processes with another hash seed each; back is quick anywhere."""
    directory = tmp_path / "all"
    assert "recording link, ip, tcp, udp, gateway" in stack.lvlip("record", "start", str(directory)).stdout
    assert stack.lvlip("record", "start", str(directory), check=False).returncode == 1, "one recording at a time"
    exchange(stack, SIZE)
    shown = [json.loads(line) for line in stack.lvlip("record", "status", "--json").stdout.splitlines()]
    assert [row["layer"] for row in shown] == LAYERS
    assert all(row["file"]["path"] == str(directory / f"{row['layer']}.rec") for row in shown)
    stack.lvlip("record", "stop")
    assert stack.lvlip("record", "stop", check=False).returncode == 1
    assert [stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()] == [0o600] * len(LAYERS)
    for seed in ("1", "2", "3"):
        facts = replay(directory, PYTHONHASHSEED=seed)
        assert [row["layer"] for row in facts] == LAYERS
        assert all(row["same"] and not row["torn"] for row in facts), facts
        tcp = facts[2]
        assert tcp["frames"] > 200 and tcp["events"] > 100
    for recording in open_recordings([directory]):
        player = Player(recording)
        player.seek(recording.stop)
        for part in (0.9, 0.5, 0.1):
            target = recording.first + int(len(recording) * part)
            player.seek(target)
            for _ in range(2):
                began = time.process_time()
                player.seek(player.at - 1)
                assert time.process_time() - began < 1, f"{recording.head.process} at {target}"


def test_recordings_have_the_beginnings_of_payloads(stack: Stack, tmp_path: Path) -> None:
    """Of super-segments, in shared memory, and of small ones: 128 bytes at the device, between link and ip, and up to
    tcp; they are the stream's."""
    stack.ask("link", "fault.clear")
    stack.lvlip("record", "start", str(tmp_path / "all"))
    exchange(stack, 2_000_000)
    stack.lvlip("record", "stop")
    both = {True: stream(1, 2_000_000), False: stream(2, 2_000_000)}  # the kernel's, upward, and ours
    sizes: dict[tuple[str, str], list[int]] = {}
    for one in records(open_all(files_of(tmp_path / "all"))):
        if isinstance(one, Notice) or one[KIND] != "f" or one[SEAM] not in ("link", "link-ip", "ip-tcp"):
            continue
        head, way = one[HEAD][14:] if one[SEAM] == "link" else one[HEAD], one[DIRECTION]
        if one[SEAM] != "ip-tcp":
            if len(head) < 40 or head[9] != 6:
                continue
            head = head[(head[0] & 0xF) * 4 :]
        begin = (head[12] >> 4) * 4
        size, known = len(head) - begin + one[LENGTH], head[begin:] + one[PAYLOAD]
        if (one[SEAM], way) != ("ip-tcp", "out"):  # what programs have sent is seen by ip
            assert len(known) == min(size, 128) or size in (129, 130)
            assert known in both[True] or known in both[False]
            sizes.setdefault((one[SEAM], way), []).append(size)
    assert set(sizes) == {("link", "in"), ("link", "out"), ("link-ip", "in"), ("ip-tcp", "in")}
    assert min(map(max, sizes.values())) > 1500, "there were super-segments"  # small ones of a slow kernel (pacing)


def test_the_flight_recorder(stack: Stack, tmp_path: Path) -> None:
    """It is on by default; what it holds is written on command, and replays."""
    exchange(stack, 300_000)
    stack.lvlip("record", "dump", str(tmp_path / "flight"))
    facts = replay(tmp_path / "flight")
    assert [row["layer"] for row in facts] == LAYERS
    assert all(row["same"] for row in facts), facts
    done = stack.lvlip("record", "dump", str(tmp_path / "flight"), check=False)
    assert done.returncode == 1 and "is there already; --force writes over it" in done.stderr
    stack.lvlip("record", "dump", str(tmp_path / "flight"), "--force", "--layers", "tcp")


def test_a_process_that_dies_leaves_its_recording(stack: Stack) -> None:
    """SIGABRT: tcp writes its flight recorder into RUN/crash and says where; the stack goes on without what it lost."""
    exchange(stack, 100_000)
    process = stack._processes["tcp"]
    pid = stack.kill("tcp", signal.SIGABRT)
    assert process.wait(60) == -signal.SIGABRT
    (path,) = (stack.run_directory.path / "crash").glob(f"tcp-*-{pid}.rec")
    assert f"lvlip replay {path}" in stack.log("tcp")
    (facts,) = replay(path)
    assert facts["same"] and facts["frames"] > 50
    stack.start_layer("tcp")
    stack.wait_ready()


def logged(stack: Stack, layer: str, text: str) -> bool:
    """Whether a layer has logged it."""
    return text in stack.log(layer)


def receive_until_ended(ends: list[socket.socket], sock: socket.socket) -> None:
    """A handler that answers with the digest, unless the connection breaks."""
    ends.append(sock)
    with contextlib.suppress(OSError):
        streams.answers_digest(sock)


def acknowledged(stack: Stack, port: int, size: int) -> bool:
    """Whether a peer at this port has acknowledged so many bytes."""
    rows = [row for row in stack.ask("tcp", "ss")["sockets"] if row["remote_port"] == port]
    return any((row.get("info") or {}).get("bytes_acked", 0) > size for row in rows)


@pytest.mark.matrix(ids={"SIGSEGV", "SIGKILL"})  # a fault of its own, and another's order
@pytest.mark.parametrize(
    "number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGKILL], ids=lambda number: number.name
)
def test_a_process_that_cannot_write_leaves_its_recording(stack: Stack, number: signal.Signals) -> None:
    """Each layer in turn dies amid a transfer, by a signal that no Python code sees: the next process of that layer
    writes what it left and says where; it is the same to its end, and `why` reads it."""
    assert stack.namespace is not None
    for layer in LAYERS:
        exchange(stack, 100_000)
        pid = stack.pid(layer)
        ends: list[socket.socket] = []
        with KernelServer(stack.namespace, stack.host, partial(receive_until_ended, ends)) as server:
            sent = stack.submit(streams.app_upload, stack.host, server.port, 2, 20_000_000)
            stack.wait_until(partial(acknowledged, stack, server.port, 1_000_000), "the transfer runs")
            process = stack._processes[layer]
            stack.restart(layer, number)
            assert process.returncode == -number
            stack.wait_until(partial(logged, stack, layer, f"-{pid}.rec"), "it is told")
            sent.exception(LIMIT_S)  # whether it survives that is not asked here
            for end in ends:  # who only receives does not hear that his peer is gone
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        (path,) = (stack.run_directory.path / "crash").glob(f"{layer}-*-{pid}.rec")
        assert f"(pid {pid}) was killed; what led to this: lvlip replay {path}" in stack.log(layer)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        (facts,) = replay(path)
        assert facts["same"] and not facts["torn"], facts
        assert facts["calls"] > (20 if layer != "udp" else 0), facts  # udp rests meanwhile
        if layer in ("link", "ip", "tcp"):
            assert facts["frames"] > 50, facts
            told = stack.lvlip("why", str(server.port), "--from", str(path), check=False)
            assert told.returncode in (0, 1) and f":{server.port}" in told.stdout, told.stdout + told.stderr
    left = list(stack.run_directory.memory.glob("flight-*"))
    assert len(left) == len(LAYERS), "those of the living alone"
    assert [stat.S_IMODE(path.stat().st_mode) for path in left] == [0o600] * len(left)


def test_a_process_that_is_killed_leaves_what_it_wrote(stack: Stack, tmp_path: Path) -> None:
    """SIGKILL while it is recorded: the file is good up to its last whole block, and the replay says how it ended."""
    stack.lvlip("record", "start", str(tmp_path / "all"), "--layers", "tcp")
    exchange(stack, 1_000_000)
    stack.restart("tcp")
    done = stack.lvlip("replay", str(tmp_path / "all"))
    assert ": the same" in done.stdout
    assert "was killed while it was recorded" in done.stdout or "torn at byte" in done.stdout


@pytest.mark.parametrize("listens", [False, True])
def test_a_script_that_passes(stack: Stack, tmp_path: Path, listens: bool) -> None:
    """Of a transfer both ways under 3 % loss, of a client or a server of ours: `--to-script` writes one that passes."""
    stack.ask("link", "fault.set", seam="link", direction="both", loss=0.03, seed=11)
    directory, script = tmp_path / "all", tmp_path / "x.pkt"
    stack.lvlip("record", "start", str(directory))
    if listens:
        receive(stack, 400_000)
    else:
        exchange(stack, 400_000)
    stack.lvlip("record", "stop")
    stack.lvlip("replay", str(directory), "--to-script", str(script))
    text = script.read_text()
    assert ("listen(3, " in text) is listens
    assert "sack " in text, "something was lost"
    assert "ok" in stack.lvlip("script", "run", str(script)).stdout


@pytest.mark.matrix(sample=0)
@pytest.mark.timeout(2 * LONG_S)
@pytest.mark.parametrize("number", range(20))
def test_a_hundred_megabytes(stack: Stack, tmp_path: Path, number: int) -> None:
    """100 MB under 1 % loss, twenty times of twenty."""
    stack.ask("link", "fault.set", seam="link", direction="both", loss=0.01, seed=number + 1)
    stack.lvlip("record", "start", str(tmp_path / "all"))
    exchange(stack, 50_000_000, LONG_S)
    stack.lvlip("record", "stop")
    facts = replay(tmp_path / "all", LONG_S, PYTHONHASHSEED=str(number))
    assert all(row["same"] for row in facts), facts


def test_what_if_a_segment_of_an_upload_had_been_lost(stack: Stack, tmp_path: Path) -> None:
    """Recorded without losses from a kernel that receives; one data packet lost in ip: it is sent again, and all of the
    upload is acknowledged, whether the peer's answer is modelled at once or a round trip later."""
    assert stack.namespace is not None
    stack.ask("link", "fault.clear")
    size = 3_000_000
    stack.lvlip("record", "start", str(tmp_path / "all"))
    with KernelServer(stack.namespace, stack.host, streams.answers_digest) as server:
        sent = stack.submit(streams.app_upload, stack.host, server.port, 2, size)
        assert sent.result(LIMIT_S) == digest(stream(2, size))
    stack.lvlip("record", "stop")
    command = ["replay", str(tmp_path / "all"), "--json", "-e", "layer ip",
               "-e", "goto tcp.flags.syn and direction == down", "-e", "goto +3ms",
               "-e", "goto tcp.len > 0 and direction == down", "-e", "back", "-e", "whatif drop for 30s"]  # fmt: skip
    *_, answer = [json.loads(line) for line in stack.lvlip(*command).stdout.splitlines()]
    assert answer["peer"] == "recorded, then acknowledging", answer
    lost = answer["packet"].split("seq ")[1].split(":")[0]
    made = answer["made"]
    assert any(row["what"] == "out" and f"seq {lost}:" in row["text"] for row in made)
    assert any(row["what"] == "event" and "retransmit" in row["text"] for row in made)
    fins = [row["text"].split("seq ")[1].split(",")[0].split(":")[-1] for row in made
            if row["what"] == "out" and "Flags [F" in row["text"]]  # fmt: skip
    acks = {int(row["text"].split("ack ")[1].split(",")[0]) for row in made if row["what"] == "in"}
    assert fins and int(fins[-1]) + 1 in acks, "the FIN is acknowledged, and so is all before it"

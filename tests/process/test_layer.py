"""Each layer's process alone: it waits and says for whom, refuses a second start, survives garbage, ends cleanly."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from levelip.ipc.control import ControlClient, ControlError, NotRunning
from levelip.ipc.rundir import RunDirectory

MODULES = {"link": "layers.link", "ip": "layers.ip", "tcp": "layers.tcp", "udp": "layers.udp", "gateway": "gateway"}
NEIGHBOURS = {
    "link": ["ip"], "ip": ["link", "tcp", "udp"], "tcp": ["gateway", "ip"], "udp": ["gateway", "ip"],
    "gateway": ["tcp", "udp"],
}  # fmt: skip
LIMIT_S = 100.0
pytestmark = pytest.mark.timeout(400)
CONFIG = '[device]\nkind = "wire"\n'

Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def run() -> Iterator[RunDirectory]:
    root = tempfile.mkdtemp(prefix="lv", dir="/tmp")
    made = RunDirectory("t", root)
    yield made
    shutil.rmtree(made.memory, ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def start(run: RunDirectory) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []
    config = run.root / "c.toml"
    config.write_text(CONFIG)

    def make(layer: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", MODULES[layer], "--run", str(run.root), "--name", "t", "--config", str(config)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        started.append(process)
        return process

    yield make
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(LIMIT_S)
        if process.stderr is not None:
            process.stderr.close()


def answer(run: RunDirectory, layer: str, name: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask until the answer is as it should be."""
    client = ControlClient(run, layer, timeout=5.0)
    deadline = time.monotonic() + LIMIT_S
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = client.request(name)
        except NotRunning as error:
            last = error
        else:
            if until(last):
                client.close()
                return last
        time.sleep(0.05)
    raise AssertionError(f"{layer} {name}: {last}")


@pytest.mark.parametrize("layer", MODULES)
def test_a_layer_alone_stays_up_and_says_for_whom_it_waits(start: Start, run: RunDirectory, layer: str) -> None:
    """Without neighbours a process runs, is not ready, names them, and ends with 0 on SIGTERM."""
    process = start(layer)
    status = answer(run, layer, "status", lambda data: True)
    assert sorted(status["waiting_for"]) == NEIGHBOURS[layer]
    assert not status["ready"]
    assert status["pid"] == process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == 0


@pytest.mark.parametrize("layer", MODULES)
def test_a_second_start_is_refused_with_the_holders_pid(start: Start, run: RunDirectory, layer: str) -> None:
    """The second process exits with 1 and names the first; the first is not disturbed."""
    first = start(layer)
    answer(run, layer, "status", lambda data: True)
    second = start(layer)
    assert second.wait(LIMIT_S) == 1
    assert second.stderr is not None
    assert f"{layer} is running already (pid {first.pid})" in second.stderr.read().decode()
    assert answer(run, layer, "status", lambda data: True)["pid"] == first.pid


@pytest.mark.parametrize("layer", MODULES)
def test_garbage_on_pipes_and_control_is_counted_and_nothing_dies(start: Start, run: RunDirectory, layer: str) -> None:
    """300 random messages to each socket of a process: all refused, it still answers."""
    process = start(layer)
    answer(run, layer, "status", lambda data: True)
    rng = random.Random(11)
    context = zmq.Context()
    for neighbour in NEIGHBOURS[layer]:
        pipe = context.socket(zmq.PUSH)
        pipe.linger = round(LIMIT_S * 1000)
        pipe.connect(f"ipc://{run.pipe(neighbour, layer)}")
        for _ in range(300):
            pipe.send_multipart([rng.randbytes(rng.randrange(60)) for _ in range(rng.randrange(1, 4))])
        kinds = [[kind, *([0] * fields)] for kind in range(100) for fields in (0, 3, 16)]
        for item in kinds:
            pipe.send(msgspec.msgpack.encode([1, 1, 0, [item]]))
        pipe.close()
    control = context.socket(zmq.DEALER)
    control.linger = round(LIMIT_S * 1000)
    control.connect(f"ipc://{run.control(layer)}")
    for _ in range(300):
        control.send_multipart([rng.randbytes(rng.randrange(60)) for _ in range(rng.randrange(1, 4))])
    control.close()
    context.term()
    expected = 600 * len(NEIGHBOURS[layer])

    def all_counted(data: dict[str, Any]) -> bool:
        return sum(n for name, n in data["counters"].items() if name.startswith("drop.")) >= expected

    answer(run, layer, "counters", all_counted)
    assert process.poll() is None


@pytest.mark.parametrize("layer", MODULES)
def test_a_killed_layer_starts_again_at_once(
    start: Start, run: RunDirectory, layer: str, pytestconfig: pytest.Config
) -> None:
    """Five SIGKILLs in a row, twenty with --all, leave nothing behind that stops the next start."""
    for _ in range(20 if pytestconfig.getoption("--all") else 5):
        process = start(layer)
        assert answer(run, layer, "status", lambda data, pid=process.pid: data["pid"] == pid)
        process.kill()
        process.wait(LIMIT_S)


def test_commands_that_do_not_exist_and_wrong_settings_are_refused(start: Start, run: RunDirectory) -> None:
    """Errors name the command, the setting and what is allowed."""
    start("ip")
    answer(run, "ip", "status", lambda data: True)
    client = ControlClient(run, "ip", timeout=60.0)
    for name, args, text in [
        ("nonsense", {}, "nonsense"),
        ("set", {"section": "ip", "key": "ttl", "value": 1000}, r"ip\.ttl: .*<= 255"),
        ("set", {"section": "ip", "key": "colour", "value": 1}, r"ip\.colour: no such setting"),
        ("set", {}, "bad arguments"),
        ("fault.set", {"seam": "link-ip", "direction": "up", "loss": 7}, "loss lies between 0 and 1"),
    ]:
        with pytest.raises(ControlError, match=text):
            client.request(name, **args)
    assert client.request("set", section="ip", key="ttl", value=33) == {"old": 64, "new": 33}
    assert client.request("get", section="ip")["values"]["ttl"] == 33
    client.close()


@pytest.mark.parametrize(
    ("layer", "name", "args"),
    [
        ("tcp", "figures", {"conn": 5}), ("tcp", "figures", {}), ("tcp", "conn", {"sock": []}),
        ("ip", "route.add", {"route": 7}), ("ip", "ping", {"dst": []}),
        ("ip", "set", {"section": 1, "key": 2, "value": 3}),
    ],
)  # fmt: skip
def test_arguments_of_another_type_are_refused(
    start: Start, run: RunDirectory, layer: str, name: str, args: dict[str, object]
) -> None:
    """Whoever asks is told so, and the layer lives on."""
    pid = start(layer).pid
    answer(run, layer, "status", lambda data: True)
    client = ControlClient(run, layer, timeout=60.0)
    with pytest.raises(ControlError):
        client.request(name, **args)
    assert client.request("status")["pid"] == pid
    client.close()


def test_a_run_directory_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """Socket paths have 107 bytes; the error says so before anything starts."""
    long = tmp_path / ("x" * 90)
    command = [sys.executable, "-m", "layers.ip", "--run", str(long), "--name", "t"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert result.returncode == 1
    assert "107 are allowed" in result.stderr
    assert not long.exists()


def test_a_congestion_control_that_cannot_be_found_is_told_at_start(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tcp ends at once and says which name led nowhere, and not at the first connection."""
    monkeypatch.setenv("LEVELIP_TCP_CONGESTION", "nobodys.lab:Strategy")
    process = start("tcp")
    assert process.wait(LIMIT_S) != 0
    assert process.stderr is not None
    assert b"nobodys.lab:Strategy" in process.stderr.read()

"""A whole stack on a wire device, without root, by `lvlip`: start, restart, crash, settings, end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from levelip.cli.common import LAYERS, alive
from levelip.cli.supervise import STOP_WAIT_S
from levelip.ipc.rundir import RunDirectory
from levelip.wire.arp import ArpPacket
from levelip.wire.ethernet import EthernetHeader, EtherType
from tests.waiting import until

ROOT = Path(__file__).parents[2]
LIMIT_S = 100.0
PATIENCE = ("--timeout", "90")
"""How long the layers may take to get ready, on a busy machine."""
pytestmark = pytest.mark.timeout(400)
Lvlip = Callable[..., subprocess.CompletedProcess[str]]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEVELIP_")}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


@pytest.fixture
def run() -> Iterator[RunDirectory]:
    root = tempfile.mkdtemp(prefix="lv", dir="/tmp")
    made = RunDirectory("t", root)
    yield made
    for layer in LAYERS:
        pid = made.holder(layer)
        if pid:
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(made.memory, ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def lvlip(run: RunDirectory) -> Iterator[Lvlip]:
    """Calls `lvlip` for this stack; it is down at the end."""

    def call(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "levelip.cli", "--name", "t", "--run", str(run.root), *args]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment(**more), cwd="/", timeout=LIMIT_S, check=False
        )

    yield call
    call("down")


def up(lvlip: Lvlip, *args: str, **more: str) -> None:
    done = lvlip("up", *PATIENCE, "--set", "device.kind=wire", *args, **more)
    assert done.returncode == 0, done.stderr


def status(lvlip: Lvlip) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(lvlip("status", "--json").stdout)
    return data


def pids(lvlip: Lvlip) -> dict[str, int]:
    return {row["layer"]: row["pid"] for row in status(lvlip)["layers"]}


def test_a_stack_comes_up_and_goes_down(lvlip: Lvlip, run: RunDirectory) -> None:
    up(lvlip)
    assert run.path.stat().st_mode & 0o777 == 0o700
    shown = lvlip("status")
    assert shown.returncode == 0
    assert [line.split()[:2] for line in shown.stdout.splitlines()[2:]] == [[layer, "ready"] for layer in LAYERS]
    second = lvlip("up", "--set", "device.kind=wire")
    assert second.returncode == 1
    assert "is running already (supervisord pid" in second.stderr
    assert json.loads(lvlip("list", "--json").stdout)["state"] == "ready"
    running = pids(lvlip)
    down = lvlip("down")
    assert down.returncode == 0
    assert down.stdout.splitlines()[-1] == "stack 't' is down"
    assert not any(alive(pid) for pid in running.values())
    assert not run.memory.exists()
    assert sorted(path.name for path in run.path.iterdir() if path.is_socket()) == []
    assert lvlip("down").stdout == "stack 't' was not running\n"


def supervisor(run: RunDirectory) -> int:
    return int((run.path / "supervisord.pid").read_text())


def test_layers_that_hang_are_ended_together(lvlip: Lvlip, run: RunDirectory) -> None:
    """All five stopped, as by a debugger: SIGKILL after STOP_WAIT_S for all of them at once, whoever waits is told for
    whom, and nothing stays behind."""
    up(lvlip)
    running = pids(lvlip)
    for pid in running.values():
        os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    down = lvlip("down")
    took = time.monotonic() - begun
    assert down.returncode == 0, down.stderr
    assert STOP_WAIT_S < took < len(LAYERS) * STOP_WAIT_S, "not one after the other"
    (line,) = down.stderr.splitlines()
    names = ", ".join(f"{layer} (pid {running[layer]})" for layer in LAYERS)
    assert re.fullmatch(rf"waiting for supervisord \(pid \d+\), {re.escape(names)} to end, [0-4] s at most", line)
    killed = [f"{layer} (pid {running[layer]}) killed: it did not end within 5 s" for layer in LAYERS]
    assert [text for text in down.stdout.splitlines() if "killed" in text] == killed
    assert down.stdout.splitlines()[0].endswith(") stopped") and down.stdout.splitlines()[-1] == "stack 't' is down"
    assert not any(alive(pid) for pid in running.values()) and not run.memory.exists()
    assert not [path for path in run.path.iterdir() if path.is_socket()]


def test_one_that_hangs_holds_nobody_else_up(lvlip: Lvlip) -> None:
    """The others end by themselves meanwhile."""
    up(lvlip)
    running = pids(lvlip)
    os.kill(running["udp"], signal.SIGSTOP)
    down = lvlip("down")
    assert re.fullmatch(rf"waiting for .*, udp \(pid {running['udp']}\)[^.]* to end, [0-4] s at most\n", down.stderr)
    assert [line for line in down.stdout.splitlines() if "killed" in line] == [
        f"udp (pid {running['udp']}) killed: it did not end within 5 s"
    ]
    assert not any(alive(pid) for pid in running.values())


@pytest.mark.parametrize("command", ["down", "up"])
def test_a_supervisord_that_hangs(lvlip: Lvlip, run: RunDirectory, command: str) -> None:
    """It does not answer for SUPERVISORD_S: it is ended, and its layers too, whether the stack goes or comes again."""
    up(lvlip)
    running, hanging = pids(lvlip), supervisor(run)
    os.kill(hanging, signal.SIGSTOP)
    if command == "down":
        down = lvlip("down")
        assert down.returncode == 0, down.stderr
        assert down.stdout.splitlines()[0] == f"supervisord (pid {hanging}) killed: it did not end within 5 s"
        assert not [path for path in run.path.iterdir() if path.is_socket()]
        assert down.stderr.startswith(f"supervisord (pid {hanging}) does not answer\n")
    else:
        up(lvlip)
        assert supervisor(run) != hanging and status(lvlip)["ready"]
    assert not any(alive(pid) for pid in (hanging, *running.values()))


def test_a_layer_is_restarted_on_request_and_after_a_crash(lvlip: Lvlip, run: RunDirectory) -> None:
    """One that was killed leaves a recording, and one that ended in order none."""
    up(lvlip)
    before = pids(lvlip)
    done = lvlip("restart", "tcp")
    assert done.returncode == 0, done.stderr
    after = pids(lvlip)
    assert done.stdout.startswith(f"tcp ready, pid {before['tcp']} → {after['tcp']}, after ")
    assert {layer for layer in LAYERS if before[layer] != after[layer]} == {"tcp"}
    os.kill(after["ip"], signal.SIGKILL)
    until(lambda: pids(lvlip)["ip"] not in (0, after["ip"]) and status(lvlip)["ready"], "ip is back", timeout=LIMIT_S)
    until(lambda: f"ip.{after['ip']}" in crashes(run), "its recording is there", timeout=LIMIT_S)
    assert crashes(run) == {f"ip.{after['ip']}"}


def crashes(run: RunDirectory) -> set[str]:
    """LAYER.PID of each recording of a process that died."""
    return {f"{path.name.split('-')[0]}.{path.stem.split('-')[-1]}" for path in (run.path / "crash").glob("*.rec")}


def test_a_log_can_be_followed_across_a_restart(lvlip: Lvlip, run: RunDirectory) -> None:
    up(lvlip)
    command = [
        sys.executable,
        "-m",
        "levelip.cli",
        "--name",
        "t",
        "--run",
        str(run.root),
        "logs",
        "ip",
        "-f",
        "-n",
        "1",
    ]
    process = subprocess.Popen(command, env=environment(), cwd="/", stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        assert lvlip("restart", "ip").returncode == 0
        seen = []
        while not (seen and "starts, pid" in seen[-1]):
            seen.append(process.stdout.readline())
            assert seen[-1]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT_S)
        assert process.returncode == 130
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_trace_sees_packets_that_come_by_the_wire(lvlip: Lvlip, run: RunDirectory) -> None:
    """An ARP request on the wire device: asked, answered and decided, a line each; SIGTERM ends it with all written."""
    up(lvlip)
    out = run.root / "trace"
    command = [sys.executable, "-m", "levelip.cli", "--name", "t", "--run", str(run.root), "trace"]
    with out.open("w") as file:
        process = subprocess.Popen(command, env=environment(), cwd="/", stdout=file, stderr=subprocess.PIPE, text=True)
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "listening to link, ip, tcp, udp, gateway; end with Ctrl-C\n"
        wire.bind(str(run.root / "peer"))
        mac = bytes.fromhex("020000000001")
        request = ArpPacket.request(sha=mac, spa=bytes((10, 0, 0, 1)), tpa=bytes((10, 0, 0, 2)))
        frame = EthernetHeader(b"\xff" * 6, mac, EtherType.ARP).serialize() + request.serialize()
        wire.sendto(frame, str(run.path / "wire.sock"))
        until(lambda: "Reply" in out.read_text(), "an answer", timeout=LIMIT_S)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT_S)
        shown = [line[16:] for line in out.read_text().splitlines() if "Announcement" not in line]
        assert shown[0] == "link           ↑ ARP, Request who-has 10.0.0.2 tell 10.0.0.1, length 28"
        assert shown[1].startswith("link           ↓ ARP, Reply 10.0.0.2 is-at ")
        assert "link: ARP 10.0.0.1 at 02:00:00:00:00:01, " in shown[2]
    finally:
        wire.close()
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_what_was_set_outlives_a_restart_but_not_the_stack(lvlip: Lvlip) -> None:
    """Also where the environment says otherwise: `up` has settled that."""
    up(lvlip, "--set", "tcp.retries=5", LEVELIP_TCP_RETRIES="4")
    assert lvlip("get", "tcp.retries").stdout == "tcp.retries = 5  # default 15\n"
    assert lvlip("set", "tcp.retries=3", "tcp.connections=100").stdout == (
        "tcp.retries 5 → 3\ntcp.connections 4096 → 100, after a restart: lvlip restart tcp --name t\n"
    )
    assert lvlip("restart", "tcp").returncode == 0
    assert lvlip("get", "tcp.retries", "tcp.connections").stdout == (
        "tcp.retries = 3  # default 15\ntcp.connections = 100  # default 4096\n"
    )
    lvlip("down")
    up(lvlip)
    assert lvlip("get", "tcp.retries").stdout == "tcp.retries = 15\n"


def test_what_a_crashed_supervisor_left_is_cleared_by_the_next_start(lvlip: Lvlip, run: RunDirectory) -> None:
    up(lvlip)
    old = pids(lvlip)
    os.kill(int((run.path / "supervisord.pid").read_text()), signal.SIGKILL)
    shown = status(lvlip)
    assert shown["supervisor"] is None
    assert [row["state"] for row in shown["layers"]] == ["ready"] * 5
    done = lvlip("up", *PATIENCE, "--set", "device.kind=wire")
    assert done.returncode == 0, done.stderr
    for layer in LAYERS:
        assert f"{layer} (pid {old[layer]}) is left from a supervisord that crashed; ending it" in done.stderr
        assert not alive(old[layer])


def test_a_crashed_supervisor_does_not_hinder_down(lvlip: Lvlip, run: RunDirectory) -> None:
    up(lvlip)
    old = pids(lvlip)
    os.kill(int((run.path / "supervisord.pid").read_text()), signal.SIGKILL)
    assert lvlip("down").returncode == 0
    assert not any(alive(pid) for pid in old.values())


def test_a_stack_that_cannot_start_says_why_and_leaves_nothing_behind(lvlip: Lvlip, run: RunDirectory) -> None:
    """A layer's own word is believed when it has said it several times, long before the timeout."""
    begun = time.monotonic()
    done = lvlip("up", "--timeout", "95", "--set", "device.attach=true", "--set", "device.name=lvlnone0")
    assert time.monotonic() - begun < 90
    assert done.returncode == 1
    told = next(line for line in done.stderr.splitlines() if line.startswith("lvlip: stack 't' cannot start: link: "))
    assert "lvlnone0" in told
    assert [run.holder(layer) for layer in LAYERS] == [None] * 5
    assert not (run.path / "supervisor.sock").exists()


def test_a_stack_that_does_not_get_ready_says_who(lvlip: Lvlip, run: RunDirectory) -> None:
    """link takes longer to start than it is waited for."""
    slow = "import sys, time\nif 'layers.link' in sys.orig_argv:\n    time.sleep(1000)\n"
    (run.root / "sitecustomize.py").write_text(slow)
    path = f"{run.root}{os.pathsep}{ROOT}"
    done = lvlip("up", "--timeout", "0.1", "--set", "device.kind=wire", PYTHONPATH=path)
    assert done.returncode == 1
    told = done.stderr.splitlines()
    assert "lvlip: stack 't' is not ready after 0.1 s" in told
    assert "  link does not answer" in told
    assert [run.holder(layer) for layer in LAYERS] == [None] * 5
    assert not (run.path / "supervisor.sock").exists()


def test_layers_of_another_host_are_not_waited_for(lvlip: Lvlip) -> None:
    up(lvlip, "--set", "stack.layers=tcp,gateway")
    rows = {row["layer"]: row for row in status(lvlip)["layers"]}
    assert set(rows) == {"tcp", "gateway"}
    assert rows["tcp"]["state"] == "ready"
    assert rows["tcp"]["waiting_for"] == ["ip"]


def test_in_the_foreground_the_stack_ends_with_the_command(lvlip: Lvlip, run: RunDirectory) -> None:
    command = [sys.executable, "-m", "levelip.cli", "--name", "t", "--run", str(run.root), "up", "--foreground",
               *PATIENCE, "--set", "device.kind=wire"]  # fmt: skip
    process = subprocess.Popen(command, env=environment(), cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"stack 't' is up")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT_S)
        assert process.returncode == 130
        assert [run.holder(layer) for layer in LAYERS] == [None] * 5
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_foreground_that_is_killed_leaves_no_stack_behind(lvlip: Lvlip, run: RunDirectory) -> None:
    command = [sys.executable, "-m", "levelip.cli", "--name", "t", "--run", str(run.root), "up", "--foreground",
               *PATIENCE, "--set", "device.kind=wire"]  # fmt: skip
    process = subprocess.Popen(command, env=environment(), cwd="/", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"stack 't' is up")
    supervisor = int((run.path / "supervisord.pid").read_text())
    process.kill()
    process.communicate(timeout=LIMIT_S)
    until(lambda: not alive(supervisor), "supervisord ends", timeout=LIMIT_S)
    assert [run.holder(layer) for layer in LAYERS] == [None] * 5


def test_the_checkouts_supervisord_conf(tmp_path: Path) -> None:
    """supervisord -c supervisord.conf, supervisorctl restart tcp, and `lvlip --run run` that finds it all."""
    here = Path(tempfile.mkdtemp(prefix="lv", dir="/tmp"))
    shutil.copy(ROOT / "supervisord.conf", here)
    (here / "level-ip.toml").write_text('[device]\nkind = "wire"\n')
    (here / "run").mkdir()
    (here / ".venv" / "bin").mkdir(parents=True)
    (here / ".venv" / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (here / ".venv" / "bin" / "python").chmod(0o755)
    run = RunDirectory("level-ip", here / "run")

    def do(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, cwd=here, env=environment(),
            timeout=LIMIT_S, check=False,
        )  # fmt: skip

    def lvlip(*args: str) -> subprocess.CompletedProcess[str]:
        return do("levelip.cli", "--run", str(here / "run"), *args)

    try:
        started = do("supervisor.supervisord", "-c", "supervisord.conf")
        assert started.returncode == 0, started.stdout + started.stderr
        until(lambda: lvlip("status").returncode == 0, "the stack is ready", timeout=LIMIT_S)
        before = pids(lvlip)
        control = do("supervisor.supervisorctl", "-c", "supervisord.conf", "restart", "tcp")
        assert control.stdout == "tcp: stopped\ntcp: started\n"
        until(lambda: lvlip("status").returncode == 0, "the stack is ready", timeout=LIMIT_S)
        assert {layer for layer, pid in pids(lvlip).items() if pid != before[layer]} == {"tcp"}
        assert lvlip("restart", "ip").returncode == 0
        assert "starts, pid" in lvlip("logs", "ip").stdout
        assert lvlip("set", "ip.ttl=9").stdout == "ip.ttl 64 → 9\n"
        assert lvlip("restart", "ip").returncode == 0
        assert lvlip("get", "ip.ttl").stdout.startswith("ip.ttl = 9")
        outside = [path.name for path in here.iterdir()]
        assert sorted(outside) == [".venv", "level-ip.toml", "run", "supervisord.conf"]
        assert "stack 'level-ip' is down" in lvlip("down").stdout
        assert [run.holder(layer) for layer in LAYERS] == [None] * 5
    finally:
        lvlip("down")
        shutil.rmtree(run.memory, ignore_errors=True)
        shutil.rmtree(here, ignore_errors=True)

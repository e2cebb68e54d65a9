"""The process of the link layer alone, on a real tap: ARP with the kernel, privileges, restarts, a lost device."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layers.link.tuntap import facts
from levelip.config import DeviceConfig
from levelip.ipc.control import ControlClient, ControlError, NotRunning
from levelip.ipc.rundir import RunDirectory
from tests.waiting import until

LIMIT_S = 60.0
NAME = "tl"
DEVICE = DeviceConfig().interface(NAME)

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run() -> Iterator[RunDirectory]:
    root = tempfile.mkdtemp(prefix="lv", dir="/tmp")
    made = RunDirectory(NAME, root)
    yield made
    shutil.rmtree(made.memory, ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def start(run: RunDirectory, netns: None) -> Iterator[Start]:
    """Starts link in the test's network namespace; its stderr goes to run.root/stderr."""
    started: list[subprocess.Popen[str]] = []

    def make(*settings: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "layers.link", "--run", str(run.root), "--name", NAME]
        for setting in settings:
            command += ["--set", setting]
        with (run.root / "stderr").open("a") as log:
            started.append(subprocess.Popen(command, stderr=log, text=True))
        return started[-1]

    yield make
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(LIMIT_S)


def log(run: RunDirectory) -> str:
    return (run.root / "stderr").read_text()


def ask(run: RunDirectory, name: str, **args: object) -> dict[str, object]:
    """A control command, as soon as link answers."""
    client = ControlClient(run, "link")
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:  # asked once it is there, it shall answer: a command that is given twice is another one
            return client.request(name, timeout=LIMIT_S, **args)
        except NotRunning:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        finally:
            client.close()


def mac_of_stack() -> str:
    """What the kernel learns about 10.0.0.2 by ARP, or nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):  # no route yet
        sender.sendto(b"x", ("10.0.0.2", 9))
    shown = subprocess.run(["ip", "neigh", "show", "10.0.0.2"], capture_output=True, text=True, check=True).stdout
    return shown.split("lladdr ")[1].split()[0] if "lladdr" in shown else ""


def answers_arp() -> None:
    """The kernel learns the stack's MAC address."""
    until(lambda: mac_of_stack() == DeviceConfig().stack_mac(NAME).hex(":"), "the kernel knows the stack")


def test_answers_arp_without_privileges(start: Start, run: RunDirectory) -> None:
    """Alone, link makes the device, gives up every capability in every thread, and answers the kernel's ARP."""
    process = start()
    ask(run, "device")
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        status = (task / "status").read_text()
        held = {line.split()[0]: int(line.split()[1], 16) for line in status.splitlines() if line.startswith("Cap")}
        assert set(held.values()) == {0}, f"{task}: {held}"
        assert "NoNewPrivs:\t1" in status
    answers_arp()
    # it may know us by an announcement, before link has read what it asked
    neighbours = until(lambda: ask(run, "neigh")["neighbours"], "link knows the kernel")
    assert isinstance(neighbours, list) and neighbours[0]["address"] == "10.0.0.1"
    assert neighbours[0]["mac"] == DeviceConfig().host_mac(NAME).hex(":")
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == 0


def test_device_survives_a_kill(start: Start, run: RunDirectory) -> None:
    """Killed and started again, link takes over the same interface."""
    first = start()
    answers_arp()
    before = facts(DEVICE)
    first.kill()
    first.wait(LIMIT_S)
    assert facts(DEVICE) is not None
    start()
    ask(run, "device")
    subprocess.run(["ip", "neigh", "flush", "all"], check=True)
    answers_arp()
    after = facts(DEVICE)
    assert before is not None and after is not None and before.index == after.index


def test_persistence_ends_on_request(start: Start, run: RunDirectory) -> None:
    """ "device.persist" false, for which no privilege is needed: the interface goes with the process."""
    process = start()
    assert ask(run, "device.persist", persist=False) == {"persist": False}
    with pytest.raises(ControlError, match="true or false"):
        ask(run, "device.persist", persist="no")
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == 0
    assert facts(DEVICE) is None


def test_lost_device_ends_the_process(start: Start, run: RunDirectory) -> None:
    """Somebody deletes the interface: link cannot make another without its privileges, says so and ends, so that
    supervisord starts it anew, which makes one."""
    process = start()
    answers_arp()
    subprocess.run(["ip", "link", "delete", DEVICE], check=True)
    assert process.wait(LIMIT_S) == 1
    assert "must be started again" in log(run)
    start()
    answers_arp()


def test_device_that_goes_down_and_up(start: Start, run: RunDirectory) -> None:
    """The interface's state is followed without privileges."""
    start()
    assert ask(run, "device")["up"] is True
    subprocess.run(["ip", "link", "set", DEVICE, "down"], check=True)
    until(lambda: ask(run, "device")["up"] is False, "the device is down")
    subprocess.run(["ip", "link", "set", DEVICE, "up"], check=True)
    until(lambda: ask(run, "device")["up"] is True, "the device is up again")
    answers_arp()


def test_cannot_start_in_words(start: Start, run: RunDirectory) -> None:
    """A device that cannot be had ends the process with one line that says why."""
    process = start("device.name=lo")
    assert process.wait(LIMIT_S) == 1
    assert "cannot start: tap lo: it exists and is no tap device" in log(run)
    assert "Traceback" not in log(run)


def test_tun(start: Start, run: RunDirectory) -> None:
    """A tun has no MAC address and no ARP."""
    start("device.kind=tun")
    told = ask(run, "device")
    assert (told["kind"], told["ethernet"], told["mac"], told["up"]) == ("tun", False, "", True)


def test_tunable(start: Start, run: RunDirectory) -> None:
    """`lvlip set link.arp_retries` reaches the core."""
    start()
    assert ask(run, "set", section="link", key="arp_retries", value=5) == {"old": 3, "new": 5}
    snapshot = ask(run, "snapshot")["snapshot"]
    assert isinstance(snapshot, dict) and snapshot["link"]["arp_retries"] == 5


def test_help() -> None:
    """--help tells what the process is, and starts nothing."""
    done = subprocess.run([sys.executable, "-m", "layers.link", "--help"], capture_output=True, text=True, check=True)
    assert "Ethernet and ARP" in " ".join(done.stdout.split())


def test_noise_does_not_stop_it(start: Start, run: RunDirectory) -> None:
    """Random frames, short and long, are counted, and ARP still works afterwards."""
    process = start()
    answers_arp()
    noise = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    noise.bind((DEVICE, 0))
    ours = DeviceConfig().stack_mac(NAME)
    for number in range(300):
        kind = (b"\x08\x00", b"\x08\x06", b"\x81\x00", b"\x88\xcc")[number % 4]
        dst = (ours, b"\xff" * 6, b"\x02" * 6)[number % 3]
        noise.send(dst + bytes(6) + kind + os.urandom(number % 120))
    noise.close()
    subprocess.run(["ip", "neigh", "flush", "all"], check=True)
    answers_arp()
    counters = ask(run, "counters")["counters"]
    assert isinstance(counters, dict)
    assert counters["drop.vlan_tag"] > 0 and counters["drop.wrong_mac"] > 0 and counters["drop.arp_malformed"] > 0
    assert process.poll() is None


# ARP against the kernel


def counted(run: RunDirectory, name: str) -> int:
    counters = ask(run, "counters")["counters"]
    assert isinstance(counters, dict)
    return int(counters.get(name, 0))


@pytest.mark.rfc("RFC 5227 2.1.1")
def test_an_address_that_the_kernel_has_is_left_to_it(start: Start, run: RunDirectory) -> None:
    """The kernel has 10.0.0.2 on the device and answers the probe: the address is not used, ARP for it not answered."""
    start("link.acd_probes=10", "link.acd_probe_min_ms=3000", "link.acd_probe_max_ms=3000")
    assert ask(run, "device")["claim"] == "probing"
    subprocess.run(["ip", "address", "add", "10.0.0.2/24", "dev", DEVICE], check=True)
    until(lambda: ask(run, "device")["claim"] == "conflict", "the conflict is seen")
    told = ask(run, "device")
    assert told["conflicts"] == 1 and told["up"] is True
    assert counted(run, "drop.arp_conflict") == 1 and counted(run, "arp_announcements_sent") == 0


@pytest.mark.rfc("RFC 5227 2.1.1")
def test_an_address_that_is_free_is_taken(start: Start, run: RunDirectory) -> None:
    """Nobody answers three probes: it is announced, and ARP for it is answered."""
    fast = ("probe_wait", "probe_min", "probe_max", "announce_wait")
    start("link.acd_probes=3", *(f"link.acd_{name}_ms=100" for name in fast))
    until(lambda: ask(run, "device")["claim"] == "owned", "the address is ours")
    assert counted(run, "arp_probes_sent") == 3
    answers_arp()


def send_arp(kind: int, mac: bytes, sender: bytes, target: bytes, dst: bytes) -> None:
    """An ARP packet from the host's side of the device."""
    body = bytes.fromhex("000108000604") + kind.to_bytes(2, "big") + mac + sender + bytes(6) + target
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((DEVICE, 0))
        sock.send(dst + mac + b"\x08\x06" + body)


@pytest.mark.rfc("RFC 5227 2.4")
def test_a_conflict_is_defended_against(start: Start, run: RunDirectory) -> None:
    """Somebody claims 10.0.0.2: one announcement, which the kernel's table follows."""
    start("link.acd_defend_interval_ms=100000")
    answers_arp()
    until(lambda: counted(run, "arp_announcements_sent") == 2, "both announcements")
    other = bytes.fromhex("02aabbccddee")
    ours = bytes((10, 0, 0, 2))
    for _ in range(3):
        send_arp(1, other, ours, ours, b"\xff" * 6)
    until(lambda: counted(run, "drop.arp_conflict") == 3, "each conflict is counted")
    assert counted(run, "arp_announcements_sent") == 3
    assert ask(run, "device")["conflicts"] == 3
    answers_arp()

"""ICMP between the stack and the kernel: echo both ways, errors that reach the connection they are about."""

from __future__ import annotations

import json
import socket as std
import struct
import subprocess
import time

import pytest

from levelip.client import socket as levelip_socket
from levelip.wire.checksum import internet_checksum
from tests.system import streams
from tests.system.harness import Stack
from tests.system.namespace import Namespace
from tests.system.processors import Queued
from tests.system.streams import PATIENCE_S

LIMIT_S = 60.0
WAIT = "50"
"""ping's -W: else it waits for the last answer for twice as long as the others took, or 0.05 s."""


def echo_request(ident: int, sequence: int, data: bytes) -> bytes:
    head = struct.pack("!BBHHH", 8, 0, 0, ident, sequence)
    return struct.pack("!BBHHH", 8, 0, internet_checksum(head + data), ident, sequence) + data


@pytest.mark.parametrize("size", [0, 1, 56, 1472])
def test_the_kernel_pings_us(shared_stack: Stack, raw: std.socket, size: int) -> None:
    """Every request is answered with its own identifier, sequence number and data."""
    data = streams.stream(size, size) if size else b""
    for sequence in range(20):
        raw.sendto(echo_request(77, sequence, data), (shared_stack.address, 0))
        while True:
            packet, (sender, _) = raw.recvfrom(65_535)
            message = packet[(packet[0] & 15) * 4 :]
            if message[0] == 0:
                break
        assert sender == shared_stack.address
        assert message[4:] == struct.pack("!HH", 77, sequence) + data
        assert internet_checksum(message) == 0


def test_a_wrong_checksum_is_not_answered(shared_stack: Stack, raw: std.socket) -> None:
    """RFC 792: a message whose checksum does not fit is dropped, and counted by its reason."""
    before = shared_stack.counters("ip").get("drop.icmp_bad_checksum", 0)
    spoiled = bytearray(echo_request(78, 1, b"data"))
    spoiled[-1] ^= 1
    raw.sendto(bytes(spoiled), (shared_stack.address, 0))
    raw.sendto(echo_request(79, 1, b"data"), (shared_stack.address, 0))
    while (message := raw.recv(65_535)[20:])[0] != 0:
        pass
    assert message[4:6] == (79).to_bytes(2, "big"), "the first echo reply is to the second request"
    assert shared_stack.counters("ip")["drop.icmp_bad_checksum"] == before + 1


@pytest.mark.parametrize("target", ["10.0.0.1", "10.0.0.2", "127.0.0.1"], ids=["kernel", "own", "loopback"])
def test_lvlip_ping(shared_stack: Stack, target: str) -> None:
    """`lvlip ping` to the kernel, to the stack's own address and to loopback: exit code 0, all answered."""
    done = shared_stack.lvlip("ping", "-c", "3", "-i", "0.05", "-W", WAIT, target)
    lines = done.stdout.splitlines()
    assert lines[0] == f"PING {target} ({target}) 56(84) bytes of data."
    assert [line.split(" ttl=")[0] for line in lines[1:4]] == [
        f"64 bytes from {target}: icmp_seq={number}" for number in (1, 2, 3)
    ]
    assert "3 packets transmitted, 3 received, 0% packet loss" in done.stdout
    assert "rtt min/avg/max/mdev = " in done.stdout
    quiet = shared_stack.lvlip("ping", "-q", "-c", "2", "-i", "0.05", "-W", WAIT, target, "--json")
    figures = json.loads(quiet.stdout)
    assert (figures["transmitted"], figures["received"]) == (2, 2)


def test_lvlip_ping_to_nobody(shared_stack: Stack) -> None:
    """No ARP answer: our own address reports the host as unreachable, and the exit code is 1, as ping's."""
    done = shared_stack.lvlip("ping", "-c", "2", "-i", "0.1", "-W", WAIT, "10.0.0.77", check=False)
    assert done.returncode == 1, done.stderr
    assert "From 10.0.0.2 icmp_seq=1 Destination Host Unreachable" in done.stdout
    assert "2 packets transmitted, 0 received, +2 errors, 100% packet loss" in done.stdout


def test_lvlip_ping_without_an_answer(shared_stack: Stack) -> None:
    """Silence: 100 % loss after the time that -W gives, exit code 1."""
    done = shared_stack.lvlip("ping", "-c", "1", "-W", "0.3", "192.0.2.1", check=False)
    assert done.returncode == 1, done.stderr
    assert "1 packets transmitted, 0 received, 100% packet loss" in done.stdout


def test_unknown_protocols_are_refused(shared_stack: Stack, host: Namespace, raw: std.socket) -> None:
    """RFC 1122 3.2.2.1: a packet of a protocol that nobody here speaks is answered with "protocol unreachable"."""
    with host.socket(std.AF_INET, std.SOCK_RAW, 253) as sock:  # RFC 3692: for experiments
        sock.sendto(b"anybody there?", (shared_stack.address, 0))
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        message = raw.recv(65_535)[20:]
        if message[:2] == b"\3\2":
            assert message[8 + 9] == 253, "the protocol field of the packet that is quoted"
            return
    raise AssertionError("no answer")


def app_connect(host: str, port: int) -> tuple[str, float]:
    start = time.monotonic()
    with levelip_socket.socket() as sock:
        try:
            sock.connect((host, port))
        except OSError as error:
            return type(error).__name__, time.monotonic() - start
    return "connected", time.monotonic() - start


def test_an_icmp_error_ends_a_connect(shared_stack: Stack, host: Namespace) -> None:
    """The gateway says "port unreachable" about our SYN (RFC 1122 4.2.3.9: a hard error): ECONNREFUSED at once."""
    with host.socket(std.AF_PACKET, std.SOCK_RAW, std.htons(0x0800)) as sniffer:
        sniffer.settimeout(PATIENCE_S)
        trying = shared_stack.submit(app_connect, "192.0.2.9", 4321)
        while True:
            frame = sniffer.recv(2000)
            if frame[30:34] == std.inet_aton("192.0.2.9"):
                break
        quoted = frame[14 : 14 + 28]
        head = struct.pack("!BBHI", 3, 3, 0, 0)
        error = struct.pack("!BBHI", 3, 3, internet_checksum(head + quoted), 0) + quoted
        with host.socket(std.AF_INET, std.SOCK_RAW, std.IPPROTO_ICMP) as sock:
            sock.sendto(error, (shared_stack.address, 0))
        name, took = trying.result(LIMIT_S)
    assert name == "ConnectionRefusedError"
    assert took < 60  # without the error it would be two minutes


def test_echo_is_quick(shared_stack: Stack) -> None:
    """200 echo requests to the kernel: none is lost, and the answers take a few milliseconds, and what our processes
    wait for a processor."""
    queued = Queued()
    times = [
        shared_stack.ask("ip", "ping", dst=shared_stack.host, timeout_ms=25_000)["rtt_ns"] / 1e9 for _ in range(200)
    ]
    assert sum(times) < 200 * 0.005 + queued.seconds()


def test_ping_ends_with_a_signal(shared_stack: Stack, host: Namespace) -> None:
    """Ctrl-C prints the summary and ends with exit code 0 if something was answered."""
    command = ["-m", "levelip.cli", "ping", "-i", "600", shared_stack.host]
    app = shared_stack.popen(command, stdout=subprocess.PIPE, text=True)
    assert app.stdout is not None
    for begins in ("PING ", "64 bytes from "):
        assert app.stdout.readline().startswith(begins)
    app.send_signal(2)
    rest, _ = app.communicate(timeout=LIMIT_S)
    assert "1 packets transmitted, 1 received, 0% packet loss" in rest
    assert app.returncode == 0

"""IP options and receive metadata at datagram sockets, beside the kernel's; and options across the wire."""

from __future__ import annotations

import json
import socket as std
import sys
from typing import Any

import pytest

from tests.system.harness import ROOT, Stack
from tests.system.test_run_ping import RUN, ping
from tests.system.test_run_programs import need

PROGRAM = ROOT / "tests" / "system" / "programs" / "metadata.py"
IP_OPTIONS, IP_RECVOPTS, IP_RETOPTS = 4, 6, 7
ROUTE = bytes.fromhex("01070f04") + bytes(12)


@pytest.mark.parametrize("way", ["stack", "run"])
def test_as_the_kernels(shared_stack: Stack, way: str) -> None:
    """IP_OPTIONS, IP_RECVOPTS, IP_RETOPTS, SO_TIMESTAMP, SO_TIMESTAMPNS, SO_RXQ_OVFL: the same answers of the stack's
    sockets as of the kernel's, each over its own loopback; by levelip.client and under `lvlip run`."""
    host = shared_stack.namespace
    assert host is not None
    env = {**shared_stack.env, "PYTHONPATH": str(ROOT)}
    kernel: dict[str, Any] = json.loads(host.run([sys.executable, str(PROGRAM), "std"], timeout=60).stdout)
    prefix, mode = (RUN, "std") if way == "run" else ([], "stack")
    ours: dict[str, Any] = json.loads(
        host.run([*prefix, sys.executable, str(PROGRAM), mode], env=env, timeout=60).stdout
    )
    for name, answer in kernel.items():
        assert ours[name] == answer, name
    assert ours.keys() == kernel.keys()


def test_across_the_wire(shared_stack: Stack) -> None:
    """Each end records itself as it sends and as it receives (RFC 1122 3.2.1.8 d), and the other's socket is told."""
    host = shared_stack.namespace
    assert host is not None
    program = (
        "import sys; from levelip.client import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
        "s.settimeout(60); s.setsockopt(0, 6, 1); s.setsockopt(0, 4, bytes.fromhex('01070f04') + bytes(12));"
        f"s.sendto(b'there', ('{shared_stack.host}', int(sys.argv[1])));"
        "print(s.recvmsg(100, 100)[1][0][2].hex())"
    )
    with host.socket(kind=std.SOCK_DGRAM) as kernel:
        kernel.bind((shared_stack.host, 0))
        kernel.settimeout(60)
        kernel.setsockopt(std.IPPROTO_IP, IP_RECVOPTS, 1)
        kernel.setsockopt(std.IPPROTO_IP, IP_OPTIONS, ROUTE)
        child = shared_stack.popen(["-c", program, str(kernel.getsockname()[1])], stdout=-1, text=True)
        data, rows, _, sender = kernel.recvmsg(100, 100)
        kernel.sendto(b"back", sender)
        printed, _ = child.communicate(timeout=60)
    here, there = (std.inet_aton(address) for address in (shared_stack.host, shared_stack.address))
    assert data == b"there"
    assert rows == [(std.IPPROTO_IP, IP_RECVOPTS, bytes.fromhex("01070f0c") + there + here + bytes(4))]
    assert printed.strip() == (bytes.fromhex("01070f0c") + here + there + bytes(4)).hex()


def test_a_stream_across_the_wire(shared_stack: Stack) -> None:
    """The kernel's listener echoes the options of our SYN, and each way 200 KB come through: cut by the device's
    segmentation offload from super-segments whose headers have them."""
    host = shared_stack.namespace
    assert host is not None
    program = (
        "import sys; from levelip.client import socket; s = socket.socket(); s.settimeout(60);"
        "s.setsockopt(0, 4, bytes.fromhex('01070f04') + bytes(12));"
        f"s.connect(('{shared_stack.host}', int(sys.argv[1])));"
        "s.sendall(bytes(200_000)); mss = s.getsockopt(6, 2); s.shutdown(1); n = 0\n"
        "while got := s.recv(65536): n += len(got)\n"
        "print(n, mss)"
    )
    with host.socket(kind=std.SOCK_STREAM) as listener:
        listener.bind((shared_stack.host, 0))
        listener.settimeout(60)
        listener.listen()
        child = shared_stack.popen(["-c", program, str(listener.getsockname()[1])], stdout=-1, text=True)
        kernel, _ = listener.accept()
        with kernel:
            kernel.settimeout(60)
            came = 0
            while got := kernel.recv(65_536):
                came += len(got)
            options = kernel.getsockopt(std.IPPROTO_IP, IP_OPTIONS, 100)
            segment = kernel.getsockopt(std.IPPROTO_TCP, std.TCP_MAXSEG)
            kernel.sendall(bytes(200_000))
        printed, _ = child.communicate(timeout=60)
    here, there = (std.inet_aton(address) for address in (shared_stack.host, shared_stack.address))
    assert (came, options) == (200_000, bytes.fromhex("070f0c") + there + here + bytes(5))
    assert printed.split() == ["200000", str(segment)], "both reckon with 16 bytes of options"


def test_ping_records_the_route(shared_stack: Stack) -> None:
    """`ping -R` of iputils under `lvlip run`: the way there and back, without a warning."""
    name = need("ping", "iputils-ping")
    code, said, complaints = ping(shared_stack, [*RUN, name, "-R", "-n", "-c", "1", shared_stack.host], "nobody")
    assert (code, complaints) == (0, "")
    at = next(number for number, line in enumerate(said) if "RR:" in line)
    recorded = [line.split()[-1] for line in said[at : at + 4]]
    assert recorded == [shared_stack.address, shared_stack.host, shared_stack.host, shared_stack.address]

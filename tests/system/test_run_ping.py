"""ping(8) as it is under `lvlip run`: of iputils and of busybox, by root and by a user, beside the kernel's; and the
calls of traceroute(8) and tracepath(8)."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.harness import ROOT, Stack
from tests.system.test_run_programs import need

pytestmark = pytest.mark.timeout(400)

RUN = [sys.executable, "-P", "-m", "levelip.cli", "run", "--"]
USER = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--inh-caps=-all"]
CASES = {
    "twice": ["-c", "2", "{peer}"],
    "fragments": ["-c", "1", "-s", "5000", "{peer}"],
    "nobody": ["-c", "1", "-W", "1", "10.0.0.77"],
    "oneself": ["-c", "1", "127.0.0.1"],
}


def ping(stack: Stack, argv: list[str], peer: str) -> tuple[int, list[str], str]:
    """Exit code; what was printed, with the peer and times that differ left out; complaints."""
    assert stack.namespace is not None
    done = stack.namespace.run(argv, env={**stack.env, "PYTHONPATH": str(ROOT)}, check=False, timeout=100)
    said = re.sub(r"(?m)[\d./]+(?= ?ms)|^rtt.*|^round-trip.*", "T", done.stdout.replace(peer, "PEER"))
    return done.returncode, said.splitlines(), done.stderr


@pytest.fixture
def open_stack(shared_stack: Stack) -> Iterator[Stack]:
    """Its directory may be entered by anybody, and the kernel lets anybody ping."""
    assert shared_stack.namespace is not None
    shared_stack.namespace.run(["sysctl", "-w", "net.ipv4.ping_group_range=0 2147483647"])
    mode = shared_stack.directory.stat().st_mode
    shared_stack.directory.chmod(0o711)
    yield shared_stack
    shared_stack.directory.chmod(mode)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("program", ["ping", "busybox"])
def test_ping(shared_stack: Stack, program: str, case: str) -> None:
    """It prints the same, and ends with the same exit code, by an ICMP datagram socket and by a raw one."""
    name = [need("ping", "iputils-ping")] if program == "ping" else [need("busybox", "busybox-static"), "ping"]
    kernel, ours = (
        ping(shared_stack, [*prefix, *name, *(word.format(peer=peer) for word in CASES[case])], peer)
        for prefix, peer in (([], shared_stack.address), (RUN, shared_stack.host))
    )
    assert ours[:2] == kernel[:2]


def test_ping_as_a_user(open_stack: Stack) -> None:
    """Who may not have a raw socket has none here, either; iputils' ping needs none."""
    if os.geteuid() != 0:
        pytest.skip("root, to become another user")
    for name in ([need("ping", "iputils-ping")], [need("busybox", "busybox-static"), "ping"]):
        kernel, ours = (
            ping(open_stack, [*prefix, *name, "-c", "1", peer], peer)
            for prefix, peer in ((USER, open_stack.address), ([*USER, *RUN], open_stack.host))
        )
        assert ours[:2] == kernel[:2], ours[2]
        assert (ours[0] == 0) is (len(name) == 1)


def test_ping_sockets_and_error_queues(open_stack: Stack) -> None:
    """A program on the kernel's interface alone: identifiers, replies, lengths, ICMP errors, MSG_ERRQUEUE."""
    assert open_stack.namespace is not None
    program = [sys.executable, str(ROOT / "tests" / "system" / "programs" / "pings.py"), "run"]
    said: list[dict[str, Any]] = []
    for prefix, peer in (([], open_stack.address), (RUN, open_stack.host)):
        done = open_stack.namespace.run(
            [*prefix, *program, peer], env={**open_stack.env, "PYTHONPATH": str(ROOT)}, timeout=100
        )
        said.append(json.loads(done.stdout))
    kernel, ours = said
    for name, answer in kernel.items():
        assert ours[name] == answer, name
    assert ours.keys() == kernel.keys()


def test_raw_sockets(shared_stack: Stack) -> None:
    """A raw ICMP socket reads an IP header first; any other is refused, and why is told once; one that only listens is
    warned of."""
    assert shared_stack.namespace is not None
    source = """
import socket, struct, sys
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
raw.settimeout(60)
raw.setsockopt(255, 1, bytes(4))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
request = struct.pack("!BBHHH", 8, 0, 0, 4711, 3) + b"data"
total = sum(struct.unpack("!6H", request))
request = request[:2] + struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + request[4:]
print(raw.sendto(request, (sys.argv[1], 0)))
while True:
    packet, where = raw.recvfrom(100)
    if packet[20] == 0:  # of itself the kernel shows the request, too
        break
print(where, packet[0], struct.unpack("!H", packet[2:4])[0], packet[9], socket.inet_ntoa(packet[12:16]), packet[20:22],
      packet[24:])
for protocol in (socket.IPPROTO_RAW, socket.IPPROTO_TCP):
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol).close()
    except PermissionError:
        print("refused", protocol)
"""
    kernel, ours = (
        shared_stack.namespace.run(
            [*prefix, sys.executable, "-c", source, peer],
            env={**shared_stack.env, "PYTHONPATH": str(ROOT)},
            timeout=100,
        )
        for prefix, peer in (([], shared_stack.address), (RUN, shared_stack.host))
    )
    common = kernel.stdout.replace(shared_stack.address, "PEER").splitlines()
    assert ours.stdout.replace(shared_stack.host, "PEER").splitlines() == [*common, "refused 255", "refused 6"]
    assert ours.stderr.splitlines() == [
        "lvlip run: a raw ICMP socket gets the replies to its own echo requests, and no ICMP errors",
        "lvlip run: raw sockets are not carried by the stack, but for ICMP echo: EPERM",
    ]


def test_a_path_is_followed(shared_stack: Stack) -> None:
    """As traceroute and tracepath do: POLLERR tells that the error queue has something, and a TTL that ran out who said
    so. Two hops behind the kernel nobody answers; of its own address it says that the port is closed. The kernel's own
    sockets are told the same of the latter."""
    namespace = shared_stack.namespace
    assert namespace is not None
    for line in (
        "sysctl -w net.ipv4.ip_forward=1", "sysctl -w net.ipv4.icmp_ratelimit=0", "ip tuntap add beyond mode tap",
        "ip addr add 198.51.100.2/24 dev beyond", "ip link set beyond up",
        "ip neigh add 198.51.100.1 lladdr 02:00:00:00:00:09 dev beyond",
    ):  # fmt: skip
        namespace.run(line.split())
    program = [sys.executable, str(ROOT / "tests" / "system" / "programs" / "traces.py")]
    environment = {**shared_stack.env, "PYTHONPATH": str(ROOT)}

    def lines(prefix: list[str], target: str, answered: str) -> list[str]:
        argv = [*prefix, *program, target, "2", answered]
        return namespace.run(argv, env=environment, timeout=200).stdout.splitlines()

    expired = "EHOSTUNREACH 2 11/0 10.0.0.1 ('198.51.100.1', {}) b'probe' True"
    assert lines(RUN, "198.51.100.1", "1") == [
        f"1 {expired.format(33_435)}, nothing, EAGAIN", "2 nothing", f"path 1 {expired.format(33_435)} nothing",
        "path 2 nothing nothing",
    ]  # fmt: skip
    ours, kernel = lines(RUN, "10.0.0.1", "2"), lines([], "10.0.0.1", "2")
    assert ours == kernel
    assert "ECONNREFUSED 2 3/3 10.0.0.1" in ours[0] and len(ours) == 4

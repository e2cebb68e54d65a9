"""ICMP datagram sockets (`ping` without root) and error queues: of the stack and of the kernel, each to the other."""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.system.harness import ROOT, Stack

PROGRAM = ROOT / "tests" / "system" / "programs" / "pings.py"


def test_as_the_kernels(shared_stack: Stack) -> None:
    """What may be sent, identifiers, replies, what recvmsg tells, errors, the error queue and IP_MTU: the same answers
    of the stack's sockets (to the kernel) as of the kernel's (to the stack)."""
    host = shared_stack.namespace
    assert host is not None
    host.run(["sysctl", "-w", "net.ipv4.ping_group_range=0 2147483647"])
    kernel: dict[str, Any] = json.loads(host.run([sys.executable, str(PROGRAM), "std", shared_stack.address]).stdout)
    ours: dict[str, Any] = json.loads(shared_stack.python(str(PROGRAM), "stack", shared_stack.host))
    for name, answer in kernel.items():
        assert ours[name] == answer, name
    assert ours.keys() == kernel.keys()
    assert shared_stack.counters("udp")["echo_requests_out"] >= 4


def test_lvlip_ss_shows_them(shared_stack: Stack) -> None:
    """As ss does: netid icmp, the identifier as its port."""
    program = (
        "from levelip.client import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP);"
        "s.bind(('', 4713)); print('bound', flush=True); input()"
    )
    child = shared_stack.popen(["-c", program], stdin=-1, stdout=-1, text=True)
    assert child.stdout is not None and child.stdin is not None
    assert child.stdout.readline() == "bound\n"
    shown = shared_stack.lvlip("ss", "-ua").stdout
    assert "*:4713" in shown, shown
    child.communicate("\n", timeout=60)

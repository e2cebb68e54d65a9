"""ARP floods over a real tap, beside a transfer: it goes on, memory stays bounded, and the cache shows who is known."""

from __future__ import annotations

import random
import socket as std
import time
from pathlib import Path

import pytest

from levelip.config import DeviceConfig
from tests.system.conftest import make_namespace, make_stack, namespace, stack
from tests.system.harness import Stack
from tests.system.namespace import Namespace
from tests.system.test_malformed import Transfer
from tests.waiting import until

__all__ = ["make_namespace", "make_stack", "namespace", "stack"]

SENDERS = 20_000
BURST = 250
"""Less than a tap's queue (drivers/net/tun.c, TUN_READQ_SIZE: 500)."""
FORGED = bytes.fromhex("02aabbccddee")
WARM_UP = 2_000
MOST_KB = 2048
"""Growth of link's memory that is allowed once it has its full cache, kB."""


def resident(pid: int) -> int:
    """Memory of its own, without what it shares, kB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0])


def seconds(pid: int) -> float:
    """CPU time used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


class Arp:
    """ARP packets to the stack from the host's side of its device."""

    def __init__(self, stack: Stack, host: Namespace) -> None:
        device = DeviceConfig()
        self._stack = stack
        self.ours = device.stack_mac(stack.name)
        self._sock = host.socket(std.AF_PACKET, std.SOCK_RAW, 0)
        self._sock.bind((device.interface(stack.name), 0))

    def send(self, oper: int, mac: bytes, sender: bytes, *, dst: bytes = b"", hardware: bytes = b"\0\1") -> None:
        body = hardware + b"\x08\0\6\4" + oper.to_bytes(2, "big") + mac + sender + self.ours + b"\x0a\0\0\2"
        for _ in range(10_000):
            try:
                self._sock.send((dst or self.ours) + mac + b"\x08\x06" + body)
                return
            except OSError:  # the device's queue is full: link has not taken them yet
                time.sleep(0.001)
        raise AssertionError("link takes nothing")

    def processed(self) -> None:
        """Until link has taken all that was sent: it comes to an ARP packet of another hardware, sent last, again where
        the device's queue was full."""
        malformed = lambda: self._stack.counters("link").get("drop.arp_malformed", 0)  # noqa: E731
        before = malformed()

        def seen() -> bool:
            self.send(1, FORGED, b"\x0a\0\0\x09", hardware=b"\0\7")
            soon = time.monotonic() + 1.0
            while time.monotonic() < soon:
                if malformed() > before:
                    return True
                time.sleep(0.005)
            return False

        until(seen, "link takes what was sent")

    def close(self) -> None:
        self._sock.close()


def known(stack: Stack) -> dict[str, dict[str, object]]:
    return {row["address"]: row for row in stack.ask("link", "neigh")["neighbours"]}


def flood(arp: Arp, senders: range) -> None:
    """A request for us from each; no more at once than the device's queue holds."""
    for number in senders:
        arp.send(1, FORGED, bytes((10, 1 + (number >> 16), number >> 8 & 255, number & 255)))
        if not number % BURST:
            arp.processed()
    arp.processed()


@pytest.mark.parametrize("stack", [{"settings": {"stack.flight_recorder_mib": 0}}], indirect=True)
@pytest.mark.rfc("RFC 826 reception")
def test_twenty_thousand_askers_beside_a_transfer(stack: Stack, namespace: Namespace) -> None:
    """Requests for us from 20,000 addresses, thousands a second: the transfer is intact, at most half of the cache is
    theirs, and link is no larger than after the first ones. (Without the flight recorder, whose 32 MiB fill up.)"""
    arp = Arp(stack, namespace)
    with Transfer(stack, namespace):
        stack.wait_until(lambda: "10.0.0.1" in known(stack), "the peer is known")
        pid = stack.pid("link")
        flood(arp, range(WARM_UP))
        before, cpu, began = resident(pid), seconds(pid), time.monotonic()
        flood(arp, range(WARM_UP, WARM_UP + SENDERS))
        taken = stack.counters("link")["arp_received"]
        took = time.monotonic() - began
        grown, used = resident(pid) - before, seconds(pid) - cpu
        table = known(stack)
    arp.close()
    print(f"{taken - WARM_UP} senders in {took:.1f} s: link {used:.1f} s of CPU, {grown:+} kB, {len(table)} entries")
    assert taken > SENDERS, "one in ten was lost in the device's queue"
    assert len(table) <= 513 and "10.0.0.1" in table
    assert grown < MOST_KB


def test_forged_answers_do_not_take_the_peer(stack: Stack, namespace: Namespace) -> None:
    """For three seconds and more requests, announcements and answers claim the peer's address, hundreds a second: the
    transfer is intact, and its neighbour has the MAC address that it had."""
    rng = random.Random(5)
    arp = Arp(stack, namespace)
    peer = bytes((10, 0, 0, 1))
    with Transfer(stack, namespace):
        stack.wait_until(lambda: "10.0.0.1" in known(stack), "the peer is known")
        mac = known(stack)["10.0.0.1"]["mac"]
        sent, began = 0, time.monotonic()
        while (took := time.monotonic() - began) < 3.0 or sent < 1000:
            arp.send(rng.choice((1, 2)), FORGED, peer, dst=rng.choice((b"", b"\xff" * 6)))
            sent += 1
            if not sent % BURST:
                arp.processed()
            time.sleep(0.002)
        stack.wait_until(lambda: stack.counters("link")["drop.arp_contradicts"] >= sent - 2, "link has taken them")
        row = known(stack)["10.0.0.1"]
        counters = stack.counters("link")
    arp.close()
    assert row["mac"] == mac and row["state"] in ("reachable", "delay", "probe", "stale"), row
    assert counters["arp_requests_sent"] <= 17 + took, "asked again about once a second"

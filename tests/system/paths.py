"""Hosts on both sides of an impaired path (tests/system/relay.py): kernel and kernel, or stack and kernel.

    left ── relay ── right            left: a kernel, or a namespace whose tap is bridged to the cable, so that TCP,
    10.0.0.2         10.0.0.1         IP and ARP run between the stack and the kernel on the right

Each host has one end of a veth pair of its own, with segmentation and checksum offload off, so that the relay sees
the packets of a wire; super-segments of the stack are cut by the kernel as they enter the veth.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import itertools
import json
import os
import select
import socket as std
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Self

from tests.system.harness import ROOT, Stack
from tests.system.impair import Impairment
from tests.system.namespace import Namespace, end

LEFT, RIGHT = "10.0.0.2", "10.0.0.1"
PREFIX = 16  # bits: room for many addresses on the right
_CABLE, _BRIDGE = "cable0", "bridge0"
_ENV = {"PYTHONPATH": str(ROOT)}
CONGESTION = "cubic"
TAP = "tap0"
_TIMEOUT_S = 60.0


class Path:
    """Two namespaces, `left` and `right`, with the relay between them. Enter it with `with`.

    `gro`: the receiving ends put packets together again, as the drivers of network cards do.
    """

    def __init__(self, *, mtu: int = 1500, gro: bool = False, congestion: str = CONGESTION) -> None:
        self.mtu = mtu
        self._undo = contextlib.ExitStack()
        try:
            self.left, self.middle, self.right = (self._undo.enter_context(Namespace()) for _ in range(3))
            for host, port in ((self.left, "left0"), (self.right, "right0")):
                _cable(self.middle, host, port, mtu, gro=gro)
            address(self.right, RIGHT, congestion)
            self._relay = self.middle.popen(
                [sys.executable, "-m", "tests.system.relay", "left0", "right0"],
                env=_ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True,
            )  # fmt: skip
            self._undo.callback(end, self._relay)
            self.promptness = self._read()
        except BaseException:
            self._undo.close()
            raise
        self._addresses = (f"10.0.{number // 200 + 1}.{number % 200 + 1}" for number in itertools.count())

    @property
    def relay_pid(self) -> int:
        """The relay's process."""
        return self._relay.pid

    def _read(self) -> Any:
        assert self._relay.stdout is not None
        data = b""
        while not data.endswith(b"\n"):
            assert select.select([self._relay.stdout], [], [], _TIMEOUT_S)[0], "the relay does not answer"
            more = os.read(self._relay.stdout.fileno(), 1 << 16)
            assert more, f"the relay ended with {self._relay.wait(60)}"
            data += more
        answer = json.loads(data)
        assert "ok" in answer, answer["error"]
        return answer["ok"]

    def _ask(self, name: str, args: Mapping[str, Any]) -> Any:
        assert self._relay.stdin is not None
        self._relay.stdin.write(json.dumps([name, args]).encode() + b"\n")
        return self._read()

    def impair(self, right: Impairment | None = None, left: Impairment | None = None) -> None:
        """Start anew: frames toward the right meet `right`, the others `left`; both count from 0."""
        given = {"right": right or Impairment(), "left": left or Impairment()}
        self._ask("set", {name: dataclasses.asdict(impairment) for name, impairment in given.items()})

    def stats(self) -> dict[str, Any]:
        """What the relay has done since `impair`."""
        found: dict[str, Any] = self._ask("stats", {})
        return found

    def fresh_address(self) -> str:
        """One more address of the right host, to which nobody has learned a path MTU or anything else yet."""
        address = next(self._addresses)
        self.right.run(["ip", "address", "add", f"{address}/{PREFIX}", "dev", _CABLE])
        return address

    def close(self) -> None:
        """Everything goes."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class KernelPath(Path):
    """The kernel on both sides."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        try:
            address(self.left, LEFT, options.get("congestion", CONGESTION))
        except BaseException:
            self.close()
            raise


class StackPath(Path):
    """A stack on the left. `stack_type` makes it (tests.system.harness.Stack, or one that is measured)."""

    def __init__(
        self,
        *,
        offload: bool = True,
        settings: Mapping[str, Any] | None = None,
        stack_type: type[Stack] = Stack,
        stack_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        try:
            bridge(self.left, self.mtu)
            stack = stack_type(
                self.left,
                offload=offload,
                address=f"{LEFT}/{PREFIX}",
                host=f"{RIGHT}/{PREFIX}",
                settings={
                    "device.host_address": "",
                    "device.name": TAP,
                    "device.mtu": self.mtu,
                    "ip.gateway": "",
                    **(settings or {}),
                },
                **(stack_options or {}),
            )
            self.stack = self._undo.enter_context(stack)
            self.left.run(["ip", "link", "set", TAP, "master", _BRIDGE])
        except BaseException:
            self.close()
            raise


def bridge(host: Namespace, mtu: int) -> None:
    """Make the host a switch between its cable and the taps that join it; its kernel has no address there."""
    host.run(["ip", "address", "flush", "dev", _CABLE])
    host.run(["ip", "link", "add", _BRIDGE, "mtu", str(mtu), "type", "bridge", "stp_state", "0", "forward_delay", "0",
              "mcast_snooping", "0"])  # fmt: skip
    host.run(["ip", "link", "set", _CABLE, "master", _BRIDGE])
    host.run(["ip", "link", "set", _BRIDGE, "up"])


def tap(host: Namespace, name: str, mtu: int) -> None:
    """A tap for another stack, on the host's bridge."""
    host.run(["ip", "tuntap", "add", "dev", name, "mode", "tap"])
    host.run(["ip", "link", "set", name, "mtu", str(mtu), "master", _BRIDGE, "up"])


def address(host: Namespace, own: str, congestion: str) -> None:
    """A kernel with an address and a known congestion control that remembers nothing of earlier connections.

    The route names the algorithm: the sysctl takes in a namespace only what the whole machine allows to everybody.
    """
    host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/tcp_no_metrics_save"])
    host.run(["ip", "address", "add", f"{own}/{PREFIX}", "dev", _CABLE])
    network = str(ipaddress.ip_interface(f"{own}/{PREFIX}").network)
    host.run(["ip", "route", "replace", network, "dev", _CABLE, "proto", "kernel", "scope", "link", "src", own,
              "congctl", congestion])  # fmt: skip


def _cable(middle: Namespace, host: Namespace, port: str, mtu: int, *, gro: bool) -> None:
    """A veth pair between the relay's namespace and a host's, cutting and summing in software."""
    end_of_host = ["peer", "name", _CABLE, "mtu", str(mtu), "netns", str(host.pid)]
    middle.run(["ip", "link", "add", port, "mtu", str(mtu), "type", "veth", *end_of_host])
    for namespace, device in ((middle, port), (host, _CABLE)):
        namespace.run([sys.executable, "-m", "benchmarks.offload", device], env=_ENV)
        namespace.run(["ip", "link", "set", device, "up"])
    if gro:
        host.run([sys.executable, "-m", "benchmarks.offload", _CABLE, "gro=on"], env=_ENV)


def round_trips(
    path: KernelPath, count: int, *, right: Impairment | None = None, left: Impairment | None = None
) -> list[float]:
    """ms of UDP datagrams there and back, one at a time."""
    path.impair(right, left)
    trips = []
    with path.left.socket(std.AF_INET, std.SOCK_DGRAM) as near, path.right.socket(std.AF_INET, std.SOCK_DGRAM) as far:
        far.bind((RIGHT, 0))
        near.connect(far.getsockname())
        near.settimeout(_TIMEOUT_S)
        far.settimeout(_TIMEOUT_S)
        for _ in range(count):
            start = time.perf_counter()
            near.send(b"there")
            _, source = far.recvfrom(64)
            far.sendto(b"back", source)
            near.recv(64)
            trips.append((time.perf_counter() - start) * 1000)
    return trips


def added_delay(path: KernelPath, *, count: int = 200) -> dict[str, float]:
    """What the relay adds to a round trip when it is to add nothing, ms."""
    trips = sorted(round_trips(path, count))
    return {"p50": trips[count // 2], "p99": trips[count * 99 // 100], "max": trips[-1]}


def ceiling(path: KernelPath, *, size: int = 1400, seconds: float = 1.0) -> float:
    """Packets a second that pass in one direction when there are more than pass: datagrams of `size` bytes."""
    path.impair()
    stop = threading.Event()
    with path.left.socket(std.AF_INET, std.SOCK_DGRAM) as near, path.right.socket(std.AF_INET, std.SOCK_DGRAM) as far:
        far.bind((RIGHT, 0))
        far.setsockopt(std.SOL_SOCKET, std.SO_RCVBUF, 1 << 22)
        near.connect(far.getsockname())
        payload = bytes(size)

        def flood() -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    near.send(payload)

        thread = threading.Thread(target=flood, daemon=True)
        thread.start()
        time.sleep(0.3)
        first = path.stats()["right"]["packets"]
        start = time.monotonic()
        time.sleep(seconds)
        rate = (path.stats()["right"]["packets"] - first) / (time.monotonic() - start)
        stop.set()
        thread.join(60)
    return float(rate)

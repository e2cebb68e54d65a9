"""A network namespace of the test's own, and device ports in it with real shared memory."""

from __future__ import annotations

import ctypes
import logging
import os
import select
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from layers.link.device import DevicePort, DeviceSetup
from layers.link.tuntap import HostSide
from levelip.frames.packet import DeviceFrame
from levelip.ipc.memory import Memory, Pool
from levelip.ipc.port import Port

CLONE_NEWNET = 0x40000000
STACK = bytes((10, 0, 0, 2))
HOST = bytes((10, 0, 0, 1))
STACK_MAC = bytes.fromhex("020000000002")
HOST_MAC = bytes.fromhex("020000000001")


@pytest.fixture
def netns() -> Iterator[None]:
    """The test's thread, and the sockets it opens, live in a network namespace of their own."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"no network namespace for this user: {os.strerror(ctypes.get_errno())}")
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            pytest.skip("/dev/net/tun cannot be opened")
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")  # no router solicitations in between
        yield
    finally:
        assert libc.setns(home, CLONE_NEWNET) == 0
        os.close(home)


class Bench:
    """A port with what its shell would give it."""

    def __init__(self, tmp: Path, slots: int = 16) -> None:
        self.stack = tmp
        self.sessions = tmp / "sessions"
        self.sessions.mkdir()
        self.memory = Memory(tmp, self.sessions)
        self.pool = Pool(self.memory, tmp, "pool-1", slots)
        self.counters: Counter[str] = Counter()
        self.lost: list[str] = []
        self.full = False
        self.ports: list[Port] = []

    def count(self, name: str, n: int = 1) -> None:
        self.counters[name] += n

    def open(self, kind: str = "tap", name: str = "tst0", **options: Any) -> DevicePort:
        """A port on the interface, which gets 10.0.0.1/24 unless it is attached to."""
        mtu = options.pop("mtu", 1500)
        queue = options.pop("queue", 8)
        if not options.get("attach"):
            host_mac = HOST_MAC if kind == "tap" else b""
            options.setdefault("host", HostSide(mtu, host_mac, "10.0.0.1/24"))
        options.setdefault("persist", False)
        port = DevicePort(
            DeviceSetup(name, kind, **options),  # type: ignore[arg-type]
            memory=self.memory,
            pool=self.pool,
            epoch=1,
            queue=queue,
            count=self.count,
            lost=self.lost.append,
            log=logging.getLogger("link"),
            gate=lambda: self.full,
        )
        self.ports.append(port)
        return port

    def session(self, name: str, data: bytes) -> Path:
        """A client's memory file that starts with these bytes."""
        path = self.sessions / name
        path.write_bytes(data)
        return path

    def close(self) -> None:
        for port in self.ports:
            port.close()
        self.memory.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """What a port needs, without a network."""
    made = Bench(tmp_path)
    yield made
    made.close()


def wait_for(port: Port, wanted: Callable[[Any], bool], seconds: float = 60.0) -> list[Any]:
    """What the port receives up to and including the first frame that is wanted, as the loop would poll for it."""
    frames: list[Any] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        readable = [source for source in port.readable() if isinstance(source, int)]
        select.select(readable, port.writable(), [], 0.1)
        frames += (came := port.receive(1, 0))  # one at a time: what comes later is for the next call
        if any(wanted(frame) for frame in came):
            return frames
    raise AssertionError(f"nothing of what was wanted within {seconds} s, but {frames}")


def whole(memory: Memory, frame: DeviceFrame) -> bytes:
    """A frame's bytes, wherever they lie."""
    payload = frame.payload
    return frame.head + (payload if isinstance(payload, bytes) else memory.read(payload))

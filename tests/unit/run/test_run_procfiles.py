"""Files that tell of the network: the stack's routes, or not there; our own process stands for the program."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from levelip.run.interfaces import Interface, Way
from levelip.run.procfiles import AT_FDCWD, PAGE, route_table, which
from tests.unit.run.test_run_trap import TID, World

ANY, NET, HOST = bytes(4), b"\x0a\0\0\0", b"\x0a\0\0\2"
INTERFACES = [
    Interface(1, "lvl0", "tap", True, 1500, bytes(6), []),
    Interface(2, "lo", "loopback", True, 65535, b"", []),
]
WAYS = [
    Way(NET, 24, "unicast", b"", HOST, 0, 1), Way(ANY, 0, "unicast", b"\x0a\0\0\1", HOST, 100, 1),
    Way(HOST, 32, "local", b"", HOST, 0, 2), Way(b"\xac\x10\0\0", 12, "unreachable", b"", b"", 5, 0),
    Way(b"\xc0\0\2\1", 32, "unicast", b"\x0a\0\0\1", HOST, 0, 1),
    Way(b"\x0a\0\0\xff", 32, "broadcast", b"", HOST, 0, 1),
]  # fmt: skip
ROUTES = [
    "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT",
    "lvl0 00000000 0100000A 0003 0 0 100 00000000 0 0 0",
    "lvl0 0000000A 00000000 0001 0 0 0 00FFFFFF 0 0 0",
    "* 000010AC 00000000 0201 0 0 5 0000F0FF 0 0 0",
    "lvl0 010200C0 0100000A 0007 0 0 0 FFFFFFFF 0 0 0",
]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def opened(world: World, path: str, directory: int = AT_FDCWD, flags: int = os.O_RDONLY) -> tuple[int, int] | None:
    """openat(2): (descriptor, errno); None: the kernel does it."""
    world.call("openat", directory, world.put(os.fsencode(path) + b"\0"), flags)
    world.settle()
    return world.listener.said


def test_routes_as_the_kernel_writes_them() -> None:
    """Those of the main table, the lowest prefix first, each line as long as Linux makes it."""
    text = route_table(INTERFACES, WAYS)
    assert [" ".join(line.split()) for line in text.splitlines()] == ROUTES
    assert {len(line) for line in text.splitlines()} == {127}
    kernel = Path("/proc/net/route").read_text(encoding="ascii").splitlines()
    assert {len(line) for line in kernel} <= {127} and kernel[0] == text.splitlines()[0]


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_CLOEXEC])
@pytest.mark.parametrize("path", ["/proc/net/route", "//proc/self/net/route", "/proc/{}/net/../net//route"])
def test_the_program_reads_the_stack_s_routes(world: World, path: str, flags: int) -> None:
    """From a descriptor like the kernel's: from its beginning, not to be written, closed by exec if asked."""
    rows = [[one.index, one.name, one.kind, one.up, one.mtu, one.mac, []] for one in INTERFACES]
    ways = [[way.prefix, way.length, way.kind, way.via, way.source, way.metric, way.iface] for way in WAYS]
    world.gateway["interfaces"] = {"interfaces": rows, "routes": ways}
    said = opened(world, path.format(TID), flags=flags)
    assert said is not None and not said[1]
    assert world.listener.cloexec is bool(flags)
    with open(said[0], "rb", buffering=0) as file:  # noqa: PTH123
        assert file.read(1000).decode() == route_table(INTERFACES, WAYS)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(said[0], b"x")


@pytest.mark.parametrize("name", ["tcp", "tcp6", "udp", "raw", "dev", "igmp", "dev_mcast", "arp", "snmp", "if_inet6",
                                  "netfilter/nf_conntrack", "what will come"])  # fmt: skip
def test_what_tells_of_the_host_is_not_there(world: World, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """ENOENT, and told, but not of IPv6, of which there is nothing."""
    assert opened(world, f"/proc/net/{name}") == (0, errno.ENOENT)
    assert opened(world, f"/proc/thread-self/net/{name}") == (0, errno.ENOENT)
    told = f"lvlip run: {name} would tell of the host's network: ENOENT; see lvlip address, ss, stat\n"
    assert capfd.readouterr().err == ("" if name.endswith("6") else told)


def test_a_name_that_is_no_text(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    """It is told escaped."""
    assert opened(world, "/proc/net/\udcff") == (0, errno.ENOENT)
    assert capfd.readouterr().err.startswith("lvlip run: \\udcff would tell")


def test_a_path_that_is_written_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another thread has put there once the call is looked at again: the kernel's, if it is no such file."""
    paths = iter(["tcp", ""])
    monkeypatch.setattr("levelip.run.trap.which", lambda *_: next(paths))
    monkeypatch.setattr("levelip.run.procfiles.which", lambda *_: next(paths))
    assert opened(world, "/proc/net/tcp") is None


def test_devices_of_the_host(world: World) -> None:
    assert opened(world, "/sys/class/net/eth0/statistics/rx_bytes") == (0, errno.ENOENT)


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/net/unix", "/proc/net", "/proc/netx/route",
                                  "/proc/net/" + 200 * "x", "/proc/self/maps", "route", "",
                                  "/sys/class/net", "/tmp/proc/net/route"])  # fmt: skip
def test_other_files_are_the_kernel_s(world: World, path: str) -> None:
    assert opened(world, path) is None


def test_paths_from_a_directory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a descriptor, or the thread's own."""
    directory = os.open("/proc/self/net", os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert opened(world, "tcp", directory) == (0, errno.ENOENT)
        assert opened(world, "unix", directory) is None
    finally:
        os.close(directory)
    assert opened(world, "tcp", directory) is None, "not open: the kernel says so"
    monkeypatch.chdir("/proc/self/net")
    assert opened(world, "tcp") == (0, errno.ENOENT)
    monkeypatch.chdir("/")
    assert opened(world, "proc/net/tcp") == (0, errno.ENOENT)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="there is no open(2)")
def test_open_without_a_directory(world: World) -> None:
    world.call("open", world.put(b"/proc/net/tcp\0"), os.O_RDONLY)
    assert world.listener.said == (0, errno.ENOENT)


def test_a_path_at_the_end_of_memory() -> None:
    """It is read up to its end, beyond which nothing need be; one that goes on where nothing is, is the kernel's."""
    with mmap.mmap(-1, 2 * PAGE) as memory:
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        libc = ctypes.CDLL(None)
        assert libc.mprotect(ctypes.c_void_p(start + PAGE), PAGE, 0) == 0
        path = b"/proc/net/tcp\0"
        memory[PAGE - len(path) : PAGE] = path
        assert which(TID, "openat", (AT_FDCWD, start + PAGE - len(path), 0, 0, 0, 0)) == "tcp"
        assert which(TID, "openat", (AT_FDCWD, start + PAGE - len(path) + 1, 0, 0, 0, 0)) == ""
        memory[PAGE - 1 : PAGE] = b"x"
        assert which(TID, "openat", (AT_FDCWD, start + PAGE - len(path), 0, 0, 0, 0)) == ""
        assert libc.mprotect(ctypes.c_void_p(start + PAGE), PAGE, 3) == 0

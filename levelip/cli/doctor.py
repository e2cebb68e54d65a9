"""`lvlip doctor`: what this machine lacks for Level-IP, and the command that cures it. Needs no package but click."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib.metadata
import os
import re
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from levelip.cli.common import EXIT_FAILED, Stack, StackCommand

PACKAGES = {
    "pyzmq": "26.2",
    "msgpack": "1.0.8",
    "msgspec": "0.19",
    "pyroute2": "0.9.2",
    "supervisor": "4.2.5",
    "click": "8.1",
    "rich": "13.7",
    "python-pcapng": "2.1.1",
    "lark": "1.2",
    "prometheus_client": "0.21",
    "dnspython": "2.7",
    "google-re2": "1.1.20240702",
    "starlette": "1.0",
    "uvicorn": "0.35",
    "websockets": "14",
}
"""As in pyproject.toml."""
PYTHON = (3, 11)
TUN = Path("/dev/net/tun")
SHM = Path("/dev/shm")
MAX_SOCKET_PATH = 107
"""Bytes: sun_path of AF_UNIX less its final zero (unix(7))."""
MIN_SHM = 64 << 20
"""Bytes free for device pool and socket buffers; a pool of 512 slots uses at most 32 MB."""

_CAP_NET_ADMIN = 12  # linux/capability.h
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_CLONE_NEWUSER = 0x10000000
_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_TUNSETOFFLOAD = 0x400454D0
_IFF_TAP_VNET = 0x0002 | 0x1000 | 0x4000  # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
_CSUM_TSO4 = 0x01 | 0x02

OK = "ok"
MISSING = "missing"
"""Level-IP does not work without it."""
WARNING = "warning"
"""It works, but less well, or not all of it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `cure` is what to type, or a sentence where no command helps."""

    name: str
    state: str
    found: str
    cure: str = ""


@click.command(cls=StackCommand)
@click.pass_obj
def command(stack: Stack) -> int:
    """Say what this machine lacks, and the command that cures it.

    Exit code 1 if something is missing without which Level-IP does not work.
    """
    checks = list(examine(stack))
    failed = any(check.state == MISSING for check in checks)
    if stack.json:
        for check in checks:
            stack.emit(asdict(check))
    else:
        width = max(len(check.name) for check in checks)
        colours = {OK: "green", MISSING: "red", WARNING: "yellow"}
        for check in checks:
            state = click.style(f"{check.state:<8}", fg=colours[check.state])
            click.echo(f"{state} {check.name:<{width}}  {check.found}")
            if check.cure:
                click.echo(f"{'':8} {'':<{width}}  cure: {check.cure}")
        click.echo("something is missing; see above" if failed else "this machine can run Level-IP")
    return EXIT_FAILED if failed else 0


def examine(stack: Stack) -> Iterator[Check]:
    """All checks in the order in which a person would cure them."""
    yield python(sys.version_info[:2])
    for name, least in PACKAGES.items():
        yield package(name, least, _installed(name))
    for program, debian, why in (
        ("ip", "iproute2", "namespaces of `make demo` and of the tests"),
        ("curl", "curl", "the second transfer of `make demo`"),
    ):
        yield found_program(program, debian, why, shutil.which)
    yield tun(TUN)
    yield rights(_has_net_admin(), _can_unshare)
    yield offload(_try_offload())
    yield run_path(stack)
    yield shared_memory(SHM)
    yield from filters(stack.run.name)


def _install(debian: str) -> str:
    """How this system installs a package; `debian`: its name there, which is mostly the same elsewhere."""
    for program, line in (
        ("apt-get", "apt-get install -y"),
        ("dnf", "dnf install -y"),
        ("pacman", "pacman -S --noconfirm"),
        ("zypper", "zypper install -y"),
        ("apk", "apk add"),
    ):
        if shutil.which(program):
            return f"{line} {debian}"
    return f"install {debian}"


def python(version: tuple[int, ...]) -> Check:
    """Python itself."""
    text = ".".join(map(str, version))
    if version >= PYTHON:
        return Check("python", OK, text)
    wanted = ".".join(map(str, PYTHON))
    cure = _install(f"python{wanted} python{wanted}-venv")
    return Check("python", MISSING, f"{text}, {wanted} or later is needed", cure)


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def package(name: str, least: str, installed: str | None) -> Check:
    """A Python package and its version."""
    cure = f"{sys.executable} -m pip install '{name}>={least}'"
    if installed is None:
        return Check(name, MISSING, "not installed", cure)
    if _version(installed) < _version(least):
        return Check(name, MISSING, f"{installed}, {least} or later is needed", cure)
    return Check(name, OK, installed)


def _version(text: str) -> tuple[int, ...]:
    """The numbers at its start: enough to compare releases."""
    numbers = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in numbers[0].split(".")) if numbers else ()


def found_program(name: str, debian: str, why: str, which: Callable[[str], str | None]) -> Check:
    """A program that commands or tests call."""
    path = which(name)
    if path:
        return Check(name, OK, path)
    return Check(name, WARNING, f"not found; needed for {why}", _install(debian))


def tun(path: Path) -> Check:
    """The door to tun and tap devices."""
    name = str(path)
    if not path.exists():
        make = f"mkdir -p {path.parent} && mknod {path} c 10 200 && chmod 666 {path}"
        return Check(name, MISSING, "not there", f"modprobe tun || ({make})")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        return Check(name, MISSING, "may not be opened by this user", f"chmod 666 {path}   (as root)")
    except OSError as error:
        return Check(name, MISSING, f"cannot be opened: {error.strerror}", "modprobe tun   (as root)")
    return Check(name, OK, "can be opened")


def _has_net_admin(status: Path = Path("/proc/self/status")) -> bool:
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", status.read_text(), re.MULTILINE)
    return bool(found and int(found[1], 16) >> _CAP_NET_ADMIN & 1)


def rights(net_admin: bool, can_unshare: Callable[[], bool]) -> Check:
    """Whether devices can be made: with a capability, or within a user namespace."""
    if net_admin:
        return Check("privileges", OK, "CAP_NET_ADMIN")
    if can_unshare():
        return Check("privileges", OK, "no CAP_NET_ADMIN, but user namespaces (as `make demo` uses them)")
    cures = [
        f"sysctl -w {'.'.join(path.relative_to('/proc/sys').parts)}={wanted}"
        for path, wanted in (
            (Path("/proc/sys/kernel/unprivileged_userns_clone"), "1"),
            (Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"), "0"),
            (Path("/proc/sys/user/max_user_namespaces"), "1000"),
        )
        if path.exists() and (path.read_text().strip() == "0") == (wanted != "0")
    ]
    cure = " && ".join(cures) + "   (as root)" if cures else 'run it as root, or with device.kind = "wire"'
    return Check("privileges", MISSING, "neither CAP_NET_ADMIN nor user namespaces", cure)


def _in_child(work: Callable[[], int]) -> int:
    """The result (0..255) of `work` in a process of its own, whose namespaces may change."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _unshare(flags: int) -> bool:
    return bool(ctypes.CDLL(None, use_errno=True).unshare(flags) == 0)


def _can_unshare() -> bool:
    return _in_child(lambda: 0 if _unshare(_CLONE_NEWUSER | _CLONE_NEWNET) else 1) == 0


def _try_offload() -> int:
    """0: a tap takes super-segments; 1: it does not; 2: no tap could be made here at all."""

    def work() -> int:
        if not _unshare(_CLONE_NEWNET) and not _unshare(_CLONE_NEWUSER | _CLONE_NEWNET) and not _has_net_admin():
            return 2
        try:
            fd = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"lvldoctor%d", _IFF_TAP_VNET))
        except OSError:
            return 2
        try:
            fcntl.ioctl(fd, _TUNSETOFFLOAD, _CSUM_TSO4)
        except OSError:
            return 1
        return 0

    return _in_child(work)


def offload(result: int) -> Check:
    """Whether the kernel hands over segments of 64 KB (DESIGN 5)."""
    match result:
        case 0:
            return Check("tap offload", OK, "checksums and TCP segmentation")
        case 1:
            return Check("tap offload", WARNING, "the kernel refuses TUNSETOFFLOAD; bulk transfers are slower",
                         "a newer kernel, or device.offload = false to silence link's warning")  # fmt: skip
    return Check("tap offload", WARNING, "could not be tried, as no device can be made", "cure the above first")


def run_path(stack: Stack) -> Check:
    """Unix sockets have short paths."""
    run = stack.run
    longest = max((run.pipe("gateway", "gateway"), run.door / "gateway", run.path / "supervisor.sock"),
                  key=lambda path: len(os.fsencode(path)))  # fmt: skip
    length = len(os.fsencode(longest))
    if length > MAX_SOCKET_PATH:
        return Check("run directory", MISSING, f"{longest} has {length} bytes, {MAX_SOCKET_PATH} are allowed",
                     "choose a shorter one: --run DIR or LEVELIP_RUN, or a shorter --name")  # fmt: skip
    place = run.path
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK):
        found = f"{place} may not be written by this user"
        return Check("run directory", MISSING, found, "choose another: --run DIR or LEVELIP_RUN")
    return Check("run directory", OK, f"{run.path}")


def shared_memory(path: Path) -> Check:
    """Where device pool and socket buffers live."""
    name = str(path)
    mount = f"mount -t tmpfs -o mode=1777 tmpfs {path}   (as root)"
    if not path.is_dir() or not os.access(path, os.W_OK):
        return Check(name, WARNING, "not writable; memory is shared through the run directory: slow", mount)
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    kinds = [fields[2] for line in mounts if (fields := line.split())[1] == name]
    space = os.statvfs(path)
    free = space.f_bavail * space.f_frsize
    if kinds and kinds[-1] != "tmpfs":
        return Check(name, WARNING, f"is {kinds[-1]}, not tmpfs", mount)
    if free < MIN_SHM:
        return Check(name, WARNING, f"{free >> 20} MB free, {MIN_SHM >> 20} MB are wanted",
                     f"mount -o remount,size=1G {path}   (as root; with docker: --shm-size=1g)")  # fmt: skip
    return Check(name, OK, f"tmpfs, {free >> 20} MB free")


def filters(stack: str) -> Iterator[Check]:
    """Packet filters of others that drop what is forwarded to the stack of that name; only root can see them, and only
    NAT is concerned."""
    if not _has_net_admin():
        return
    with contextlib.suppress(OSError):
        yield from iptables(Path("/proc/net/ip_tables_names").read_text(), stack)
    try:
        from levelip.host.firewall import FirewallError, closed_chains, table_name
    except ImportError:
        return
    try:
        closed = closed_chains(table_name(stack))
    except FirewallError as error:
        yield Check("nftables", WARNING, f"not usable, so no `lvlip net up --nat`: {error}", "modprobe nf_tables")
        return
    for chain in closed:
        yield Check("nftables", WARNING, f"chain {chain} drops what is forwarded",
                    "lvlip net up --nat IFACE, which lets the stack's packets pass there")  # fmt: skip
    if not closed:
        yield Check("nftables", OK, "usable; no chain drops what is forwarded")


def iptables(tables: str, stack: str) -> Iterator[Check]:
    """Rules of the old kind, which `lvlip net up` leaves alone; `tables`: the names of those that are loaded."""
    if "filter" not in tables.split():
        return
    from levelip.config import DeviceConfig

    device = DeviceConfig().interface(stack)
    yield Check(
        "iptables", WARNING, "old iptables rules are loaded, which `lvlip net up` cannot change",
        f"if FORWARD drops: iptables-legacy -I FORWARD -i {device} -j ACCEPT; "
        f"iptables-legacy -I FORWARD -o {device} -j ACCEPT",
    )  # fmt: skip

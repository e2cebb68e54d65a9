"""A network namespace for a test: made without a name, gone with the test process, usable as root or as anybody.

A small process, the holder, lives in the namespace. Commands join it by nsenter; sockets that the test itself wants
to use there (a kernel TCP socket, a packet socket) are made by the holder and handed over by SCM_RIGHTS, so a test is
written as if it ran on the host behind the tap. When the test process dies, the holder reads end of file and goes,
and with the last process in it the namespace goes too: nothing to clean up after a crash.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import functools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

TIMEOUT_S = 60.0
"""How long a command in a namespace may take unless the caller says otherwise."""
_TUN = Path("/dev/net/tun")
_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000  # linux/if_tun.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1  # linux/sockios.h, linux/if.h
_IFREQ = struct.Struct("16sH22x")

_WAYS = {"root": ["unshare", "--net"], "user": ["unshare", "--user", "--map-root-user", "--net"]}
"""How a namespace can be had: with CAP_SYS_ADMIN, or by way of a user namespace."""


class Lacking(Exception):
    """This machine does not let us have what a test needs; the text names it."""


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours with `changes`, less what would configure a stack behind a test's back."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEVELIP_")}
    return {**kept, **(changes or {})}


@functools.cache
def way() -> str:
    """How namespaces are made here: "root" or "user"; Lacking if neither is allowed."""
    said = ""
    for name, command in _WAYS.items():
        try:
            done = subprocess.run([*command, "true"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except FileNotFoundError:
            raise Lacking("the program unshare (package util-linux)") from None
        if done.returncode == 0:
            return name
        said = done.stderr.strip()
    raise Lacking(f"network namespaces (neither root nor user namespaces: {said})")


@functools.cache
def lack() -> str:
    """What this machine lacks for a stack on a tap in a namespace; empty if nothing."""
    try:
        with Namespace() as namespace:
            namespace.try_tap()
    except Lacking as missing:
        return str(missing)
    return ""


class Namespace:
    """One network namespace with `lo` up, whose kernel answers with as many ICMP errors as there are causes (it allows
    six in a row to a host, then one a second). `ipv6` false keeps the kernel's own IPv6 chatter off the devices."""

    def __init__(self, *, ipv6: bool = False) -> None:
        self._way = way()
        self._children: list[subprocess.Popen[Any]] = []
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._holder = subprocess.Popen(
                [*_WAYS[self._way], "--", sys.executable, "-S", __file__, str(theirs.fileno()), str(int(ipv6))],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._channel.settimeout(TIMEOUT_S)
        try:
            self._ask()  # ready
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """A process in the namespace, for `ip link set DEV netns PID`."""
        return self._holder.pid

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def command(self, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
        """The command line that runs `argv` in the namespace; it dies with the process that starts it."""
        user = ["--user", "--preserve-credentials"] if self._way == "user" else []
        enter = ["nsenter", f"--target={self.pid}", *user, "--net"]
        return [*enter, "--", "setpriv", "--pdeathsig", "KILL", "--", *[os.fspath(word) for word in argv]]

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        check: bool = True,
        timeout: float = TIMEOUT_S,
        env: Mapping[str, str] | None = None,
        text: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespace and return its output (stderr too); `text` is its input."""
        done = subprocess.run(
            self.command(argv),
            capture_output=True,
            text=True,
            timeout=timeout,
            input=text or "",
            check=False,
            env=environment(env),
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(map(str, argv))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def popen(
        self, argv: Sequence[str | os.PathLike[str]], *, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """Start a command in the namespace; it is killed at `close` if it still runs."""
        options.setdefault("stdin", subprocess.DEVNULL)
        child = subprocess.Popen(self.command(argv), env=environment(env), **options)
        self._children.append(child)
        return child

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, proto: int = 0) -> socket.socket:
        """A kernel socket of the namespace, to be used in this process. The caller closes it; OSError as socket()."""
        self._channel.send(json.dumps([family, kind, proto]).encode())
        return socket.socket(fileno=self._ask()[0])

    def try_tap(self) -> None:
        """Lacking if no tap device can be opened in here."""
        program = (
            f"import fcntl, struct; fd = open({str(_TUN)!r}, 'r+b', buffering=0); "
            f"fcntl.ioctl(fd, {_TUNSETIFF}, {_IFREQ.pack(b'', _IFF_TAP | _IFF_NO_PI)!r})"
        )
        done = self.run([sys.executable, "-S", "-c", program], check=False)
        if done.returncode:
            raise Lacking(f"{_TUN} ({done.stderr.strip().splitlines()[-1]})")

    def connect(self, other: Namespace, ours: tuple[str, str], theirs: tuple[str, str]) -> None:
        """A veth pair between two namespaces; each end is (device, address with prefix length)."""
        end = ["peer", "name", theirs[0], "netns", str(other.pid)]
        self.run(["ip", "link", "add", ours[0], "type", "veth", *end])
        for namespace, (device, address) in ((self, ours), (other, theirs)):
            namespace.run(["ip", "address", "add", address, "dev", device])
            namespace.run(["ip", "link", "set", device, "up"])

    def close(self) -> None:
        """End what still runs in the namespace and let it go."""
        for child in self._children:
            end(child, signal.SIGKILL)
        self._channel.close()
        try:
            self._holder.wait(60)
        except subprocess.TimeoutExpired:
            end(self._holder, signal.SIGKILL)

    def _ask(self) -> list[int]:
        """The holder's next answer: descriptors. OSError with the errno that it met."""
        data, ancillary, _, _ = self._channel.recvmsg(256, socket.CMSG_SPACE(16), socket.MSG_CMSG_CLOEXEC)
        if not data:
            raise Lacking(f"network namespaces (the holder ended with {self._holder.wait(60)})")
        number = int(data)
        if number:
            raise OSError(number, os.strerror(number))
        fds = array.array("i")
        for _, _, payload in ancillary:
            fds.frombytes(payload)
        return list(fds)


def end(child: subprocess.Popen[Any], number: int = signal.SIGTERM, *, wait: float = 5.0) -> int:
    """Signal a child of ours, wait for it, and kill it if it does not go; its exit status."""
    if child.poll() is None:
        child.send_signal(number)
        try:
            child.wait(wait)
        except subprocess.TimeoutExpired:
            child.kill()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    return child.wait(TIMEOUT_S)


def _hold(channel: socket.socket, *, ipv6: bool) -> None:
    """The holder: bring lo up, say so, then make the sockets that are asked for until the test is gone."""
    if not ipv6:
        for scope in ("all", "default"):
            with contextlib.suppress(OSError):
                Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1", encoding="ascii")
    with contextlib.suppress(OSError):
        Path("/proc/sys/net/ipv4/icmp_ratemask").write_text("0", encoding="ascii")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        name, flags = _IFREQ.unpack(fcntl.ioctl(control, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0)))
        fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ.pack(name, flags | _IFF_UP))
    channel.send(b"0")
    while request := channel.recv(256):
        try:
            made = socket.socket(*json.loads(request))
        except OSError as error:
            channel.send(str(error.errno or errno.EINVAL).encode())
            continue
        with made:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made.fileno()]).tobytes())]
            channel.sendmsg([b"0"], rights)


if __name__ == "__main__":
    _hold(socket.socket(fileno=int(sys.argv[1])), ipv6=sys.argv[2] == "1")

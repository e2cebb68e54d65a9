"""One stack on two hosts, as docs/two-hosts.md says and with its files: link and ip here, tcp and gateway there."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
import socket as std
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from levelip.debug.debugger import Debugger
from levelip.ipc.keys import write_key_pair
from tests.system import streams
from tests.system.harness import ROOT, Stack
from tests.system.namespace import Namespace
from tests.system.streams import KernelServer, digest, kernel_connect, stream
from tests.waiting import until

SIZE = 10_000_000
LIMIT_S = 120.0
ETH_P_ALL = 3  # linux/if_ether.h
CABLE = "10.99.0"  # the cable between the hosts

pytestmark = pytest.mark.timeout(400)


class TwoHosts:
    """Host a with link and ip, and the kernel on the other side of their tap; host b with tcp and gateway."""

    def __init__(
        self, make_namespace: Callable[..., Namespace], make_stack: Callable[..., Stack], directory: Path
    ) -> None:
        self.near, self.far = make_namespace(), make_namespace()
        self.near.connect(self.far, ("cable0", f"{CABLE}.1/24"), ("cable1", f"{CABLE}.2/24"))
        self.public = {}
        for host in "AB":
            self.public[host] = write_key_pair(directory / f"{host}.key")
        blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "two-hosts.md").read_text(), re.DOTALL)
        assert len(blocks) == 2
        self.files = {}
        for host, text in zip("AB", blocks, strict=True):
            text = text.replace("/etc/level-ip.key", str(directory / f"{host}.key")).replace("192.0.2", CABLE)
            for other in "AB":
                text = text.replace(f"PUBLIC-KEY-OF-{other}", self.public[other])
            self.files[host] = directory / f"{host}.toml"
            self.files[host].write_text(text)
        self._make_stack = make_stack

    def start(self) -> tuple[Stack, Stack]:
        """Both by `lvlip up`, and until they have found each other."""
        a = self._up("A", self.near, ["link", "ip"])
        b = self._up("B", self.far, ["tcp", "gateway"])
        b.wait_until(lambda: all(stack.ask(layer, "status")["ready"] for stack, layer in ((a, "ip"), (b, "tcp"))),
                     f"the hosts find each other\n{a.report()}")  # fmt: skip
        return a, b

    def _up(self, host: str, namespace: Namespace, layers: list[str]) -> Stack:
        return self._make_stack(
            namespace,
            name=host.lower(),
            layers=layers,
            supervised=True,
            variables={"LEVELIP_CONFIG": str(self.files[host])},
        )


@pytest.fixture
def hosts(make_namespace: Callable[..., Namespace], make_stack: Callable[..., Stack], tmp_path: Path) -> TwoHosts:
    return TwoHosts(make_namespace, make_stack, tmp_path)


def test_a_stack_on_two_hosts(hosts: TwoHosts) -> None:
    """`lvlip up` on each host starts the layers of that host alone; 10 MB pass in each direction, with the kernel next
    to host A and programs on host B; and link, killed in between, comes back as on one host."""
    a, b = hosts.start()
    assert set(a.run_directory.path.glob("*.lock")) == {
        a.run_directory.path / f"{name}.lock" for name in ("link", "ip")
    }
    assert set(b.run_directory.path.glob("*.lock")) == {
        b.run_directory.path / f"{name}.lock" for name in ("tcp", "gateway")
    }
    with KernelServer(hosts.near, a.host, streams.sends(1, SIZE)) as server:
        assert b.submit(streams.app_download, a.host, server.port).result(LIMIT_S) == digest(stream(1, SIZE))
    with KernelServer(hosts.near, a.host, streams.answers_digest) as server:
        assert b.submit(streams.app_upload, a.host, server.port, 2, SIZE).result(LIMIT_S) == digest(stream(2, SIZE))
    served = b.submit(streams.app_serve, 8000, 1, 3, SIZE)
    got: list[str] = []
    with kernel_connect(hosts.near, a.address, 8000) as sock:
        exchange = threading.Thread(target=lambda: got.append(streams.both_ways(sock, 4, SIZE)))
        exchange.start()
        a.restart("ip")
        exchange.join(LIMIT_S)
    assert got == [digest(stream(3, SIZE))]
    assert served.result(LIMIT_S) == [digest(stream(4, SIZE))]


def syn(hosts: TwoHosts, a: Stack, port: int) -> std.socket:
    """A kernel socket next to host A that has begun to connect."""
    sock = hosts.near.socket()
    sock.setblocking(False)
    assert sock.connect_ex((a.address, port)) == errno.EINPROGRESS
    return sock


def outcome(sock: std.socket, timeout: float = 60.0) -> int:
    """The errno with which the attempt ended; EINPROGRESS if it has not."""
    if not select.select([], [sock], [], timeout)[1]:
        return errno.EINPROGRESS
    return sock.getsockopt(std.SOL_SOCKET, std.SO_ERROR)


def stack_times(a: Stack, b: Stack) -> tuple[int, int]:
    """Of both hosts."""
    return a.ask("link", "debug.state")["now"], b.ask("tcp", "debug.state")["now"]


def test_a_hold_stops_both_hosts(hosts: TwoHosts) -> None:
    """From host B, the layers of A are held, too: their clock stands, the kernel's SYN waits before link, and can be
    listed, changed and stepped through all layers of both hosts and out again; then both go on."""
    a, b = hosts.start()
    assert outcome(syn(hosts, a, 1)) == errno.ECONNREFUSED
    a.remember()  # ARP is done
    held = b.lvlip("hold")
    assert "link and ip on another host are held, too" in held.stdout and "NOT HELD" not in held.stdout
    assert "link and ip on another host are held, too" in b.lvlip("status").stdout
    assert a.ask("link", "status")["held"] and b.ask("tcp", "status")["held"]
    assert "by lvlip hold" in a.lvlip("status").stdout
    sock = syn(hosts, a, 2)
    with Debugger("b", root=b.directory) as debugger:
        first = until(lambda: debugger.held("link:up"), "the SYN waits")[0]  # on a busy machine it may be sent again
        assert first.process == "link" and 0 <= time.monotonic_ns() - first.entered < 100e9
        assert "Flags [S]" in b.lvlip("held", "list").stdout
        debugger.edit(first.name, {"tcp.window_size_value": 1234})
        walked = [debugger.step()[0] for _ in range(6)]
        assert [one.process for one in walked] == ["link", "ip", "tcp", "ip", "link", "link"]
        assert walked[-1].left and [event.reason for event in walked[2].events] == ["tcp_no_connection"]
        assert all(one.output and one.output[0].process != one.process for one in walked[:4:3])
        before = stack_times(a, b)
        after = before
        for _ in range(5):  # one may be due already
            if after[0] == before[0]:
                debugger.step_timer()
                after = stack_times(a, b)
        assert after[0] - before[0] == after[1] - before[1] > 0
    assert outcome(sock) == errno.ECONNREFUSED
    b.lvlip("continue")
    assert not a.ask("link", "status")["held"] and not b.ask("tcp", "status")["held"]
    assert outcome(syn(hosts, a, 3)) == errno.ECONNREFUSED


def test_a_breakpoint_on_the_other_host_stops_both(hosts: TwoHosts) -> None:
    """Set on host B at a packet that host A alone sees: link stops its host, ip tells tcp, which stops B. Either host
    lets both go on; and the breakpoint is one, which either can take away."""
    a, b = hosts.start()
    assert outcome(syn(hosts, a, 1)) == errno.ECONNREFUSED
    assert b.lvlip("break", "add", "tcp.dstport == 4242", "--at", "link:up").stdout.startswith("breakpoint 1:")
    sock = syn(hosts, a, 4242)
    with Debugger("b", root=b.directory) as debugger:
        state = debugger.wait_for_stop(60)
    assert state is not None and state.stop is not None and state.stop.process == "link", state
    assert state.behind == ["link", "ip"] and state.elsewhere == []
    assert a.ask("ip", "status")["held"] and outcome(sock, 0.2) == errno.EINPROGRESS
    assert "breakpoint 1" in b.lvlip("status").stdout and "breakpoint 1" in a.lvlip("status").stdout
    assert "4242" in a.lvlip("break", "list").stdout
    a.lvlip("break", "remove", "1")
    a.lvlip("continue")
    assert outcome(sock) == errno.ECONNREFUSED
    assert not a.ask("ip", "status")["held"] and not b.ask("tcp", "status")["held"]
    for one in (a, b):
        assert one.lvlip("break", "list").stdout == "no breakpoints are set\n"
    assert outcome(syn(hosts, a, 4242)) == errno.ECONNREFUSED


def test_two_debuggers_on_two_hosts(hosts: TwoHosts) -> None:
    """Who holds the stack from host B and lives is respected on host A, by its place and name; not so when it ended."""
    a, b = hosts.start()
    with Debugger("b", root=b.directory, tool="test") as debugger:
        assert debugger.hold().behind == ["link", "ip"]
        for words in (("continue",), ("step",)):
            refused = a.lvlip(*words, check=False)
            assert refused.returncode == 1 and "which still runs" in refused.stderr, refused
        assert "by test" in a.lvlip("status").stdout
        assert a.lvlip("continue", "--force").returncode == 0
        assert not debugger.state().held and not b.ask("tcp", "status")["held"]


def test_a_layer_that_cannot_be_reached_is_named(hosts: TwoHosts) -> None:
    """ip does not answer: hold and what follows say what is not held, and their exit status is 1; here the stack is."""
    a, b = hosts.start()
    pid = a.ask("ip", "status")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        held = b.lvlip("hold", check=False)
        assert held.returncode == 1 and "NOT HELD: ip on another host, where nobody answers" in held.stdout, held
        assert b.ask("tcp", "status")["held"]
        for words in (("held", "list"), ("break", "add", "tcp"), ("break", "list"), ("continue",)):
            done = b.lvlip(*words, check=False)
            assert done.returncode == 1 and "not reached: ip on another host" in done.stderr, done
        assert not b.ask("tcp", "status")["held"]
    finally:
        os.kill(pid, signal.SIGCONT)


def test_what_crosses_the_cable_is_encrypted(hosts: TwoHosts) -> None:
    """Nothing of the payload, nor of the names in our messages, can be read between the hosts."""
    a, b = hosts.start()
    with hosts.near.socket(std.AF_PACKET, std.SOCK_RAW, std.htons(ETH_P_ALL)) as sniffer:
        sniffer.bind(("cable0", ETH_P_ALL))
        secret = b"the quick brown fox jumps over the lazy dog " * 200
        with KernelServer(hosts.near, a.host, lambda sock: sock.sendall(secret)) as server:
            assert b.submit(streams.app_download, a.host, server.port).result(LIMIT_S) == digest(secret)
        seen = b""
        sniffer.setblocking(False)  # all of it was seen before it came
        with contextlib.suppress(BlockingIOError):
            while True:
                seen += sniffer.recv(65_535)
    assert len(seen) > len(secret)
    assert b"quick brown" not in seen


STRANGER = """
import sys, time, zmq, msgspec
endpoint, server_key = sys.argv[1], sys.argv[2].encode()
context = zmq.Context()
push = context.socket(zmq.PUSH)
push.linger = 0
if server_key:
    push.curve_publickey, push.curve_secretkey = zmq.curve_keypair()
    push.curve_serverkey = server_key
monitor = push.get_monitor_socket()
push.connect(endpoint)
hello = [90, sys.argv[3], 4711, 0]
segment = [2, 1, [], False, 0, 1, b"\\n\\0\\0\\1", b"\\n\\0\\0\\2", 6, 64, 0, bytes(20), b"", 2, 0, True, 0]
from zmq.utils.monitor import recv_monitor_message
outcomes = {zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
            zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_DISCONNECTED}
events = set()
begun = time.monotonic()
while time.monotonic() < begun + 2 or (not events & outcomes and time.monotonic() < begun + 50):
    while monitor.poll(0):
        events.add(recv_monitor_message(monitor)["event"])
    for item in (hello, segment):
        try:
            push.send(msgspec.msgpack.encode([1, 4711, 0, [item]]), zmq.NOBLOCK)
        except zmq.Again:
            pass
    time.sleep(0.01)
print("in" if zmq.EVENT_HANDSHAKE_SUCCEEDED in events else "out")
"""


def test_a_stranger_stays_outside(hosts: TwoHosts) -> None:
    """With a key of his own, and without any: no message of his reaches tcp or ip, and traffic goes on."""
    a, b = hosts.start()
    before = {layer: stack.counters(layer) for stack, layer in ((b, "tcp"), (a, "ip"))}
    for endpoint, key, name in (
        (f"tcp://{CABLE}.2:7001", hosts.public["B"], "ip"),
        (f"tcp://{CABLE}.1:7002", hosts.public["A"], "tcp"),
        (f"tcp://{CABLE}.2:7001", "", "ip"),
    ):
        tried = hosts.near.run([sys.executable, "-c", STRANGER, endpoint, key, name], env={"PYTHONPATH": str(ROOT)})
        assert tried.stdout == "out\n", (endpoint, bool(key))
    for stack, layer in ((b, "tcp"), (a, "ip")):
        assert stack.ask(layer, "status")["ready"], layer
        after = stack.counters(layer)
        for reason in ("drop.stale_epoch", "drop.bad_message", "drop.garbage", "drop.tcp_no_connection"):
            assert after.get(reason, 0) == before[layer].get(reason, 0), reason
        assert after["drop.unknown_key"] > 0, layer
        assert stack.log(layer).count("unknown public key") == 1, stack.log(layer)
    with KernelServer(hosts.near, a.host, streams.sends(1, 100_000)) as server:
        assert b.submit(streams.app_download, a.host, server.port).result(LIMIT_S) == digest(stream(1, 100_000))


MISTAKES = {
    "no-secret": (r"secret_key_file = .*\n", "", "ipc.secret_key_file"),
    "no-allowed": (r"allowed_keys = .*\n", "", "ipc.allowed_keys"),
    "no-server-key": (r"server_keys = .*\n", "", "ipc.server_keys"),
    "missing-file": (r'secret_key_file = ".*"', 'secret_key_file = "/nowhere/level-ip.key"', "/nowhere/level-ip.key"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_without_keys_nothing_starts(hosts: TwoHosts, mistake: str) -> None:
    """Each key that is missing is named; the layer does not run."""
    pattern, instead, named = MISTAKES[mistake]
    file = hosts.files["B"]
    text, changes = re.subn(pattern, instead, file.read_text())
    assert changes == 1
    file.write_text(text)
    done = refused(hosts, file)
    assert named in done.stderr and "lvlip keygen" in done.stderr, done.stderr


def test_a_key_file_that_others_can_read_is_refused(hosts: TwoHosts, tmp_path: Path) -> None:
    """The message says which file, and the command that cures it."""
    (tmp_path / "B.key").chmod(0o644)
    assert f"chmod 600 {tmp_path / 'B.key'}" in refused(hosts, hosts.files["B"]).stderr


def refused(hosts: TwoHosts, file: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "layers.tcp",
        "--run",
        str(file.parent / "r"),
        "--name",
        "b",
        "--config",
        str(file),
    ]
    done = hosts.far.run(command, check=False, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode in (1, 2), done
    return done

"""What outlives the program and what does not: exit after a write, SIGKILL, Ctrl-C, fork, the helper's own end."""

from __future__ import annotations

import os
import signal
import socket as std
import subprocess
import threading
import time
from pathlib import Path

import pytest
from clienttools import PATIENCE_S, Peer, Stack, echo, read_all

from levelip.client import socket
from tests.waiting import until


class Sink:
    """A peer that reads to the end, once it is to begin, and keeps what came or how it ended."""

    def __init__(self, *, late_s: float = 0.0, told: bool = False) -> None:
        """`late_s`: after so many seconds; `told`: when `begin` is set."""
        self.late_s = late_s
        self.begin = threading.Event()
        if not told:
            self.begin.set()
        self.got: list[bytes | str] = []

    def __call__(self, connection: std.socket) -> None:
        time.sleep(self.late_s)
        assert self.begin.wait(PATIENCE_S)
        try:
            self.got.append(read_all(connection))
        except ConnectionResetError:
            self.got.append("RST")


def helpers(pid: int) -> list[int]:
    """Helpers that were started by the program `pid`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"levelip.client.helper" in words and words[-2].endswith(b"[%d]" % pid):
                found.append(int(entry.name))
    return found


EXIT_AFTER_WRITE = """
    import os, sys
    import socket as std
    from levelip.client import socket
    sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    std.socket.setsockopt(sock, socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)  # the pair is to hold more
    sock.sendall(b"x" * int(sys.argv[2]))
    os._exit(3)
"""


@pytest.mark.parametrize("length", [150_000, 3_000_000])
def test_exit_right_after_write(stack: Stack, length: int) -> None:
    """All that was written before os._exit arrives, then a FIN, even if the peer reads late; then the helper ends."""
    sink = Sink(late_s=0.5)
    with Peer(sink) as peer:
        with stack.program(EXIT_AFTER_WRITE, str(peer.address[1]), str(length)) as program:
            out = program.communicate(timeout=PATIENCE_S)
        assert program.returncode == 3, out
        peer.wait()
    assert sink.got == [b"x" * length]
    until(lambda: not helpers(program.pid), "helper ended")


def test_standard_error_ends_with_the_program(stack: Stack) -> None:
    """Whoever waits for the end of the program's output is not held up by a helper that still has bytes to deliver."""
    sink = Sink(told=True)
    with Peer(sink) as peer:
        with stack.program(EXIT_AFTER_WRITE, str(peer.address[1]), "1500000") as program:
            program.communicate(timeout=PATIENCE_S)
        assert program.returncode == 3
        assert helpers(program.pid), "it delivers still"
        sink.begin.set()
        peer.wait()
    assert sink.got == [b"x" * 1_500_000]


def test_sigkill_closes_like_linux(stack: Stack) -> None:
    """SIGKILL: what was written arrives with a FIN; the listener is gone; a socket with unread bytes is reset."""
    sink = Sink()
    reset = Sink()

    def unread(connection: std.socket) -> None:
        connection.sendall(b"unread")
        reset(connection)

    source = """
        import sys, time
        from levelip.client import socket
        one = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        one.sendall(b"y" * 100_000)
        two = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
        two.recv(1, socket.MSG_PEEK)
        server = socket.create_server(("127.0.0.1", 0))
        print(server.getsockname()[1])
        time.sleep(60)
    """
    with (
        Peer(sink) as peer,
        Peer(unread) as other,
        stack.program(source, str(peer.address[1]), str(other.address[1])) as program,
    ):
        port = int(program.stdout.readline())
        assert stack.gateway.open_sockets == 3
        program.kill()
        peer.wait()
        other.wait()
        until(lambda: stack.gateway.open_sockets == 0, "all closed")
        with pytest.raises(ConnectionRefusedError):
            std.create_connection(("127.0.0.1", port))
        program.wait()
    assert sink.got == [b"y" * 100_000]
    assert reset.got == ["RST"]
    until(lambda: not helpers(program.pid), "helper ended")


def test_ctrl_c_does_not_cut_what_was_written(stack: Stack) -> None:
    """SIGINT, SIGTERM and SIGHUP to the program's process group leave the helper at work."""
    sink = Sink(late_s=0.7)
    source = """
        import sys, time
        from levelip.client import socket
        sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        sock.sendall(b"z" * 2_000_000)
        print("written")
        time.sleep(60)
    """
    with Peer(sink) as peer:
        with stack.program(source, str(peer.address[1])) as program:
            assert program.stdout.readline() == "written\n"
            (helper,) = helpers(program.pid)
            assert os.getpgid(helper) != os.getpgid(program.pid)
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                os.kill(helper, number)
            os.killpg(program.pid, signal.SIGINT)
            program.communicate(timeout=PATIENCE_S)
        peer.wait()
    assert sink.got == [b"z" * 2_000_000]
    until(lambda: not helpers(program.pid), "helper ended")


def test_sigkill_while_connecting(stack: Stack) -> None:
    """A program killed while its non-blocking connect is under way: the connect is given up, the helper ends."""
    source = """
        import sys, time
        from levelip.client import socket
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", int(sys.argv[1])))
        print("trying")
        time.sleep(60)
    """
    with std.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with std.create_connection(("127.0.0.1", port)), stack.program(source, str(port)) as program:
            assert program.stdout.readline() == "trying\n"
            until(lambda: stack.gateway.open_sockets == 1, "begun")
            program.kill()
            until(lambda: stack.gateway.open_sockets == 0, "given up")
            program.wait()
    until(lambda: not helpers(program.pid), "helper ended")


def test_fork(stack: Stack) -> None:
    """A forked child uses the parent's socket and new ones of its own; the connection ends with the last holder."""
    sink = Sink()
    source = """
        import os, sys, threading
        from levelip.client import socket
        address = ("127.0.0.1", int(sys.argv[1]))
        echo = ("127.0.0.1", int(sys.argv[2]))
        shared = socket.create_connection(address)
        threading.Thread(target=lambda: socket.socket().close()).start()
        shared.sendall(b"parent,")
        ready, go = os.pipe()
        if os.fork() == 0:
            own = socket.create_connection(echo)
            own.sendall(b"child")
            assert own.recv(100) == b"child"
            assert shared.getpeername() == address
            os.read(ready, 1)
            shared.sendall(b"child")
            os._exit(0)
        shared.close()
        other = socket.create_connection(echo)
        other.sendall(b"parent")
        assert other.recv(100) == b"parent"
        os.write(go, b"x")
        assert os.wait()[1] == 0
        print("done")
    """
    with Peer(sink) as peer, Peer(echo) as other:
        with stack.program(source, str(peer.address[1]), str(other.address[1])) as program:
            out, errors = program.communicate(timeout=PATIENCE_S)
        assert out == "done\n", errors
        peer.wait()
    assert sink.got == [b"parent,child"]
    until(lambda: stack.gateway.open_sockets == 0, "all closed")
    until(lambda: not helpers(program.pid), "helper ended")


def test_prefork_server(stack: Stack) -> None:
    """Children that accept on one inherited listener serve all connections."""
    source = """
        import os, signal
        from levelip.client import socket
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        server = socket.create_server(("127.0.0.1", 0))
        children = []
        for _ in range(3):
            pid = os.fork()
            if not pid:
                while True:
                    sock, _ = server.accept()
                    with sock:
                        sock.sendall(b"%d" % os.getpid())
            children.append(pid)
        print(server.getsockname()[1])
        server.close()
        signal.sigwait({signal.SIGUSR1})
        for pid in children:
            os.kill(pid, signal.SIGKILL)
    """
    with stack.program(source) as program:
        port = int(program.stdout.readline())
        served = set()
        for _ in range(60):
            with std.create_connection(("127.0.0.1", port)) as peer:
                served.add(read_all(peer))
        assert 1 <= len(served) <= 3
        program.send_signal(signal.SIGUSR1)
        _, errors = program.communicate(timeout=PATIENCE_S)
        assert program.returncode == 0, errors
    until(lambda: stack.gateway.open_sockets == 0, "all closed")


def test_subprocess_inherits_nothing(stack: Stack) -> None:
    """A child that executes another program holds neither sockets nor helper."""
    sink = Sink()
    source = """
        import subprocess, sys
        from levelip.client import socket
        sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        sock.sendall(b"w")
        child = subprocess.Popen(["sleep", "30"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(child.pid)
    """
    with Peer(sink) as peer:
        with stack.program(source, str(peer.address[1])) as program:
            sleeper = int(program.communicate(timeout=PATIENCE_S)[0])
        try:
            peer.wait()
            until(lambda: not helpers(program.pid), "helper ended")
        finally:
            os.kill(sleeper, signal.SIGKILL)
    assert sink.got == [b"w"]


def test_killed_helper(stack: Stack) -> None:
    """The helper's death resets the program's sockets, and the next socket gets another helper."""
    before = helpers(os.getpid())
    with Peer(echo) as peer:
        sock = socket.create_connection(peer.address)
        (helper,) = set(helpers(os.getpid())).difference(before)
        os.kill(helper, signal.SIGKILL)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        assert sock.recv(1) == b""
        sock.close()
        with socket.create_connection(peer.address) as sock:
            sock.sendall(b"new")
            assert sock.recv(10) == b"new"


def test_output_can_be_captured(stack: Stack) -> None:
    """The helper writes nothing to the program's standard streams."""
    with Peer(echo) as peer, stack.program(EXIT_AFTER_WRITE, str(peer.address[1]), "10") as program:
        assert program.communicate(timeout=PATIENCE_S) == ("", "")
    assert isinstance(program, subprocess.Popen)


@pytest.mark.timeout(400)
def test_many_sockets(memory_stack: Stack) -> None:
    """A program whose own soft limit is raised has 1,100 connections at once through one helper."""
    source = """
        import resource, sys
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        from levelip.client import socket
        server = socket.create_server(("127.0.0.1", 0), backlog=2048)
        pairs = []
        for i in range(550):
            one = socket.create_connection(server.getsockname())
            two, _ = server.accept()
            pairs.append((one, two))
        for i, (one, two) in enumerate(pairs):
            one.sendall(b"%d" % i * 1000)
            two.sendall(b"%d" % -i * 1000)
        for i, (one, two) in enumerate(pairs):
            for sock, want in ((two, b"%d" % i * 1000), (one, b"%d" % -i * 1000)):
                got = b""
                while len(got) < len(want):
                    got += sock.recv(65536)
                assert got == want
        print("done")
    """
    soft_enough = 8192
    import resource

    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < soft_enough:
        pytest.skip("hard limit of descriptors too low")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with memory_stack.program(source) as program:
            out, errors = program.communicate(timeout=300)
        assert out == "done\n", errors
        until(lambda: memory_stack.gateway.open_sockets == 0, "all closed")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

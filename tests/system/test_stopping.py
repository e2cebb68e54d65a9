"""A running stack is stopped, walked through, changed and let go on, with the kernel as its peer."""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from levelip.client import socket as levelip_socket
from levelip.debug.debugger import Debugger
from levelip.debug.injecting import make_target
from levelip.debug.model import DebugError, HeldByAnother, NothingHeld
from levelip.debug.tap import HEAD
from levelip.ipc.control import ControlError
from levelip.tracing.build import build_line
from levelip.wire.tcp import SYN
from tests.system import streams
from tests.system.harness import ROOT, Stack
from tests.system.processors import Queued
from tests.system.streams import KernelServer, digest, stream
from tests.waiting import until

pytestmark = pytest.mark.timeout(400)
LIMIT_S = 100.0
HOLD_S = 0.05
"""`hold` takes effect within this time, and what processes wait for a processor that others use."""


@pytest.fixture
def stack(shared_stack: Stack) -> Iterator[Stack]:
    """The module's stack; after each test it runs, without breakpoints and faults."""
    yield shared_stack
    with Debugger(shared_stack.name, root=shared_stack.directory, force=True) as debugger:
        with contextlib.suppress(DebugError):
            debugger.resume()
        for one, _, _ in debugger.breakpoints():
            debugger.remove_breakpoint(one.number)
    for layer in shared_stack.layers:
        shared_stack.ask(layer, "fault.clear")


@pytest.fixture
def debugger(stack: Stack) -> Iterator[Debugger]:
    with Debugger(stack.name, root=stack.directory) as one:
        yield one


def connecting(stack: Stack, port: int) -> socket.socket:
    """A kernel socket that has begun to connect to the stack."""
    assert stack.namespace is not None
    sock = stack.namespace.socket()
    sock.setblocking(False)
    assert sock.connect_ex((stack.address, port)) == errno.EINPROGRESS
    return sock


def outcome(sock: socket.socket, timeout: float = 60.0) -> int:
    """The errno with which the attempt ended; EINPROGRESS if it has not."""
    if not select.select([], [sock], [], timeout)[1]:
        return errno.EINPROGRESS
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def until_held(debugger: Debugger, at: str) -> None:
    """Until something waits there."""
    until(lambda: debugger.held(at), f"something comes to {at}")


def meet(stack: Stack) -> None:
    """Let both sides know each other's MAC address, so that no ARP stands in a test's way."""
    sock = connecting(stack, 1)
    assert outcome(sock) == errno.ECONNREFUSED
    sock.close()
    stack.remember()


def patient_both_ways(host: str, port: int, seed: int, size: int) -> str:
    """As streams.app_both_ways, for as long as it takes."""
    with levelip_socket.create_connection((host, port), timeout=LIMIT_S) as sock:
        return streams.both_ways(sock, seed, size)


def look_and_step(stack: Stack, debugger: Debugger) -> None:
    """Whatever is held can be listed, shown and stepped; what is no packet cannot be changed."""
    before = debugger.held()
    listed = stack.lvlip("held", "list").stdout.splitlines()
    frames = debugger.held()
    assert len(before) <= len(listed) - 1 <= len(frames), "more may come meanwhile"
    for one in {(one.seam, one.kind): one for one in frames}.values():
        assert one.name in stack.lvlip("held", "show", one.name).stdout
        if one.seam in ("tcp-gateway", "gateway-client"):
            with pytest.raises(ControlError, match="only packets can be changed"):
                debugger.drop(one.name)
    for point in {f"{one.seam}:{one.way}" for one in frames}:
        assert debugger.step(at=point)
    assert len(debugger.step(30)) == 30


@pytest.mark.matrix(ids={"2 s"})
@pytest.mark.parametrize("seconds", [2, 60], ids=lambda seconds: f"{seconds} s")
def test_a_held_transfer_resumes_and_ends_intact(stack: Stack, debugger: Debugger, seconds: int) -> None:
    """All layers stand within 50 ms. While they do no byte goes, none of our timers fires; the kernel goes on sending,
    into bounded queues. Afterwards both streams arrive whole."""
    assert stack.namespace is not None
    size = 60_000_000
    got: list[str] = []

    def both_ways(sock: socket.socket) -> None:
        sock.settimeout(LIMIT_S)
        got.append(streams.both_ways(sock, 1, size))

    with KernelServer(stack.namespace, stack.host, both_ways) as server:
        ours = stack.submit(patient_both_ways, stack.host, server.port, 2, size)
        stack.wait_until(lambda: stack.counters("tcp").get("segments_in", 0) > 100, "the transfer runs")
        over: list[float] = []
        for _ in range(5):  # the quickest: a layer may just then do what takes it longer
            queued = Queued()
            state = debugger.hold()
            assert state.held and state.mine and not state.silent
            over.append(state.took_ns / 1e9 - queued.seconds())
            if over[-1] < HOLD_S:
                break
            debugger.resume()
        print("hold took, s, without what processes waited for a processor:", over)
        assert min(over) < HOLD_S, over
        time.sleep(0.2)
        before, stood = stack.counters("tcp"), debugger.state().now
        time.sleep(seconds)
        assert not ours.done()
        after = debugger.state()
        assert stack.counters("tcp") == before
        assert after.now == stood
        assert all(queue.held <= 1000 + 128 for queue in after.queues)
        assert sum(queue.held for queue in after.queues) > 0
        look_and_step(stack, debugger)
        debugger.resume()
        assert ours.result(LIMIT_S) == digest(stream(1, size))
    assert got == [digest(stream(2, size))]


def test_no_regular_expression_stops_a_running_layer(stack: Stack, debugger: Debugger) -> None:
    """Over a packet of this transfer a backtracking engine would sit for good; here all of it arrives, at every seam
    looked into, and the layers answer meanwhile."""
    assert stack.namespace is not None
    data = b"a" * 2_000_000
    debugger.add_breakpoint('tcp.payload matches "^(a+)+b$" or tcp.payload matches "(a|aa)+c"')
    with KernelServer(stack.namespace, stack.host, lambda sock: sock.sendall(data)) as server:
        ours = stack.submit(streams.app_download, stack.host, server.port)
        assert not debugger.state().silent
        assert ours.result(LIMIT_S) == digest(data)
    ((_, met, stops),) = debugger.breakpoints()
    assert (met, stops) == (0, 0)


def test_a_person_walks_a_packet_through_the_layers(stack: Stack, debugger: Debugger) -> None:
    """A SYN for a closed port, step by step: link, ip, tcp, which says why it answers with RST; and down again. The
    kernel hears of it while the stack is still held."""
    meet(stack)
    debugger.hold()
    sock = connecting(stack, 9)
    until_held(debugger, "device:up")
    steps = debugger.step(6)
    assert [(step.process, step.frame.seam, step.frame.way) for step in steps if step.frame] == [
        ("link", "link", "up"), ("ip", "link-ip", "up"), ("tcp", "ip-tcp", "up"),
        ("ip", "ip-tcp", "down"), ("link", "link-ip", "down"), ("link", "link", "down"),
    ]  # fmt: skip
    assert ("drop", "tcp_no_connection") in [(event.kind, event.reason) for event in steps[2].events]
    assert steps[5].left and not steps[5].output
    assert outcome(sock) == errno.ECONNREFUSED
    sock.close()
    assert debugger.state().held
    debugger.resume()
    with pytest.raises(DebugError, match="is not held"):
        debugger.resume()
    with pytest.raises(DebugError, match="runs; hold it first"):
        debugger.step()


def test_the_clock_jumps_to_the_next_deadline(stack: Stack, debugger: Debugger) -> None:
    """`step --timer`: a half-open connection's SYN-ACK is sent again when its timer is stepped, without any waiting."""
    meet(stack)
    serving = stack.submit(streams.app_serve, 7700, 1, 1, 10)
    stack.wait_listening(7700)
    debugger.add_breakpoint("tcp.flags.syn and tcp.flags.ack", at="link:down", once=True)
    sock = connecting(stack, 7700)
    stop = debugger.wait_for_stop(60)
    assert stop is not None and stop.stop is not None
    debugger.drop(stop.stop.held)
    began, before = time.monotonic(), debugger.state().now
    for _ in range(20):
        step = debugger.step_timer()
        if step.process == "tcp" and step.output:
            break
    assert step.process == "tcp", step
    assert "rto" in [event.kind for event in step.events]
    assert debugger.state().now - before > 0.9e9  # the RTO of RFC 6298 (2.1)
    assert time.monotonic() - began < 50
    debugger.resume()
    assert outcome(sock) == 0
    sock.setblocking(True)
    sock.settimeout(60)
    sock.sendall(b"x" * 10)
    sock.shutdown(socket.SHUT_WR)
    assert streams.read_all(sock) == digest(stream(1, 10))
    assert serving.result(60) == [digest(b"x" * 10)]
    sock.close()


def test_a_packet_is_stopped_edited_and_let_go(stack: Stack, debugger: Debugger) -> None:
    """The kernel sees another MSS in our SYN-ACK, with a right checksum; tcp refuses a SYN with a wrong one."""
    meet(stack)
    serving = stack.submit(streams.app_serve, 7701, 1, 1, 10)
    stack.wait_listening(7701)
    debugger.add_breakpoint("tcp.flags.syn and tcp.srcport == 7701", at="ip-tcp down", once=True)
    sock = connecting(stack, 7701)
    state = debugger.wait_for_stop(60)
    assert state is not None and state.stop is not None and state.mine
    (synack,) = debugger.held("ip-tcp:down")
    assert synack.name == state.stop.held
    assert debugger.edit(synack.name, {"tcp.options.mss_val": 700}).name == synack.name
    debugger.resume()
    assert outcome(sock) == 0
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= 700
    assert debugger.breakpoints() == []
    sock.setblocking(True)
    sock.settimeout(60)
    sock.sendall(b"x" * 10)
    sock.shutdown(socket.SHUT_WR)
    assert streams.read_all(sock) == digest(stream(1, 10))
    assert serving.result(60)
    sock.close()
    stack.wait_ended(7701)

    debugger.hold("ip-tcp:up")
    wrong = stack.counters("tcp").get("drop.tcp_checksum", 0)
    sock = connecting(stack, 9)
    syn = until(lambda: [one for one in debugger.held("ip-tcp:up") if one.record[HEAD][13] == SYN], "the SYN waits")[0]
    debugger.edit(syn.name, {"tcp.window_size_value": 1}, checksums="keep")
    (event,) = debugger.release(syn.name).events
    assert (event.kind, event.reason) == ("drop", "tcp_checksum")
    assert stack.counters("tcp")["drop.tcp_checksum"] == wrong + 1
    sock.close()


def test_a_live_connection_gets_a_packet_that_nobody_sent(stack: Stack, debugger: Debugger) -> None:
    """An injected RST with the right number, relative as packetdrill has it, resets the program's connection; the same
    line for a connection that is not there is answered as RFC 9293 says, and changes nothing."""
    assert stack.namespace is not None
    server = stack.namespace.socket()
    server.bind((stack.host, 0))
    server.listen()
    ours = stack.submit(streams.app_download, stack.host, server.getsockname()[1])
    peer, _ = server.accept()
    rows = [row for row in stack.ask("tcp", "ss")["sockets"] if row["remote_port"] == server.getsockname()[1]]
    name = f"{stack.address}:{rows[0]['local_port']}>{stack.host}:{rows[0]['remote_port']}"
    assert debugger.inject(build_line("R 1:1(0)", make_target(debugger, "ip-tcp:up", name)), "ip-tcp", "up") == ""
    with pytest.raises(ConnectionResetError):
        ours.result(60)
    peer.close()
    server.close()
    with pytest.raises(DebugError, match="say which way it goes"):
        make_target(debugger, "ip-tcp", name)


def test_an_event_stops_the_stack(stack: Stack, debugger: Debugger) -> None:
    """`event retransmit and conn.cwnd < 20`: met while a third of the packets is lost; it says about whom."""
    assert stack.namespace is not None
    with KernelServer(stack.namespace, stack.host, streams.answers_digest) as server:
        debugger.add_breakpoint(f"event retransmit and conn.cwnd < 20 and conn.remote_port == {server.port}", once=True)
        stack.ask("link", "fault.set", seam="link", direction="down", loss=0.3, seed=5)
        ours = stack.submit(streams.app_upload, stack.host, server.port, 3, 3_000_000)
        state = debugger.wait_for_stop(60)
        assert state is not None and state.stop is not None and state.stop.event is not None
        assert (state.stop.process, state.stop.event.kind) == ("tcp", "retransmit")
        assert state.stop.event.conn.endswith(f">{stack.host}:{server.port}")
        assert "drop" not in state.stop.text
        stack.ask("link", "fault.clear")
        debugger.resume()
        assert ours.result(LIMIT_S) == digest(stream(3, 3_000_000))


def test_a_layer_that_is_restarted_while_held_is_held(stack: Stack, debugger: Debugger) -> None:
    """And takes up its work when the stack goes on; breakpoints are known to it."""
    meet(stack)
    debugger.add_breakpoint("tcp.dstport == 9", at="link-ip:up", once=True)
    debugger.hold()
    stack.restart("ip")
    assert stack.ask("ip", "status")["held"]
    sock = connecting(stack, 8)
    until_held(debugger, "device:up")
    assert stack.counters("ip").get("rx_packets", 0) == 0
    debugger.resume()
    assert outcome(sock) == errno.ECONNREFUSED
    sock.close()
    sock = connecting(stack, 9)
    state = debugger.wait_for_stop(60)
    assert state is not None and state.stop is not None and state.stop.process == "ip"
    sock.close()


def test_two_debuggers(stack: Stack, debugger: Debugger) -> None:
    """The second is told who holds the stack, and may take over by force; one that died leaves it held, and `lvlip
    status` says so and how to go on."""
    program = (
        "import sys, time; from levelip.debug.debugger import Debugger\n"
        f"one = Debugger({stack.name!r}, root={str(stack.directory)!r}, tool='the other'); one.hold()\n"
        "print('held', flush=True); time.sleep(600)"
    )
    other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        for action in (debugger.resume, debugger.hold, debugger.step):
            with pytest.raises(HeldByAnother, match=rf"by the other \(pid {other.pid}, .*--force"):
                action()
        refused = stack.lvlip("continue", check=False)
        assert refused.returncode == 1 and "take over with --force" in refused.stderr
        assert "go on with lvlip continue --force" in stack.lvlip("status").stdout
        assert stack.lvlip("continue", "--force").returncode == 0
        assert not debugger.state().held
    finally:
        other.kill()
        other.wait()
        other.stdout.close() if other.stdout else None
    debugger.hold("tcp")
    with Debugger(stack.name, root=stack.directory) as second:
        second.resume()  # of one process: the same debugger
    dead = subprocess.run([sys.executable, "-c", program.replace("time.sleep(600)", "")], cwd=ROOT, check=True)
    assert dead.returncode == 0
    shown = stack.lvlip("status").stdout
    assert "by the other (pid " in shown and "which has ended" in shown
    assert "go on with lvlip continue\n" in shown
    stack.lvlip("continue")


def test_what_is_wrong_is_told(stack: Stack, debugger: Debugger) -> None:
    """Every sentence says what would be right."""
    for wrong, text in (
        (lambda: debugger.hold("tpc"), "there are the layers link, ip, tcp, udp, gateway, the seams device"),
        (lambda: debugger.add_breakpoint(""), "needs an expression"),
        (lambda: debugger.add_breakpoint(on="retransmt"), "perhaps retransmit"),
        (lambda: debugger.add_breakpoint("tcp", at="tcp-gateway"), "no packets pass at tcp-gateway"),
        (lambda: debugger.add_breakpoint("tcp", on="drop"), "is about packets"),
        (lambda: debugger.add_breakpoint("conn.cwnd < 4", at="link"), "known to tcp alone"),
        (lambda: debugger.remove_breakpoint(77), "there is no breakpoint 77"),
        (lambda: debugger.drop("x1"), "no name of a held frame"),
        (lambda: debugger.drop("t99999"), "is not held any more"),
    ):
        with pytest.raises(ControlError, match=text):
            wrong()  # type: ignore[no-untyped-call]
    debugger.hold("gateway")
    with pytest.raises(NothingHeld, match="step --timer"):
        debugger.step(at="tcp-gateway")
    debugger.resume()


def test_the_command_line_and_a_script(stack: Stack, tmp_path: Path) -> None:
    """`lvlip debug --batch -x FILE` does what is typed; it ends at the first command that fails, with exit code 1."""
    meet(stack)
    script = tmp_path / "syn.lvlip"
    script.write_text(
        "# a SYN\nhold\ntb tcp.flags.syn and tcp.dstport == 9 --at link-ip:up\nc 60\nl\np .\ns 2\nc &\nq\n"
    )
    assert stack.namespace is not None
    command = [sys.executable, "-m", "levelip.cli", "debug", "--batch", "-x", str(script)]
    child = stack.namespace.popen(
        command, env={**stack.env, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with Debugger(stack.name, root=stack.directory) as debugger:
        until(debugger.breakpoints, "the script's breakpoint is there")
        sock = connecting(stack, 9)
    output, _ = child.communicate(timeout=100)
    assert "breakpoint 1 in ip: tcp.flags.syn and tcp.dstport == 9 --at link-ip up --once" in output
    assert child.returncode == 0, output
    assert "tcp.dstport" in output and "→ t" in output and "drop, for a port where nobody listens" in output
    assert outcome(sock) == errno.ECONNREFUSED
    sock.close()
    script.write_text("held drop t99999\nhold\n")
    wrong = stack.lvlip("debug", "--batch", "-x", str(script), check=False)
    assert wrong.returncode == 1 and "t99999 is not held any more" in wrong.stderr
    assert not stack.ask("tcp", "status")["held"]


_SESSION = """
import sys
from levelip.cli.common import Stack
from levelip.cli.prompt import Prompt
prompt = Prompt(Stack(*sys.argv[1:3]))
for line in sys.stdin:
    prompt.carry_out(line.strip(), echo=True)
    sys.stdout.flush()
"""
"""Carries out every line, also after one that failed."""


def test_every_command_as_it_is_typed(stack: Stack, tmp_path: Path) -> None:
    """In one session: packets put in, looked at, changed, moved, delayed, dropped and let go; breakpoints; a timer."""
    whose = f"'{stack.address}:9>{stack.host}:4000'"
    lines = [
        ("hold", "the clock stands"),
        (f"inject ip-tcp:up 'S 5:5(0) win 77' --conn {whose}", "at ip-tcp:up, held as t"),
        ("held dup .", "right behind it"),
        ("edit . tcp.window_size_value=78", "win 78"),
        ("edit . ip.ttl=300", "ip.ttl"),
        ("p .", "tcp.window_size_value"),
        ("move . last", "is at place 1 of its queue"),
        ("l ip-tcp", "win 78"),
        ("delay . 10s", "goes 10s after the stack goes on"),
        ("l tcp", "ms left"),
        ("drop .", "dropped t"),
        (f"inject link-ip:up --set tcp.flags.syn=1 --set tcp.dstport=9 --conn {whose}", "at link-ip:up, held as i"),
        ("release --all --at link-ip", "held at ip-tcp"),
        ("b tcp.flags.syn --at link", "breakpoint 1: tcp.flags.syn --at link"),
        ("b tcp.flags.sin", "did you mean tcp.flags.syn"),
        ("disable 1", "disabled: 1"),
        ("info b", "packet  off"),
        ("enable 1", "enabled: 1"),
        ("d 1", "removed: 1"),
        ("d 1", "there is no breakpoint 1"),
        ("inject link:sideways 'S'", "is no seam"),
        (f"inject link:up --file {tmp_path / 'none'}", "does not exist"),
        ("s --at ip-tcp:up", "drop, for a port where nobody listens"),
        ("s --timer", "the clock jumped by"),
        ("status", "by lvlip debug (pid"),
        ("c &", "goes on"),
    ]
    script = "\n".join(line for line, _ in lines)
    child = stack.popen(
        ["-c", _SESSION, stack.name, str(stack.directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    output, _ = child.communicate(script, timeout=60)
    parts = output.split("(lvlip) ")[1:]
    assert len(parts) == len(lines), output
    for part, (line, told) in zip(parts, lines, strict=True):
        assert part.startswith(line) and told in part, f"{told!r} is not in: {part}"


def until_it_sleeps(pid: int) -> None:
    """Until a process that has just prompted waits for what is typed: a Ctrl-C in the instant between the prompt and
    the wait behind it would be lost (CPython)."""
    stat = Path(f"/proc/{pid}/stat")
    asleep = 0
    while asleep < 5:  # and not for an instant only
        asleep = asleep + 1 if stat.read_text().rpartition(")")[2].split()[0] == "S" else 0
        time.sleep(0.02)


def test_ctrl_c_holds_at_the_prompt(stack: Stack) -> None:
    """At the prompt, and while `continue` waits; what is typed is completed."""
    assert stack.namespace is not None
    main, end = pty.openpty()
    env = {**stack.env, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(stack.directory), "TERM": "dumb"}
    program = (  # the leader of a session that opens a terminal gets it as its own, so that Ctrl-C is a signal
        "import os, sys; terminal = os.open(sys.argv[1], os.O_RDWR); [os.dup2(terminal, fd) for fd in range(3)];"
        "os.execv(sys.executable, [sys.executable, '-m', 'levelip.cli', 'debug'])"
    )
    command = [sys.executable, "-c", program, os.ttyname(end)]
    child = subprocess.Popen(command, env={**os.environ, **env}, start_new_session=True)

    left = ""

    def read(wanted: str) -> str:
        """What comes up to and with `wanted`."""
        nonlocal left
        deadline = time.monotonic() + 60
        while wanted not in left:
            assert time.monotonic() < deadline, f"no {wanted!r} in {left!r}"
            if select.select([main], [], [], 0.2)[0]:
                left += os.read(main, 4096).decode(errors="replace")
        text, _, left = left.partition(wanted)
        return text + wanted

    try:
        read("(lvlip) ")
        os.close(end)  # the child has it open now
        until_it_sleeps(child.pid)
        os.write(main, b"\x03")
        assert "the clock stands" in read("go on with")
        read("(lvlip) ")
        os.write(main, b"c\n")
        stack.wait_until(lambda: not stack.ask("tcp", "status")["held"], "the stack goes on")
        os.write(main, b"\x03")
        read("is held since")
        read("(lvlip) ")
        os.write(main, b"held l\tdev\t\n")
        assert "held list device" in read("no frames are held").replace("\x07", "")
        read("(lvlip) ")
        os.write(main, b"quit\n")
        read("Let it go on?")
        os.write(main, b"y\n")
        assert child.wait(60) == 0
    finally:
        child.kill()
        child.wait()
        os.close(main)
    assert not stack.ask("tcp", "status")["held"]
    assert (stack.directory / "level-ip" / "debug_history").read_text().splitlines()[-1] == "quit"

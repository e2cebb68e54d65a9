"""Runs a script: each event at its time, each packet of the stack compared with the one that is expected next.

Times are the script's own, in ns from its start, which is `base` on the host's clock.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from levelip.addressing import BadSetting
from levelip.frames.core import ControlError
from levelip.frames.packet import Packet
from levelip.tracing.dissect import Dissector
from levelip.tracing.formatting import event_line
from levelip.tracing.packetline.builder import Builder, Injected
from levelip.wire.tcp import ACK, SYN
from simulation.host import Host, setting
from simulation.net import SECOND, NeverAtRest
from simulation.program import Program
from simulation.script.absent import Refused, located, refuse
from simulation.script.answers import World, apply_command, run_command, take_option
from simulation.script.calls import Calls, Running, start
from simulation.script.code import CodeFailed, CodeRunner
from simulation.script.internet import Row
from simulation.script.language import (
    PACKETS,
    Code,
    Command,
    Event,
    IcmpPacket,
    IgmpPacket,
    Kind,
    Option,
    OtherPacket,
    Script,
    ScriptError,
    SystemCall,
    TcpPacket,
    UdpPacket,
)
from simulation.script.messages import compare_icmp, compare_igmp, compare_other
from simulation.script.packets import (
    Captured,
    Flow,
    compare_tcp,
    compare_udp,
    describe,
    join,
    learn,
    take_apart,
    wire_packets,
)
from simulation.script.rounds import AtOnce, InRounds

US = 1000
FIRST_REMOTE_PORT = 53_055  # of connections that the remote host opens; one more for each
NO_END = "the stack does not come to rest ({}); a very long wait can be written in several, as relative times"
QUOTABLE = 64  # injected packets that an ICMP error of the stack may still be about
PATIENCE = 3600 * SECOND  # of simulated time for a packet that may come at any time (`*`)

Expected = TcpPacket | UdpPacket | IcmpPacket | IgmpPacket | OtherPacket


@dataclass(frozen=True, slots=True)
class TraceLine:
    """What happened: "in", "out", "call", "event", "note" or "print", at an instant of the script; `data`: a packet."""

    at: int
    kind: str
    text: str
    data: bytes = b""


class Failure(Exception):
    """An expectation that was not met. `rows` stand side by side in the report."""

    def __init__(self, message: str, event: Event | None, rows: Sequence[Row] = (), line: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.event = event
        self.rows = rows
        self.line = line or (event.line if event is not None else 0)


@dataclass(slots=True)
class Result:
    """What became of a script."""

    script: Script
    failure: Failure | None = None
    error: ScriptError | None = None
    trace: list[TraceLine] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    simulated_ns: int = 0
    wall_s: float = 0.0

    @property
    def refused(self) -> bool:
        """The script needs what the stack leaves out on purpose."""
        return isinstance(self.error, Refused)

    @property
    def status(self) -> int:
        """0: passed, 1: failed, 2: the script is wrong."""
        return 2 if self.error is not None else 1 if self.failure is not None else 0


def run(
    script: Script, *, settings: Mapping[str, str] | None = None, strict: bool | None = None,
    options: Sequence[Option] = (),
) -> Result:  # fmt: skip
    """Run a script. `settings` (--set) hold whatever the script says; `options` come before the script's own."""
    result = Result(script)
    began = time.perf_counter()
    runner: Runner | None = None
    try:
        world = prepare(script, settings or {}, options)
        if strict is not None:
            world.strict = strict
        runner = Runner(script, world, result)
        runner.run()
    except ScriptError as error:
        result.error = error
    except BadSetting as error:  # of addresses, which are looked at together
        result.error = ScriptError(str(error), 1, 1)
    except NeverAtRest as endless:  # before the first event; later ones have their line (Runner.run)
        result.error = ScriptError(NO_END.format(endless), 1, 1)
    except Failure as failure:
        result.failure = failure
    if runner is not None:
        runner.note_events()
        result.simulated_ns = runner.host.now - runner.base
    result.wall_s = time.perf_counter() - began
    return result


def prepare(script: Script, settings: Mapping[str, str], options: Sequence[Option]) -> World:
    """What options and the commands before the first event settle; and whether all of it can be carried out."""
    world = World()
    for name, text in settings.items():
        take_option(world, Option("set", f"{name}={text}", 0, 0))
    world.fixed = frozenset(settings)
    for option in [*options, *script.options]:
        take_option(world, option)
    for event in script.events:
        at = Option("", None, event.line, event.column)
        if event.when is not None:
            break
        if isinstance(event.action, Command):
            apply_command(world, event.action.text, at)
    for event in script.events:
        check(event)
    return world


def check(event: Event) -> None:
    """Refuse what cannot be carried out before anything runs."""
    action = event.action
    refuse(event)
    if isinstance(action, SystemCall) and action.name not in Calls.names():
        known = ", ".join(Calls.names())
        raise ScriptError(f"there is no system call {action.name!r}; there are {known}", event.line, event.column)
    if isinstance(action, Command):
        try:
            list(run_command(action.text))
        except ValueError as error:
            raise located(error, event.line, event.column) from None


class Runner:
    """One run."""

    def __init__(self, script: Script, world: World, result: Result) -> None:
        self.script = script
        self.world = world
        self.result = result
        self.host = Host(
            address=f"{world.local}/{world.prefix}", gateway=world.gateway, mtu=world.mtu,
            gso_max=65_535 if world.offload else 0, settings=world.settings, fixed_isn=world.local_isn,
        )  # fmt: skip
        self.host.on_packet = self._capture
        self.program = Program(self.host)
        self.calls = Calls(self.program, world)
        self.code = CodeRunner(self.program, script.path)
        self.local = IPv4Address(world.local).packed
        self.remote = IPv4Address(world.remote).packed
        self.builder = Builder(self.local, self.remote, IPv4Address(world.gateway).packed)
        self.host.on_answer = self.code.answer
        pace = InRounds if world.rounds else AtOnce
        self.pace: AtOnce = pace(self.host.net, self.host.node, self._look_at_call)
        self.base = self.host.now
        self.last = 0  # when the event before this one happened
        self.queue: deque[Captured] = deque()
        self.flows: dict[tuple[int, int], Flow] = {}
        self.flow: Flow | None = None  # of packets without ports
        self.next_port = FIRST_REMOTE_PORT
        self.listened = False  # since the last connection that the remote host opened
        self.sent: bytes | None = None  # the packet that the stack sent last
        self.injected: deque[bytes] = deque(maxlen=QUOTABLE)
        self.blocked: tuple[Event, Running, int] | None = None  # a call that waits, and when it is to return
        self._dissector = Dissector()
        self.host.events()  # those of its beginning
        for note in world.notes:
            self._trace("note", note)

    @property
    def now(self) -> int:
        """ns since the script's start."""
        return self.host.now - self.base

    def _trace(self, kind: str, text: str, at: int | None = None, data: bytes = b"") -> None:
        self.result.trace.append(TraceLine(self.now if at is None else at, kind, text, data))

    def note_events(self) -> None:
        """Decisions of the cores since the last look, into the trace."""
        for layer, event in self.host.events():
            if layer == "gateway" and event.kind in ("call", "client"):
                continue  # the calls are in the trace as the script has them
            self._trace("event", event_line(layer, event), event.at - self.base)
        printed = self.code.printed.getvalue()
        if printed:
            self.code.printed.seek(0)
            self.code.printed.truncate()
            for line in printed.splitlines():
                self._trace("print", line)

    # the script

    def run(self) -> None:
        """All events, then what is left."""
        for event in self.script.events:
            if event.when is not None:
                self.carry_out(event)
        self.end()

    def carry_out(self, event: Event) -> None:
        """One event that has a time. Failure, or ScriptError with its place."""
        try:
            self._event(event)
        except ScriptError as error:
            if not error.line:
                error.line, error.column = event.line, event.column
            raise
        except NeverAtRest as endless:
            raise ScriptError(NO_END.format(endless), event.line, event.column) from None
        self.note_events()

    def end(self) -> None:
        """What is left behind the last event."""
        try:
            self._end()
        except NeverAtRest as endless:
            raise ScriptError(NO_END.format(endless), self.script.events[-1].line, 1) from None

    def _event(self, event: Event) -> None:
        when = event.when
        assert when is not None
        offset = self.last if when.relative else 0
        low, high = when.start + offset, when.end + offset
        action = event.action
        if isinstance(action, PACKETS) and not action.inbound:
            self._expect(event, action, low, high)
            return
        if isinstance(action, SystemCall):
            self._wait_for_call(low)
        if low < self.now:
            self._late(event, low)
        self._advance(low)
        begun = self.last
        self.last = max(low, 0)
        self.note_events()
        match action:
            case TcpPacket():
                self._inject_tcp(action)
            case IcmpPacket():
                self._inject(self.builder.icmp(action, self.flow, self.sent), batch=action.ip.batch)
            case IgmpPacket():
                self._inject(self.builder.igmp(action), batch=action.ip.batch)
            case UdpPacket():
                self._inject(self.builder.udp(action, self._inbound_flow(action)), batch=action.ip.batch)
            case OtherPacket():
                self._inject(self.builder.other(action), batch=action.ip.batch)
            case SystemCall():
                self._call(event, action, low, begun)
            case Command():
                self._command(event, action)
            case Code():
                self._code(event, action)

    def _late(self, event: Event, low: int) -> None:
        """The time of an event that we bring about has passed: within the tolerance it happens now."""
        if self.now - low > self._tolerance(low):
            rows = [Row("time", seconds(low), seconds(self.now), True)]
            raise Failure("its time had passed when the event before it was over", event, rows)

    def _tolerance(self, at: int) -> float:
        """ns; packetdrill's rule: a fixed time, or a part of the time since the last event if that is more."""
        return max(self.world.tolerance_us * US, self.world.tolerance_percent / 100 * max(at - self.last, 0))

    def _advance(self, to: int) -> None:
        """Let time pass, up to an instant of the script."""
        self.pace.advance(self.base + to)

    # packets from the stack

    def _capture(self, packet: Packet, at: int) -> None:
        payload = self.host.memory.read(packet.payload)
        for data in wire_packets(packet, payload, whole=self.world.strict_segments):
            self.sent = data
            found = take_apart(data, at - self.base, self._flow_of)
            self.code.sent.append(found.ip)
            self.queue.append(found)
            self._trace("out", self._dissector.ipv4(data, len(data)), found.at, data)

    def _flow_of(self, local_port: int, remote_port: int) -> Flow:
        flow = self.flows.get((local_port, remote_port))
        if flow is None:
            flow = self.flows[local_port, remote_port] = Flow(local_port, remote_port)
            if self.flow is None or self.flow.local_port != local_port or self.flow.remote_port != remote_port:
                self.flow = flow
        return flow

    def _next_packet(self, until: int) -> Captured | None:
        """The packet sent next, if one is by the instant `until`."""
        for _ in range(1_000_000):
            if self.queue:
                return self.queue.popleft()
            if not self.pace.step(self.base + until):
                return None
        raise NeverAtRest("1000000 steps without a packet, and something is still due")

    def _expect(self, event: Event, spec: Expected, low: int, high: int) -> None:
        when = event.when
        assert when is not None
        anytime = when.kind is Kind.ANY
        tolerance = self._tolerance(high)
        latest = self.now + PATIENCE if anytime else high + int(tolerance)
        got = self._next_packet(latest)
        if got is None:
            self._missing(event, low, high, latest)
            return
        if isinstance(spec, TcpPacket):
            got = self._join(spec, got, latest)
            if got.tcp is not None and got.flow is not None:
                self.flow = got.flow
            learn(spec, got)
            world = self.world
            rows = compare_tcp(
                spec, got, tick_us=world.ts_tick_us, tolerance_us=world.tolerance_us,
                push=not world.linux_push or bool(world.strict),
            )  # fmt: skip
        elif isinstance(spec, UdpPacket):
            self.flow = got.flow or self.flow
            rows = compare_udp(spec, got)
        elif isinstance(spec, IcmpPacket):
            rows = compare_icmp(spec, got, self.injected)
        elif isinstance(spec, IgmpPacket):
            rows = compare_igmp(spec, got)
        else:
            rows = compare_other(spec, got)
        expected_time = "any" if anytime else seconds(low) if low == high else f"{seconds(low)}~{seconds(high)}"
        early_or_late = not anytime and not low - tolerance <= got.at <= high + tolerance
        rows.insert(0, Row("time", expected_time, seconds(got.at), early_or_late))
        if any(row.differs for row in rows) and "packet" not in self.world.non_fatal:
            raise Failure("the packet differs from the one expected", event, rows)
        self.last = got.at

    def _join(self, spec: TcpPacket, got: Captured, latest: int) -> Captured:
        """Segments that follow one another and make up the one expected are as good (unless --strict_segments)."""
        if self.world.strict_segments:
            return got
        while got.tcp is not None and got.length < spec.length and got.seq == spec.seq:
            more = self.queue[0] if self.queue else self._next_packet(latest)
            if more is None:
                break
            if not self.queue or self.queue[0] is not more:
                self.queue.appendleft(more)
            joined = join(got, more) if got.length + more.length <= spec.length else None
            if joined is None:
                break
            self.queue.popleft()
            got = joined
        return got

    def _missing(self, event: Event, low: int, high: int, latest: int) -> None:
        if event.when is not None and event.when.kind is not Kind.ANY:
            self._advance(max(latest, self.now))
        span = "at any time" if event.when is not None and event.when.kind is Kind.ANY else f"by {seconds(latest)}"
        later = self._next_packet(self.now + 10 * SECOND)
        came = "nothing in the 10 s after that" if later is None else f"{describe(later)} at {seconds(later.at)}"
        expected = seconds(low) if low == high else f"{seconds(low)}~{seconds(high)}"
        rows = [Row("time", expected, "nothing", True), Row("next came", "", came, False)]
        raise Failure(f"no packet was sent {span}", event, rows)

    # packets to the stack

    def _inject_tcp(self, spec: TcpPacket) -> None:
        flow = self._inbound_flow(spec)
        self._inject(self.builder.tcp(spec, flow, mss=self.world.mss), batch=spec.ip.batch)

    def _inbound_flow(self, spec: TcpPacket | UdpPacket) -> Flow:
        """Which connection an injected segment belongs to: by its ports, else a new one for a SYN after listen(),
        else the last one. A datagram likewise."""
        if spec.ports is not None:
            remote, local = spec.ports
            self.flow = self.flows.setdefault((local, remote), Flow(local, remote))
            return self.flow
        opens = isinstance(spec, TcpPacket) and spec.flags & SYN and not spec.flags & ACK
        if self.flow is None or (opens and self.listened):
            self.flow = Flow(self.world.bind_port, self.next_port)
            self.flows[self.world.bind_port, self.next_port] = self.flow
            self.next_port += 1
            self.listened = False
        return self.flow

    def _inject(self, made: Injected, *, batch: bool) -> None:
        self._trace("in", self._dissector.ipv4(made.data, len(made.data)), data=made.data)
        self.injected.append(made.data)
        self.host.send(
            made.data, header=made.header, gso_size=made.gso_size, flush=not batch, broadcast=made.linkcast
        )  # fmt: skip
        self.pace.took()
        self._look_at_call()

    # calls

    def _call(self, event: Event, spec: SystemCall, at: int, begun: int) -> None:
        running = start(self.calls, spec)
        self._trace("call", _one_line(event))
        if spec.name == "listen":
            self.listened = True
        when = event.when
        assert when is not None
        until = None if spec.until is None else spec.until + (begun if when.relative else 0)
        if until is not None and until < at:
            raise ScriptError(f"the call is to end at {seconds(until)}, before it begins at {seconds(at)}")
        returned = running.advance()
        self.pace.took()
        if until is None and self.pace.in_rounds:
            until = at  # what tcp answers it hears at the end of this round
        if returned:
            self._returned(event, running, at if until is None else until)
            return
        if until is None:
            rows = [Row("returns", seconds(at), "blocks", True)]
            raise Failure("the call blocks; one that is to block has its end written as START...END", event, rows)
        self.blocked = (event, running, until)

    def _look_at_call(self) -> None:
        """After each step: a call that waits may have what it waits for."""
        if self.blocked is None:
            return
        event, running, until = self.blocked
        if running.advance():
            self.blocked = None
            self._trace("call", f"{_one_line(event)}  (returns)")
            self._returned(event, running, until)

    def _returned(self, event: Event, running: Running, due: int) -> None:
        rows = list(running.rows)
        if abs(self.now - due) > self._tolerance(due):
            rows.insert(0, Row("returns", seconds(due), seconds(self.now), True))
        if any(row.differs for row in rows) and "syscall" not in self.world.non_fatal:
            raise Failure("the call returned something else", event, rows)

    def _wait_for_call(self, until: int) -> None:
        """A program does one thing after the other: a call that waits has to return first."""
        if self.blocked is None:
            return
        self.pace.settle()
        if self.blocked is None:
            return
        event, _, due = self.blocked
        self._advance(max(min(max(due, until), due + int(self._tolerance(due))), self.now))
        if self.blocked is not None:
            rows = [Row("returns", seconds(due), "still waits", True)]
            raise Failure("the call has not returned", event, rows)

    # the rest

    def _command(self, event: Event, command: Command) -> None:
        self._trace("note", f"`{command.text.strip()}`")
        try:
            for step in run_command(command.text):
                if step.mtu or step.offload is not None:
                    gso = None if step.offload is None else 65_535 if step.offload else 0
                    self.host.change_link(mtu=step.mtu or None, gso_max=gso)
                if step.round or step.late:
                    self._own_pace(event, step.late)
                if step.file[0]:
                    self.world.files[step.file[0]] = step.file[1]
                if step.ask is not None:
                    self.code.answer(self.host.ask(*step.ask))
                for name, text in step.changes.items():
                    key, value = setting(name, text)
                    if key not in self.world.fixed and self.world.settings.get(key) != value:
                        self.host.set(key, value)
        except (ValueError, ControlError) as error:
            raise ScriptError(str(error), event.line, event.column) from None

    def _own_pace(self, event: Event, late: int) -> None:
        """The round ends here, or the timers that are due now are late."""
        pace = self.pace
        if not isinstance(pace, InRounds):
            raise ScriptError("only a script with --rounds in its head can say this")
        if not late:
            pace.settle()
            return
        due = self.host.tcp.next_timer()
        if due is None or due > self.host.now:
            got = "none" if due is None else seconds(due - self.base)
            raise Failure("no timer of tcp is due now", event, [Row("timer", seconds(self.now), got, True)])
        pace.delay(late)

    def _code(self, event: Event, code: Code) -> None:
        try:
            with self.pace.paused():
                self.code.run(code)
        except CodeFailed as failed:
            text = self.script.line(failed.line).strip()
            rows = [Row("code", text, str(failed), True)]
            raise Failure(f"the code failed: {failed}", event, rows, failed.line) from None

    def _end(self) -> None:
        """A call that waits has to return; what was sent and not asked for is told, or with `strict` a failure."""
        if self.blocked is not None:
            self._wait_for_call(self.blocked[2])
        self._advance(max(self.last + int(self.world.tolerance_us * US), self.now))
        self.pace.settle()
        self.note_events()
        if not self.queue:
            return
        left = [f"{seconds(packet.at)} {describe(packet)}" for packet in self.queue]
        if self.world.strict:
            event = self.script.events[-1]
            rows = [Row("sent", "nothing more", text, True) for text in left]
            raise Failure("packets were sent that the script does not expect", event, rows)
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        self.result.warnings.append(f"sent and never expected: {'; '.join(left[:3])}{more}")


def seconds(ns: int) -> str:
    """As tcpdump's relative times."""
    return f"{ns / 1e9:.6f}"


def _one_line(event: Event) -> str:
    return " ".join(event.text.split())

"""Stop a running stack, look, change a packet, go on: the debugger as a class. `lvlip` is written with it.

    with Debugger("level-ip") as debugger:
        debugger.add_breakpoint("tcp.flags.syn and tcp.dstport == 80", once=True)
        stop = debugger.wait_for_stop(30)
        packet = debugger.held()[0]
        debugger.edit(packet.name, {"tcp.window_size_value": 0})
        for step in debugger.step(3):
            print(step.events, [frame.name for frame in step.output])
        debugger.resume()

While a stack is held its clock stands: no timer of it fires. Those of its peers go on. It stays held when the debugger
ends; whoever comes next finds out by `state` and may go on by `resume`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from levelip.debug import holding
from levelip.debug.hosts import FarHost, Hosts, abroad
from levelip.debug.model import (
    DebugError,
    Fed,
    HeldByAnother,
    HeldFrame,
    Misused,
    NothingHeld,
    Queue,
    State,
    Stop,
    events_of,
)
from levelip.debug.points import EXITS, PACKET_SEAMS, POINTS, points_of, seam_and_way
from levelip.debug.tap import PROCESSES, silent_text
from levelip.frames.packet import DeviceFrame, IcmpError, Packet, Segment
from levelip.ipc.breakpoints import BREAKPOINTS, Breakpoint, read_breakpoints, write_breakpoints
from levelip.ipc.clock import Hold, Holder, StackClock
from levelip.ipc.control import ControlClient, ControlError, NotRunning, ask_all
from levelip.ipc.hostdesk import hold_more
from levelip.ipc.patience import ANSWER_S, QUIET_S
from levelip.ipc.rundir import RunDirectory

ARRIVE_S = 2.0
"""How long what a step put out may take to the next process."""
_POLL_S = 0.002
_TIMER_TRIES = 256  # deadlines at which nothing happened (a core may be asked early), before they are shown

Frame = DeviceFrame | Packet | Segment | IcmpError
_TYPES: dict[str, Any] = {one.__name__: one for one in (DeviceFrame, Packet, Segment, IcmpError)}


class Debugger:
    """A debugger of one stack. `tool`: how it calls itself to others; `force`: it takes over from one that lives.

    Every method may raise ControlError (DebugError, NotRunning, ...), whose text says what to do. Not for several
    threads at once.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        root: str | os.PathLike[str] | None = None,
        tool: str = "levelip.debug",
        force: bool = False,
    ) -> None:
        self.run = RunDirectory(name, root)
        self.force = force
        self._me = holding.holder(tool)
        self._clients: dict[str, ControlClient] = {}
        self._page: StackClock | None = None
        self._quiet: set[str] = set()  # layers here that did not answer the last time
        self._hosts = Hosts(self._ask_here, lambda: self.processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close sockets and the clock. The stack stays as it is."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        if self._page is not None:
            self._page.close()
            self._page = None

    # the stack

    @property
    def processes(self) -> list[str]:
        """The layers that run here, from the lowest."""
        return [one for one in PROCESSES if self.run.holder(one) is not None]

    def _clock(self) -> StackClock:
        if self._page is not None and self._page.lost:
            self._page.close()
            self._page = None
        if self._page is None:
            if not self.processes:
                raise NotRunning(f"stack {self.run.name!r} is not running; start it with: lvlip up")
            self._page = StackClock(self.run.clock)
        return self._page

    def ask(self, process: str, request: str, **args: Any) -> dict[str, Any]:
        """One control command of a layer (docs/tracing.md, docs/debugging.md), and its answer."""
        if process not in PROCESSES:
            raise Misused(f"there is no layer {process!r}; there are {', '.join(PROCESSES)}")
        if process not in self._clients and self.run.holder(process) is None and self._hosts.has(process):
            return self._hosts.ask(process, request, args)
        return self._ask_here(process, request, **args)

    def _ask_here(self, process: str, request: str, **args: Any) -> dict[str, Any]:
        if process in self._quiet:
            args.setdefault("timeout", QUIET_S)
        try:
            answer = self._client(process).request(request, **args)
        except NotRunning:
            self._quiet.add(process)
            raise
        self._quiet.discard(process)
        return answer

    @property
    def unreached(self) -> str:
        """Which layers did not answer, here or on other hosts, so that what was done was not done there; a sentence, or
        empty."""
        self._hosts.all()
        texts = [silent_text(sorted(self._quiet, key=PROCESSES.index))] if self._quiet else []
        if self._hosts.silent:
            texts.append(holding.unreached_text(self._hosts.silent))
        return "; ".join(texts)

    def expect_silence(self, processes: Iterable[str]) -> None:
        """Layers here that somebody else has just found silent: they are waited for as briefly as those that this
        debugger has found so, until they answer."""
        self._quiet.update(processes)

    def _everywhere(self) -> list[str]:
        """The layers that run here, and those on other hosts that answer."""
        there = [process for one in self._hosts.all() for process in one.processes]
        return sorted({*self.processes, *there}, key=PROCESSES.index)

    def _ask_all(self, request: str, **args: Any) -> dict[str, dict[str, Any]]:
        """What every layer answers that runs; one that dies meanwhile, or is silent, is left out."""
        here = self.processes
        clients = {process: self._client(process) for process in here}
        answers, silent = ask_all(clients, request, lambda one: QUIET_S if one in self._quiet else ANSWER_S, **args)
        self._quiet = self._quiet - answers.keys() | set(silent)
        for process in self._everywhere():
            if process not in here:
                with contextlib.suppress(NotRunning):
                    answers[process] = self._hosts.ask(process, request, args)
        return answers

    def _client(self, process: str) -> ControlClient:
        client = self._clients.get(process)
        if client is None:
            client = self._clients[process] = ControlClient(self.run, process, timeout=ANSWER_S)
        return client

    def state(self) -> State:
        """Whether the stack is held, by whom and why, and how much is held where."""
        clock = self._clock()
        far = self._hosts.all(anew=True)
        answers = self._ask_all("debug.state")
        queues = [
            Queue(process, f"{row['seam']} {row['way']}", row["held"], row["delayed"], row["full"])
            for process, answer in answers.items()
            for row in answer["queues"]
        ]
        silent = [one for one in self.processes if one not in answers]
        behind = [process for one in far if one.held for process in one.processes]
        free = [*self._hosts.silent, *(process for one in far if not one.held for process in one.processes)]
        if not clock.held:
            return State(False, clock.now(), queues=queues, silent=silent, behind=behind)
        why = clock.why()
        return State(
            True,
            clock.now(),
            why.holder if why else None,
            why.since if why else None,
            bool(why and self._alive(why.holder)),
            bool(why and holding.same(why.holder, self._me)),
            list(why.at) if why else [],
            msgspec.convert(why.stop, Stop) if why and why.stop else None,
            queues,
            silent,
            free,
            behind,
        )

    def _claim(self) -> Hold | None:
        """Make sure that this debugger may command a stack that is held. HeldByAnother if one that lives holds it."""
        why = self._clock().why()
        for one in (why, *(host.why for host in self._hosts.all())):
            if one is None or self.force or self._is_me(one.holder) or not self._alive(one.holder):
                continue
            raise HeldByAnother(
                f"stack {self.run.name!r} is held {holding.describe(one)}, which still runs; "
                "let it go on there, or take over with --force"
            )
        return why

    def _is_me(self, holder: Holder) -> bool:
        return holding.same(holder, self._me) or holding.same(holder, self._abroad())

    def _alive(self, holder: Holder) -> bool:
        """Whether a holder still runs, here or on another host. What cannot be asked does not."""
        if not holder.page or holder.page == self._clock().page:
            return holding.alive(msgspec.structs.replace(holder, page=""))
        for one in self._hosts.all():
            if one.page == holder.page:
                with contextlib.suppress(ControlError):
                    return bool(one.command("host.alive", holder=msgspec.to_builtins(holder))["alive"])
        return False

    def _abroad(self) -> Holder:
        """This debugger, as the pages of other hosts name it."""
        return abroad(self._me, self._clock().page, platform.node())

    # time

    def hold(self, where: str | None = None) -> State:
        """Let stack time stand, for all layers. What is held before the cores is everything, or what enters `where`
        (a layer, a seam, "SEAM:up"); elsewhere frames pass on, at the one instant. Of a stack that is held already
        more is held."""
        at = sorted(points_of(where)) if where else []
        clock = self._clock()
        before = time.monotonic_ns()
        me = Hold(self._me, time.time(), at)
        if not clock.hold(me):
            self._claim()
            hold_more(clock, me, len(POINTS), alive=self._alive, force=self.force)
        for one in self._hosts.all(anew=True):
            why = msgspec.to_builtins(Hold(self._abroad(), time.time(), at))
            with contextlib.suppress(ControlError):  # the state says which goes on
                one.command("host.hold", why=why, force=self.force)
        state = self.state()  # an answer comes after the round that was going on
        return dataclasses.replace(state, took_ns=time.monotonic_ns() - before)

    def resume(self) -> None:
        """Let stack time go on; what is held goes first, in order. DebugError if the stack runs."""
        clock = self._clock()
        self._claim()
        self._remove_spent()
        stuck: list[str] = []
        went = False
        for one in self._hosts.all(anew=True):
            try:
                went = one.command("host.resume")["done"] or went
            except ControlError as error:
                stuck.append(f"{' and '.join(one.processes)} on {one.name} may be held still: {error}")
        if not clock.resume() and not went:
            raise DebugError("; ".join([f"stack {self.run.name!r} is not held", *stuck]))
        self._ask_all("debug.state")  # wakes them
        if stuck:
            raise DebugError("; ".join(stuck))

    def wait_for_stop(self, timeout: float) -> State | None:
        """Until the stack is held, by a breakpoint or anybody; None after `timeout` seconds. NotRunning if it goes down
        meanwhile."""
        deadline = time.monotonic() + timeout
        while not self._clock().held:
            if time.monotonic() >= deadline:
                return None
            time.sleep(_POLL_S)
        return self.state()

    # steps

    def step(self, count: int = 1, *, frame: str | None = None, at: str | None = None) -> list[Fed]:
        """Hand held frames to their cores, one by one: what the last step put out, or a breakpoint stopped at, if it
        is the first of its queue; else the one that has waited longest. `frame`: that one; `at`: of that seam (and
        direction) alone. Fewer than `count` if no more are held; NothingHeld if none is."""
        done: list[Fed] = []
        for _ in range(count):
            self._need_held()
            chosen = self._find(frame) if frame else self._choose(at)
            if chosen is None:
                if done:
                    break
                raise NothingHeld(self._nothing(at))
            done.append(self._hand_over(chosen.process, "debug.step", held=chosen.name))
            if frame:
                break
        return done

    def step_timer(self) -> Fed:
        """Let stack time jump to the next deadline of any layer, and run what is due there; earlier deadlines at which
        nothing happens are passed on the way. NothingHeld if no layer waits for anything."""
        self._need_held()
        for _ in range(_TIMER_TRIES):
            states = self._ask_all("debug.state")
            left = {
                one: at - state["now"] for one, state in states.items() if (at := state["next_deadline"]) is not None
            }
            if not left:
                raise NothingHeld("no layer has a timer that runs")
            process = min(left, key=lambda one: left[one])
            self._jump(left[process])
            done = self._hand_over(process, "debug.timer")
            if done.events or done.output or done.passed:
                return done
        return done

    def _jump(self, ns: int) -> None:
        """Let the clocks of all hosts, which stand, jump so far."""
        clock = self._clock()
        clock.advance(clock.now() + ns)
        for one in self._hosts.all():
            one.command("host.advance", ns=ns)

    def _need_held(self) -> None:
        if not self._clock().held:
            raise DebugError(self._runs())
        self._claim()

    def _runs(self) -> str:
        return f"stack {self.run.name!r} runs; hold it first, with: lvlip hold"

    def _nothing(self, at: str | None) -> str:
        where = f" at {at}" if at else ""
        return f"nothing is held{where}; a timer can be stepped with: lvlip step --timer"

    def _choose(self, at: str | None) -> HeldFrame | None:
        heads = [one for one in self.held(at, first=True) if not one.due]
        why = self._clock().why()
        wanted = [*(why.hand if why else []), (why.stop.get("held", "") if why else "")]
        for name in wanted:
            for one in heads:
                if one.name == name:
                    return one
        return heads[0] if heads else None

    def _hand_over(self, process: str, command: str, **args: Any) -> Fed:
        before = time.monotonic_ns()
        answer = self.ask(process, command, **args)
        fed = HeldFrame.of(process, answer["fed"]) if "fed" in answer else None
        output, passed = self._follow(answer["output"], before)
        clock = self._clock()
        why = clock.why()
        if why is not None:
            clock.explain(Hold(why.holder, why.since, why.at, why.stop, [one.name for one in output]))
        left = fed is not None and f"{fed.seam} {fed.way}" in EXITS
        return Fed(process, fed, left, events_of(answer["events"]), output, passed)

    def _follow(self, rows: list[dict[str, Any]], since: int) -> tuple[list[HeldFrame], list[tuple[str, str]]]:
        """Where what a core put out has come to: the frames that are held now, and (kind, point) of those that went
        on. A frame that arrives nowhere in time counts as gone on."""
        why = self._clock().why()
        shut = set(why.at) if why and why.at else set(POINTS)
        here = self._everywhere()
        expected: dict[str, list[str]] = {}
        passed: list[tuple[str, str]] = []
        for row in rows:
            point = f"{row['seam']} {row['way']}"
            if point in shut and POINTS[point] in here:
                expected.setdefault(point, []).append(row["kind"])
            else:
                passed.append((row["kind"], point))
        found: list[HeldFrame] = []
        deadline = time.monotonic() + ARRIVE_S
        for point, kinds in expected.items():
            seam, way = point.split()
            while True:
                came = self._held_by(POINTS[point], seam, way, since)
                if len(came) >= len(kinds) or time.monotonic() > deadline:
                    break
                time.sleep(_POLL_S)
            found += came
            passed += [(kind, point) for kind in kinds[len(came) :]]
        return found, passed

    # held frames (a name may be ".": the frame that a step would take)

    def held(self, at: str | None = None, *, first: bool = False) -> list[HeldFrame]:
        """What is held, the longest waiting queue first, each queue in its order. `at`: a seam ("SEAM:up") or layer;
        `first`: of each queue only what goes next."""
        points = set(points_of(at)) if at else set(POINTS)
        rows: list[HeldFrame] = []
        for process, answer in self._ask_all("debug.held", limit=1 if first else 1 << 20).items():
            ahead = self._hosts.ahead(process)
            rows += [HeldFrame.of(process, {**row, "entered": row["entered"] - ahead}) for row in answer["held"]]
        queues: dict[str, list[HeldFrame]] = {}
        for row in rows:
            if f"{row.seam} {row.way}" in points:
                queues.setdefault(f"{row.seam} {row.way}", []).append(row)
        ordered = sorted(queues.values(), key=lambda queue: queue[0].entered)
        return [row for queue in ordered for row in queue]

    def _held_by(self, process: str, seam: str, way: str, since: int) -> list[HeldFrame]:
        answer = self.ask(process, "debug.held", seam=seam, since=since + self._hosts.ahead(process))
        return [HeldFrame.of(process, row) for row in answer["held"] if row["way"] == way]

    def name_of(self, frame: str) -> str:
        """The name of a held frame; "." is the one that a step would take."""
        if frame != ".":
            return frame
        chosen = self._choose(None)
        if chosen is None:
            if not self._clock().held:
                raise NothingHeld(self._runs())
            raise NothingHeld(self._nothing(None))
        return chosen.name

    def _process_of(self, frame: str) -> str:
        for process in PROCESSES:
            if frame[:1] == process[0] and frame[1:].isdigit():
                return process
        raise Misused(f"{frame!r} is no name of a held frame, as l1 or t12; see: lvlip held list")

    def _find(self, frame: str) -> HeldFrame:
        frame = self.name_of(frame)
        process = self._process_of(frame)
        return HeldFrame.of(process, self.ask(process, "debug.frame", held=frame)["row"])

    def frame(self, name: str) -> tuple[HeldFrame, Frame | None]:
        """A held frame whole: its row, with all of the payload, and the frame itself, None where it is no packet."""
        name = self.name_of(name)
        process = self._process_of(name)
        answer = self.ask(process, "debug.frame", held=name)
        row = HeldFrame.of(process, answer["row"])
        if not answer["frame"]:
            return row, None
        return row, msgspec.msgpack.decode(answer["frame"], type=_TYPES[answer["kind"]])

    def edit(self, name: str, changes: Mapping[str, Any], *, checksums: Literal["mend", "keep"] = "mend") -> HeldFrame:
        """Set fields of a held packet ({"tcp.window_size_value": 0}; "-NAME" removes an option). `checksums`: "mend"
        computes them anew, "keep" leaves them as they are, wrong on purpose. As it is then. EditError names a field
        that cannot be set so."""
        from levelip.tracing.edit import change_text, edit

        self._claim()
        name = self.name_of(name)
        _, frame = self.frame(name)
        if frame is None:
            raise DebugError(f"{name} is no packet; only packets can be edited")
        changed = edit(frame, dict(changes), checksums=checksums)
        process = self._process_of(name)
        said = [change_text(field, value) for field, value in changes.items()]
        answer = self.ask(process, "debug.replace", held=name, frame=msgspec.msgpack.encode(changed), changes=said)
        return HeldFrame.of(process, answer["row"])

    def drop(self, name: str) -> None:
        """Throw a held packet away; counted as debug_drop."""
        self._change(name, "debug.drop")

    def duplicate(self, name: str) -> str:
        """A second one behind it; its name."""
        copy: str = self._change(name, "debug.dup")["held"]
        return copy

    def delay(self, name: str, ns: int) -> None:
        """Let it go no earlier than `ns` of stack time from now, and behind what has come by then."""
        self._change(name, "debug.delay", ns=ns)

    def move(self, name: str, place: int) -> int:
        """Let it be the `place`th of its queue, from 0 (the next); -1: the last. The place it has then."""
        there: int = self._change(name, "debug.move", place=place)["place"]
        return there

    def release(self, name: str) -> Fed:
        """Let it go on now, before all others: a step of this frame."""
        return self.step(frame=name)[0]

    def _change(self, name: str, command: str, **args: Any) -> dict[str, Any]:
        self._claim()
        name = self.name_of(name)
        return self.ask(self._process_of(name), command, held=name, **args)

    def inject(self, frame: Frame, seam: str, way: str) -> str:
        """Put a packet at a seam, as if it had just come by ("up": toward the applications), past faults and addons.
        Its name if it is held there, else ""."""
        seam, _ = seam_and_way(seam)
        if way not in ("up", "down"):
            raise Misused(f"{way!r} is no direction: up is toward the applications, down toward the network")
        if seam not in PACKET_SEAMS:
            raise Misused(f"nothing can be injected at {seam}: there are {', '.join(PACKET_SEAMS)}")
        self._claim()
        data = msgspec.msgpack.encode(frame)
        name: str = self.ask(POINTS[f"{seam} {way}"], "debug.inject", seam=seam, way=way, frame=data)["held"]
        return name

    # breakpoints

    def add_breakpoint(
        self, expression: str = "", *, on: str = "", at: str = "", once: bool = False, after: int = 0
    ) -> Breakpoint:
        """Stop the stack at a packet, or, with `on` or where the expression is about events, at an event.

        `expression` as in Wireshark's display filters (docs/expressions.md), and may be empty with `on`, a kind of
        event. `at`: only packets of that seam ("SEAM:up"). `once`: gone after its first stop. `after`: how many it
        lets pass before. ExpressionError shows the spot; one that could never be met is refused.
        """
        from levelip.debug.breaking import check_breakpoint

        at, about_events = check_breakpoint(expression, on, at, after)
        self._clock()
        with self._breakpoint_file() as path:
            known = _read(path)
            there = [self._read_far(one) for one in self._hosts.all(anew=True)]
            number = max((one.number for rows in (known, *there) for one in rows), default=0) + 1
            made = Breakpoint(number, expression.strip(), about_events, self._me, at, on, once, after)
            write_breakpoints(path, [*known, made])
            abroad_ = msgspec.structs.replace(made, owner=self._abroad())
            for one, rows in zip(self._hosts.all(), there, strict=True):
                self._write_far(one, [*rows, abroad_])
        refused = self._tell_breakpoints()
        if any(text.startswith(f"breakpoint {number}:") for text in refused):
            self.remove_breakpoint(number)
            raise DebugError("; ".join(refused))
        return made

    def breakpoints(self) -> list[tuple[Breakpoint, int, int]]:
        """Every breakpoint, how often it was met and how often it stopped the stack, in all layers."""
        self._clock()
        self._remove_spent()
        met: dict[int, int] = {}
        stops: dict[int, int] = {}
        for state in self._ask_all("debug.state").values():
            for number, (one, other) in state["breakpoints"].items():
                met[int(number)] = met.get(int(number), 0) + one
                stops[int(number)] = stops.get(int(number), 0) + other
        return [(one, met.get(one.number, 0), stops.get(one.number, 0)) for one in self._all_breakpoints()]

    def _all_breakpoints(self) -> list[Breakpoint]:
        """Those of this host, and those that another one has besides."""
        rows = {one.number: one for host in self._hosts.all() for one in self._read_far(host)}
        rows |= {one.number: one for one in _read(self._path())}
        return [rows[number] for number in sorted(rows)]

    def _read_far(self, host: FarHost) -> list[Breakpoint]:
        return msgspec.convert(host.command("host.breakpoints")["rows"], list[Breakpoint])

    def _write_far(self, host: FarHost, rows: list[Breakpoint]) -> None:
        host.command("host.breakpoints", rows=[msgspec.to_builtins(row) for row in rows])

    def remove_breakpoint(self, number: int) -> None:
        """Take a breakpoint away."""
        self._change_breakpoint(number, lambda one: None)

    def enable_breakpoint(self, number: int, enabled: bool = True) -> None:
        """Let a breakpoint stop the stack, or not for the time being."""
        self._change_breakpoint(number, lambda one: msgspec.structs.replace(one, enabled=enabled))

    def _change_breakpoint(self, number: int, change: Any) -> None:
        with self._breakpoint_file() as path:
            every = [one.number for one in self._all_breakpoints()]
            if number not in every:
                there = ", ".join(map(str, every)) or "none"
                raise DebugError(f"there is no breakpoint {number} (there are: {there})")

            def changed(known: list[Breakpoint]) -> list[Breakpoint]:
                rows = [change(one) if one.number == number else one for one in known]
                return [one for one in rows if one is not None]

            write_breakpoints(path, changed(_read(path)))
            for host in self._hosts.all():
                self._write_far(host, changed(self._read_far(host)))
        self._tell_breakpoints()

    def _remove_spent(self) -> None:
        """Forget those that were to stop once and did."""
        if not any(one.once for one in self._all_breakpoints()):
            return
        spent: set[int] = set()
        for state in self._ask_all("debug.state").values():
            spent |= {int(number) for number, (_, stops) in state["breakpoints"].items() if stops}
        with self._breakpoint_file() as path:
            write_breakpoints(path, [one for one in _read(path) if not (one.once and one.number in spent)])
            for host in self._hosts.all():
                rows = self._read_far(host)
                if left := [one for one in rows if one.once and one.number in spent]:
                    self._write_far(host, [one for one in rows if one not in left])
        self._tell_breakpoints()

    def _tell_breakpoints(self) -> list[str]:
        answers = self._ask_all("debug.breakpoints")
        return [text for answer in answers.values() for text in answer["refused"]]

    def _path(self) -> Path:
        return self.run.path / BREAKPOINTS

    @contextlib.contextmanager
    def _breakpoint_file(self) -> Iterator[Path]:
        """The file, while no other debugger changes it."""
        self._clock()
        lock = os.open(self.run.path / f"{BREAKPOINTS}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._path()
        finally:
            os.close(lock)


def _read(path: Path) -> list[Breakpoint]:
    """The breakpoints in the stack's file."""
    try:
        return read_breakpoints(path)
    except ValueError as error:
        raise DebugError(f"{error}; remove that file, and set them again") from None

"""A connection of tcp's recording as a packet script that gives tcp the calls that it was given then.

Each round of the recording becomes the lines of its instant, in a script with `--rounds` (simulation/script/rounds.py).
The script is carried out while it is written: its own host says which timers are due, so that those that ran late in
the stack are written down as late; and what comes of it is a script that passes, or an error that says where it would
not, and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from layers.tcp.connection import Options
from levelip.frames.packet import BROADCAST, Checksum, IcmpError, Route, Routes, Segment
from levelip.frames.routes import RouteLookup
from levelip.frames.seam import (
    Close,
    Connect,
    Listen,
    NeighbourDown,
    NeighbourUp,
    SetOption,
    StoreFailed,
    Taken,
)
from levelip.rpc.stream import Consumed, Eof, Reset, Send, Urgent
from levelip.tracing.recordedcalls import SetTo
from levelip.tracing.recording import Recording
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.icmp import DEST_UNREACH, FRAG_NEEDED
from levelip.wire.tcp import ACK, SYN, TcpHeader
from simulation.net import SECOND, NeverAtRest
from simulation.replay.optiontext import option_call
from simulation.replay.rounds import Begun, Round, ends_of, ends_text, find_connection, read_segment, rounds_of
from simulation.replay.trust import check_setting
from simulation.script.internet import ECN_NAMES, options_text
from simulation.script.language import ScriptError
from simulation.script.packets import MASK, flags_text, seq_text
from simulation.script.parse import parse
from simulation.script.record import RecordError, address_lines, relative_options, setting_text
from simulation.script.rounds import InRounds
from simulation.script.run import Failure, Result, Runner, prepare

TRUSTED: Final = (int(Checksum.PARTIAL), int(Checksum.VERIFIED))
ECN_FIELD: Final = 3  # RFC 3168 5: the low bits of what was the type of service
EXACTLY: Final = "--to-test, with --from and --to, reproduces any part of a recording exactly"
LATE: Final = "timers late"
TIMERS: Final = (10_000, 8)
"""Rounds of timers that a script may have, and as many more for each round of the recording, which has those of the
stack: the instants of somebody else's may lie years apart, and what there is to do between them has no end."""
_BACKLOG: Final = 16  # of a listener whose own is not known


def connection_script(
    recording: Recording, settings: list[str], *, port: int = 0, timers: tuple[int, int] = TIMERS
) -> tuple[str, list[str]]:
    """The script of the first connection that began in a recording of tcp (that with `port`), and what there is to say
    of it. `settings`: "section.key=value"; `timers`: see TIMERS. RecordError says why there can be none."""
    begun, others = find_connection(recording, port)
    notes = []
    if len(others) > 1 and not port:
        notes.append(f"{ends_text(begun.ends)} is the first of {len(others)} connections; --port names another")
    writer = _Writer(recording, begun, settings, timers)
    return writer.write(), notes


class _Writer:
    """Writes one script, and carries it out."""

    def __init__(self, recording: Recording, begun: Begun, settings: list[str], timers: tuple[int, int]) -> None:
        self.recording = recording
        self.begun = begun
        self.fd = 3 if begun.active else 4
        self.local_isn = begun.syn.seq
        self.remote_isn = 0 if begun.active else (begun.syn.ack - 1) & MASK
        self.origin = begun.at // SECOND * SECOND  # so clocks tick at the same instants in the script
        self.routes = RouteLookup()
        self.listener: tuple[int, dict[str, int]] = (_BACKLOG, {})
        self.mss = 0  # data of the packets of most super-segments; 0: there are none
        self.timers: list[int] = []  # instants of the rounds in which timers ran
        self.rounds = 0
        self._survey()
        self.unsaid: list[str] = []  # what no line can say
        self.head = self._head(settings)
        self.lines: list[str] = []
        self.last = 0  # instant of the last line, ns from the origin
        self.carried = 0  # lines that were carried out
        self.open = False  # the round of the last line has not ended
        self.late_until = 0  # instant until which timers were told to wait
        self.sent = self.read = 0  # offsets of the streams
        self.mark = 0  # what is written up to here is urgent
        self.lowat = self.shut = self.closed = self.ecn = False
        script = parse(self.head)
        self.runner = Runner(script, prepare(script, {}, ()), Result(script))
        if isinstance(self.runner.pace, InRounds):  # the head says so
            self.runner.pace.most = timers[0] + timers[1] * self.rounds

    def _rounds(self) -> Iterator[Round]:
        """Those from the connection's first packet on, until its ports are another's."""
        for one in rounds_of(self.recording):
            if one.now < self.begun.at:
                continue
            if self._of_another(one):
                return
            yield one

    def _ours(self, frame: Any, *, outbound: bool) -> tuple[TcpHeader, int] | None:
        """Header and length of a segment of the connection; None of other frames."""
        seen = read_segment(frame)
        return seen if seen is not None and ends_of(frame, seen[0], outbound=outbound) == self.begun.ends else None

    def _of_another(self, one: Round) -> bool:
        """Whether the peer and we have begun a new connection between the same ports."""
        seen = [self._ours(frame, outbound=True) for _, frame in one.out]
        return any(tcp.flags & SYN and tcp.seq != self.local_isn for tcp, _ in filter(None, seen))

    # what has to be known before the first line

    def _survey(self) -> None:
        """Routes and the listener, from the snapshot and what was said since; super-segments; when timers ran."""
        state = self.recording.snapshot(self.recording.snapshot_before(self.recording.first)).state
        self.routes.replace(Routes(msgspec.convert(state["routes"], list[Route]), state["addresses"]))
        for row in state["listeners"]:
            if row["id"] == self.begun.listener or (not self.begun.listener and row["port"] == self.begun.ends[2]):
                usual = msgspec.to_builtins(Options(), builtin_types=(bytes,))
                changed = {name: value for name, value in row["options"].items() if value != usual[name]}
                self.listener = (row["backlog"], changed)
        for one in rounds_of(self.recording):
            if one.now > self.begun.at:
                break
            for frame in one.taken:
                if type(frame) is Routes:
                    self.routes.replace(frame)
                elif type(frame) is Listen and frame.sock == self.begun.listener:
                    self.listener = (frame.backlog, dict(frame.options))
                elif type(frame) is SetOption and frame.sock == self.begun.listener:
                    self.listener[1][frame.name] = frame.value
        pieces: Counter[int] = Counter()
        for one in self._rounds():
            self.rounds += 1
            if one.timers:
                self.timers.append(one.now)
            for frame in one.taken:
                if self._ours(frame, outbound=False) and frame.gso_size and len(frame.payload) > frame.gso_size:
                    pieces[frame.gso_size] += 1
        if pieces:
            self.mss = pieces.most_common(1)[0][0]

    def _head(self, settings: list[str]) -> str:
        local, remote, local_port, remote_port = self.begun.ends
        route = self.routes.lookup(remote)
        if remote in self.routes.addresses or local == remote:
            ends = ends_text(self.begun.ends)
            raise RecordError(f"both ends of {ends} are this stack's, and a script has one. {EXACTLY}")
        source = " ".join(self.recording.path.name.split())
        lines = [
            f"// Recorded from {source} by lvlip replay --to-script: {ends_text(self.begun.ends)}.",
            "",
            "--rounds",
            "--strict",
            "--tolerance_usecs=0",
            *address_lines(local, remote),
            f"--{'connect' if self.begun.active else 'bind'}_port={remote_port if self.begun.active else local_port}",
            f"--local_isn={self.local_isn}",
        ]
        lines += [f"--mtu={route.mtu}"] if route is not None else []
        lines += [f"--mss={self.mss}"] if self.mss else []
        lines += [f"--set={setting}" for setting in settings]
        if route is not None and not route.gso_max:
            lines += ["", "`ethtool -K tun0 tso off`"]
        return "\n".join([*lines, ""])

    # the whole

    def write(self) -> str:
        """The script. RecordError if it would not pass."""
        self._begin()
        timers = iter(self.timers)
        until = next(timers, None)
        for one in self._rounds():
            while until is not None and until < one.now:
                until = next(timers, None)
            self._round(one, until)
        self._carry_out()
        with self._as_recorded():
            self.runner.end()
        while LATE in self.lines[-1]:  # nothing came of it any more
            self.lines.pop()
        return "\n".join([self.head, *self.lines, ""])

    def _begin(self) -> None:
        self.lines.append(f"{'0':>12} socket(..., SOCK_STREAM, IPPROTO_TCP) = 3")
        at = self.origin
        if self.begun.active:
            self._line(at, "fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0")
            return
        backlog, options = self.listener
        self._line(at, "setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0")
        for name, value in options.items():
            for text in self._option(3, name, value):
                self._line(at, text)
        self._line(at, "bind(3, ..., ...) = 0")
        self._line(at, f"listen(3, {backlog}) = 0")

    def _line(self, now: int, text: str) -> None:
        at = now - self.origin
        gap = f"{(at - self.last) // SECOND}.{(at - self.last) % SECOND:09d}".rstrip("0").rstrip(".")
        self.last = at
        self.lines.append(f"{'+' + gap:>12} {text}")

    def _option(self, fd: int, name: str, value: int) -> list[str]:
        """The call that sets an option, if one is needed."""
        text = option_call(fd, name, value)
        if text is None:
            self.unsaid.append(f"the socket option {name} = {value}")
        self.lowat = self.lowat or name == "rcvlowat"
        return [text] if text else []

    # rounds

    def _round(self, one: Round, until: int | None) -> None:
        """The lines of a round; timers run at `until`, in this one or later, or not any more."""
        lines = [text for frame in one.taken for text in self._taken(frame, one.now)]
        packets = [text for _, frame in one.out if (text := self._said(frame))]
        if not (lines or packets or one.timers):
            return
        due = until is not None and self._timers(one.now, until)
        if (lines or packets) and self.open and one.now - self.origin == self.last:
            self._line(one.now, "`round`")
        for text in [*lines, *packets]:
            self._line(one.now, text)
        if lines or packets:
            self.open = not packets
        elif due:
            self._pass(one.now)

    def _timers(self, now: int, until: int) -> bool:
        """Whether a timer of the script is due by `now`, which is before `until`; if it ran late, a line says so."""
        self._carry_out()
        due = self.runner.host.tcp.next_timer()
        due = None if due is None else due - self.runner.base + self.origin
        if due is None or due > now:
            return False  # what ran is another connection's
        at = max(due, self.last + self.origin)
        if at < until and self.late_until < until:
            late = f"{(until - at) // SECOND}.{(until - at) % SECOND:09d}".rstrip("0")
            self._line(at, f"`{LATE} {late}`")
            self.late_until = until
            self.open = False
        return True

    def _pass(self, now: int) -> None:
        """A round in which timers did nothing that shows."""
        self._carry_out()
        with self._as_recorded():
            self.runner.pace.advance(now - self.origin + self.runner.base)
            self.runner.pace.settle()
        self.open = now - self.origin == self.last

    def _taken(self, frame: Any, now: int) -> list[str]:
        """The lines for a frame that tcp took; none for what concerns others."""
        if isinstance(frame, Segment):
            text = self._came(frame)
            return [text] if text else []
        match frame:
            case IcmpError():
                return self._icmp(frame)
            case SetTo():
                check_setting("tcp", frame.key, frame.value)
                return [f"`lvlip set {setting_text(f'tcp.{frame.key}', frame.value)}`"]
            case Connect() if frame.sock == self.begun.sock:
                return self._connect(frame)
            case Taken() if frame.sock == self.begun.sock:
                return [f"accept(3, ..., ...) = {self.fd}"]
            case Send() | Consumed() | Eof() | Reset() | Close() | Urgent() | SetOption():
                return self._call(frame) if frame.sock == self.begun.sock and not self.closed else []
            case Routes() | NeighbourUp() | NeighbourDown() | StoreFailed() if now > self.begun.at:
                self.unsaid.append(f"{type(frame).__name__} at {(now - self.recording.span[0]) / SECOND:.6f} s")
        return []

    # packets

    def _came(self, segment: Segment) -> str:
        """A line for a segment of the peer; "" if it is another's."""
        seen = self._ours(segment, outbound=False)
        if seen is None:
            return ""
        tcp, length = seen
        wrong = _checksum_wrong(segment)
        if tcp.flags & SYN and not wrong and not self.remote_isn:
            self.remote_isn = tcp.seq
        words = self._words(segment) + (["badsum"] if wrong else [])
        words += ["linkcast"] if segment.flags & BROADCAST else []
        if segment.gso_size != (self.mss if self.mss and length > self.mss else 0):
            words.append(f"gso {segment.gso_size}")
        text = f"{_bracket(words)}{flags_text(tcp.flags)} {seq_text((tcp.seq - self.remote_isn) & MASK, length)}"
        if tcp.flags & ACK:
            text += f" ack {(tcp.ack - self.local_isn) & MASK}"
        text += f" win {tcp.window}" + (f" urg {tcp.urgent}" if tcp.urgent else "")
        return f"< {text}{relative_options(tcp, self.local_isn)}"

    def _said(self, segment: Any) -> str:
        """A line for a segment of ours; "" of any other frame."""
        seen = self._ours(segment, outbound=True)
        if seen is None:
            return ""
        tcp, length = seen
        self.ecn = self.ecn or bool(segment.tos & ECN_FIELD)
        words = self._words(segment) or (["noecn"] if self.ecn else [])
        words += [f"ttl {segment.ttl}"] if segment.ttl else []
        text = f"{_bracket(words)}{flags_text(tcp.flags)} {seq_text((tcp.seq - self.local_isn) & MASK, length)}"
        if tcp.flags & ACK:
            text += f" ack {(tcp.ack - self.remote_isn) & MASK}"
        text += f" win {tcp.window}" + (f" urg {tcp.urgent}" if tcp.urgent else "")
        return f"> {text}{relative_options(tcp, self.remote_isn)}"

    @staticmethod
    def _words(segment: Segment) -> list[str]:
        words = [options_text(segment.options)] if segment.options else []
        if segment.tos & ~ECN_FIELD:
            return [f"tos 0x{segment.tos:x}", *words]
        return [ECN_NAMES[segment.tos], *words] if segment.tos else words

    def _icmp(self, error: IcmpError) -> list[str]:
        """A line for an error about a segment of ours."""
        local, remote, local_port, remote_port = self.begun.ends
        ports = local_port.to_bytes(2, "big") + remote_port.to_bytes(2, "big")
        if (error.src, error.dst, error.head[:4]) != (local, remote, ports):
            return []
        seq = (int.from_bytes(error.head[4:8], "big") - self.local_isn) & MASK
        mtu = f" mtu {error.mtu}" if (error.icmp_type, error.icmp_code) == (DEST_UNREACH, FRAG_NEEDED) else ""
        return [f"< icmp type_{error.icmp_type} code_{error.icmp_code}{mtu} [{seq_text(seq, 0)}]"]

    # calls

    def _connect(self, call: Connect) -> list[str]:
        options = [text for name, value in call.options.items() for text in self._option(3, name, value)]
        return [*options, "connect(3, ..., ...) = -1 EINPROGRESS (Operation now in progress)"]

    def _call(self, call: Any) -> list[str]:
        fd = self.fd
        match call:
            case Urgent():
                self.mark = call.upto
            case Send() if call.offset + call.length > self.sent:
                size = call.offset + call.length - self.sent
                self.sent += size
                flags = "MSG_OOB" if self.mark == self.sent else "MSG_EOR" if call.record else ""
                return [f"send({fd}, ..., {size}, {flags}) = {size}" if flags else f"write({fd}, ..., {size}) = {size}"]
            case Consumed() if call.upto > self.read:
                size, self.read = call.upto - self.read, call.upto
                if self.lowat:  # SO_RCVLOWAT is the client's to wait for, which took what there was
                    return [f"recv({fd}, ..., {size}, MSG_DONTWAIT) = {size}"]
                return [f"read({fd}, ..., {size}) = {size}"]
            case Eof() if not self.shut:
                self.shut = True
                return [f"shutdown({fd}, SHUT_WR) = 0"]
            case Reset() | Close():
                self.closed = True
                abort = isinstance(call, Reset) or call.abort
                linger = f"setsockopt({fd}, SOL_SOCKET, SO_LINGER, {{onoff=1, linger=0}}, 8) = 0"
                return [*([linger] if abort else []), f"close({fd}) = 0"]
            case SetOption():
                return self._option(fd, call.name, call.value)
        return []

    # the script's own host

    def _carry_out(self) -> None:
        """Let the script's host do what was written since, up to the end of the last round."""
        text = "\n".join(self.lines[self.carried :])
        self.carried = len(self.lines)
        with self._as_recorded():
            for event in parse(text).events:
                self.runner.carry_out(event)
            self.runner.pace.settle()
        self.runner.result.trace.clear()

    @contextmanager
    def _as_recorded(self) -> Iterator[None]:
        """RecordError where the script's host does something else, or never comes to rest."""
        try:
            yield
        except Failure as failure:
            raise self._refusal(failure.message, failure) from None
        except ScriptError as error:
            raise self._refusal(error.message, None) from None
        except NeverAtRest as error:
            raise self._refusal(str(error), None) from None

    def _refusal(self, message: str, failure: Failure | None) -> RecordError:
        """Why the script would not pass."""
        at = (self.runner.now + self.origin - self.recording.span[0]) / SECOND
        rows = failure.rows if failure is not None else ()
        differs = [f"{row.name} {row.expected}, in a script {row.got}" for row in rows if row.differs]
        text = f"a script of {ends_text(self.begun.ends)} would not do what was recorded at {at:.6f} s: {message}"
        if failure is not None and failure.event is not None:
            text += f" (recorded: {'; '.join([' '.join(failure.event.text.split()), *differs])})"
        if self.unsaid:
            text += f". What no line of a script says: {', '.join(self.unsaid)}"
        return RecordError(f"{text}. `lvlip replay` tells whether this Level-IP does what was recorded; {EXACTLY}")


def _bracket(words: list[str]) -> str:
    return f"[{', '.join(words)}] " if words else ""


def _checksum_wrong(segment: Segment) -> bool:
    """Whether tcp will find it so."""
    if segment.checksum in TRUSTED or not isinstance(segment.payload, bytes):
        return False
    data = segment.head + segment.payload
    return internet_checksum(data, pseudo_header_sum(segment.src, segment.dst, segment.proto, len(data))) != 0

"""A tool's end of the tap bus: listens at all layers at once and gives one stream, ordered by monotonic time.

Each process has a publisher of its own, so what they say is held for `SETTLE_NS` and sorted. Numbers that are missing
in a publisher's count are what we were too slow for. A layer that ends, or comes back, is noticed by its socket's
monitor, and listened to again. One of which nothing comes is asked from time to time whether it is still there: if it
does not answer, that is told, and what it tells later is taken all the same.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import zmq
from zmq.utils.monitor import parse_monitor_message

from levelip.ipc.control import ControlClient, ControlError, NotRunning
from levelip.ipc.patience import ANSWER_S
from levelip.ipc.rundir import RunDirectory
from levelip.tracing.events import Event

SETTLE_NS = 30_000_000
"""How long a record waits for earlier ones of other processes: their clocks are one, but their pipes are not."""
AGAIN_S = 1.0
"""How long one that was found silent, or may be starting, may take to answer: nothing is read meanwhile. It takes
several questions to listen, so that QUIET_S would not do."""
CONFIRM_S = 10.0
"""How long one that answers may take to hear of our subscription, which goes another way."""
UNDER_WAY_S = 1.0
"""How long, at the end, what was told is waited for."""
RETRY_NS = 100_000_000
"""How often a layer that is gone is looked for."""
ASK_NS = 1_000_000_000
"""A layer of which nothing has come for so long is asked whether it is still there."""
SILENT_NS = 5_000_000_000
"""How long one that runs and does not answer is left alone: each question costs the AGAIN_S that it may take."""
_BATCH = 2000
"""Records from one process in one round, so that none starves another."""
_FEW = 500
_RECEIVE_HWM = 200_000

SEAMS = ("link", "link-ip", "ip-tcp", "ip-udp", "tcp-gateway", "udp-gateway", "gateway-client")
PACKET_SEAMS = SEAMS[:4]
"""Those where packets pass."""
PROCESSES = ("link", "ip", "tcp", "udp", "gateway")
_LOWER = {
    "link": ("link",), "ip": ("link-ip",), "tcp": ("ip-tcp",), "udp": ("ip-udp",),
    "gateway": ("tcp-gateway", "udp-gateway"),
}  # fmt: skip
_UPPER = {
    "link": ("link-ip",), "ip": ("ip-tcp", "ip-udp"), "tcp": ("tcp-gateway",), "udp": ("udp-gateway",),
    "gateway": ("gateway-client",),
}  # fmt: skip

Record = list[Any]
# A frame, as the tap bus sends it (docs/tracing.md):
SEQ, KIND, PROCESS, SEAM, DIRECTION, STACK, MONO, ID, CAUSES, TYPE, FIELDS, HEAD, PAYLOAD, LENGTH, CHECKSUM, GSO = (
    range(16)
)
# An event: [seq, "e", process, mono, event]
EVENT_MONO, EVENT = 3, 4


def below(process: str) -> str:
    """The seam on a process's lower side; of two, TCP's."""
    return _LOWER[process][0]


def above(process: str) -> str:
    """The seam on its upper side; of two, TCP's."""
    return _UPPER[process][0]


def lower_seams(process: str) -> tuple[str, ...]:
    """All on its lower side."""
    return _LOWER[process]


def upper_seams(process: str) -> tuple[str, ...]:
    """All on its upper side."""
    return _UPPER[process]


def seams_of(process: str) -> tuple[str, ...]:
    """All seams of a process, the lower ones first."""
    return _LOWER[process] + _UPPER[process]


def goes_up(process: str, seam: str, direction: str) -> bool:
    """Whether a frame went toward the applications."""
    return (seam in _LOWER[process]) == (direction == "in")


def silent_text(layers: Iterable[str]) -> str:
    """That layers run here and say nothing."""
    return f"{' and '.join(layers)} did not answer; see: lvlip status"


@dataclass
class Request:
    """What to listen for. `seams`: a process → its seams, "SEAM" or "SEAM:in"; a process that is missing is left alone
    unless `events` wants it."""

    seams: Mapping[str, list[str]]
    events: list[str] = field(default_factory=list)
    detail: str = "headers"
    filter: dict[str, Any] = field(default_factory=dict)

    def processes(self) -> list[str]:
        """Everybody who is to be listened to."""
        return [name for name in PROCESSES if self.seams.get(name) or name in self.events]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about the listening itself: `mono` and what to tell."""

    mono: int
    text: str


class _Source:
    """One process's publisher."""

    def __init__(
        self, run: RunDirectory, process: str, request: Request, context: zmq.Context[Any], patience: float
    ) -> None:
        self.process = process
        self.next = 1
        self.behind = 0  # time of the last record taken, where more wait to be taken; else 0
        self.pulse = _Pulse(run, process)
        control = ControlClient(run, process, timeout=patience)
        try:
            answer = control.request(
                "tap.listen",
                seams=list(request.seams.get(process, [])),
                frames=bool(request.seams.get(process)),
                events=process in request.events,
                detail=request.detail,
                filter=request.filter,
            )
            self.socket: zmq.Socket[bytes] = context.socket(zmq.SUB)
            self.socket.linger = 0
            self.socket.rcvhwm = _RECEIVE_HWM
            self.socket.reconnect_ivl = -1  # a restarted process knows nothing of our topic
            self.monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            self.socket.connect(answer["endpoint"])
            self.topic: bytes = answer["topic"]
            self.socket.subscribe(self.topic)
            deadline = time.monotonic() + CONFIRM_S
            while not control.request("tap.confirm", topic=self.topic)["listening"]:
                if time.monotonic() > deadline:
                    raise ControlError(f"{process} does not confirm that it sends to us")
                time.sleep(0.005)
        except BaseException:
            if hasattr(self, "socket"):
                self.close()
            raise
        finally:
            control.close()

    def gone(self) -> bool:
        """Whether the process has closed its end."""
        while True:
            try:
                message = self.monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return False
            if parse_monitor_message(message)["event"] == zmq.EVENT_DISCONNECTED:
                return True

    def close(self) -> None:
        self.pulse.close()
        self.socket.disable_monitor()
        self.monitor.close()
        self.socket.close()


class _Pulse:
    """Whether a process that is listened to is still there: what it tells says so, or an answer to a question that is
    put to it where it tells nothing. Nobody waits for that answer."""

    def __init__(self, run: RunDirectory, process: str) -> None:
        self._control = ControlClient(run, process)
        self._asked: int | None = None  # when, where the answer has not come
        self.seen = time.monotonic_ns()
        """When it was heard of last, in ns of monotonic time."""
        self.silent = False
        """Whether a question to it has been without an answer for ANSWER_S, and nothing else came."""

    def look(self, topic: bytes) -> None:
        """Take its answer, or ask."""
        now = time.monotonic_ns()
        if self._asked is not None and self._control.collect(0) is not None:
            self._asked = None
            self.beat()
        elif self._asked is not None:
            self.silent = now - max(self._asked, self.seen) > ANSWER_S * 1e9
        elif now - self.seen > ASK_NS:
            with contextlib.suppress(NotRunning):  # its monitor will say so
                self._control.start("tap.confirm", topic=topic)
                self._asked = now

    def beat(self) -> None:
        """It was heard."""
        self.seen, self.silent = time.monotonic_ns(), False

    def close(self) -> None:
        self._control.close()


class TapReader:
    """Listens from `open` to `close`; `lost` counts the records of each process that we were too slow for. `patience`:
    how many seconds `open` waits for a process to answer before it counts as silent."""

    def __init__(self, run: RunDirectory, request: Request, *, patience: float = ANSWER_S) -> None:
        self._run = run
        self._request = request
        self._patience = patience
        self._context: zmq.Context[Any] = zmq.Context()
        self._sources: dict[str, _Source] = {}
        self._absent: dict[str, int] = {}  # process → when to look again
        self._waiting: list[tuple[int, int, Any]] = []
        self._number = 0
        self._decode = msgspec.msgpack.Decoder(list[list[Any]]).decode
        self.lost: dict[str, int] = {}
        self.silent: list[str] = []
        """Processes that run and have not answered yet, or do so no longer, so that what they do is left out."""

    def open(self, *, may_be_none: bool = False) -> list[str]:
        """Start; the processes that confirmed. ControlError if one refuses the request, or none runs and answers. One
        that runs and is silent is told of by a notice, and asked again later."""
        silent = self.silent
        for process in self._request.processes():
            if self._run.holder(process) is None:
                self._absent[process] = 0
                continue
            try:
                self._sources[process] = _Source(self._run, process, self._request, self._context, self._patience)
            except NotRunning:
                silent.append(process)
                self._absent[process] = time.monotonic_ns() + SILENT_NS
                self._notice(f"{process} did not answer: what it does is left out")
        if not self._sources and not may_be_none:
            if silent:
                raise ControlError(silent_text(silent))
            raise ControlError(f"nothing of stack {self._run.name!r} that could be listened to is running")
        return list(self._sources)

    @property
    def heard(self) -> list[str]:
        """The processes that are listened to now: of those wanted, the ones that run, have confirmed, and answer."""
        return [process for process in self._sources if process not in self.silent]

    def read(self, timeout: float) -> list[Record | Notice]:
        """Records and notices in the order of their times; waits up to `timeout` seconds for the first."""
        deadline = time.monotonic() + timeout
        while True:
            self._look_after_sources()
            left = max(0.0, deadline - time.monotonic())
            if self._waiting:
                left = min(left, SETTLE_NS / 1e9)
            sockets = [(source.socket, zmq.POLLIN) for source in self._sources.values()]
            if sockets:
                zmq.zmq_poll(sockets, int(left * 1000))
            elif left:
                time.sleep(min(left, RETRY_NS / 1e9))
            taken = 0
            for source in self._sources.values():
                if number := self._take(source):
                    source.pulse.beat()
                    taken += number
            until = time.monotonic_ns() - SETTLE_NS
            ready = self._settled(min([until, *[one.behind for one in self._sources.values() if one.behind]]))
            if ready or time.monotonic() >= deadline:
                return ready
            if 0 < taken < _FEW:
                time.sleep(SETTLE_NS / 2e9)  # else a steady stream wakes us for each record

    def drain(self) -> list[Record | Notice]:
        """Everything that was told until now, at the end, also what is still under way; of processes that tell on and
        on, too, no more than that."""
        asked = time.monotonic_ns()
        for source in self._sources.values():
            self._take(source)
            while 0 < source.behind < asked:
                self._take(source)
        told = self._told()
        deadline = time.monotonic() + UNDER_WAY_S
        for source in self._sources.values():
            while source.next <= told.get(source.process, 0) and (left := deadline - time.monotonic()) > 0:
                source.socket.poll(round(left * 1000) + 1)
                self._take(source)
        return self._settled(time.monotonic_ns())

    def _told(self) -> dict[str, int]:
        """The number of the last record that each process that answers has sent us."""
        told: dict[str, int] = {}
        asked: list[tuple[ControlClient, int]] = []
        for process in self.heard:
            source = self._sources[process]
            client = ControlClient(self._run, process)
            with contextlib.suppress(NotRunning):
                asked.append((client, client.start("tap.confirm", topic=source.topic)))
        deadline = time.monotonic() + UNDER_WAY_S
        for client, number in asked:
            with contextlib.suppress(ControlError):  # it was started again meanwhile
                if (answer := client.wait_for(number, deadline)) is not None:
                    told[client.layer] = answer["told"]
            client.close()
        return told

    def _take(self, source: _Source) -> int:
        """Take what has come from one process, bounded; how many records."""
        receive, decode, waiting = source.socket.recv_multipart, self._decode, self._waiting
        number = before = self._number
        source.behind = 0
        try:
            while True:
                for record in decode(receive(zmq.NOBLOCK)[1]):
                    number += 1
                    mono = record[MONO] if record[KIND] == "f" else record[EVENT_MONO]
                    seq = record[0]
                    if seq != source.next:
                        missing = seq - source.next
                        self.lost[source.process] = self.lost.get(source.process, 0) + missing
                        waiting.append((mono, number, Notice(mono, f"{source.process}: {missing} left out")))
                        number += 1
                    source.next = seq + 1
                    waiting.append((mono, number, record))
                if number - before > _BATCH:
                    source.behind = mono
                    break
        except zmq.Again:
            pass
        self._number = number
        return number - before

    def _settled(self, until: int) -> list[Record | Notice]:
        waiting = self._waiting
        if not waiting:
            return []
        waiting.sort()
        low, high = 0, len(waiting)
        while low < high:
            middle = (low + high) // 2
            if waiting[middle][0] <= until:
                low = middle + 1
            else:
                high = middle
        self._waiting = waiting[low:]
        return [entry[2] for entry in waiting[:low]]

    def _look_after_sources(self) -> None:
        for process, source in list(self._sources.items()):
            if source.gone():
                while self._take(source):
                    pass
                source.close()
                del self._sources[process]
                if process in self.silent:
                    self.silent.remove(process)
                self._absent[process] = 0
                self._notice(f"{process} is gone")
                continue
            source.pulse.look(source.topic)
            if source.pulse.silent and process not in self.silent:
                self.silent.append(process)
                self._notice(f"{process} is no longer heard, since {_time_of_day(source.pulse.seen)}")
            elif not source.pulse.silent and process in self.silent:
                self.silent.remove(process)
                self._notice(f"{process} is heard again")
        if self._absent:
            now = time.monotonic_ns()
            for process, when in list(self._absent.items()):
                if now < when:
                    continue
                self._absent[process] = now + RETRY_NS
                if self._run.holder(process) is None:
                    continue
                try:
                    self._sources[process] = _Source(self._run, process, self._request, self._context, AGAIN_S)
                except ControlError:
                    if (asked := time.monotonic_ns()) - now > RETRY_NS:  # it is silent, not on its way up
                        self._absent[process] = asked + SILENT_NS
                    continue
                del self._absent[process]
                if process in self.silent:
                    self.silent.remove(process)
                self._notice(f"listening to {process}")

    def _notice(self, text: str) -> None:
        self._number += 1
        mono = time.monotonic_ns()
        self._waiting.append((mono, self._number, Notice(mono, text)))

    def close(self) -> None:
        """Stop listening."""
        for source in self._sources.values():
            source.close()
        self._sources.clear()
        self._context.destroy(linger=0)


def _time_of_day(mono: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(time.time() - (time.monotonic_ns() - mono) / 1e9))


def time_of(record: Record | Notice) -> int:
    """When it was, in ns of monotonic time."""
    if isinstance(record, Notice):
        return record.mono
    return int(record[EVENT_MONO] if record[KIND] == "e" else record[MONO])


def event_of(record: Record) -> Event:
    """The event in a record."""
    return msgspec.convert(record[EVENT], Event)


def one_side(processes: Mapping[str, object] | list[str]) -> dict[str, list[str]]:
    """Every seam once: at the device and the applications' door both ways, between processes where frames come in."""
    chosen: dict[str, list[str]] = {}
    for process in PROCESSES:
        if process not in processes:
            continue
        seams = []
        for seam in seams_of(process):
            seams.append(seam if seam in (SEAMS[0], SEAMS[-1]) else f"{seam}:in")
        chosen[process] = seams
    return chosen

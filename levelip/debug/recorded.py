"""Recordings as records of the tap bus: what entered and left each core, and what it decided, without replaying it.

Of several processes' files the records are merged by stack time, which is one for all; a process reads it once a round,
so that times within a process are mostly 0 and those of pipes the time between two rounds. What only a shell and its
core say to each other is left out. `lvlip replay` runs a recording again.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from levelip.debug.streams import KNOWN, connection_name, known
from levelip.debug.tap import EVENT, KIND, LENGTH, PAYLOAD, PROCESSES, Notice, Record, seams_of
from levelip.frames import seam as seams
from levelip.frames.packet import DeviceFrame, IcmpError, Packet, Refused, Segment
from levelip.ipc.tap import frame_record
from levelip.rpc import stream
from levelip.rpc.place import Place
from levelip.tracing.events import Event
from levelip.tracing.recordedcalls import (
    Asked,
    Cut,
    Faulted,
    Flushed,
    Received,
    SetTo,
    TimerRan,
    Told,
    decode_known,
)
from levelip.tracing.recording import MAGIC, Recording, RecordingError
from levelip.wire.ipv4 import Proto

SUFFIX: Final = ".rec"
_PAYLOAD: Final = 128  # bytes of it in a record, as of a tap
_SEEN: Final = 4096  # payloads in shared memory that a stack has in hand at once, and some
_Seen = OrderedDict[tuple[str, int, int, int], bytes]
"""The beginnings of the newest: they go on from process to process, and out, where they lie."""
_SEAM: Final[dict[type, str]] = {DeviceFrame: "link", Packet: "link-ip", Refused: "ip-udp"}
_TALK: Final = frozenset({
    seams.Bind, seams.Listen, seams.Connect, seams.Taken, seams.SetOption, seams.GetInfo, seams.Close, stream.Urgent,
    seams.Result, seams.Connected, seams.Incoming, seams.Released, stream.Send, stream.Accepted, stream.Data,
    stream.Consumed, stream.Eof, stream.Reset,
})  # fmt: skip
"""Messages between tcp and gateway, or udp and gateway."""
_DATAGRAMS: Final = frozenset({
    seams.OpenDatagram, seams.Associate, seams.SendTo, seams.Took, seams.Member, seams.Datagram, seams.Failed,
})  # fmt: skip
"""Those between udp and gateway alone."""
_CLIENT: Final = frozenset({seams.FromClient, seams.ForClient})
Events = Mapping[str, Mapping[int, list[Event]]]
"""Process → number of a call → the events that a replay made in it."""
_Timed = tuple[int, int, int, Record | Notice]


class _Received(msgspec.Struct):
    rcv_nxt: int
    irs: int


class _Sent(msgspec.Struct):
    iss: int


class _Open(msgspec.Struct):
    """What is needed of a connection in tcp's snapshot."""

    id: int
    local: bytes
    local_port: int
    remote: bytes
    remote_port: int
    rx: _Received
    tx: _Sent


def is_recording(start: bytes) -> bool:
    """Whether a file that starts so is one."""
    return start.startswith(MAGIC[:8])


def means_recordings(path: Path) -> bool:
    """Whether a path is a recording, or a directory with some."""
    if path.is_dir():
        return True
    with path.open("rb") as stream_:
        return is_recording(stream_.read(len(MAGIC)))


def files_of(path: Path) -> list[Path]:
    """The recordings that a path means: a file, or those in a directory (directories in it are none, whatever their
    name). RecordingError for one without."""
    if not path.is_dir():
        return [path]
    found = sorted(one for one in path.glob(f"*{SUFFIX}") if not one.is_dir())
    if not found:
        raise RecordingError(f"there is no {SUFFIX} file in {path}; lvlip record start or dump writes them")
    return found


def open_all(paths: Iterable[Path], *, without: list[str] | None = None) -> list[Recording]:
    """Recordings of one stack, open, the lowest layer first. RecordingError for what is none, OSError for what cannot
    be read; then none stays open. With `without` either is left out, and why stands there, unless nothing is left."""
    opened: list[Recording] = []
    try:
        for path in paths:
            try:
                opened.append(Recording(path))
            except (RecordingError, OSError) as error:
                if without is None:
                    raise
                without.append(str(error) if isinstance(error, RecordingError) else f"{path}: {error.strerror}")
                continue
            if opened[-1].head.process not in PROCESSES:
                raise RecordingError(f"{path}: a process {opened[-1].head.process!r} is not known")
        if not opened and without:
            raise RecordingError("; ".join(without))
        if not opened:
            raise RecordingError("there is nothing to open")
        names = [one.head.process for one in opened]
        if len(set(names)) < len(names):
            raise RecordingError(f"two recordings of one process ({', '.join(sorted(names))}): name one of them")
    except BaseException:
        for one in opened:
            one.close()
        raise
    return sorted(opened, key=lambda one: PROCESSES.index(one.head.process))


def records(
    recordings: list[Recording], *, both_sides: bool = False, messages: bool = False, events: Events | None = None
) -> Iterator[Record | Notice]:
    """Their records in the order of time. Without `both_sides` each packet stands there once a seam. `messages`: those
    between tcp, udp, gateway and client, too, and which sockets were open at the beginning. `events`: those of a
    replay, for processes whose recording holds none (the flight recorder's). With `both_sides` they begin where all
    recordings have begun: else what one of them does not reach back to would seem lost."""
    names = {one.head.process for one in recordings}
    seen: _Seen = OrderedDict()
    sources = []
    for order, one in enumerate(recordings):
        process = one.head.process
        sides = _sides(process, set() if both_sides else names)
        made = (events or {}).get(process) if not one.head.events else None
        sources.append(_Rows(one, sides, order, messages, made, seen).rows())
    since = max(one.snapshots[0].begin for one in recordings) if both_sides else 0
    cut = 0
    for at, _, _, record in heapq.merge(*sources):
        if not isinstance(record, Notice) and record[KIND] == "f" and isinstance(place := record[PAYLOAD], Place):
            record[PAYLOAD] = seen.get(_key(place), b"")[: min(_PAYLOAD, place.length)]  # all before are read by now
        if at >= since or isinstance(record, Notice) or (record[KIND] == "e" and record[EVENT][1] == KNOWN):
            yield record
        elif record[KIND] == "f":
            cut += 1
    if cut:
        yield Notice(since, f"{cut} records left out, from before all layers' recordings had begun")


def _sides(process: str, names: set[str]) -> set[tuple[str, str]]:
    """(seam, direction) that a process's recording is asked for, beside those of the other `names`."""
    wanted = {(seam, way) for seam in seams_of(process) for way in ("in", "out")}
    if process == "link" and "ip" in names:
        wanted.discard(("link-ip", "out"))
    if process == "ip":
        if "link" in names:
            wanted.discard(("link-ip", "out"))
        if "tcp" in names:
            wanted -= {("ip-tcp", "in"), ("ip-tcp", "out")}
        if "udp" in names:
            wanted -= {("ip-udp", "in"), ("ip-udp", "out")}
    if process in ("tcp", "udp") and "gateway" in names:
        wanted.discard((f"{process}-gateway", "out"))
    if process == "gateway":
        wanted -= {(f"{name}-gateway", "out") for name in ("tcp", "udp") if name in names}
    return wanted


class _Rows:
    """One recording's records, each with (time, of which file, number) in the order of the calls."""

    def __init__(
        self, recording: Recording, sides: set[tuple[str, str]], order: int, messages: bool,
        events: Mapping[int, list[Event]] | None, seen: _Seen,
    ) -> None:  # fmt: skip
        """`seen` is told what of payloads in shared memory came in; a record of one has its Place for what is known."""
        self._recording = recording
        self._process = recording.head.process
        self._sides = sides
        self._order = order
        self._messages = messages
        self._events = events
        self._seen = seen

    def rows(self) -> Iterator[_Timed]:
        """All of them; at damage a notice, and no more."""
        recording, process, order = self._recording, self._process, self._order
        now, number = recording.span[0], 0
        try:
            for record in self._open_before() if self._messages and process == "tcp" else ():
                number += 1
                yield now, order, number, record
            for call, entry in recording.entries(recording.first):
                if isinstance(entry, Received | TimerRan | Asked | SetTo):
                    now = max(now, entry.now)
                elif isinstance(entry, Faulted):  # of what never came to the core no call tells when it was
                    now = max([now, *(one.at for one in entry.events)])
                found: list[Record] = []
                if isinstance(entry, Received):
                    found = self._frame("in", now, entry.code, entry.frame, entry.cuts, entry.seen)
                elif isinstance(entry, Flushed):
                    for _, code, raw, cuts in entry.out:
                        found += self._frame("out", now, code, raw, cuts)
                elif isinstance(entry, Faulted) or (isinstance(entry, Told) and self._events is None):
                    found = [_event(process, now, one) for one in entry.events]
                if self._events is not None:
                    found += [_event(process, now, one) for one in self._events.get(call, ())]
                for record in found:
                    number += 1
                    yield now, order, number, record
        except (RecordingError, ValueError) as error:
            number += 1
            yield now, order, number, Notice(now, f"{process}: no further: {error}")
        if recording.torn:
            yield now, order, number + 1, Notice(now, f"{process}: torn: {recording.torn}")

    def _open_before(self) -> Iterator[Record]:
        """Connections that were open when the recording began."""
        begin = self._recording.span[0]
        state = self._recording.snapshot(self._recording.snapshots[0]).state
        try:
            rows = msgspec.convert(state.get("connections", []), list[_Open], builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise RecordingError(f"its snapshot tells of no connections of ours ({error})") from None
        for row in rows:
            if row.rx.rcv_nxt >= 0:
                name = connection_name(row.local, row.local_port, row.remote, row.remote_port)
                yield known(begin, name, row.id, row.tx.iss, row.rx.irs)

    def _frame(
        self, direction: str, now: int, code: int, raw: msgspec.Raw, cuts: list[Cut], seen: bytes = b""
    ) -> list[Record]:
        frame, missing = decode_known(code, raw, cuts)
        payload = getattr(getattr(frame, "message", frame), "payload", b"")
        if seen and isinstance(payload, Place):
            self._seen[_key(payload)] = seen
            if len(self._seen) > _SEEN:
                self._seen.popitem(last=False)
        seam = _seam(self._process, frame, messages=self._messages)
        if not seam or (seam, direction) not in self._sides:
            return []
        data: Any = payload if isinstance(payload, Place) else bytes(payload[:_PAYLOAD])
        record = frame_record(self._process, seam, direction, now, now, frame, data)
        record[LENGTH] += missing
        return [record]


def _key(place: Place) -> tuple[str, int, int, int]:
    return place.region, place.base, place.start, place.generation


def _seam(process: str, frame: Any, *, messages: bool) -> str:
    """Where a frame passed; empty: what is not told of."""
    kind = type(frame)
    if isinstance(frame, Segment | IcmpError):
        return "ip-udp" if frame.proto == Proto.UDP else "ip-tcp"
    if not messages or kind in _SEAM:
        return _SEAM.get(kind, "")
    if kind in _DATAGRAMS or (process == "udp" and kind in _TALK):
        return "udp-gateway"
    return "tcp-gateway" if kind in _TALK else "gateway-client" if kind in _CLIENT else ""


def _event(process: str, now: int, one: Event) -> Record:
    return [0, "e", process, now, [one.at, one.kind, one.reason, one.frame, one.conn, one.data]]

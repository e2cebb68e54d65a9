"""Where journeys and `why` take records from: a live tap for a while, or a file that `lvlip trace --json` wrote.

A source is an iterable of records and notices in the order of their times, so that a recording can stand in for either.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from levelip.debug.tap import Notice, Record, TapReader
from levelip.frames.packet import Checksum, Process

Source = Iterable[Record | Notice]
_CODES = {code.name.lower(): int(code) for code in Process}


class TraceError(ValueError):
    """A file that is no trace; the text says where and why."""


def parse_frame_id(text: str) -> int:
    """ "tcp-3fa21-77" → the id. ValueError for another text."""
    parts = text.split("-")
    try:
        name, epoch, counter = parts
        code = _CODES.get(name)
        if code is None:
            code = int(name)
        number = int(counter)
        high = int(epoch, 16)
    except ValueError:
        raise ValueError(f"{text!r} is no frame id; one looks like tcp-3fa21-77") from None
    if not (0 <= code <= 7 and 0 <= high <= 0xFFFFF and 0 <= number < 1 << 40):
        raise ValueError(f"{text!r} is no frame id: a number in it is too large")
    return code << 60 | high << 40 | number


def live(reader: TapReader, seconds: float | None) -> Iterator[Record | Notice]:
    """What an open reader hears, for so long (None: until Ctrl-C); what has come by then in any case."""
    deadline = time.monotonic() + seconds if seconds is not None else None
    try:
        while deadline is None or time.monotonic() < deadline:
            left = 0.2 if deadline is None else min(0.2, deadline - time.monotonic())
            yield from reader.read(max(0.0, left))
    except KeyboardInterrupt:
        if seconds is not None:
            raise
    yield from reader.drain()


def read_trace(path: str | Path) -> Iterator[Record | Notice]:
    """The records of a file of `lvlip trace --json`. TraceError, with the line, for one that is none."""
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                data = msgspec.json.decode(line)
                record = _notice(data) if "notice" in data else _event(data) if "event" in data else _frame(data)
            except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
                if number > 1 and not line.endswith(b"\n"):
                    yield Notice(0, f"the last line of {path} is torn")
                    return
                raise TraceError(
                    f"{path}, line {number}: not a line of lvlip trace --json ({type(error).__name__}: {error})"
                ) from None
            yield record


def _notice(data: dict[str, Any]) -> Notice:
    return Notice(int(data["mono_ns"]), str(data["notice"]))


def _event(data: dict[str, Any]) -> Record:
    frame = parse_frame_id(data["frame"]) if data["frame"] else 0
    event = [data["stack_ns"], data["event"], data["reason"] or "", frame, data["conn"], data["data"]]
    return [0, "e", data["process"], int(data["mono_ns"]), event]


def _frame(data: dict[str, Any]) -> Record:
    head, payload = bytes.fromhex(data["head"]), bytes.fromhex(data.get("payload", ""))
    causes = [parse_frame_id(cause) for cause in data["causes"]]
    checksum = int(Checksum[data["checksum"].upper()])
    fields = dict(data["fields"])
    for name in ("src", "dst", "vnet", "next_hop", "address", "local_address", "remote_address", "peer"):
        if isinstance(fields.get(name), str):
            fields[name] = bytes.fromhex(fields[name])
    return [
        0, "f", data["process"], data["seam"], data["direction"], int(data["stack_ns"]), int(data["mono_ns"]),
        parse_frame_id(data["frame"]), causes, data["type"], fields, head, payload,
        int(data["length"]) - len(head), checksum, int(data["gso_size"]),
    ]  # fmt: skip


def frame_ids(text: str) -> int | None:
    """The id that a text is, or None if it looks like no id at all."""
    try:
        return parse_frame_id(text)
    except ValueError:
        return None

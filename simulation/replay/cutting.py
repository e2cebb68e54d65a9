"""A part of a recording as a recording of its own: a snapshot of where it begins, and its calls."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from levelip.tracing.recording import (
    END,
    HEAD,
    SNAPSHOT,
    End,
    Recording,
    Snapshot,
    calls_block,
    file_start,
    struct_block,
)
from simulation.replay.player import Player

CALLS: Final = 1024  # in a block


def cut_recording(recording: Recording, begin: int, stop: int) -> bytes:
    """The bytes of a file with the calls from `begin` up to `stop`. RecordingError if they cannot be reached."""
    player = Player(recording)
    player.seek(begin)
    snapshot = Snapshot(
        state=player.core.snapshot(), config=msgspec.Raw(msgspec.msgpack.encode(player.config())),
        interest=player.listened, events=player.pending if player.listened else [],
    )  # fmt: skip
    parts = [file_start(recording.version), struct_block(HEAD, recording.head),
             struct_block(SNAPSHOT, snapshot, first=begin, now=player.now)]  # fmt: skip
    encode = msgspec.msgpack.encode
    now = player.now
    for first in range(begin, stop, CALLS):
        since = now
        entries = []
        for _, entry in recording.entries(first, min(first + CALLS, stop)):
            now = getattr(entry, "now", now)
            entries.append(encode(entry))
        parts.append(calls_block(entries, first=first, begin=since, end=now))
    end = recording.end if stop == recording.stop and recording.end is not None else End(reason="")
    parts.append(struct_block(END, end, first=stop, now=now))
    return b"".join(parts)


def write_private(path: Path, data: bytes) -> None:
    """A file that only its owner can read: recordings hold secrets. OSError."""
    import os

    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(data)

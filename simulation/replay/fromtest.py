"""What a pytest file that `lvlip replay --to-test` wrote imports: the recorded calls run again, what came of them as
lines."""

from __future__ import annotations

import base64
import tempfile
import zlib
from pathlib import Path

from levelip.tracing.recording import Recording
from simulation.replay.player import Player
from simulation.replay.text import call_text, event_text, out_text, time_text


def pack(data: bytes) -> str:
    """A recording as text."""
    return base64.b85encode(zlib.compress(data, 9)).decode("ascii")


def unpack(text: str) -> Recording:
    """And back. RecordingError, ValueError for what is none."""
    data = zlib.decompress(base64.b85decode("".join(text.split())))
    with tempfile.NamedTemporaryFile(suffix=".rec") as file:
        Path(file.name).write_bytes(data)
        return Recording(file.name)


def replay_lines(recording: Recording) -> list[str]:
    """What the layer is given, and what it decides and sends: a line each. An exception of the core is raised."""
    player = Player(recording)
    begin = recording.span[0]
    lines = []
    while not player.ended:
        step = player.step()
        if step.error is not None:
            raise step.error
        at = time_text(step.now, begin)
        if step.frame is not None or type(step.entry).__name__ in ("TimerRan", "Asked", "SetTo"):
            lines.append(f"{at} {call_text(player.process, step.entry, step.frame)}")
        lines += [f"{at} {event_text(player.process, event)}" for event in step.events]
        lines += [f"{at} {out_text(player.process, port, frame)}" for port, frame in step.out]
    return [line.rstrip() for line in lines]


def replay(text: str) -> list[str]:
    """The same of a recording that is text."""
    recording = unpack(text)
    try:
        return replay_lines(recording)
    finally:
        recording.close()

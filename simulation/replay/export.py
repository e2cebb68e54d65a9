"""A recording as something that reproduces it: a packet script, or a pytest file."""

from __future__ import annotations

import pprint
import textwrap
from pathlib import Path
from typing import Any, Final

from levelip.configfile import keys, literal
from levelip.frames.packet import Packet, Segment
from levelip.frames.seam import Close, Connected, Incoming
from levelip.rpc.stream import Consumed, Eof, Send
from levelip.tracing.pcapng import packet_bytes
from levelip.tracing.recordedcalls import Flushed, Received, decode_frame
from levelip.tracing.recording import Recording, RecordingError
from simulation.host import SECTIONS
from simulation.replay.cutting import cut_recording
from simulation.replay.fromtest import pack, replay_lines, unpack
from simulation.script.record import Call, Calls, Seen, make_script

TEST_CALLS: Final = 5_000
"""Calls that a test file holds at most."""
_OWN: Final = ("ip.address", "ip.gateway", "ip.routes")


def packets_of(recording: Recording) -> list[Seen]:
    """The IP packets that went between ip and link (of a recording of ip), or ip and tcp (of tcp)."""
    kinds = {"ip": Packet, "tcp": Segment}
    kind = kinds.get(recording.head.process)
    if kind is None:
        raise RecordingError(f"a script is made of a recording of ip or tcp, not of {recording.head.process}")
    found: list[Seen] = []
    now = recording.span[0]
    for _, entry in recording.entries(recording.first):
        now = getattr(entry, "now", now)
        frames: list[tuple[Any, bool]] = []
        if isinstance(entry, Received):
            frames = [(decode_frame(entry.code, entry.frame, entry.cuts), False)]
        elif isinstance(entry, Flushed):
            down = [row[1:] for row in entry.out if row[0] in ("link", "ip")]
            frames = [(decode_frame(*row), True) for row in down]
        for frame, outbound in frames:
            if type(frame) is kind:
                found.append(Seen(now, _bytes(frame), outbound))
    return found


def _bytes(frame: Packet | Segment) -> bytes:
    fields = {name: getattr(frame, name) for name in frame.__struct_fields__}
    payload = frame.payload if isinstance(frame.payload, bytes) else b""
    made = packet_bytes(type(frame).__name__, fields, frame.head, payload, len(frame.payload), 0, ethernet=False)
    assert made is not None
    return made[0]


def calls_of(recording: Recording) -> Calls | None:
    """What the application did, as tcp was told it; None of another layer's recording."""
    if recording.head.process != "tcp":
        return None
    socks: dict[tuple[int, int], int] = {}
    calls: dict[int, list[Call]] = {}
    for _, entry in recording.entries(recording.first):
        if isinstance(entry, Flushed):
            for port, code, raw, cuts in entry.out:
                if port == "gateway" and isinstance(frame := decode_frame(code, raw, cuts), Connected | Incoming):
                    socks[frame.local_port, frame.remote_port] = frame.sock
        elif isinstance(entry, Received):
            frame = decode_frame(entry.code, entry.frame, entry.cuts)
            if call := _call(frame, entry.now):
                calls.setdefault(frame.sock, []).append(call)
    return lambda local, remote: calls.get(socks.get((local, remote), 0), [])


def _call(frame: Any, now: int) -> Call | None:
    match frame:
        case Send():
            return Call(now, "write", frame.offset + frame.length)
        case Consumed():
            return Call(now, "read", frame.upto)
        case Eof():
            return Call(now, "shutdown")
        case Close():
            return Call(now, "close")
    return None


def to_script(recording: Recording, *, port: int = 0) -> str:
    """The packet script of the first connection (that with `port`). RecordError (a ValueError) if there is none."""
    return make_script(
        packets_of(recording), port=port, settings=_settings(recording), source=recording.path.name,
        calls=calls_of(recording),
    )  # fmt: skip


def _settings(recording: Recording) -> list[str]:
    """What the stack was told that is not the default, as far as a script can set it."""
    found = []
    for section in SECTIONS:
        for name, value in recording.head.config.get(section, {}).items():
            key = keys().get(f"{section}.{name}")
            if key is not None and value != key.default and key.dotted not in _OWN:
                found.append(f"{key.dotted}={literal(value)}")
    return found


def to_test(recording: Recording, begin: int, stop: int, *, name: str) -> str:
    """A pytest file that runs these calls and holds what comes out against what came out. RecordingError if they are
    too many, or none."""
    if stop <= begin:
        raise RecordingError(f"there are no calls from #{begin} on to #{stop}: --to lies behind --from")
    if stop - begin > TEST_CALLS:
        raise RecordingError(
            f"{stop - begin} calls are too many for a test file, {TEST_CALLS} are not: say which, with --from and --to"
        )
    text = pack(cut_recording(recording, begin, stop))
    lines = replay_lines(unpack(text))
    blob = "\n".join(textwrap.wrap(text, 110, break_on_hyphens=False, drop_whitespace=False))
    process, version = recording.head.process, recording.head.version
    expected = pprint.pformat(lines, width=10_000)
    return f'''"""Calls {begin} to {stop - 1} of {recording.path.name}, a recording of {process} of Level-IP {version}.

Made by `lvlip replay --to-test`. RECORDING holds the layer's state before the first call, and the calls; with it the
secrets of that stack's run directory, from which its sequence numbers came. EXPECTED is what the layer did when this
was made: where that was wrong, write down what is right.
"""

from simulation.replay.fromtest import replay

RECORDING = r"""
{blob}
"""

EXPECTED = {expected}


def test_{name}() -> None:
    """{process} is given what it was given then, and does the same."""
    assert replay(RECORDING) == EXPECTED
'''


def test_name(path: Path) -> str:
    """What the test of a file is called."""
    stem = path.stem.removeprefix("test_")
    return "".join(letter if letter.isalnum() else "_" for letter in stem).lower() or "recording"

"""A recording as something that reproduces it: a packet script, or a pytest file."""

from __future__ import annotations

import pprint
import re
import textwrap
from pathlib import Path
from typing import Any, Final

import msgspec

from layers.tcp.config import TcpCoreConfig
from levelip.frames.packet import Packet
from levelip.tracing.pcapng import packet_bytes
from levelip.tracing.recordedcalls import Flushed, Received, decode_frame
from levelip.tracing.recording import Recording, RecordingError
from simulation.host import SECTIONS
from simulation.replay.cutting import cut_recording
from simulation.replay.fromtest import pack, replay_lines, unpack
from simulation.replay.layers import restore
from simulation.replay.toscript import connection_script
from simulation.script.record import Seen, make_script, setting_lines

TEST_CALLS: Final = 5_000
"""Calls that a test file holds at most."""
_NO_WORD: Final = re.compile(
    r"[^\w.+ -]"
)  # what a test's docstring may not have of somebody else's: it might end there


def packets_of(recording: Recording) -> list[Seen]:
    """The IP packets that went between ip and link, of a recording of ip."""
    if recording.head.process != "ip":
        raise RecordingError(f"a script is made of a recording of ip or tcp, not of {recording.head.process}")
    found: list[Seen] = []
    now = recording.span[0]
    for _, entry in recording.entries(recording.first):
        now = getattr(entry, "now", now)
        frames: list[tuple[Any, bool]] = []
        if isinstance(entry, Received):
            frames = [(decode_frame(entry.code, entry.frame, entry.cuts), False)]
        elif isinstance(entry, Flushed):
            down = [row[1:] for row in entry.out if row[0] == "link"]
            frames = [(decode_frame(*row), True) for row in down]
        for frame, outbound in frames:
            if type(frame) is Packet:
                found.append(Seen(now, _bytes(frame), outbound))
    return found


def _bytes(frame: Packet) -> bytes:
    fields = {name: getattr(frame, name) for name in frame.__struct_fields__}
    payload = frame.payload if isinstance(frame.payload, bytes) else b""
    made = packet_bytes("Packet", fields, frame.head, payload, len(frame.payload), 0, ethernet=False)
    assert made is not None
    return made[0]


def to_script(recording: Recording, *, port: int = 0) -> tuple[str, list[str]]:
    """The packet script of the first connection (that with `port`), and what there is to say of it: of tcp's recording
    one that does exactly what was done, of ip's one whose calls are inferred. RecordError (a ValueError) if there can
    be none."""
    settings = _settings(recording)
    if recording.head.process == "tcp":
        return connection_script(recording, settings, port=port)
    source = recording.path.name
    return make_script(packets_of(recording), port=port, settings=settings, source=source), []


def _settings(recording: Recording) -> list[str]:
    """What the stack was told that is not the default, as far as a script can set it: tcp's as they were when the
    recording began, those of others as they were when their processes did. RecordingError as of `restore`."""
    config = {section: recording.head.config.get(section, {}) for section in SECTIONS}
    if not all(isinstance(values, dict) for values in config.values()):
        raise RecordingError(f"{recording.path}: its head has no configuration of ours")
    if recording.head.process == "tcp":
        snapshot = recording.snapshot(recording.snapshot_before(recording.first))
        restore("tcp", snapshot)  # whether it makes sense, and names no code that must not run
        config["tcp"] = msgspec.to_builtins(msgspec.msgpack.decode(snapshot.config, type=TcpCoreConfig).tcp)
    return [line for section, values in config.items() for line in setting_lines(section, values)]


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
    process = recording.head.process
    source, version = (_NO_WORD.sub("?", text) for text in (recording.path.name, recording.head.version))
    expected = pprint.pformat(lines, width=10_000)
    return f'''"""Calls {begin} to {stop - 1} of {source}, a recording of {process} of Level-IP {version}.

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

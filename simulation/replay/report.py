"""How a replay's outcome is told: one line where all was the same, else the first divergence, side by side."""

from __future__ import annotations

import contextlib
from typing import Any

from levelip.debug.recorded import files_of
from levelip.frames.packet import format_frame_id
from levelip.tracing.events import Event
from levelip.tracing.recordedcalls import Faulted, Flushed, Received, Told, decode_frame
from levelip.tracing.recording import Recording, RecordingError
from simulation.replay.compare import Divergence, change_lines, differences, plain_state
from simulation.replay.layers import where_out
from simulation.replay.player import Player
from simulation.replay.text import call_text, event_text, frame_text, time_text

TCB_LINES = 16
BATCH = 128  # calls of a batch that are looked at


def summary(player: Player, counts: dict[str, int], seconds: float) -> str:
    """ "tcp: 12345 calls over 3.2 s, 4567 frames and 89 events: the same (0.9 s)"."""
    recording = player.recording
    begin, end = recording.span
    events = f" and {counts['events']} events" if counts["events"] else ""
    text = f"{recording.head.process}: {counts['calls']} calls over {(end - begin) / 1e9:.3f} s, "
    text += f"{counts['frames']} frames{events}: the same ({seconds:.1f} s)"
    if (count := counts["by_length"]) == 1:
        text += "\n    of one frame no more of the payload could be compared than its length"
    elif count:
        text += f"\n    of {count} frames no more of the payload could be compared than its length"
    ending = recording.end
    if ending is not None and ending.crash:
        last = ending.crash.strip().splitlines()[-1]
        where = "the same in the replay" if counts["raised"] else "not raised by the core: it is the shell's"
        text += f"\n    it ended with {last}: {where}"
    return text + notes(recording)


def notes(recording: Recording) -> str:
    """What is to be known of a file that is not whole."""
    text = f"\n    {recording.torn}" if recording.torn else ""
    if recording.end is None and not recording.torn:
        text += "\n    the process was killed while it was recorded; the last calls may be missing"
    elif recording.end is not None and recording.end.reason not in ("", "dump", "crash", "the process ended"):
        text += f"\n    recording ended early: {recording.end.reason}"
    return text


def _thing(process: str, seam: str, thing: Any) -> str:
    if thing is None:
        return "nothing"
    if isinstance(thing, Event):
        return event_text(process, thing).strip()
    if isinstance(thing, str):
        return thing
    ident = getattr(thing, "id", 0)
    return frame_text(thing, seam) + (f"  {format_frame_id(ident)}" if ident else "")


def divergence_data(player: Player, found: Divergence) -> dict[str, Any]:
    """For --json."""
    process = player.process
    seam = where_out(process, found.port)[0] if found.port else ""
    return {
        "call": found.call,
        "time": time_text(found.now, player.recording.span[0]),
        "stack_ns": found.now,
        "what": found.what,
        "seam": seam,
        "recorded": _thing(process, seam, found.recorded),
        "replayed": _thing(process, seam, found.replayed),
        "differs": found.differs,
    }


def divergence_text(player: Player, found: Divergence) -> str:
    """Call, time, both sides, the fields that differ; what led to it; how the states differ where both are known."""
    process, recording = player.process, player.recording
    data = divergence_data(player, found)
    where = f" at {data['seam']}" if data["seam"] else ""
    if found.what == "state":
        lines = [
            f"{process}: the state before call {found.call}, {data['time']} s, is not what was recorded, "
            "though all that came out was the same"
        ]
    else:
        lines = [
            f"{process}: the first {found.what} that differs is of call {found.call}, {data['time']} s{where}",
            f"    recorded  {data['recorded']}",
            f"    replayed  {data['replayed']}",
        ]
    lines += [f"    {line}" for line in found.differs]
    lines += _led_to(player, found.call)
    lines += _changed(player, found.call)
    if found.what != "state":
        lines += _states(player)
    return "\n".join(lines) + notes(recording)


def _led_to(player: Player, call: int) -> list[str]:
    """What was received or run last, before the flush at which it showed."""
    recording = player.recording
    lines = []
    for number in range(call, max(recording.first, call - 8) - 1, -1):
        if number >= recording.stop:
            continue
        entry = recording.entry(number)
        frame = decode_frame(entry.code, entry.frame, entry.cuts) if isinstance(entry, Received) else None
        lines.append(f"    {number:>9}  {call_text(player.process, entry, frame)}")
        if len(lines) == 4:
            break
    return ["  the calls up to it:", *reversed(lines)] if lines else []


def _changed(player: Player, call: int) -> list[str]:
    """What the batch up to a call changed in the replay's state."""
    recording = player.recording
    begin = min(call, recording.stop - 1)
    while begin > recording.first and isinstance(recording.entry(begin), Flushed | Told | Faulted):
        begin -= 1
    while begin > recording.first and call - begin < BATCH:
        if isinstance(recording.entry(begin - 1), Flushed | Told | Faulted):
            break
        begin -= 1
    other = Player(recording)
    try:
        other.seek(begin)
        before = plain_state(other.core.snapshot())
        other.seek(call + 1)
        after = plain_state(other.core.snapshot())
    except Exception:
        return []
    return _listed(f"  changed by calls {begin} to {call} in the replay:", differences(before, after))


def _states(player: Player) -> list[str]:
    """At the next snapshot of the recording both states are known: how they differ there."""
    recording = player.recording
    block = next((block for block in recording.snapshots if block.first >= player.at), None)
    if block is None:
        return []
    with contextlib.suppress(Exception):
        while player.at < block.first:
            player.step()
        recorded, mine = plain_state(recording.snapshot(block).state), plain_state(player.core.snapshot())
        title = f"  at the recording's next snapshot, call {block.first} (recorded → replayed):"
        return _listed(title, differences(recorded, mine))
    return []


_DULL = ("rng", "counters", "timers.", "ids.", "now", "slots", "stores", "to_ip", "frame_ids")

_FIRST = ("].state", "congestion.", "recovery.", "rto.", "snd_", "rcv_", "rack.")


def _listed(title: str, changes: list[tuple[str, Any, Any]]) -> list[str]:
    telling = [change for change in changes if not change[0].startswith(_DULL)] or changes
    if not telling:
        return []
    found = change_lines(sorted(telling, key=lambda change: not any(word in change[0] for word in _FIRST)))
    lines = [f"    {line}" for line in found[:TCB_LINES]]
    if len(found) > TCB_LINES:
        lines.append(f"    and {len(found) - TCB_LINES} more")
    return [title, *lines]


def open_recordings(paths: list[Any], *, layer: str | None = None, without: list[str] | None = None) -> list[Recording]:
    """The files named, and of each directory all .rec files in it; the lowest layer first; of `layer` alone, if it is
    named. RecordingError or OSError for what is none; with `without` it is left out, and why stands there, unless
    nothing is left."""
    order = {"link": 0, "ip": 1, "tcp": 2, "udp": 3, "gateway": 4}
    files = []
    for path in paths:
        # as lvlip record names them: that another layer's is torn is nothing to this one
        files += [
            file for file in files_of(path) if file is path or layer in (None, file.stem) or file.stem not in order
        ]
    opened: list[Recording] = []
    for file in files:
        try:
            opened.append(Recording(file))
        except (RecordingError, OSError) as error:
            if without is None or (len(files) == 1 and not opened):
                raise
            without.append(str(error) if isinstance(error, RecordingError) else f"{file}: {error.strerror}")
    if without and not opened:
        raise RecordingError("; ".join(without))
    found = [one for one in opened if layer in (None, one.head.process)]
    if not found:
        raise RecordingError(f"there is no recording of {layer} in {', '.join(map(str, paths))}")
    return sorted(found, key=lambda one: (order.get(one.head.process, 9), one.path))

"""The events that replays make, for tools that read recordings without running them (levelip.debug.recorded).

A flight recorder keeps no events, since making them costs; the replay of what it kept makes the same ones.
"""

from __future__ import annotations

from typing import Any

import msgspec

from levelip.tracing.recording import Recording
from simulation.replay.player import Player


def made_events(recordings: list[Recording]) -> bytes:
    """msgpack: [process, {number of a call: [event]}, note] of each; the note says why the rest is missing, or is
    empty. From the first difference on nothing is made: what follows is another story. (A frame shows the difference;
    decisions that led to it were other ones already.)"""
    found: list[Any] = []
    for recording in recordings:
        events: dict[int, list[Any]] = {}
        note = ""
        player = Player(recording)
        while not player.ended:
            step = player.step()
            if step.divergence is not None:
                note = (
                    f"the replay differs from call {step.number} on (another version of the code?): what was decided "
                    "from there on is not known, and just before it may have been something else"
                )
                break
            if step.events:
                events[step.number] = msgspec.to_builtins(step.events, builtin_types=(bytes,))
        found.append([player.process, events, note])
    return msgspec.msgpack.encode(found)

"""What a whole recorded stack would have done had one packet been lost, or been another: gateway, tcp and ip together.

See closedloop.py for how, peer.py for who answers. Told is what passed between ip and the network and what the layers
decided, from the first difference on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from levelip.frames.packet import Packet
from levelip.tracing.recordedcalls import Flushed, Received, decode_frame
from levelip.tracing.recording import Recording
from simulation.replay.closedloop import LAYERS, Happened, Loop, feed_network, first_difference, make_loop
from simulation.replay.peer import AckingPeer, Told, told
from simulation.replay.player import Player
from simulation.replay.text import event_text, frame_text, time_text
from simulation.replay.whatif import (
    LINES,
    MS,
    RECORDED_NS,
    SILENCE_NS,
    Change,
    Result,
    change_next,
    ending,
    is_figure,
)

BEFORE_NS: Final = 1_000 * MS  # of what went out before the difference, so much may not have been answered yet
AFTER_NS: Final = 5_000 * MS  # what the recording sends again within this was lost in it
MASK: Final = 0xFFFF_FFFF


def what_if_stack(recordings: dict[str, Recording], player: Player, change: Change) -> Result:
    """Change the next packet from where the player is (which stays there); all three layers run on. BadChange."""
    recording, begin = player.recording, player.recording.span[0]
    number, changed, now, result = change_next(player, change)
    found = first_difference(player, number, changed, now, recording.span[1])
    result.data["same"] = found is None
    if found is None:
        result.data["peer"] = "recorded"
        result.lines.append(f"    {player.process} puts out the same as recorded, to the recording's end")
        return result
    loop = make_loop(recordings, player.process, found)
    peer = _network(loop, recordings["ip"], player.process, change.silence, result)
    result.lines.append(f"  {player.process} does otherwise from {time_text(found.now, begin)} on; {peer}:")
    span = change.span or (SILENCE_NS if change.silence else RECORDED_NS)
    end = found.now + span
    loop.run(end)
    rows = [_row(one, begin) for one in loop.happened if one.what != "event" or not is_figure(one.content)]
    result.data["difference"] = time_text(found.now, begin)
    result.data["made"] = rows
    result.data["end"] = time_text(end, begin)
    result.lines += [f"  + {row['time']} {row['what']:<5} {row['text']}" for row in rows[:LINES]]
    if len(rows) > LINES:
        result.lines.append(f"    and {len(rows) - LINES} more")
    result.lines.append(f"at {time_text(end, begin)} s:")
    result.lines += [f"    {line}" for line in ending(loop.cores["tcp"], "tcp", end)]
    return result


def _row(one: Happened, begin: int) -> dict[str, Any]:
    text = event_text(one.layer, one.content) if one.what == "event" else frame_text(one.content, "link-ip")
    return {"time": time_text(one.now, begin), "what": one.what, "layer": one.layer, "text": text.strip()}


def _network(loop: Loop, ip: Recording, changed: str, silence: bool, result: Result) -> str:
    """What comes from outside from now on; who answers, in words."""
    now = loop.now
    if silence:
        feed_network(loop, ip, now)
        result.data["peer"] = "silent"
        return "the peer is silent from then on"
    rows = loop.cores["tcp"].snapshot()["connections"]
    put_out = loop.at["ip"] - (loop.differs if changed == "ip" else 0)
    traffic = _traffic(ip, now)
    trips = [row["rto"]["min_rtt"] for row in rows if row["rto"]["min_rtt"]]
    cut = min(now + min(trips, default=MS), _first_answer(traffic, put_out))
    left = feed_network(loop, ip, cut)
    peer = AckingPeer(rows, lambda at, packet: loop.later(at, loop.packet, packet), since=cut)
    for one in traffic:
        if not one.ours and one.at < cut:
            peer.saw(one.packet, one.at)
    again = {
        (one.said.key, one.said.tcp.seq) for one in traffic if one.ours and one.call >= put_out and one.said.length
    }
    for one in traffic:
        if one.ours and one.call < put_out and (one.said.key, one.said.tcp.seq) not in again:
            peer.arrives(one.packet, one.at, before=True)
    loop.on_packet = peer.arrives
    unsent = sum(said.length for packet in left if (said := told(packet, ours=False)) is not None)
    result.data["peer"] = "recorded, then acknowledging"
    text = f"the peer answers as recorded until {(cut - now) / 1e6:.3g} ms later, then acknowledges"
    if unsent:
        text += f", and sends none of the {unsent} bytes that the recording has of it after that"
    if strange := peer.strange():
        text += f"; {', '.join(strange[:3])} had not answered and does not"
    return text


@dataclass(frozen=True, slots=True)
class _Passed:
    """A recorded segment between ip and the network."""

    call: int
    at: int
    ours: bool
    packet: Packet
    said: Told


def _traffic(ip: Recording, now: int) -> list[_Passed]:
    """What passed for some time before and after an instant."""
    found: list[_Passed] = []
    last = now - BEFORE_NS
    for call, entry in ip.entries(ip.block_at(now - BEFORE_NS)):
        last = getattr(entry, "now", last)
        if last > now + AFTER_NS:
            break
        frames: list[Any] = []
        if isinstance(entry, Received):
            frames = [decode_frame(entry.code, entry.frame, entry.cuts)]
        elif isinstance(entry, Flushed):
            frames = [decode_frame(code, raw, cuts) for port, code, raw, cuts in entry.out if port == "link"]
        ours = isinstance(entry, Flushed)
        for frame in frames:
            if isinstance(frame, Packet) and (said := told(frame, ours=ours)) is not None:
                found.append(_Passed(call, last, ours, frame, said))
    return found


def _first_answer(traffic: list[_Passed], call: int) -> int:
    """When the first recorded packet came that answers something that went out from a call on: it acknowledges it, or
    echoes its timestamp. Far away if none does."""
    sequences: dict[bytes, int] = {}
    stamps: dict[bytes, int] = {}
    for one in traffic:
        said, key = one.said, one.said.key
        if one.ours and one.call >= call:
            if said.length:
                sequences.setdefault(key, said.tcp.seq)
            if said.timestamps is not None:
                stamps.setdefault(key, said.timestamps[0])
        elif not one.ours and one.call >= call:
            ends = [said.tcp.ack, *(right for _, right in said.sack)]
            if key in sequences and any(_after(end, sequences[key]) for end in ends):
                return one.at
            if key in stamps and said.timestamps is not None and not _after(stamps[key], said.timestamps[1]):
                return one.at
    return 1 << 62


def _after(one: int, other: int) -> bool:
    """Whether a sequence number or timestamp comes after another."""
    return 0 < (one - other & MASK) < 1 << 31


def whole_stack(recordings: dict[str, Recording]) -> bool:
    """Whether all three layers were recorded, at one time."""
    found = [recordings.get(name) for name in LAYERS]
    if any(one is None for one in found):
        return False
    spans = [one.span for one in found if one is not None]
    return max(span[0] for span in spans) <= min(span[1] for span in spans)

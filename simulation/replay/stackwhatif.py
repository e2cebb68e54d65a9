"""What a whole recorded stack would have done had one packet been lost, or been another: gateway, tcp and ip together.

See closedloop.py for how, peer.py for who answers. Told is what passed between ip and the network and what the layers
decided, from the first difference on.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from levelip.frames.packet import Packet
from levelip.tracing.edit import EditError, edit
from levelip.tracing.recordedcalls import Flushed, Received, decode_frame
from levelip.tracing.recording import Recording
from simulation.replay.closedloop import LAYERS, Happened, Loop, feed_network, first_difference, make_loop
from simulation.replay.peer import AckingPeer, told
from simulation.replay.player import Player
from simulation.replay.text import event_text, frame_text, in_text, time_text
from simulation.replay.whatif import (
    LINES,
    MS,
    RECORDED_NS,
    SILENCE_NS,
    BadChange,
    Change,
    Result,
    ending,
    is_figure,
    next_packet,
    zeros,
)

BEFORE_NS: Final = 1_000 * MS  # of what went out before the difference, so much may not have been answered yet
AFTER_NS: Final = 5_000 * MS  # what the recording sends again within this was lost in it
MASK: Final = 0xFFFF_FFFF


def what_if_stack(recordings: dict[str, Recording], player: Player, change: Change) -> Result:
    """Change the next packet from where the player is (which stays there); all three layers run on. BadChange."""
    recording, begin = player.recording, player.recording.span[0]
    number, frame, now = next_packet(player)
    text = in_text(player.process, frame).strip()
    changed: Any = None
    if change.edits:
        try:
            changed = edit(copy.copy(frame), change.edits, read=zeros)
        except EditError as error:
            raise BadChange(str(error)) from None
    result = Result(data={"call": number, "packet": text, "lost": not change.edits, "edited": change.edits})
    result.lines.append(f"what if #{number} {time_text(now, begin)} {text}")
    result.lines.append("    were lost" if changed is None else f"    were {in_text(player.process, changed).strip()}")
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
    trips = [row["rto"]["min_rtt"] for row in rows if row["rto"]["min_rtt"]]
    cut = now + min(trips, default=MS)
    left = feed_network(loop, ip, cut)
    put_out = loop.at["ip"] - (loop.differs if changed == "ip" else 0)
    peer = AckingPeer(rows, lambda at, packet: loop.later(at, loop.packet, packet), since=cut)
    sent: list[tuple[int, Packet]] = []
    again: set[tuple[bytes, int]] = set()
    last = now - BEFORE_NS
    for number, entry in ip.entries(ip.block_at(now - BEFORE_NS)):
        last = getattr(entry, "now", last)
        if last > now + AFTER_NS:
            break
        if isinstance(entry, Received) and last < cut:
            frame = decode_frame(entry.code, entry.frame, entry.cuts)
            if isinstance(frame, Packet):
                peer.saw(frame, last)
        elif isinstance(entry, Flushed):
            for port, code, raw, cuts in entry.out:
                frame = decode_frame(code, raw, cuts)
                if port != "link" or not isinstance(frame, Packet):
                    continue
                if number < put_out:
                    sent.append((last, frame))
                elif (said := told(frame, ours=True)) is not None and said.length:
                    again.add((said.key, said.tcp.seq))
    for at, packet in sent:
        said = told(packet, ours=True)
        if said is not None and (said.key, said.tcp.seq) not in again:
            peer.arrives(packet, at, before=True)
    loop.on_packet = peer.arrives
    unsent = sum(said.length for packet in left if (said := told(packet, ours=False)) is not None)
    result.data["peer"] = "recorded, then acknowledging"
    text = f"the peer answers as recorded until {(cut - now) / 1e6:.3g} ms later (a round trip), then acknowledges"
    if unsent:
        text += f", and sends none of the {unsent} bytes that the recording has of it after that"
    if strange := peer.strange():
        text += f"; {', '.join(strange[:3])} had not answered and does not"
    return text


def whole_stack(recordings: dict[str, Recording]) -> bool:
    """Whether all three layers were recorded, at one time."""
    found = [recordings.get(name) for name in LAYERS]
    if any(one is None for one in found):
        return False
    spans = [one.span for one in found if one is not None]
    return max(span[0] for span in spans) <= min(span[1] for span in spans)

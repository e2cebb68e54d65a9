"""What became of each transmission of one side: acknowledged when and by which segment, and when it was sent again."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from levelip.debug.collection import Conversation, Seg, Side


@dataclass(slots=True, eq=False)
class Transmission:
    """One segment on the wire. `again`: it holds what was sent before; `first` is that transmission, if it was seen."""

    seg: Seg
    again: bool = False
    first: Transmission | None = None
    repeated: Transmission | None = None  # the next that holds any of it
    acked_by: Seg | None = None  # the first that acknowledges all of it

    @property
    def mono(self) -> int:
        return self.seg.mono

    @property
    def delivered(self) -> bool:
        """Acknowledged, and before anything of it was sent again."""
        return self.acked_by is not None and (self.repeated is None or self.acked_by.mono < self.repeated.mono)


def transmissions(side: Side, other: Side) -> list[Transmission]:
    """Everything that took sequence numbers, in the order sent."""
    acks: list[int] = []
    highest = 0
    for seg in other.segs:
        highest = max(highest, seg.ack)
        acks.append(highest)
    sent: list[Transmission] = []
    new: list[Transmission] = []  # what was sent for the first time: ordered by time and by number
    starts: list[int] = []
    high = -1
    for seg in side.segs:
        if not seg.fact.room or seg.fact.rst:
            continue
        one = Transmission(seg, again=seg.seq < high)
        index = bisect_left(acks, seg.end)
        one.acked_by = other.segs[index] if index < len(acks) else None
        if one.again:
            _bind(one, new, starts)
        else:
            new.append(one)
            starts.append(seg.seq)
        high = max(high, seg.end)
        sent.append(one)
    return sent


def _bind(again: Transmission, new: list[Transmission], starts: list[int]) -> None:
    """Tell the transmissions that hold the same numbers."""
    low, high = again.seg.seq, again.seg.end
    index = max(bisect_right(starts, low) - 1, 0)
    for one in new[index:]:
        if one.seg.seq >= high:
            break
        if one.seg.end <= low:
            continue
        last = one
        while last.repeated is not None and last.repeated is not again:
            last = last.repeated
        if last is not again:
            last.repeated = again
        again.first = again.first or one


def round_trip(conversation: Conversation, sent: list[Transmission]) -> int:
    """The shortest time from a segment to its ACK, ns; 0 if none was seen."""
    first = [one for one in sent if one.delivered and not one.again]
    times = [one.acked_by.mono - one.mono for one in first if one.acked_by is not None]
    syn, answer = conversation.ours.syn, conversation.theirs.syn
    if syn is not None and answer is not None and answer.mono > syn.mono:
        times.append(answer.mono - syn.mono)
    return min((time for time in times if time > 0), default=0)

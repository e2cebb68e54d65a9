"""What is left of a connection in TIME-WAIT: a small record that answers for it (RFC 9293 3.10.7.4, RFC 1337, 6191)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from layers.tcp.acceptance import PAWS_IDLE
from layers.tcp.connection import connection_key
from layers.tcp.timers import OFF

HALF = 0x8000_0000
MASK = 0xFFFF_FFFF


@dataclass(slots=True)
class TimeWait:
    """Sequence numbers as on the wire. `id` is the socket's; `deadline` when it ends."""

    id: int
    local: bytes
    local_port: int
    remote: bytes
    remote_port: int
    snd_nxt: int
    rcv_nxt: int
    rcv_wnd: int  # field value
    timestamps: bool
    ts_offset: int
    ts_recent: int
    ts_recent_at: int
    ttl: int
    tos: int
    deadline: int
    scheduled: int = OFF
    invalid_answered_at: int = OFF

    @property
    def key(self) -> bytes:
        """As in the table of connections."""
        return connection_key(self.local, self.remote, self.remote_port, self.local_port)


class TimeWaitVerdict(IntEnum):
    """What a segment for the record means."""

    NEW_CONNECTION = 0  # a SYN that surely is new: the record gives way
    ACKNOWLEDGE = 1  # answer with an ACK; the peer's FIN again: and start 2 MSL anew
    RESTART = 2
    RESET = 3  # an acceptable RST
    IGNORE = 4
    PAWS = 5


def judge(record: TimeWait, seq: int, length: int, *, syn: bool, fin: bool, rst: bool, ack: bool,
          value: int | None, protect: bool = False, idle: int = 0) -> TimeWaitVerdict:  # fmt: skip
    """RFC 9293 3.10.7.4 for TIME-WAIT, with RFC 6191 for SYNs, as Linux (tcp_timewait_state_process).

    `length` counts SYN and FIN; `value` is the TSval, None without the option; `idle`: ns since TS.Recent was set.
    `protect`: no RST ends it, RFC 1337 3 fix (1); without, one with the exact number does (RFC 5961 3.2), which nobody
    guesses, but an old duplicate can have.
    """
    ahead = (seq - record.rcv_nxt) & MASK
    newer = ahead != 0 and ahead < HALF
    old_timestamp = (
        value is not None and record.timestamps and (value - record.ts_recent) & MASK >= HALF and idle <= PAWS_IDLE
    )
    if rst:  # not subject to PAWS, RFC 7323 5.2
        return TimeWaitVerdict.RESET if ahead == 0 and not protect else TimeWaitVerdict.IGNORE
    if syn and not ack and not old_timestamp:
        # RFC 6191 2: a higher timestamp, or without timestamps a higher sequence number.
        higher = value is not None and record.timestamps and value != record.ts_recent
        if newer or higher:
            return TimeWaitVerdict.NEW_CONNECTION
    if old_timestamp:
        return TimeWaitVerdict.PAWS
    if length or syn:
        if fin and (seq + length - record.rcv_nxt) & MASK == 0:
            return TimeWaitVerdict.RESTART
        return TimeWaitVerdict.ACKNOWLEDGE
    return TimeWaitVerdict.IGNORE if ahead == 0 else TimeWaitVerdict.ACKNOWLEDGE

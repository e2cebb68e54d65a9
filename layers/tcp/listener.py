"""A listening socket: its options, and how many connections wait on it, counted as Linux does.

Two queues, each bounded by the backlog: half-open connections (SYN-RECEIVED), and those that are established but not
taken by the application. As Linux (tcp_conn_request, tcp_v4_syn_recv_sock): a SYN is dropped when the second is full,
and so is the ACK that would complete a handshake; when the first is full a SYN is answered with a cookie (`half_open`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from layers.tcp.connection import Options


class Room(IntEnum):
    """Whether a listener takes one more."""

    FREE = 0
    SYN_QUEUE_FULL = 1
    ACCEPT_QUEUE_FULL = 2


@dataclass(slots=True)
class Listener:
    """`half_open` and `untaken` hold the ids of children, in the order in which they came."""

    id: int
    address: bytes
    port: int
    region: str
    backlog: int
    options: Options
    half_open: dict[int, bool] = field(default_factory=dict)
    untaken: dict[int, bool] = field(default_factory=dict)
    overflows: int = 0
    cookie_at: int = -1  # ns: when a SYN cookie was sent last; -1: never

    def accept_queue_full(self) -> bool:
        """Linux sk_acceptq_is_full: one more than the backlog may wait."""
        return len(self.untaken) > self.backlog

    def room(self, most: int = 0) -> Room:
        """May a SYN make one more child?

        `most`: where no cookies help, Linux's tcp_max_syn_backlog; its last quarter is for peers that are known to be
        real, and we know none. 0: the backlog alone counts."""
        if self.accept_queue_full():
            return Room.ACCEPT_QUEUE_FULL
        if len(self.half_open) >= max(self.backlog, 1) or (most and len(self.half_open) >= most - (most >> 2)):
            return Room.SYN_QUEUE_FULL
        return Room.FREE

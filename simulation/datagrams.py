"""A program's datagram sockets in virtual time: what client and helper do beside the gateway's answers.

Datagrams wait in the order in which they came; an ICMP error ends the call that finds it, as Linux's sk_err.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from levelip.rpc.messages import DatagramIn

MSG_PEEK, MSG_TRUNC, MSG_DONTWAIT = 2, 0x20, 0x40
MSG_NOSIGNAL = 0x4000
FLAGS = MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT | MSG_NOSIGNAL


@dataclass(slots=True)
class Datagrams:
    """What has come for one socket and was not read."""

    waiting: deque[DatagramIn] = field(default_factory=deque)
    failed: bool = False  # an ICMP error has come that no call has told yet

    def take(self, *, peek: bool) -> DatagramIn | None:
        """The oldest."""
        if not self.waiting:
            return None
        return self.waiting[0] if peek else self.waiting.popleft()

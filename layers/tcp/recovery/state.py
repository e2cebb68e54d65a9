"""What loss recovery of one connection knows beside the send space: its state, what may be undone, its probes.

    OPEN ──SACK, duplicate ACK──> DISORDER ──loss found──> RECOVERY ──all acknowledged──> OPEN
      └──────ECN echo──────> CWR                 └──────RTO──────> LOSS ───────┘
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from layers.tcp.recovery.prr import Prr


class CaState(IntEnum):
    """Linux's enum tcp_ca_state, as TCP_INFO shows it."""

    OPEN = 0
    DISORDER = 1  # something was received beyond a hole; nothing is held to be lost yet
    CWR = 2  # the window comes down after ECN's echo (RFC 3168 6.1.2)
    RECOVERY = 3  # a loss was found while ACKs come
    LOSS = 4  # the retransmission timer fired


@dataclass(slots=True)
class Recovery:
    """Stream offsets and bytes; instants in ns unless they say ms. -1: none.

    Outside OPEN, or while a loss probe is under way, every ACK takes the long path.
    """

    state: CaState = CaState.OPEN
    recover: int = -1  # SND.NXT when the state was entered: RFC 6582 "recover", RFC 6675 RecoveryPoint
    # without SACK
    duplicates: int = 0  # duplicate ACKs in a row
    partials: int = 0  # partial ACKs in this recovery
    # what a reduction was made for, and whether it was for nothing (RFC 3522, 3708, 4015; Linux tcp_may_undo)
    undo_marker: int = -1  # SND.UNA at the reduction
    undo_bytes: int = 0  # sent again since, less what the peer said it has twice
    resent: bool = False  # something was
    resent_at: int = -1  # ms: the first of it
    # F-RTO, RFC 5682
    frto: bool = False
    frto_new: bool = False  # until the next ACK only new data goes out
    # tail loss probe, RFC 8985 7
    probe_end: int = -1  # SND.NXT after the probe: TLP.end_seq
    probe_again: bool = False  # it was a retransmission: TLP.is_retrans
    probe_due: bool = False
    probe_samples: int = -1  # how many RTTs had been measured when the last probe went
    prr: Prr = field(default_factory=Prr)

    def start_undo(self, una: int, retrans_out: int) -> None:
        """A reduction is made now while `retrans_out` bytes of retransmissions are in flight (Linux tcp_init_undo)."""
        self.undo_marker = una
        self.undo_bytes = retrans_out
        self.resent = retrans_out > 0
        if not retrans_out:
            self.resent_at = -1

    def sent_again(self, size: int, now_ms: int) -> None:
        """`size` bytes go out once more."""
        self.undo_bytes += size
        self.resent = True
        if self.resent_at < 0:
            self.resent_at = now_ms

    def delayed(self, echoed: int) -> bool:
        """Eifel, RFC 3522 3.2: an ACK of new data that echoes a stamp (`echoed`: ms) from before the first
        retransmission was caused by the original."""
        return self.undo_marker >= 0 and 0 <= echoed < self.resent_at

    def all_twice(self) -> bool:
        """RFC 3708 3: D-SACKs have named everything that was sent again since the reduction."""
        return self.undo_marker >= 0 and self.resent and self.undo_bytes <= 0

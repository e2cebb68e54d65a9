"""Proportional rate reduction, RFC 9937: cwnd in recovery follows what the network delivers, down to ssthresh."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Prr:
    """Bytes since recovery began (RFC 9937 6)."""

    delivered: int = 0  # prr_delivered
    out: int = 0  # prr_out
    recover_fs: int = 1  # RecoverFS

    def start(self, recover_fs: int) -> None:
        """Recovery begins while `recover_fs` bytes were outstanding before the ACK that found the loss, without
        those that SACK had named before."""
        self.delivered = 0
        self.out = 0
        self.recover_fs = max(recover_fs, 1)

    def window(self, delivered: int, safe: bool, in_flight: int, ssthresh: int, mss: int) -> int:
        """cwnd after an ACK of `delivered` bytes; `safe`: it moved SND.UNA and told of no further loss (SafeACK)."""
        self.delivered += delivered
        if in_flight > ssthresh:  # proportional
            count = -(-self.delivered * ssthresh // self.recover_fs) - self.out
        else:  # conservative reduction bound; slow start reduction bound where it is safe
            count = max(self.delivered - self.out, delivered)
            if safe:
                count += mss
            count = min(ssthresh - in_flight, count)
        if not self.out:
            count = max(count, mss)  # "Force a fast retransmit upon entering recovery"
        return in_flight + max(count, 0)

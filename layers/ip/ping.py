"""Echo requests that wait for their answer (`lvlip ping`): which reply or error belongs to which, when to give up."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from levelip.frames.core import ControlError
from levelip.wire import icmp
from levelip.wire.addr import format_ipv4
from levelip.wire.icmp import IcmpMessage

PINGS_LIMIT = 256
"""Waiting at once, at most: next_timer looks at all of them."""
PATTERN = bytes(range(256))
"""What the data of a request repeats, as Linux's ping does."""

# What ping (iputils, pr_icmph) prints for an error.
_UNREACHABLE = {
    icmp.NET_UNREACH: "Destination Net Unreachable",
    icmp.HOST_UNREACH: "Destination Host Unreachable",
    icmp.PROT_UNREACH: "Destination Protocol Unreachable",
    icmp.PORT_UNREACH: "Destination Port Unreachable",
    icmp.FRAG_NEEDED: "Frag needed and DF set",
    icmp.SR_FAILED: "Source Route Failed",
    icmp.NET_UNKNOWN: "Destination Net Unknown",
    icmp.HOST_UNKNOWN: "Destination Host Unknown",
    icmp.HOST_ISOLATED: "Source Host Isolated",
    icmp.NET_ANO: "Destination Net Prohibited",
    icmp.HOST_ANO: "Destination Host Prohibited",
    icmp.NET_UNR_TOS: "Destination Net Unreachable for Type of Service",
    icmp.HOST_UNR_TOS: "Destination Host Unreachable for Type of Service",
    icmp.PKT_FILTERED: "Packet filtered",
    icmp.PREC_VIOLATION: "Precedence Violation",
    icmp.PREC_CUTOFF: "Precedence Cutoff",
}
_EXCEEDED = {icmp.EXC_TTL: "Time to live exceeded", icmp.EXC_FRAGTIME: "Frag reassembly time exceeded"}


def error_text(icmp_type: int, code: int, mtu: int) -> str:
    """An ICMP error as ping prints it."""
    if icmp_type == icmp.DEST_UNREACH:
        text = _UNREACHABLE.get(code, f"Dest Unreachable, Bad Code: {code}")
        return f"{text} (mtu = {mtu})" if code == icmp.FRAG_NEEDED else text
    if icmp_type == icmp.TIME_EXCEEDED:
        return _EXCEEDED.get(code, f"Time exceeded, Bad Code: {code}")
    return "Parameter problem"


def echo_data(size: int) -> bytes:
    """`size` bytes of data for a request."""
    return (PATTERN * (size // len(PATTERN) + 1))[:size]


class Waiting(Struct):
    """One request on its way."""

    token: int
    ident: int
    sequence: int
    dst: bytes
    size: int
    sent: int
    deadline: int


class Pings:
    """All requests on their way, found by ident and sequence number."""

    def __init__(self, waiting: list[Waiting] | None = None) -> None:
        self._waiting: dict[tuple[int, int], Waiting] = {(w.ident, w.sequence): w for w in waiting or []}

    def __len__(self) -> int:
        return len(self._waiting)

    def waiting(self) -> list[Waiting]:
        """In the order in which they were sent."""
        return list(self._waiting.values())

    def add(self, ping: Waiting) -> None:
        """ControlError if the same one is on its way already, or too many are."""
        if (ping.ident, ping.sequence) in self._waiting:
            raise ControlError(f"an echo request with id {ping.ident} and seq {ping.sequence} is waiting already")
        if len(self._waiting) >= PINGS_LIMIT:
            raise ControlError(f"{PINGS_LIMIT} echo requests are waiting already")
        self._waiting[ping.ident, ping.sequence] = ping

    def next_deadline(self) -> int | None:
        return min((ping.deadline for ping in self._waiting.values()), default=None)

    def expire(self, now: int) -> list[Waiting]:
        """Those given up at `now`, in the order of deadline, ident, sequence."""
        due = [ping for ping in self._waiting.values() if ping.deadline <= now]
        due.sort(key=lambda ping: (ping.deadline, ping.ident, ping.sequence))
        for ping in due:
            del self._waiting[ping.ident, ping.sequence]
        return due

    def reply(self, message: IcmpMessage, src: bytes, ttl: int, now: int) -> tuple[int, dict[str, Any]] | None:
        """(token, answer) for an echo reply, or None if nobody waits for it.

        A reply may come from another address than was asked (ping prints that too), so only ident and number count.
        """
        ping = self._waiting.pop((message.ident, message.sequence), None)
        if ping is None:
            return None
        data = echo_data(ping.size)
        answer: dict[str, Any] = {
            "from": format_ipv4(src),
            "ttl": ttl,
            "size": len(message.payload) + icmp.ICMP_HEADER_LEN,
            "rtt_ns": now - ping.sent,
        }
        if message.payload != data:
            answer["wrong_data"] = True
        return ping.token, answer

    def failed(
        self, quoted: bytes, dst: bytes, *, icmp_type: int, code: int, mtu: int, reporter: bytes
    ) -> tuple[int, dict[str, Any]] | None:
        """(token, answer) for an ICMP error about the echo request whose header is in `quoted`, or None."""
        key = (quoted[4] << 8 | quoted[5], quoted[6] << 8 | quoted[7])
        ping = self._waiting.get(key)
        if ping is None or ping.dst != dst:
            return None
        del self._waiting[key]
        answer = {
            "error": error_text(icmp_type, code, mtu),
            "from": format_ipv4(reporter),
            "type": icmp_type,
            "code": code,
            "mtu": mtu,
        }
        return ping.token, answer

"""Events to sentences: one function a kind, run late, by the tool that shows them.

A kind without a function here, and data that a function does not use, are printed as name value: nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from levelip.tracing.events import Event
from levelip.tracing.reasons import lookup

Data = dict[str, Any]


def event_line(process: str, event: Event) -> str:
    """ "tcp: drop, below window, RFC 9293 3.10.7.4 [10.0.0.2:80 > 10.0.0.1:4711]"."""
    text = f"{process}: {sentence(event)}"
    return f"{text} [{event.conn.replace('>', ' > ')}]" if event.conn else text


def sentence(event: Event) -> str:
    """What happened, without process and connection."""
    if event.kind == "drop":
        return _drop(event)
    data = _Taken(event.data)
    formatter = _KINDS.get(event.kind)
    text = formatter(data) if formatter is not None else ""
    if not text:
        data = _Taken(event.data)
        text = event.kind.replace("_", " ")
    return text + data.rest()


class _Taken:
    """Data of an event that remembers which fields a sentence has used."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._data

    def __call__(self, name: str, default: Any = None) -> Any:
        self._used.add(name)
        return self._data.get(name, default)

    def rest(self) -> str:
        left = [f"{name} {_plain(value)}" for name, value in self._data.items() if name not in self._used]
        return f" ({', '.join(left)})" if left else ""


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ":".join(map(_plain, value)) if len(value) == 2 else f"[{', '.join(map(_plain, value))}]"
    return str(value)


def ms(ns: float) -> str:
    """Nanoseconds as people read a round trip: "0.412 ms", "215 ms", "1.5 s"."""
    value = ns / 1e6
    if value >= 10_000:
        return f"{value / 1000:g} s"
    if value >= 100:
        return f"{value:.0f} ms"
    return f"{float(f'{value:.3g}'):g} ms"


def _drop(event: Event) -> str:
    reason = lookup(event.reason)
    text = f"drop, {reason}" if reason is not None else f"drop, {event.reason.replace('_', ' ') or 'no reason given'}"
    return text + _Taken(event.data).rest()


def _change(name: str) -> Callable[[_Taken], str]:
    """A figure that went "from" one value "to" another."""

    def text(data: _Taken) -> str:
        if "to" not in data:
            return ""
        why = data("why", "")
        return f"{name}{_arrow(data('from'), data('to'))}" + (f", {why}" if why else "")

    return text


def _arrow(old: Any, new: Any) -> str:
    return f" {_plain(new)}" if old is None else f" {_plain(old)} → {_plain(new)}"


def _state(data: _Taken) -> str:
    if "to" not in data:
        return ""
    why = data("why", "")
    return _arrow(data("from"), data("to")).strip() + (f", {why}" if why else "")


def _cwnd(data: _Taken) -> str:
    """In segments, as the congestion window is spoken of, where the segment size is told; in bytes else."""
    if "to" not in data:
        return ""
    old, new, mss = data("from"), data("to"), data("mss")
    why = data("why", "")
    text = f"cwnd{_arrow(old, new)}"
    if mss:
        text = f"cwnd{_arrow(None if old is None else _segments(old, mss), _segments(new, mss))}"
    ssthresh = data("ssthresh")
    if ssthresh is not None:
        infinite = ssthresh >= 1 << 30
        text += f", ssthresh {'infinite' if infinite else _segments(ssthresh, mss) if mss else ssthresh}"
    return text + (f", {why}" if why else "")


def _segments(size: int, mss: int) -> str:
    return f"{size / mss:.1f}".removesuffix(".0")


def _retransmit(data: _Taken) -> str:
    why = data("why", "")
    seq, length = data("seq"), data("length")
    text = f"retransmit, {why}" if why else "retransmit"
    if seq is not None:
        text += f", seq {seq}" + (f":{(seq + length) & 0xFFFFFFFF}" if length else "")
    attempt = data("attempt")
    return text + (f", attempt {attempt}" if attempt else "")


def _rto(data: _Taken) -> str:
    if "rto_ns" not in data:
        return ""
    old = data("from_ns")
    text = f"RTO {ms(old)} → {ms(data('rto_ns'))}" if old is not None else f"RTO {ms(data('rto_ns'))}"
    why = data("why", "")
    return text + (f", {why}" if why else "")


def _rtt(data: _Taken) -> str:
    if "sample_ns" not in data:
        return ""
    parts = [f"RTT {ms(data('sample_ns'))}"]
    for field, name in (("srtt_ns", "srtt"), ("rttvar_ns", "rttvar"), ("rto_ns", "RTO")):
        if field in data:
            parts.append(f"{name} {ms(data(field))}")
    return ", ".join(parts)


def _link(data: _Taken) -> str:
    up = data("up")
    return "" if up is None else f"device {data('name', '')} is {'up' if up else 'down'}, MTU {data('mtu', '?')}"


def _arp(data: _Taken) -> str:
    address = data("address")
    if address is None:
        return ""
    text = f"ARP {address}"
    mac = data("mac")
    if mac:
        text += f" is at {mac.hex(':') if isinstance(mac, bytes) else mac}"
    if "to" in data:
        text += f",{_arrow(data('from'), data('to'))}"
    return text


def _icmp(data: _Taken) -> str:
    name = data("name")
    return "" if name is None else f"ICMP {name}"


_KINDS: dict[str, Callable[[_Taken], str]] = {
    "state": _state,
    "cwnd": _cwnd,
    "ssthresh": _change("ssthresh"),
    "retransmit": _retransmit,
    "rto": _rto,
    "rtt": _rtt,
    "window": _change("window"),
    "link": _link,
    "arp": _arp,
    "icmp": _icmp,
}

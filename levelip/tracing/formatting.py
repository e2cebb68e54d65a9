"""Events to sentences: one function a kind, run late, by the tool that shows them.

A kind without a function here, and data that a function does not use, are printed as name value: nothing is lost.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from levelip.tracing.events import Event
from levelip.tracing.reasons import lookup

Data = dict[str, Any]

_INFINITE = 1 << 30
"""An ssthresh from here on was never lowered (RFC 5681 3.1: arbitrarily high at first), and is not shown."""


def event_line(process: str, event: Event) -> str:
    """ "tcp: drop, below window, RFC 9293 3.10.7.4 [10.0.0.2:80 > 10.0.0.1:4711]"."""
    text = f"{process}: {sentence(event)}"
    return f"{text} [{event.conn.replace('>', ' > ')}]" if event.conn else text


def sentence(event: Event) -> str:
    """What happened, without process and connection."""
    if "text" in event.data:  # it was a sentence before: a capture's comment
        return str(event.data["text"])
    if event.kind == "drop":
        return _drop(event)
    data = _Taken(event.data)
    formatter = _KINDS.get(event.kind)
    try:
        text = formatter(data) if formatter is not None else ""
    except (TypeError, ValueError, ZeroDivisionError, AttributeError):  # data of a file, which may be anybody's
        text = ""
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
    data = _Taken(event.data)
    return text + (_at_seam(data) if "way" in data else "") + data.rest()


def _at_seam(data: _Taken) -> str:
    """ " at link ↓, Flags [P.], seq 5, ack 9, length 1448" of what was done to a packet on its way."""
    text = f" at {data('seam')} {'↑' if data('way') == 'up' else '↓'}"
    if "flags" in data:
        text += f", Flags [{data('flags')}]"
    return text + "".join(f", {name} {data(name)}" for name in ("seq", "ack", "length") if name in data)


def _fault(data: _Taken) -> str:
    """What lvlip fault did to a packet that it did not lose."""
    what = FAULT_WORDS.get(data("what", ""))
    if what is None or "seam" not in data:
        return ""
    ns = data("ns")
    return f"lvlip fault: {what}" + (f" by {ms(ns)}" if ns is not None else "") + _at_seam(data)


FAULT_WORDS = {"dup": "sent twice", "corrupt": "a bit flipped", "delay": "delayed", "reorder": "kept back"}


def _change(data: _Taken) -> str:
    """ "OLD → NEW", or NEW alone where nothing was before."""
    old, new = data("old"), data("new")
    return _plain(new) if old is None or old == "" else f"{_plain(old)} → {_plain(new)}"


def _state(data: _Taken) -> str:
    if "new" not in data:
        return ""
    cause = data("input", "")
    return _change(data) + (f", {cause.lower().replace('_', ' ')}" if cause else "")


def _cwnd(data: _Taken) -> str:
    """In segments, as a congestion window is spoken of, where their size is told; in bytes else."""
    if "new" not in data:
        return ""
    mss, ssthresh, why = data("mss"), data("ssthresh"), data("why", "")
    old, new = data("old"), data("new")
    data("flight")  # for graphs
    text = f"cwnd {_segments(new, mss)}" if old is None else f"cwnd {_segments(old, mss)} → {_segments(new, mss)}"
    if ssthresh is not None and ssthresh < _INFINITE:
        text += f", ssthresh {_segments(ssthresh, mss)}"
    return text + (f", {_words(why)}" if why else "")


def _segments(size: int, mss: int | None) -> str:
    return f"{size / mss:.1f}".removesuffix(".0") if mss else str(size)


def _retransmit(data: _Taken) -> str:
    why, offset, length, attempt = data("why", ""), data("offset"), data("length"), data("attempt")
    text = f"retransmit, {RETRANSMIT_WORDS.get(why, _words(why))}" if why else "retransmit"
    if offset is not None:
        text += f", {_seq(offset, offset + (length or 0))}" if offset >= 0 else ", the SYN"
    return text + (f", attempt {attempt}" if attempt else "")


def _seq(start: int, end: int) -> str:
    """Bytes of a stream, which events count from 0, as segments are shown: the SYN is 0, the first byte 1."""
    return f"seq {start + 1}:{end + 1}"


RETRANSMIT_WORDS = {
    "rto": "RTO",
    "tlp": "tail loss probe, RFC 8985 7.3",
    "fast": "fast, RFC 5681 3.2",
    "partial": "partial ACK, RFC 6582 3.2",
}


def _rtt(data: _Taken) -> str:
    if "rtt" not in data:
        return ""
    parts = [f"RTT {ms(data('rtt'))}"]
    parts += [f"{title} {ms(data(name))}" for name, title in _RTT if name in data]
    return ", ".join(parts)


_RTT = (("srtt", "srtt"), ("rttvar", "rttvar"), ("rto", "RTO"))


def _rto(data: _Taken) -> str:
    """The retransmission timer ran out (RFC 6298 5.4-5.6)."""
    if "rto" not in data:
        return ""
    attempt, flight = data("attempt"), data("flight")
    text = "RTO expired"
    if flight is not None:
        text += f", {flight} bytes in flight"
    return f"{text}, next in {ms(data('rto'))}" + (f", attempt {attempt}" if attempt else "")


def _loss(data: _Taken) -> str:
    """What was found lost, and what found it."""
    if "bytes" not in data:
        return ""
    why = data("why", "")
    data("rtt")
    return f"{data('bytes')} bytes lost, {_LOSS.get(why, _words(why))}"


_LOSS = {
    "rack": "overtaken too long ago, RFC 8985 6.2",
    "rack_timer": "overtaken too long ago, RFC 8985 6.2 (timer)",
    "dupack": "three arrived beyond, RFC 6675 5",
    "rto": "RTO, RFC 6298 5.4",
    "tlp": "repaired by a tail loss probe, RFC 8985 7.4",
}


def _recovery(data: _Taken) -> str:
    """States of loss recovery."""
    if "new" not in data:
        return ""
    why = data("why", "")
    return f"loss recovery {_change(data)}" + (f", {_RECOVERY.get(why, _words(why))}" if why else "")


_RECOVERY = {"dupack": "duplicate ACK", "sack": "SACK", "rto": "RTO", "rack": "RACK", "pmtu": "path MTU", "ecn": "ECN"}


def _undo(data: _Taken) -> str:
    if "new" not in data:
        return ""
    why, old, new, mss = data("why", ""), data("old"), data("new"), data("mss")
    return f"reduction undone, {_UNDO.get(why, _words(why))}, cwnd {_segments(old, mss)} → {_segments(new, mss)}"


_UNDO = {
    "dsack": "all that was repeated came twice, RFC 3708",
    "timestamp": "the original came, RFC 3522",
    "frto": "the timeout was spurious, RFC 5682",
}


def _reordering(data: _Taken) -> str:
    if "packets" not in data:
        return ""
    data("why")
    return f"reordering seen, by {data('packets')} packets" + (", for the first time" if data("first") else "")


def _reneged(data: _Taken) -> str:
    return f"the peer no longer has what it named from seq {data('una') + 1} on, RFC 2018 8" if "una" in data else ""


def _dsack(data: _Taken) -> str:
    return f"the peer has {_seq(data('left'), data('right'))} twice, RFC 2883" if "left" in data else ""


def _window(data: _Taken) -> str:
    if "new" not in data:
        return ""
    old, new = data("old"), data("new")
    if new == 0:
        return f"window {old} → 0, closed"
    return f"window {old} → {new}" + (", open again" if old == 0 else "")


def _fragment(data: _Taken) -> str:
    if not all(name in data for name in ("pieces", "dst", "ident", "mtu")):
        return ""
    return f"cut into {data('pieces')} fragments for {data('dst')}, id {data('ident')}, MTU {data('mtu')}"


def _reassembled(data: _Taken) -> str:
    if not all(name in data for name in ("length", "src", "fragments", "ident")):
        return ""
    return (
        f"{data('length')} bytes from {data('src')} put together of {data('fragments')} fragments, id {data('ident')}"
    )


def _igmp(data: _Taken) -> str:
    return str(data("name")) if "name" in data else ""


def _doubt(data: _Taken) -> str:
    if "dst" not in data:
        return ""
    return f"nothing comes back from {data('dst')}: no redirect for it is followed any more, RFC 9293 3.8.3"


def _gateway(data: _Taken) -> str:
    if not all(name in data for name in ("gateway", "retry_ms")):
        return ""
    return f"{data('gateway')} does not answer: passed over for {data('retry_ms')} ms, RFC 1122 3.3.1.5"


def _redirect(data: _Taken) -> str:
    if not all(name in data for name in ("dst", "new", "old")):
        return ""
    return f"to {data('dst')} by way of {data('new')} from now on, as {data('old')} says, RFC 1122 3.2.2.2"


def _rcvbuf(data: _Taken) -> str:
    if "size" not in data:
        return ""
    data("most")
    return f"receive buffer grows to {data('size')}, {data('space')} bytes taken in {ms(data('rtt'))}"


def _pmtu(data: _Taken) -> str:
    if "new" not in data:
        return ""
    why = data("why", "icmp")
    rule = {"icmp": "RFC 1191", "expired": "what ICMP told is too old, RFC 1191 6.3"}.get(why, f"{why}, RFC 4821")
    return f"path MTU {_change(data)}, {rule}"


def _mtu_probe(data: _Taken) -> str:
    if "size" not in data:
        return ""
    what = "lost" if data("lost") else "sent"
    return f"MTU probe of {data('size')} bytes {what}, between {data('low')} and {data('high')}"


def _syn_cookie(data: _Taken) -> str:
    return f"SYN cookie sent, {data('half_open')} half open on port {data('port')}" if "port" in data else ""


def _urgent(data: _Taken) -> str:
    return f"urgent up to seq {data('upto') + 1}, {'ours' if data('sent') else 'the peer'}" if "upto" in data else ""


def _probe(data: _Taken) -> str:
    if "number" not in data:
        return ""
    kind = {"window": "zero-window probe", "keepalive": "keep-alive"}.get(data("why", ""), "probe")
    text = f"{kind} {data('number')}"
    return f"{text}, next in {ms(data('next'))}" if "next" in data else text


def _timer(data: _Taken) -> str:
    data("deadline")  # an instant of stack time, which says nothing to people
    return f"{data('name', '')} timer armed"


def _reset(data: _Taken) -> str:
    return "reset sent" if data("sent") else "reset received"


def _listen(data: _Taken) -> str:
    return f"listening on port {data('port')}, backlog {data('backlog')}" if "port" in data else ""


def _device(data: _Taken) -> str:
    if "up" not in data:
        return ""
    return f"device {data('name', '')} is {'up' if data('up') else 'down'}, MTU {data('mtu', '?')}"


def _arp(data: _Taken) -> str:
    address, mac = data("address"), data("mac")
    if address is None:
        return ""
    where = f" at {mac}" if mac and mac != "00:00:00:00:00:00" else ""
    return f"ARP {address}{where}, {_change(data)}" if "new" in data else f"ARP {address}{where}"


def _conflict(data: _Taken) -> str:
    address, mac = data("address"), data("mac")
    if address is None:
        return ""
    return f"{mac} claims our address {address}, {'defended' if data('defended') else 'not defended'}"


def _claim(data: _Taken) -> str:
    return f"{data('address') or 'our addresses'}: {_change(data)}" if "new" in data else ""


def _route(data: _Taken) -> str:
    return f"the transports know {data('routes')} routes" if "routes" in data else ""


def _datagram(data: _Taken) -> str:
    return f"{data('length')} bytes from {data('src')}:{data('port', '?')}" if "length" in data else ""


def _send(data: _Taken) -> str:
    if "errno" not in data:
        return ""
    error = data("errno")
    return f"a datagram to {data('dst', '?')}:{data('port', '?')} is refused: {errno.errorcode.get(error, error)}"


def _icmp(data: _Taken) -> str:
    if "name" in data:
        return f"ICMP {data('name')}"
    if "type" not in data or "errno" not in data:
        return ""
    error = data("errno")
    return f"ICMP type {data('type')} code {data('code', '?')}: {errno.errorcode.get(error, error)}"


def _client(data: _Taken) -> str:
    return f"client pid {data('pid')} {data('what')}" if "what" in data and "pid" in data else ""


def _socket(data: _Taken) -> str:
    if "after" not in data:
        return ""
    return f"socket {data('sock')} {data('before')} → {data('after')}"


def _call(data: _Taken) -> str:
    if "op" not in data:
        return ""
    error = data("errno", 0)
    text = f"{data('op')}({data('sock', '')}) of pid {data('pid', '?')}"
    return f"{text}: {errno.errorcode.get(error, error)}" if error else text


def _words(name: str) -> str:
    return name.lower().replace("_", " ")


def _ecn(data: _Taken) -> str:
    if "echo" not in data:
        return ""
    count = data("packets", 1)
    packets = f"{count} packet{'s' * (count != 1)}"
    if data("echo"):
        return f"congestion mark on {packets}, echoed until CWR, RFC 3168 6.1.3"
    return f"CWR on {packets}, no echo any more, RFC 3168 6.1.3"


def _addon(data: _Taken) -> str:
    if "what" not in data:
        return ""
    if "seam" in data:
        return _addon_did(data)
    hook, ms_, times, error = data("hook"), data("ms"), data("times"), data("error")
    data("traceback")  # lvlip addon list shows it
    text = f"addon {data('addon')} {data('what')}"
    if hook:
        text += f", in {hook}"
    if ms_ is not None:
        text += f", {ms_} ms" + (f" ({times} times)" if times and times > 1 else "")
    return text + (f": {error}" if error else "")


def _addon_did(data: _Taken) -> str:
    """What an addon did to a packet that it did not drop."""
    return _did(f"addon {data('addon')}", data)


def _hand(data: _Taken) -> str:
    """What a debugger did to a packet that it did not drop."""
    return _did("by hand", data) if "seam" in data and "what" in data else ""


def _did(who: str, data: _Taken) -> str:
    text = f"{who}: {data('what')}"
    changes, times, ns = data("changes"), data("times"), data("ns")
    if changes:
        text += f" {', '.join(changes)}"
    if times is not None and times > 1:
        text += f" {times} times"
    return text + (f" by {ms(ns)}" if ns is not None else "") + _at_seam(data)


_KINDS: dict[str, Callable[[_Taken], str]] = {
    "addon": _addon,
    "arp": _arp,
    "call": _call,
    "claim": _claim,
    "client": _client,
    "conflict": _conflict,
    "cwnd": _cwnd,
    "datagram": _datagram,
    "device": _device,
    "dsack": _dsack,
    "ecn": _ecn,
    "fault": _fault,
    "fragment": _fragment,
    "hand": _hand,
    "icmp": _icmp,
    "igmp": _igmp,
    "link": _device,
    "listen": _listen,
    "loss": _loss,
    "mtu_probe": _mtu_probe,
    "pmtu": _pmtu,
    "probe": _probe,
    "rcvbuf": _rcvbuf,
    "recovery": _recovery,
    "reneged": _reneged,
    "reordering": _reordering,
    "reassembled": _reassembled,
    "redirect": _redirect,
    "gateway": _gateway,
    "doubt": _doubt,
    "reset": _reset,
    "retransmit": _retransmit,
    "route": _route,
    "rto": _rto,
    "rtt": _rtt,
    "send": _send,
    "socket": _socket,
    "state": _state,
    "syn_cookie": _syn_cookie,
    "timer": _timer,
    "undo": _undo,
    "urgent": _urgent,
    "window": _window,
}

"""Each kind of event as its sentence, word for word."""

# ruff: noqa: E501 - expected lines stand as they are printed
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from levelip.tracing.events import Event
from levelip.tracing.formatting import _KINDS, event_line, ms, sentence
from levelip.tracing.reasons import all_reasons


@pytest.mark.parametrize(
    ("kind", "data", "text"),
    [
        ("state", {"old": "ESTABLISHED", "new": "CLOSE_WAIT", "input": "FIN"}, "ESTABLISHED → CLOSE_WAIT, fin"),
        ("state", {"old": "ESTABLISHED", "new": "CLOSE_WAIT"}, "ESTABLISHED → CLOSE_WAIT"),
        ("cwnd", {"old": 14_480, "new": 15_928, "mss": 1448, "ssthresh": 1 << 40, "why": "ack"}, "cwnd 10 → 11, ack"),
        ("cwnd", {"old": 14_480, "new": 7_964, "mss": 1448, "ssthresh": 7240, "why": "FAST_RETRANSMIT"},
         "cwnd 10 → 5.5, ssthresh 5, fast retransmit"),
        ("cwnd", {"old": 100, "new": 200}, "cwnd 100 → 200"),
        ("ecn", {"echo": True, "packets": 2}, "congestion mark on 2 packets, echoed until CWR, RFC 3168 6.1.3"),
        ("ecn", {"echo": False, "packets": 1}, "CWR on 1 packet, no echo any more, RFC 3168 6.1.3"),
        ("retransmit", {"why": "fast", "offset": 0, "length": 1448, "attempt": 0},
         "retransmit, fast, RFC 5681 3.2, seq 1:1449"),
        ("retransmit", {"why": "rto", "offset": 10, "length": 5, "attempt": 2}, "retransmit, RTO, seq 11:16, attempt 2"),
        ("retransmit", {"why": "rto", "offset": -1, "length": 1, "attempt": 1}, "retransmit, RTO, the SYN, attempt 1"),
        ("retransmit", {"why": "tlp", "offset": 0, "length": 9, "attempt": 1},
         "retransmit, tail loss probe, RFC 8985 7.3, seq 1:10, attempt 1"),
        ("loss", {"why": "dupack", "bytes": 1448, "rtt": 5}, "1448 bytes lost, three arrived beyond, RFC 6675 5"),
        ("recovery", {"old": "OPEN", "new": "DISORDER", "why": "sack"}, "loss recovery OPEN → DISORDER, SACK"),
        ("recovery", {"old": "RECOVERY", "new": "OPEN", "why": "acknowledged"},
         "loss recovery RECOVERY → OPEN, acknowledged"),
        ("undo", {"why": "dsack", "old": 7240, "new": 14_480, "mss": 1448},
         "reduction undone, all that was repeated came twice, RFC 3708, cwnd 5 → 10"),
        ("reordering", {"packets": 4, "first": True, "why": "sack"}, "reordering seen, by 4 packets, for the first time"),
        ("reneged", {"una": 5}, "the peer no longer has what it named from seq 6 on, RFC 2018 8"),
        ("dsack", {"left": 1, "right": 9}, "the peer has seq 2:10 twice, RFC 2883"),
        ("rto", {"attempt": 1, "rto": 400_000_000, "flight": 1448},
         "RTO expired, 1448 bytes in flight, next in 400 ms, attempt 1"),
        ("rtt", {"rtt": 412_000, "srtt": 500_000, "rttvar": 250_000, "rto": 200_000_000},
         "RTT 0.412 ms, srtt 0.5 ms, rttvar 0.25 ms, RTO 200 ms"),
        ("window", {"old": 65_535, "new": 0}, "window 65535 → 0, closed"),
        ("window", {"old": 0, "new": 65_535}, "window 0 → 65535, open again"),
        ("window", {"old": 1, "new": 2}, "window 1 → 2"),
        ("timer", {"name": "persist", "deadline": 99, "window": 0}, "persist timer armed (window 0)"),
        ("igmp", {"name": "igmp query v3", "src": "10.0.0.1"}, "igmp query v3 (src 10.0.0.1)"),
        ("fault", {"what": "delay", "ns": 20_000_000, "seam": "link", "way": "up", "flags": "P.", "seq": 5, "ack": 9,
                   "length": 7}, "lvlip fault: delayed by 20 ms at link ↑, Flags [P.], seq 5, ack 9, length 7"),
        ("fault", {"what": "reorder", "ns": 5_000_000, "seam": "ip-udp", "way": "down", "length": 7},
         "lvlip fault: kept back by 5 ms at ip-udp ↓, length 7"),
        ("fault", {"what": "dup", "seam": "link", "way": "down", "src": "10.0.0.1", "dst": "10.0.0.2"},
         "lvlip fault: sent twice at link ↓ (src 10.0.0.1, dst 10.0.0.2)"),
        ("fault", {"what": "corrupt", "seam": "link-ip", "way": "up"}, "lvlip fault: a bit flipped at link-ip ↑"),
        ("fault", {"what": "else", "seam": "link"}, "fault (what else, seam link)"),
        ("rtt", {"rtt": "soon"}, "rtt (rtt soon)"),
        ("cwnd", {"new": [], "mss": 1460}, "cwnd (new [], mss 1460)"),
        ("fragment", {"pieces": 3, "dst": "10.0.0.1", "ident": 7, "mtu": 1500},
         "cut into 3 fragments for 10.0.0.1, id 7, MTU 1500"),
        ("reassembled", {"length": 2000, "src": "10.0.0.1", "fragments": 2, "ident": 7},
         "2000 bytes from 10.0.0.1 put together of 2 fragments, id 7"),
        ("redirect", {"dst": "192.0.2.7", "old": "10.0.0.1", "new": "10.0.0.9"},
         "to 192.0.2.7 by way of 10.0.0.9 from now on, as 10.0.0.1 says, RFC 1122 3.2.2.2"),
        ("doubt", {"dst": "192.0.2.7"},
         "nothing comes back from 192.0.2.7: no redirect for it is followed any more, RFC 9293 3.8.3"),
        ("gateway", {"gateway": "10.0.0.1", "retry_ms": 60_000},
         "10.0.0.1 does not answer: passed over for 60000 ms, RFC 1122 3.3.1.5"),
        ("pmtu", {"old": 1500, "new": 1400}, "path MTU 1500 → 1400, RFC 1191"),
        ("pmtu", {"old": 1500, "new": 1076, "why": "black hole"}, "path MTU 1500 → 1076, black hole, RFC 4821"),
        ("pmtu", {"old": 552, "new": 1500, "why": "expired"},
         "path MTU 552 → 1500, what ICMP told is too old, RFC 1191 6.3"),
        ("mtu_probe", {"size": 1288, "low": 1076, "high": 1500}, "MTU probe of 1288 bytes sent, between 1076 and 1500"),
        ("mtu_probe", {"size": 1288, "low": 1076, "high": 1287, "lost": True},
         "MTU probe of 1288 bytes lost, between 1076 and 1287"),
        ("syn_cookie", {"port": 80, "half_open": 128}, "SYN cookie sent, 128 half open on port 80"),
        ("urgent", {"upto": 7, "sent": False}, "urgent up to seq 8, the peer"),
        ("probe", {"why": "window", "number": 2, "next": 400_000_000}, "zero-window probe 2, next in 400 ms"),
        ("probe", {"why": "keepalive", "number": 1, "next": 75_000_000_000}, "keep-alive 1, next in 75 s"),
        ("rcvbuf", {"size": 500_000, "most": 4_194_304, "rtt": 1_000_000, "space": 200_000},
         "receive buffer grows to 500000, 200000 bytes taken in 1 ms"),
        ("reset", {"sent": True}, "reset sent"),
        ("reset", {"sent": False}, "reset received"),
        ("listen", {"sock": 3, "port": 80, "backlog": 128}, "listening on port 80, backlog 128 (sock 3)"),
        ("device", {"name": "lvl0", "up": True, "mtu": 1500, "gso_max": 0}, "device lvl0 is up, MTU 1500 (gso_max 0)"),
        ("link", {"name": "lvl0", "up": False, "mtu": 1500}, "device lvl0 is down, MTU 1500"),
        ("arp", {"address": "10.0.0.1", "mac": "02:00:00:00:00:01", "old": "", "new": "reachable"},
         "ARP 10.0.0.1 at 02:00:00:00:00:01, reachable"),
        ("arp", {"address": "10.0.0.1", "mac": "00:00:00:00:00:00", "old": "reachable", "new": "incomplete"},
         "ARP 10.0.0.1, reachable → incomplete"),
        ("conflict", {"address": "10.0.0.2", "mac": "02:00:00:00:00:03", "defended": True},
         "02:00:00:00:00:03 claims our address 10.0.0.2, defended"),
        ("conflict", {"address": "10.0.0.2", "mac": "02:00:00:00:00:03", "defended": False},
         "02:00:00:00:00:03 claims our address 10.0.0.2, not defended"),
        ("claim", {"old": "probing", "new": "owned"}, "our addresses: probing → owned"),
        ("claim", {"old": "probing", "new": "conflict", "address": "10.0.0.9"}, "10.0.0.9: probing → conflict"),
        ("route", {"routes": 3}, "the transports know 3 routes"),
        ("icmp", {"name": "host unreachable", "src": "10.0.0.1"}, "ICMP host unreachable (src 10.0.0.1)"),
        ("client", {"what": "opened", "pid": 12, "uid": 0}, "client pid 12 opened (uid 0)"),
        ("socket", {"sock": 4, "before": "new", "after": "bound"}, "socket 4 new → bound"),
        ("call", {"op": "connect", "sock": 4, "errno": 111, "pid": 12}, "connect(4) of pid 12: ECONNREFUSED"),
        ("call", {"op": "bind", "sock": 4, "errno": 0, "pid": 12}, "bind(4) of pid 12"),
        ("never_heard_of", {"a": 1, "b": b"\1", "c": [1, 2], "d": True}, "never heard of (a 1, b 0x01, c 1:2, d yes)"),
        ("addon", {"addon": "nat", "what": "failed", "hook": "out", "error": "KeyError: 5", "traceback": "..."},
         "addon nat failed, in out: KeyError: 5"),
        ("addon", {"addon": "nat", "what": "changed", "changes": ["ip.ttl=9", "tcp.seq=5"], "seam": "link", "way": "up",
                   "flags": ".", "seq": 5, "ack": 6, "length": 7},
         "addon nat: changed ip.ttl=9, tcp.seq=5 at link ↑, Flags [.], seq 5, ack 6, length 7"),
        ("addon", {"addon": "nat", "what": "repeated", "times": 2, "seam": "ip-tcp", "way": "down"},
         "addon nat: repeated 2 times at ip-tcp ↓"),
        ("addon", {"addon": "nat", "what": "slow", "hook": "out", "ms": 31, "times": 4},
         "addon nat slow, in out, 31 ms (4 times)"),
        ("hand", {"what": "changed", "changes": ["tcp.seq=5"], "seam": "ip-tcp", "way": "up"},
         "by hand: changed tcp.seq=5 at ip-tcp ↑"),
        ("hand", {"what": "delayed", "ns": 20_000_000, "seam": "link", "way": "down"},
         "by hand: delayed by 20 ms at link ↓"),
        ("state", {}, "state"),
        ("cwnd", {"odd": 1}, "cwnd (odd 1)"),
    ],
)  # fmt: skip
def test_an_event_as_a_sentence(kind: str, data: dict[str, Any], text: str) -> None:
    assert sentence(Event(0, kind, data=data)) == text


def test_a_drop_names_its_reason_its_rule_and_what_it_knows() -> None:
    event = Event(0, "drop", "martian_source", 0, "10.0.0.2:80>10.0.0.1:4711", {"src": "127.0.0.1"})
    assert event_line("ip", event) == (
        "ip: drop, a source that no host may use on a network, RFC 1122 3.2.1.3 (src 127.0.0.1) [10.0.0.2:80 > 10.0.0.1:4711]"
    )


def test_a_drop_of_an_unknown_reason_is_shown_all_the_same() -> None:
    assert sentence(Event(0, "drop", "of_next_year")) == "drop, of next year"
    assert sentence(Event(0, "drop")) == "drop, no reason given"


def test_every_kind_that_a_core_emits_has_its_sentence() -> None:
    """Others would be printed too, as name and value; but a core's author should say what is meant."""
    root = Path(__file__).parents[3]
    kinds = set()
    for path in [*(root / "layers").rglob("*.py"), *(root / "gateway").rglob("*.py")]:
        kinds |= set(re.findall(r"(?:emit\(|Event\([^,\n]+,) ?\"([a-z_]+)\"", path.read_text(encoding="utf-8")))
    assert kinds - {"drop"} <= set(_KINDS)
    assert len(kinds) > 10


def test_every_reason_makes_a_sentence() -> None:
    for reason in all_reasons():
        text = sentence(Event(0, "drop", reason.name))
        assert text == f"drop, {reason.sentence}" + (f", {reason.rule}" if reason.rule else "")


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0 ms"), (412_345, "0.412 ms"), (1_500_000, "1.5 ms"), (215_400_000, "215 ms"), (12_000_000_000, "12 s")],
)
def test_times_are_short(ns: int, text: str) -> None:
    assert ms(ns) == text

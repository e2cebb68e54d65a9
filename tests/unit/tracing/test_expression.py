"""Expressions: what they are true of, what is no expression and where, and what it costs to ask."""

# ruff: noqa: E501 - tables: a case or two a line

from __future__ import annotations

import ast
import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import PACKETS, SYN_OPTIONS, TAGGED, device_frame, ethernet, icmp_error, packet, record, segment, tcp

from layers.tcp.info import ss_row
from layers.tcp.states import State
from levelip.frames.packet import LinkState
from levelip.frames.seam import Connect, ForClient
from levelip.rpc.place import Place
from levelip.rpc.stream import Data
from levelip.tracing.eventfields import EVENTS, FIGURES, STATES, connection_figures
from levelip.tracing.events import Event
from levelip.tracing.expression import ALL_FIELDS, ExpressionError, compile_expression
from levelip.tracing.expressionparser import Parser
from levelip.tracing.fields import FIELDS, fields
from levelip.tracing.formatting import _KINDS
from levelip.tracing.reasons import all_reasons
from levelip.tracing.view import view
from levelip.wire.tcp import ACK, FIN, PSH, SYN

ROOT = Path(__file__).parents[3]
CONN = "10.0.0.2:80>10.0.0.1:4711"


def true_of(text: str, frame: Any, **more: Any) -> bool:
    return compile_expression(text).matches_frame(frame, "ip-tcp", "up", **more)


SYNS = segment(tcp(SYN, options=SYN_OPTIONS))
DATA = segment(tcp(PSH | ACK, payload=b"GET /index.html HTTP/1.0\r\n", seq=1000))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # presence, flags
        ("tcp", True), ("udp", False), ("not udp", True), ("!udp", True), ("ip", True), ("arp", False),
        ("tcp.flags.syn", False), ("tcp.flags.push", True), ("tcp.flags.syn == 0", True), ("tcp.flags.push == true", True),
        ("tcp.options.mss_val", False), ("not tcp.options.mss_val", True), ("tcp.flags & 0x18", True),
        ("tcp.flags & 0x02", False), ("tcp.flags & 0x18 == 0x18", True), ("tcp.flags.str == \"P.\"", True),
        # numbers
        ("tcp.dstport == 80", True), ("tcp.dstport eq 80", True), ("tcp.dstport != 80", False), ("tcp.dstport ne 81", True),
        ("tcp.dstport < 81", True), ("tcp.dstport <= 80", True), ("tcp.dstport gt 80", False), ("tcp.dstport ge 80", True),
        ("80 == tcp.dstport", True), ("81 > tcp.dstport", True), ("80 < tcp.dstport", False), ("tcp.seq == 0x3e8", True),
        ("tcp.dstport lt 100.5", True), ("tcp.len == 26", True), ("tcp.nxtseq == tcp.seq + tcp.len", True),
        ("tcp.seq + tcp.len < 1026", False), ("tcp.len * 2 - 2 == 50", True), ("tcp.len / 5 == 5", True),
        ("tcp.len % 5 == 1", True), ("tcp.len == 20 + 6", True), ("-tcp.len < -25", True), ("tcp.len & 0x1a == 26", True),
        ("tcp.len / (tcp.urgent_pointer) == 3", False), ("tcp.srcport > tcp.dstport", True),
        # sets
        ("tcp.dstport in {80, 443}", True), ("tcp.dstport in {80 443}", True), ("tcp.dstport in {8000..8100}", False),
        ("tcp.dstport in {1, 70..90}", True), ("tcp.dstport not in {80}", False), ("not tcp.dstport in {80}", False),
        ("tcp.port in {4711}", True), ("ip.src in {10.0.0.0/24, 192.0.2.1}", True),
        ("ip.src in {10.0.0.1..10.0.0.9}", True), ("ip.src in {10.0.0.2..10.0.0.9}", False),
        ("tcp.flags.str in {\"S\", \"P.\"}", True),
        # addresses
        ("ip.src == 10.0.0.1", True), ("ip.src == 10.0.0.0/8", True), ("ip.src == 10.0.0.77/24", True),
        ("ip.src == 11.0.0.0/8", False), ("ip.src != 10.0.0.0/8", False), ("ip.src < 10.0.0.2", True),
        ("ip.addr == 10.0.0.2", True), ("ip.src == 0.0.0.0/0", True), ("ip.src[0] == 0x0a", True),
        ("ip.src == ip.dst", False),
        # any of several: == if one is, != if none is, ~= if one differs, === if all are
        ("ip.addr == 10.0.0.1", True), ("ip.addr != 10.0.0.1", False), ("ip.addr ~= 10.0.0.1", True),
        ("ip.addr === 10.0.0.1", False), ("ip.addr === 10.0.0.0/24", True), ("ip.addr any_ne 10.0.0.0/24", False),
        ("ip.addr != 10.0.0.9", True), ("udp.port != 53", False), ("udp.port === 53", False),
        # text and bytes
        ('tcp.payload contains "index"', True), ("tcp.payload contains 47:45:54", True), ('data contains "POST"', False),
        ('data matches "^get .*http/1"', True), ('data matches r"\\.html\\b"', True), ("data[0:3] == \"GET\"", True),
        ("data[0-2] == 47:45:54", True), ("data[4] == 0x2f", True), ("data[-2:] == 0d:0a", True), ("data[:1] == \"G\"", True),
        ("len(data) == 26", True), ("count(ip.addr) == 2", True), ("lower(tcp.flags.str) == \"p.\"", True),
        ("upper(seam) == \"IP-TCP\"", True), ("data == \"no\"", False),
        # ours
        ("seam == ip-tcp", True), ('seam == "link"', False), ("direction == up", True), ("direction == down", False),
        ("frame.type == Segment", True), ("frame.len > 40", True), ("frame.checksum == unverified", True),
        ('frame.id == "ip-00000-5"', True), ('frame.causes == "link-00000-5"', True), ("frame.pieces == 1", True),
        ("frame.gso_size", False),
        # the connection, ours first: upward the destination is ours
        ('conn == "10.0.0.2:80>10.0.0.1:4711"', True), ("conn.local_port == 80", True), ("conn.remote == 10.0.0.1", True),
        # logic
        ("tcp and ip.ttl == 64", True), ("tcp && udp", False), ("tcp || udp", True), ("udp or tcp and arp", False),
        ("(udp or tcp) and not arp", True), ("not (udp or arp)", True), ("not not tcp", True), ("tcp and ip and udp", False),
        ("udp or arp or tcp", True), ("not tcp.dstport == 80", False), ("true", True), ("tcp and false", False),
    ],
)  # fmt: skip
def test_of_a_segment(text: str, expected: bool) -> None:
    assert true_of(text, DATA) is expected
    assert compile_expression(text).matches_record(record(DATA), "up") is expected
    assert compile_expression(f"not ({text})").matches_frame(DATA, "ip-tcp", "up") is not expected


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ("tcp.options.mss_val == 1460 and tcp.options.sack_perm and tcp.options.wscale.shift > 6", SYNS),
        ("tcp.options.timestamp.tsval == 1000 and count(tcp.option_kind) == 5", SYNS),
        ("vlan.id == 5 and vlan.id == 0x123 and ip.addr == 10.0.0.1", device_frame(TAGGED)),
        ("eth.src == 02:00:00:00:00:01 and eth.addr == 02-00-00-00-00-02", device_frame(TAGGED)),
        ("eth.src[0:3] == 02:00:00", device_frame(TAGGED)),
        ("icmp.type == 3 and icmp.mtu < 1500 and tcp.srcport == 80", packet(PACKETS["frag needed"])),
        ("ip.src == 10.0.0.1 and ip.src == 10.0.0.2", packet(PACKETS["frag needed"])),
        ("tcp and not tcp.ack", packet(PACKETS["frag needed"])),
        ("icmp.code == 4 and tcp.dstport == 4711 and ip.src == 10.0.0.254", icmp_error()),
        ("tcp.options.sack_le == 7000 and tcp.options.sack_re in {6000}", packet(PACKETS["sack"])),
        ("tcp.options.sack_le != 1", packet(PACKETS["sack"])),
        ("tcp.flags.ae and tcp.flags.cwr and tcp.flags.ece and ip.dsfield.ecn == 3", packet(PACKETS["ecn"])),
        ("igmp.maddr == 224.1.2.4 and igmp.saddr == 10.0.0.2", packet(PACKETS["igmp v3"])),
        ("udp.dstport == 53 and data == \"question\"", packet(PACKETS["udp"])),
        ("ip.frag_offset == 6 and not udp", packet(PACKETS["last fragment"])),
        ("frame.type == LinkState and not tcp", LinkState(1, "lvl0", "tap", True, 1500, 0, True)),
        ("frame.pieces == 3 and frame.gso_size == 1000", segment(tcp(payload=b"x" * 2500), gso_size=1000)),
    ],
)  # fmt: skip
def test_of_other_frames(text: str, frame: Any) -> None:
    assert true_of(text, frame)


def test_of_a_connection_seen_from_below() -> None:
    """Downward the source is ours, upward the destination."""
    for direction, local in (("up", 80), ("down", 4711)):
        assert compile_expression(f"conn.local_port == {local}").matches_frame(DATA, "ip-tcp", direction)
        assert not compile_expression(f"conn.remote_port == {local}").matches_frame(DATA, "ip-tcp", direction)


def test_figures_are_asked_for_by_the_connections_name() -> None:
    asked: list[str] = []

    def figures(conn: str) -> dict[str, Any]:
        asked.append(conn)
        return {"cwnd": 3, "state": "ESTABLISHED", "orphan": False}

    assert true_of("conn.cwnd < 4 and conn.state == ESTABLISHED and not conn.orphan", DATA, figures=figures)
    assert set(asked) == {CONN}
    assert not true_of("conn.cwnd < 4", DATA, figures=lambda conn: {})  # nobody knows it
    assert not true_of("conn.cwnd < 4", DATA)
    assert not true_of("conn.cwnd < 4", packet(PACKETS["echo"]), figures=figures)  # no connection
    assert compile_expression("conn.cwnd").needs_figures
    assert not compile_expression("conn.local_port == 80").needs_figures


RETRANSMIT = Event(5, "retransmit", "", 2 << 60 | 7, CONN, {"why": "fast", "offset": 10, "length": 1448, "attempt": 0})
DROP = Event(5, "drop", "tcp_below_window", 9, CONN, {"offset": -5, "src": "10.0.0.1"})


@pytest.mark.parametrize(
    ("text", "event", "expected"),
    [
        ("event", DROP, True), ("event drop", DROP, True), ("event retransmit", DROP, False), ("not event drop", DROP, False),
        ('event == "drop"', DROP, True), ("event == drop", DROP, True), ("event != drop", DROP, False),
        ("event in {drop, rto}", DROP, True), ('event matches "^d"', DROP, True), ("event arp or event drop", DROP, True),
        ('reason == "tcp_below_window"', DROP, True), ('reason == "below_window"', DROP, True),
        ("reason == below_window", DROP, True), ("reason == tcp_beyond_window", DROP, False), ("reason", DROP, True),
        ("reason", RETRANSMIT, False), ("reason in {below_window, runt}", DROP, True), ('reason contains "window"', DROP, True),
        ('event.why == "fast"', RETRANSMIT, True), ("event.length > 1000", RETRANSMIT, True), ("event.length", RETRANSMIT, True),
        ("event.why > 5", RETRANSMIT, False), ("event.size == 5", RETRANSMIT, False), ("event.length + 1 == 1449", RETRANSMIT, True),
        ("event.why in {5, \"fast\"}", RETRANSMIT, True), ("event.length in {1000..2000}", RETRANSMIT, True),
        ("event.why in {1..5}", RETRANSMIT, False), ("event.src == 10.0.0.0/8", DROP, True), ("event.src == 10.0.0.1", DROP, True),
        ("event.src == 11.0.0.0/8", DROP, False), ("event.offset < 0", DROP, True), ("event.length == event.offset", RETRANSMIT, False),
        ("conn.local_port == 80", DROP, True), ("conn.remote == 10.0.0.0/8", DROP, True), ('conn contains ":4711"', DROP, True),
        ('frame.id == "ip-00000-7"', RETRANSMIT, True), ("event retransmit and conn.cwnd < 4", RETRANSMIT, True),
        ("event retransmit and conn.cwnd < 3", RETRANSMIT, False), ("tcp.flags.syn or event retransmit", RETRANSMIT, True),
        ("event == arp", Event(0, "arp"), True), ("event in {icmp, igmp}", Event(0, "igmp"), True),
        ("not tcp.flags.syn", RETRANSMIT, False), ("not tcp or event rto", RETRANSMIT, False),
    ],
)  # fmt: skip
def test_of_events(text: str, event: Event, expected: bool) -> None:
    found = compile_expression(text)
    assert found.matches_event(event, lambda conn: {"cwnd": 3}) is expected


def test_what_is_about_events_is_false_of_frames_and_the_other_way_round() -> None:
    """Negated, too: `not event drop` does not stop at every packet."""
    for text, frames, events in (
        ("event drop", False, True), ("not event drop", False, True), ("tcp", True, False), ("not tcp", True, False),
        ("tcp or event drop", True, True), ("conn.local_port == 80", True, True), ("true", True, True),
        ("not tcp or not event drop", True, True), ("conn and event", False, True),
    ):  # fmt: skip
        found = compile_expression(text)
        assert (found.about_frames, found.about_events) == (frames, events), text
    assert not compile_expression("not event drop").matches_frame(DATA)
    assert not compile_expression("udp or not event drop").matches_frame(DATA)
    assert not compile_expression("not udp").matches_event(DROP)


WRONG = [
    ("", 0, "it is empty"),
    ("   ", 3, "it is empty"),
    ('tcp.port == "x"', 12, "tcp.port is a number, this is text"),
    ("tcp.port == 10.0.0.1", 12, "a number, this is IPv4 address"),
    ("tcp.port == 70000", 12, "tcp.port holds 0 to 65535"),
    ("tcp.port in {80, 70000}", 17, "tcp.port holds 0 to 65535"),
    ("tcp.port in {90..80}", 13, "backwards"),
    ("tcp.port in {}", 8, "empty set"),
    ("tcp.port in {80", 15, "does not end"),
    ("tcp.port in 80", 12, "a set is written"),
    ("ip.src in {10.0.0.0/8..10.0.0.1}", 11, "not from a network"),
    ("tcp.prt == 80", 0, "did you mean tcp.port"),
    ("ip.addr == 10.0.0.1 and tcp.flag.syn", 24, "did you mean tcp.flags.syn"),
    ("tcp.window_size > 5", 0, "tcp.window_size_value"),
    ("tcp.analysis.retransmission", 0, "event retransmit"),
    ("retransmit", 0, "event retransmit"),
    ("nonsense.at_all", 0, "there is no field"),
    ("event.new == ESTABLISHED", 13, 'text stands in quotes: "ESTABLISHED"'),
    ("event retransmt", 6, "did you mean retransmit"),
    ('event == "stat"', 9, "did you mean state"),
    ("event.lenght == 5", 0, "did you mean event.length"),
    ('reason == "belw_window"', 10, "did you mean tcp_below_window"),
    ("reason in {tcp_below_window, quark}", 29, "there is no reason 'quark'"),
    ("seam == ip-tpc", 8, "did you mean ip-tcp"),
    ("direction == sideways", 13, "there are up, down"),
    ('ip.src == "10.0.0.1"', 10, "without quotes"),
    ("ip.src == 10.0.0.256", 10, "no address"),
    ("ip.src == 10.0.0.1/33", 10, "more than 32"),
    ("ip.src == 5", 10, "IPv4 address"),
    ("ip.src < 10.0.0.0/8", 9, "== and !="),
    ("eth.src == 02:00", 11, "MAC address"),
    ("tcp.flags.syn == 2", 17, "0 or 1"),
    ("tcp.flags.syn < 1", 16, "no order"),
    ("tcp == 1", 0, "it is there or not"),
    ("tcp in {1}", 0, "it is there or not"),
    ('tcp contains "x"', 0, "tcp.payload"),
    ("data contains 5", 14, "are looked for"),
    ('tcp.port contains "8"', 0, "not into a number"),
    ('data matches "a("', 14, "no regular expression"),
    ("data matches 5", 13, 'is a "string"'),
    ("event drop and tcp.port == 80", 15, "this is about packets"),
    ("tcp.port == 80 and event drop", 19, "this is about events"),
    ("conn.state == ESTABLISH", 14, "did you mean ESTABLISHED"),
    ("tcp.port == event.port", 12, "this is about events"),
    ("tcp.port = 80", 9, "equality is =="),
    ("tcp.port == 80 443", 15, "join conditions"),
    ("tcp.port == 80 == 443", 15, "do not chain"),
    ("tcp.port ==", 11, "ends here"),
    ("and tcp", 0, "a field or a value was expected"),
    ("tcp and", 7, "ends here"),
    ("(tcp", 4, "the bracket does not end"),
    ("tcp)", 3, "not expected here"),
    ("80 == 80", 0, "one of them has to be a field"),
    ("5", 0, "a value alone is no condition"),
    ('"x"', 0, "a value alone is no condition"),
    ("1 + ip.src == 5", 4, "calculate with numbers"),
    ("tcp.len / 0 == 1", 10, "division by zero"),
    ("tcp.port == ip.src", 0, "is a number"),
    ('"abc', 0, "does not end"),
    ("tcp.port == 'x'", 12, "double"),
    ("tcp.port == 0x", 12, "no number"),
    ("tcp.port == 80x", 12, "no number"),
    ("data[x]", 4, "a slice is"),
    ("tcp.port[0]", 0, "slice text and bytes"),
    ("len(tcp.port) == 1", 4, "takes text or bytes"),
    ('lower(data) == "x"', 6, "takes text"),
    ("len(5) == 1", 4, "takes a field"),
    ('data == "\\x4"', 8, "cannot be read"),
    ("tcp §", 4, "means nothing here"),
    ("(tcp) == 1", 1, "it is there or not"),
    ("(tcp and ip) == 1", 1, "not a condition"),
    ("(" * 200 + "tcp" + ")" * 200, 40, "too deeply"),
]


@pytest.mark.parametrize(("text", "position", "message"), WRONG, ids=[row[0][:30] for row in WRONG])
def test_errors_say_what_and_where(text: str, position: int, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text)
    error = caught.value
    assert message in error.message
    assert error.position == position
    lines = str(error).splitlines()
    assert lines[0] == error.message
    assert lines[2].index("^") == position + 2
    assert len(lines[2]) <= len(lines[1]) + 1


def test_the_caret_stands_in_the_right_line() -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression("tcp and\n  tcp.prt == 5\n  and ip")
    assert str(caught.value).splitlines()[1:] == ["    tcp.prt == 5", "    ^^^^^^^"]


@given(st.text(alphabet=st.sampled_from('tcp.ioral &|!<>=(){}[]"0159:,-+*/~xeventm\n'), max_size=40))
def test_every_text_compiles_or_is_refused_with_a_place(text: str) -> None:
    try:
        found = compile_expression(text)
    except ExpressionError as error:
        assert 0 <= error.position <= len(text)
        str(error)
    else:
        found.matches_frame(DATA, "ip-tcp", "up")
        found.matches_event(DROP)


_ATOMS = st.sampled_from(
    ["tcp", "tcp.dstport == 80", "ip.addr == 10.0.0.9", "udp", "ip.ttl > 3", "tcp.flags.syn", "data"]
)


@given(st.recursive(_ATOMS.map(lambda atom: (atom,)), lambda inner: st.one_of(
    st.tuples(st.just("not"), inner), st.tuples(st.just("and"), inner, inner), st.tuples(st.just("or"), inner, inner)),
    max_leaves=12))  # fmt: skip
def test_logic_is_pythons(tree: Any) -> None:
    """Written with brackets everywhere or with as few as precedence needs, it means what the tree says."""

    def value(node: Any) -> bool:
        match node:
            case ("not", inner):
                return not value(inner)
            case ("and", left, right):
                return value(left) and value(right)
            case ("or", left, right):
                return value(left) or value(right)
        return true_of(node[0], DATA)

    def write(node: Any, level: int) -> str:
        match node:
            case ("not", inner):
                return f"not {write(inner, 3)}"
            case ("and", left, right):
                text = f"{write(left, 2)} && {write(right, 2)}"
                return f"({text})" if level > 2 else text
            case ("or", left, right):
                text = f"{write(left, 1)} or {write(right, 1)}"
                return f"({text})" if level > 1 else text
        return str(node[0])

    assert true_of(write(tree, 0), DATA) == value(tree)


def test_only_what_is_needed_is_read() -> None:
    """A condition on headers does not touch the payload; one on payload says that it does."""

    def refuse(place: Place) -> bytes:
        raise AssertionError("read")

    frame = segment(tcp(payload=b"hello"))
    frame.payload = Place("ring", 0, 100, 0, 5)
    assert true_of("tcp.len == 5 and tcp.flags.ack and ip.src == 10.0.0.1", frame, read=refuse)
    assert not compile_expression("tcp.len == 5").needs_payload
    found = compile_expression('tcp and data contains "ell"')
    assert found.needs_payload
    assert found.matches_frame(frame, read=lambda place: b"hello")
    assert not found.matches_frame(frame)
    assert compile_expression("tcp.checksum.status == bad").needs_payload


def test_it_says_which_fields_it_uses() -> None:
    found = compile_expression("event drop or tcp.port == 80 and (tcp.port == 81 or ip.src == ip.dst)")
    assert found.fields == ("event", "tcp.port", "ip.src", "ip.dst")
    assert str(found) == found.text


def test_a_condition_costs_a_small_part_of_a_dissection() -> None:
    """A typical one reads two fields; under a twentieth of what all fields of the frame take, best of several."""
    condition = compile_expression("tcp.flags.syn and tcp.dstport == 80").matches_frame
    frame = segment(tcp(SYN, options=SYN_OPTIONS))

    def best(function: Callable[[], object]) -> float:
        spans = []
        for _ in range(7):
            start = time.thread_time()
            for _ in range(200):
                function()
            spans.append(time.thread_time() - start)
        return min(spans)

    assert 20 * best(lambda: condition(frame, "ip-tcp", "up")) < best(lambda: fields(frame))


# the lists that names are checked by, against what the stack really says


def _named_in(tree: ast.AST) -> dict[ast.Call, list[ast.expr]]:
    """What the variables hold that stand in a call, as they were assigned in its function."""
    found: dict[ast.Call, list[ast.expr]] = {}
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        assigned: dict[str, list[ast.expr]] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                assigned.setdefault(node.targets[0].id, []).append(node.value)
        for call in ast.walk(function):
            if isinstance(call, ast.Call):
                names = {one.id for word in call.keywords for one in ast.walk(word) if isinstance(one, ast.Name)}
                found[call] = [value for name in sorted(names & assigned.keys()) for value in assigned[name]]
    return found


def _emitted() -> dict[str, set[str]]:
    """Kind → names of data, of every call that makes an event in the cores."""
    found: dict[str, set[str]] = {}
    for path in [*(ROOT / "layers").rglob("*.py"), *(ROOT / "gateway").rglob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = _named_in(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            names = {one.arg for one in node.keywords if one.arg} - {"frame", "reason", "conn"}
            if name == "emit" and texts:
                found.setdefault(texts[0], set()).update(names)
            elif name == "Event" and texts and texts[0]:
                data = [one.value for one in node.keywords if one.arg == "data"]
                data += named.get(node, [])
                for literal in (one for top in data for one in ast.walk(top) if isinstance(one, ast.Dict)):
                    keys = {key.value for key in literal.keys if isinstance(key, ast.Constant)}
                    found.setdefault(texts[0], set()).update(map(str, keys))
                found.setdefault(texts[0], set())
            elif name == "drop":
                found.setdefault("drop", set()).update(names)
    return found


def test_every_kind_of_event_and_its_data_are_known() -> None:
    emitted = _emitted()
    assert set(emitted) <= set(EVENTS)
    shell = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "levelip" / "ipc").rglob("*.py"))
    assert all(f'"{kind}"' in shell for kind in set(EVENTS) - set(emitted)), "nobody makes these events"
    assert set(emitted) - {"drop"} <= set(_KINDS)
    for kind, names in emitted.items():
        assert names <= set(EVENTS[kind]), kind


def test_every_event_and_every_reason_can_be_asked_for() -> None:
    for kind, names in EVENTS.items():
        assert compile_expression(f"event {kind}").matches_event(Event(0, kind))
        for name in names:
            assert compile_expression(f"event {kind} and event.{name} == 5").matches_event(
                Event(0, kind, data={name: 5})
            )
    for reason in all_reasons():
        event = Event(0, "drop", reason.name)
        assert compile_expression(f'event drop and reason == "{reason.name}"').matches_event(event)


def test_figures_are_those_that_tcp_tells() -> None:
    """Every conn.FIGURE is a name in tcp's row of `ss`, or made of one."""

    from tests.netsim.tcp_apps import pair, small_config  # noqa: F401 - a pair of connected stacks

    source = inspect.getsource(ss_row) + inspect.getsource(
        __import__("layers.tcp.info", fromlist=["tcp_info"]).tcp_info
    )
    keys = {
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    made_here = {"cwnd", "ssthresh", "flight"}
    assert set(FIGURES) - made_here <= keys
    row = {"state": "ESTABLISHED", "info": {"state": 1, "snd_cwnd": 7, "snd_ssthresh": 3, "unacked": 2, "rtt": 99}}
    assert connection_figures(row) == {
        "state": "ESTABLISHED", "cwnd": 7, "ssthresh": 3, "flight": 2, "unacked": 2, "rtt": 99,
    }  # fmt: skip


def test_messages_that_are_no_packets() -> None:
    """On the seams above tcp there are messages, whose fields have the names of docs/frames.md; wrapped ones, too."""
    data, opening = Data(7, 100, b"hello"), Connect(7, "own-1", bytes((10, 0, 0, 1)), 80)
    for frame in (data, ForClient(b"peer", data)):
        found = fields(frame, seam="gateway-client", direction="up")
        assert (found["frame.type"], found["message.sock"], found["message.offset"]) == ("Data", 7, 100)
        assert true_of("frame.type == Data and message.sock == 7 and message.offset in {90..110}", frame)
    assert true_of("message.address == 10.0.0.0/8 and message.port == 80", opening)
    assert compile_expression("message.address == 10.0.0.1").matches_record(record(opening), "down")
    assert not true_of("message.sock == 8", data)
    assert not true_of("message.dst", DATA)
    with pytest.raises(ExpressionError, match="did you mean Data"):
        compile_expression("frame.type == Datta")


def test_states_are_those_of_tcp() -> None:
    assert set(STATES) == {state.name for state in State}


def test_every_field_can_stand_alone() -> None:
    for name in ALL_FIELDS:
        found = compile_expression(name)
        found.matches_frame(DATA, "ip-tcp", "up")
        found.matches_view(view(device_frame(ethernet(PACKETS["syn"])), "link", "up"))
        found.matches_event(DROP)
    assert true_of("tcp.flags.fin", segment(tcp(FIN | ACK)))
    assert len(FIELDS) > 120


def test_the_parser_keeps_places() -> None:
    tree = Parser("tcp.port == 80 and not (udp)").parse()
    assert (tree.op, tree.start, tree.items[0].end, tree.items[1].items[0].start) == ("and", 0, 14, 24)

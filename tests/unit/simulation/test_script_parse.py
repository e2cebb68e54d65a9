"""The language of packet scripts: what each form means, and where an error is said to be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from levelip.wire.tcp import ACK, AE, CWR, ECE, FIN, PSH, SYN
from simulation.script.language import (
    Anything,
    Array,
    Code,
    Command,
    IcmpPacket,
    Integer,
    Kind,
    ScriptError,
    Struct,
    SystemCall,
    TcpPacket,
    Text,
    UdpPacket,
    When,
    Word,
)
from simulation.script.parse import parse

MS = 1_000_000


def only(text: str) -> object:
    """The action of a script with one event."""
    (event,) = parse(text).events
    return event.action


def packet(text: str) -> TcpPacket:
    """A TCP packet."""
    action = only(text)
    assert isinstance(action, TcpPacket)
    return action


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5", When(Kind.ABSOLUTE, 500 * MS, 500 * MS)),
        ("+.1", When(Kind.RELATIVE, 100 * MS, 100 * MS)),
        ("+1", When(Kind.RELATIVE, 1000 * MS, 1000 * MS)),
        ("*", When(Kind.ANY)),
        ("0.1~0.2", When(Kind.ABSOLUTE_RANGE, 100 * MS, 200 * MS)),
        ("+0~+.1", When(Kind.RELATIVE_RANGE, 0, 100 * MS)),
        ("+0.123456789", When(Kind.RELATIVE, 123_456_789, 123_456_789)),
    ],
)
def test_every_time_form(text: str, expected: When) -> None:
    """Times are exact decimal fractions, absolute, relative, ranges, or any."""
    (event,) = parse(f"{text} > . 1:1(0) ack 1").events
    assert event.when == expected


def test_a_call_that_blocks_has_its_end() -> None:
    """START...END before a call: it returns then."""
    call = only("+.1...0.25 read(4, ..., 1000) = 5")
    assert isinstance(call, SystemCall)
    assert (call.name, call.until, call.result) == ("read", 250 * MS, Integer(5))
    assert call.arguments == (Integer(4), Anything(), Integer(1000))


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("S", SYN), ("S.", SYN | ACK), ("FP.", FIN | PSH | ACK), (".", ACK), ("-", 0), ("SEW", SYN | ECE | CWR),
        (".5", ACK | AE | ECE), ("S.2", SYN | ACK | CWR),
    ],
)  # fmt: skip
def test_flags(text: str, flags: int) -> None:
    """Letters, a dot for ACK, a dash for none, and AccECN's digit."""
    assert packet(f"+0 > {text} 0:0(0)").flags == flags


def test_options_in_their_order() -> None:
    """Each option with its numbers, NOPs counted, blocks in pairs."""
    found = packet("+0 < . 1:1(0) ack 1 win 9 <nop,nop,sack 1:2 5:6,TS val 7 ecr 8,option 200 0xab>").options
    assert found is not None
    assert [(option.kind, option.numbers, option.data) for option in found] == [
        (1, (), b""), (1, (), b""), (5, (1, 2, 5, 6), b""), (8, (7, 8), b""), (200, (), b"\xab"),
    ]  # fmt: skip
    assert packet("+0 > . 1:1(0) ack 1 <...>").options is None
    assert packet("+0 > . 1:1(0) ack 1").options == ()


def test_fast_open_and_md5_are_read() -> None:
    """Options that the stack does not speak can be injected all the same."""
    found = packet("+0 < S 0:0(0) win 9 <FO 0102,FOEXP aabb,md5 00112233445566778899aabbccddeeff,FO>").options
    assert found is not None
    assert [(option.kind, option.data.hex()) for option in found] == [
        (34, "0102"), (254, "f989aabb"), (19, "00112233445566778899aabbccddeeff"), (34, ""),
    ]  # fmt: skip


def test_what_a_line_says_of_the_ip_header() -> None:
    """ECN, TOS, TTL, fragments; brackets or parentheses."""
    assert packet("+0 > [ect0] . 1:1(0) ack 1").ip.ecn == "ect0"
    assert packet("+0 > (tos 0x1c) . 1:1(0) ack 1").ip.tos == 0x1C
    info = packet("+0 < [ttl 3, frag 0:520, id 7, mf] . 1:1001(1000) ack 1 win 5").ip
    assert (info.ttl, info.fragment, info.ident, info.more_fragments) == (3, (0, 520), 7, True)
    assert packet("+0 < 1234 > 8080 S 0:0(0) win 5").ports == (1234, 8080)


def test_numbers_wrap() -> None:
    """A segment may cross 2^32."""
    found = packet("+0 < . 4294967290:4(10) ack 1 win 5")
    assert (found.seq, found.length) == (4294967290, 10)


def test_icmp() -> None:
    """Names, numbers, MTU, the segment that is quoted."""
    assert only("+0 < icmp unreachable frag_needed mtu 1200 [1:1461(1460)]") == IcmpPacket(
        True, 3, 4, mtu=1200, quoted=(1, 1460)
    )
    assert only("+0 > icmp type_77 code_5") == IcmpPacket(False, 77, 5)


def test_udp_is_read() -> None:
    """So that the error can be a sentence."""
    assert only("+0 < udp (100)") == UdpPacket(True, 100)


def test_structures_and_strings() -> None:
    """Arrays, structs, unions of flags, strings that are joined, and notes that are skipped."""
    call = only('+0 setsockopt(4, SOL_SOCKET, SO_LINGER, {onoff=1, linger=0}, 8) = -1 EINVAL (Invalid argument)')
    assert isinstance(call, SystemCall)
    assert isinstance(call.arguments[3], Struct)
    assert call.arguments[3].fields() == {"onoff": Integer(1), "linger": Integer(0)}
    assert call.errno == "EINVAL"
    call = only('+0 write(4, "ab" "c\\x01"..., 4) = 0x10 (flags)')
    assert isinstance(call, SystemCall)
    assert call.arguments[1] == Text(b"abc\x01", open=True)
    assert call.result == Integer(16)
    call = only("+0 poll([{fd=3, events=POLLIN, revents=POLLIN}], 1, 0) = 1")
    assert isinstance(call, SystemCall)
    assert isinstance(call.arguments[0], Array)


def test_numbers_with_zeros_before_them_are_decimal() -> None:
    """As packetdrill's scanner has them, in arguments and results."""
    call = only("0 write(03, ..., 010) = 010")
    assert isinstance(call, SystemCall)
    assert (call.arguments[0], call.arguments[2], call.result) == (Integer(3), Integer(10), Integer(10))
    assert only("0 socket(0x1F, -7) = 0xa") == SystemCall("socket", (Integer(31), Integer(-7)), Integer(10), "", None)


def test_a_string_that_is_none_is_an_error_of_the_script() -> None:
    """An escape of C that does not end."""
    with pytest.raises(ScriptError, match="this string cannot be read"):
        parse('0 write(3, "\\x", 1) = 1')


def test_options_commands_code_and_comments() -> None:
    """What stands around the events, and the clauses that a script names."""
    script = parse(
        """// rfc: RFC 9293 MUST-10, RFC 9293 3.5
# a comment
--mss=1000
--define=CC="reno"
`./defaults.sh`  /* and
one more */
0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 %{
print(1)
}%
`true`
"""
    )
    assert [(option.name, option.value) for option in script.options] == [("mss", "1000"), ("define", 'CC="reno"')]
    assert [type(event.action) for event in script.events] == [Command, SystemCall, Code, Command]
    assert list(script.clauses) == ["RFC 9293 MUST-10", "RFC 9293 3.5"]


def test_symbols_stand_for_words_strings_and_numbers() -> None:
    """--define and -D; nothing inside of strings."""
    script = parse('--define=FD=3\n+0 setsockopt(FD, IPPROTO_TCP, TCP_CONGESTION, CC, 4) = 0', defines={"CC": '"reno"'})
    (event,) = script.events
    assert isinstance(event.action, SystemCall)
    assert event.action.arguments == (
        Integer(3), Word("IPPROTO_TCP"), Word("TCP_CONGESTION"), Text(b"reno"), Integer(4),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("+0 > S 0:0(0\n", 1, 13, "ends here"),
        ("0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 < S 0:0(1) win 5", 2, 8, "0 + 1 is not 0"),
        ("+0 < S 0:0(0)", 1, 4, "window"),
        ("+0 > X 0:0(0)", 1, 6, "no TCP flag"),
        ("* < S 0:0(0) win 5", 1, 1, "expected (>)"),
        ("+0~+1 read(3, ..., 1) = 1", 1, 1, "expected (>)"),
        ("0.2~0.1 > S 0:0(0)", 1, 1, "backwards"),
        ("+0 < . 1:1(0) ack 1 win 70000", 1, 25, "16 bits"),
        ("+0 < . 1:1(0) ack 1 win 5 <...>", 1, 27, "expected (>)"),
        ("+0 < icmp unreachable nonsense", 1, 23, "no ICMP code"),
        ("+0 < icmp echo_request mtu 5", 1, 24, "frag_needed"),
        ("+0 > . 1:1(0) ack 1 <mss>", 1, 25, "a number"),
        ("+0 > . 1:1(0) ack 1 <nonsense>", 1, 22, "does not fit here"),
        ("+0 < [frag 4:8] . 1:1(0) ack 1 win 5", 1, 7, "multiple of 8"),
        ("+0 read(3, ..., 1.5) = 1", 1, 17, "fraction"),
    ],
)
def test_an_error_points_at_its_place(text: str, line: int, column: int, words: str) -> None:
    """Line and column of what is wrong, and a sentence."""
    with pytest.raises(ScriptError) as caught:
        parse(text)
    assert words in caught.value.message
    assert (caught.value.line, caught.value.column) == (line, column)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="+0.1<>SF:()[]{}ackwin ~*`%\"',=nops\n-", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever stands in a script: a value, or a ScriptError."""
    try:
        parse(text)
    except ScriptError as error:
        assert error.message

"""What packet scripts say of IP, ICMP, IGMP and other protocols: read, sent, compared; and what they cannot say."""

from __future__ import annotations

from typing import Any

import pytest

from levelip.wire.igmp import IgmpReport
from simulation import net
from simulation.script.language import IcmpPacket, IgmpPacket, OtherPacket, ScriptError
from simulation.script.parse import parse
from simulation.script.report import failure_text
from simulation.script.run import run

ECHO = "0 < icmp echo_request id 7 seq 9 [raw(16)]\n"
JOIN = "0 `lvlip group join 239.1.2.3`\n"
REPORT = "[to 224.0.0.22, ttl 1, alert] igmp v3_report <to_ex 239.1.2.3>\n"


def only(text: str) -> Any:
    """The action of a script with one event."""
    (event,) = parse(text).events
    return event.action


def test_words_of_the_ip_header() -> None:
    """Each is a field of its own."""
    info = only(
        "+0 < [from 10.0.0.1, to 10.0.0.2, id 3, nodf, option 7 0x04, alert, nop, eol, badsum, badipsum, version 5,"
        " ihl 6, total 7, pad 8, fill 0x41, linkcast, batch] proto 99 (4)"
    ).ip
    assert (info.src, info.dst) == (bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)))
    assert info.options == bytes.fromhex("070304" "94040000" "0100")
    assert (info.version, info.ihl, info.total, info.pad, info.fill) == (5, 6, 7, 8, 0x41)
    assert (info.bad_sum, info.bad_header_sum, info.linkcast, info.batch, info.dont_fragment) == (*[True] * 4, False)


def test_words_of_icmp() -> None:
    """An echo, an error with all of its fields, a redirect."""
    echo = only("+0 < icmp echo_request id 7 seq 9 [raw(16)]")
    assert (echo.echo_id, echo.echo_seq, echo.size) == (7, 9, 16)
    error = only("+0 < icmp parameter_problem ptr 4 length 32 [packet(28)] ext 0x2000")
    assert (error.pointer, error.words, error.packet, error.extension) == (4, 32, 28, b"\x20\x00")
    redirect = only("+0 < icmp redirect code_1 via 10.0.0.9 [0x0102]")
    assert isinstance(redirect, IcmpPacket) and (redirect.via, redirect.raw) == (bytes((10, 0, 0, 9)), b"\x01\x02")


def test_words_of_igmp() -> None:
    """A query of version 3 with sources, a report with two records; versions by name."""
    query = only("+0 < igmp v3_query max 5 group 239.1.2.3 qrv 3 qqic 20 sources 10.0.0.1 10.0.0.2 extra 0xff").message
    assert (query.version, query.code, query.robustness, query.interval_s) == (3, 5, 3, 20)
    assert len(query.sources) == 2 and query.rest.endswith(b"\xff")
    report = only("+0 > igmp v3_report <is_in 239.1.2.3 10.0.0.1, to_ex 239.1.2.4>")
    assert isinstance(report, IgmpPacket) and isinstance(report.message, IgmpReport)
    assert [(record.kind, len(record.sources)) for record in report.message.records] == [(1, 1), (4, 0)]
    assert [only(f"+0 < igmp {name} max 10").message.version for name in ("v1_query", "v2_query")] == [2, 2]
    assert only("+0 < igmp v1_query").message.version == 1


def test_other_protocols() -> None:
    """So many bytes, or these."""
    assert only("+0 < proto 99 (20)") == OtherPacket(True, 99, 20)
    assert only("+0 < proto 99 0x0102") == OtherPacket(True, 99, 2, b"\x01\x02")


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("+0 < [from 10.0.0.300] proto 99 (1)", 12, "no IPv4 address"),
        ("+0 > [badsum] proto 99 (1)", 7, "injected"),
        ("+0 > [pad 4] proto 99 (1)", 7, "injected"),
        ("+0 < [version 16] proto 99 (1)", 15, "4 bits"),
        ("+0 < [option 7 0x123] proto 99 (1)", 7, "even number"),
        ("+0 < [option 7 0x" + "00" * 39 + "] proto 99 (1)", 7, "40 bytes"),
        ("+0 < proto 256 (1)", 12, "8 bits"),
        ("+0 < icmp echo_request ptr 4", 24, "belongs to parameter_problem"),
        ("+0 < icmp unreachable via 10.0.0.1", 23, "belongs to redirect"),
        ("+0 < icmp redirect length 4", 20, "length belongs to"),
        ("+0 < icmp echo_request [udp(8)]", 25, "[packet(28)]"),
        ("+0 < igmp v2_query qrv 2", 11, "belong to v3_query"),
        ("+0 < igmp v2_report <to_ex 239.1.2.3>", 11, "v3_report"),
        ("+0 < igmp v3_report <nonsense 239.1.2.3>", 22, "no kind of group record"),
        ("+0 < igmp nonsense", 11, "no IGMP type"),
    ],
)
def test_an_error_points_at_its_place(text: str, column: int, words: str) -> None:
    """Line and column of what is wrong, and a sentence."""
    with pytest.raises(ScriptError) as caught:
        parse(text)
    assert words in caught.value.message and (caught.value.line, caught.value.column) == (1, column)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (ECHO + "+0 > [from 192.168.0.9] icmp echo_reply", "from"),
        (ECHO + "+0 > [to 192.0.2.9] icmp echo_reply", "to"),
        (ECHO + "+0 > [alert] icmp echo_reply", "ip options"),
        (ECHO + "+0 > icmp echo_reply id 8", "id"),
        (ECHO + "+0 > icmp echo_reply seq 8", "seq"),
        (ECHO + "+0 > icmp echo_reply [raw(17)]", "length"),
        (ECHO + "+0 > icmp time_exceeded", "icmp"),
        (ECHO + "+0 > proto 99 (16)", "protocol"),
        (ECHO + "+0 > proto 1 (15)", "length"),
        (ECHO + "+0 > proto 1 0x00", "payload"),
        (ECHO + "+0 > igmp leave", "protocol"),
        ("0 < [option 7 0x0400000000, eol] icmp echo_request\n+0 > icmp echo_reply", "ip options"),
        ("0 < proto 99 (20)\n+0 > icmp unreachable protocol_unreachable [packet(39)]", "quoted"),
        ("0 < proto 99 (20)\n+0 > icmp unreachable protocol_unreachable [0x45]", "quoted"),
        ("0 < proto 99 (20)\n+0 > icmp unreachable protocol_unreachable length 4", "length"),
        ("0 < [option 68 0x0102] proto 99 (20)\n+0 > icmp parameter_problem ptr 9", "ptr"),
        (JOIN + "+0 > [ttl 1, alert] igmp v3_report <to_in 239.1.2.3>", "igmp"),
        (JOIN + "+0 > [ttl 1] igmp v3_report <to_ex 239.1.2.3>", "ip options"),
        (JOIN + "+0 > [ttl 2, alert] igmp v3_report <to_ex 239.1.2.3>", "ttl"),
    ],
)
def test_each_field_is_compared(text: str, field: str) -> None:
    """An expectation that is wrong in one field fails, and names it."""
    result = run(parse(text, "x.pkt"))
    assert result.failure is not None
    assert [row.name for row in result.failure.rows if row.differs] == [field], failure_text(result)


def test_what_was_not_expected_is_written_as_a_script_has_it() -> None:
    """An IGMP report, an ICMP error, an echo reply with options."""
    result = run(
        parse(JOIN + "+0 < proto 99 (20)\n+0 < [option 7 0x0400000000, eol] icmp echo_request [raw(16)]\n+0 %{ pass }%")
    )
    said = result.warnings[0]
    assert "> [alert] igmp v3 report, 1 group record(s) [gaddr 239.1.2.3 to_ex { }] to 224.0.0.22" in said
    assert "> icmp protocol unreachable, length 48" in said and "> [option 7 0x08c0a80001, eol] icmp echo reply" in said


def test_code_sees_answers_drops_and_headers() -> None:
    """answer, dropped, sent; a reason that there is not is an error of the script's code."""
    good = JOIN + "+0 > " + REPORT + "+0 %{ assert answer == {'joined': '239.1.2.3'} and sent[0].ttl == 1 }%"
    assert run(parse(good)).status == 0
    result = run(parse("0 %{ dropped('nonsense') }%"))
    assert result.failure is not None and "no reason 'nonsense'" in result.failure.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("`lvlip group join 239.1.2.3`\n0 %{ pass }%", "write a time"),
        ("0 `lvlip group join 10.0.0.1`", "10.0.0.1"),
        ("0 `lvlip nonsense`", "known are"),
        ("0 `lvlip ping 192.0.2.1 -x`", "-x is not known"),
        ("0 < icmp unreachable host_unreachable [packet(28)]", "has sent none"),
        ("0 < icmp unreachable host_unreachable", "no connection yet"),
    ],
)
def test_a_script_that_cannot_run_says_why(text: str, words: str) -> None:
    """A ScriptError with its line."""
    result = run(parse(text))
    assert result.error is not None and words in result.error.message and result.error.line > 0


def test_a_stack_that_never_rests_is_an_error_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """More steps in one wait than are allowed (here 4, for the repeats of a SYN-ACK): where, how far, what to do."""
    monkeypatch.setattr(net.Net.advance, "__kwdefaults__", {"steps": 4})
    text = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 listen(3, 1) = 0\n+0 < S 0:0(0) win 9 <mss 1460>\n"
    result = run(parse(text + "+60 %{ pass }%"))
    assert result.status == 2 and result.error is not None and result.error.line == 4
    assert "does not come to rest (after 4 steps" in result.error.message

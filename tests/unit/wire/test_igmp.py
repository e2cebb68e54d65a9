"""IGMP on the wire: every version, every truncation, and texts as tcpdump prints them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.wire.errors import Malformed
from levelip.wire.igmp import (
    ALL_SYSTEMS,
    LEAVE,
    QUERY,
    REPORT_V1,
    REPORT_V2,
    REPORT_V3,
    GroupRecord,
    IgmpMessage,
    IgmpReport,
    decode_code,
    parse_igmp,
)

GROUP = bytes((239, 1, 2, 3))
address = st.binary(min_size=4, max_size=4)
records = st.builds(
    GroupRecord,
    st.integers(0, 255),
    address,
    st.lists(address, max_size=4).map(tuple),
    st.integers(0, 3).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words)),
)


@given(st.integers(0, 255), address, st.integers(0, 65_535))
@pytest.mark.rfc("RFC 2236 2")
def test_short_messages_come_back(code: int, group: bytes, checksum: int) -> None:
    """parse(serialize(x)) == x for queries, reports and leaves of 8 bytes."""
    for kind in (QUERY, REPORT_V1, REPORT_V2, LEAVE):
        message = IgmpMessage(kind, code, group, b"", checksum)
        assert parse_igmp(message.serialize()) == message


@given(st.lists(records, max_size=5), st.integers(0, 65_535), st.binary(min_size=3, max_size=3))
@pytest.mark.rfc("RFC 3376 4.2", "RFC 3376 4.2.1-1")
def test_reports_come_back(group_records: list[GroupRecord], checksum: int, reserved: bytes) -> None:
    """parse(serialize(x)) == x for version 3 reports, reserved bytes too; every truncation is told."""
    report = IgmpReport(tuple(group_records), checksum, reserved)
    data = report.serialize()
    assert parse_igmp(data) == report
    for size in range(len(data)):
        with pytest.raises(Malformed):
            parse_igmp(data[:size])


@given(address, st.lists(address, max_size=5), st.integers(0, 255), st.integers(0, 255))
@pytest.mark.rfc("RFC 3376 4.1", "RFC 3376 7.1-1")
def test_queries_come_back(group: bytes, sources: list[bytes], code: int, interval: int) -> None:
    """parse(serialize(x)) == x for version 3 queries; one of 9 to 11 bytes, or with sources missing, is none."""
    query = IgmpMessage.query(group, code=code, interval=interval, sources=tuple(sources))
    data = query.serialize(fill_checksum=True)
    parsed = parse_igmp(data)
    assert isinstance(parsed, IgmpMessage) and parsed.checksum_ok and parsed.version == 3
    assert (parsed.group, parsed.sources, parsed.robustness) == (group, sources, 2)
    for size in [*range(8), *range(9, len(data))]:
        with pytest.raises(Malformed):
            parse_igmp(data[:size])


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    """Whatever comes is a message or Malformed."""
    try:
        str(parse_igmp(data))
    except Malformed as error:
        assert error.proto == "igmp"


@pytest.mark.rfc("RFC 3376 4.1.7", "RFC 3376 4.1.1-1")
@pytest.mark.parametrize(("code", "value"), [(0, 0), (127, 127), (128, 128), (0x8F, 248), (0xFF, 31_744), (0x90, 256)])
def test_codes(code: int, value: int) -> None:
    """(mant | 0x10) << (exp + 3): 0x80 is 16 << 3 = 128, 0xff is 31 << 10 = 31744."""
    assert decode_code(code) == value


@pytest.mark.rfc("RFC 3376 7.1-1")
def test_versions() -> None:
    """By length and code: 8 bytes with 0 is version 1, else 2; 12 bytes is 3. Version 1 means 10 seconds."""
    assert IgmpMessage(QUERY, 0, bytes(4)).version == 1 and IgmpMessage(QUERY, 0, bytes(4)).max_response_tenths == 100
    assert (
        IgmpMessage(QUERY, 55, bytes(4)).version == 2 and IgmpMessage(QUERY, 200, bytes(4)).max_response_tenths == 200
    )
    assert IgmpMessage.query(code=0xFF).max_response_tenths == 31_744


def test_impossible_fields() -> None:
    """ValueError, not wrong bytes."""
    for broken in (
        IgmpMessage(QUERY, 256, bytes(4)), IgmpMessage(QUERY, 0, bytes(3)), IgmpReport((GroupRecord(1, b"x"),)),
        IgmpReport((), 0, b""), IgmpReport((), 1 << 16), IgmpReport((GroupRecord(256, GROUP),)),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            broken.serialize()


def test_texts() -> None:
    """As tcpdump prints them."""
    source = bytes((10, 0, 0, 9))
    assert str(IgmpMessage.query()) == "igmp query v3"
    assert str(IgmpMessage.query(GROUP, code=10)) == "igmp query v3 [max resp time 1s] [gaddr 239.1.2.3]"
    assert str(IgmpMessage.query(GROUP, sources=(source,))) == "igmp query v3 [gaddr 239.1.2.3 { 10.0.0.9 }]"
    assert str(IgmpMessage(QUERY, 0, bytes(4))) == "igmp query v1"
    assert str(IgmpMessage(REPORT_V2, 0, GROUP)) == "igmp v2 report 239.1.2.3"
    assert str(IgmpMessage(LEAVE, 0, ALL_SYSTEMS)) == "igmp leave 224.0.0.1"
    assert str(IgmpMessage(0x99, 0, GROUP)) == "igmp-0x99 239.1.2.3"
    report = IgmpReport((GroupRecord(4, GROUP), GroupRecord(1, GROUP, (source,))))
    assert report.serialize()[0] == REPORT_V3
    assert (
        str(report)
        == "igmp v3 report, 2 group record(s) [gaddr 239.1.2.3 to_ex { }] [gaddr 239.1.2.3 is_in { 10.0.0.9 }]"
    )

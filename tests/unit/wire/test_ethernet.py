"""levelip.wire.ethernet"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.wire.errors import Malformed
from levelip.wire.ethernet import EthernetHeader, EtherType, VlanTag, ethertype_name

from .strategies import assert_truncations, ethernet_headers, only_malformed

DST = bytes.fromhex("0200000000b1")
SRC = bytes.fromhex("0200000000a1")


@given(ethernet_headers, st.binary(max_size=8))
def test_round_trip(header: EthernetHeader, payload: bytes) -> None:
    """parse(serialize(x)) == x, with tags and whatever follows; the payload starts where `length` says."""
    data = header.serialize() + payload
    assert EthernetHeader.parse(data) == header
    assert EthernetHeader.parse(b"xyz" + data, 3) == header
    assert data[header.length :] == payload


@given(ethernet_headers)
def test_truncation(header: EthernetHeader) -> None:
    """A frame cut anywhere in its header or tags is Malformed."""
    assert_truncations(EthernetHeader.parse, header.serialize())


@given(st.binary(max_size=64))
def test_garbage(data: bytes) -> None:
    """Any bytes give a header that serializes to them, or Malformed."""
    header = only_malformed(EthernetHeader.parse, data)
    if header is not None:
        assert header.serialize() == data[: header.length]


def test_tags_are_kept() -> None:
    """802.1ad outside, 802.1Q inside: both are seen, the type is that of the payload."""
    data = DST + SRC + bytes.fromhex("88a8 b064 8100 0007 0800") + b"payload"
    header = EthernetHeader.parse(data)
    outer, inner = header.vlan
    assert (outer.tpid, outer.priority, outer.drop_eligible, outer.vid) == (EtherType.QINQ, 5, True, 100)
    assert (inner.tpid, inner.priority, inner.drop_eligible, inner.vid) == (EtherType.VLAN, 0, False, 7)
    assert header.ethertype == EtherType.IPV4
    assert header.length == 22
    assert str(header) == "02:00:00:00:00:a1 > 02:00:00:00:00:b1, vlan 100, p 5, vlan 7, p 0, ethertype IPV4"


def test_tag_truncated() -> None:
    """A tag whose inner type is missing has a reason of its own."""
    with pytest.raises(Malformed) as caught:
        EthernetHeader.parse(DST + SRC + b"\x81\x00\x00\x07")
    assert (caught.value.proto, caught.value.reason, caught.value.offset) == ("ethernet", "vlan_truncated", 16)


def test_8023_length_is_no_type() -> None:
    """Below 0x0600 the field is a length (IEEE 802.3 3.2.6)."""
    assert EthernetHeader(DST, SRC, 0x05FF).is_8023
    assert not EthernetHeader(DST, SRC, 0x0600).is_8023


def test_names() -> None:
    """Known types have names, others are numbers."""
    assert ethertype_name(EtherType.ARP) == "ARP"
    assert ethertype_name(0x88F7) == "0x88f7"


@pytest.mark.parametrize(
    "change", [{"dst": b"short"}, {"src": bytes(7)}, {"ethertype": 65536}, {"vlan": (VlanTag(0x8100, 65536),)}]
)
def test_what_does_not_fit_is_refused(change: dict[str, object]) -> None:
    """A field too large for its bits is our caller's mistake: ValueError, not a wrong frame."""
    with pytest.raises(ValueError):
        dataclasses.replace(EthernetHeader(DST, SRC, 0x0800), **change).serialize()  # type: ignore[arg-type]

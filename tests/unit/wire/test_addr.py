"""levelip.wire.addr"""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.wire import addr
from levelip.wire.addr import Prefix

from .strategies import ipv4_address, mac


@given(ipv4_address)
def test_ipv4_round_trip(address: bytes) -> None:
    """Four bytes to text and back, the text being the standard library's."""
    text = addr.format_ipv4(address)
    assert text == str(ipaddress.IPv4Address(address))
    assert addr.parse_ipv4(text) == address


@given(st.binary(min_size=16, max_size=16) | ipv4_address)
def test_address_round_trip(address: bytes) -> None:
    """Addresses of both families to text and back."""
    assert addr.parse_address(addr.format_address(address)) == address


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.256", "10.0.0.010", "10.0.0.1 ", "::1", "1.2.3.4.5", "a.b.c.d"])
def test_bad_ipv4(text: str) -> None:
    """Anything but four decimal numbers is refused, leading zeros too (some read them as octal)."""
    with pytest.raises(ValueError):
        addr.parse_ipv4(text)


@given(mac)
def test_mac_round_trip(value: bytes) -> None:
    """Six bytes to text and back, with dashes and in capitals too."""
    text = addr.format_mac(value)
    assert len(text) == 17
    assert addr.parse_mac(text) == addr.parse_mac(text.upper().replace(":", "-")) == value


@pytest.mark.parametrize(
    "text", ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "02:00-00:00:00:01", "0g:00:00:00:00:01"]
)
def test_bad_mac(text: str) -> None:
    """Anything but six hex bytes with one kind of separator is refused."""
    with pytest.raises(ValueError, match="is no MAC address"):
        addr.parse_mac(text)


@pytest.mark.parametrize(
    ("text", "multicast", "loopback", "unspecified"),
    [
        ("223.255.255.255", False, False, False),
        ("224.0.0.0", True, False, False),
        ("239.255.255.255", True, False, False),
        ("240.0.0.0", False, False, False),
        ("126.255.255.255", False, False, False),
        ("127.0.0.0", False, True, False),
        ("127.255.255.255", False, True, False),
        ("128.0.0.0", False, False, False),
        ("0.0.0.0", False, False, True),
        ("0.0.0.1", False, False, False),
        ("::1", False, True, False),
        ("::2", False, False, False),
        ("ff02::1", True, False, False),
        ("::", False, False, True),
    ],
)
def test_kinds(text: str, multicast: bool, loopback: bool, unspecified: bool) -> None:
    """Which blocks of addresses are which, at their borders (RFC 1122 3.2.1.3, RFC 4291 2.4)."""
    packed = addr.parse_address(text)
    assert addr.is_multicast(packed) is multicast
    assert addr.is_loopback(packed) is loopback
    assert addr.is_unspecified(packed) is unspecified


def test_broadcast() -> None:
    """255.255.255.255 always; a network's last address only with that network (RFC 1122 3.2.1.3)."""
    network = addr.parse_prefix("10.0.0.0/24")
    assert addr.is_broadcast(b"\xff\xff\xff\xff")
    assert addr.is_broadcast(b"\xff\xff\xff\xff", network)
    assert addr.is_broadcast(addr.parse_ipv4("10.0.0.255"), network)
    assert not addr.is_broadcast(addr.parse_ipv4("10.0.0.255"))
    assert not addr.is_broadcast(addr.parse_ipv4("10.0.0.254"), network)
    for length in (31, 32):
        assert not addr.is_broadcast(addr.parse_ipv4("10.0.0.1"), addr.parse_interface(f"10.0.0.1/{length}")[1])


def test_group_macs() -> None:
    """Broadcast and multicast MACs have the group bit, others not."""
    assert addr.is_multicast_mac(addr.MAC_BROADCAST)
    assert addr.is_multicast_mac(addr.parse_mac("01:00:5e:00:00:01"))
    assert not addr.is_multicast_mac(addr.parse_mac("02:00:00:00:00:01"))


@given(
    st.one_of(
        st.tuples(ipv4_address, st.integers(0, 32)), st.tuples(st.binary(min_size=16, max_size=16), st.integers(0, 128))
    )
)
def test_prefix_agrees_with_the_standard_library(case: tuple[bytes, int]) -> None:
    """Network, mask, broadcast and membership are those of the ipaddress module."""
    address, length = case
    expected = ipaddress.ip_interface((address, length)).network
    own, prefix = addr.parse_interface(f"{addr.format_address(address)}/{length}")
    assert own == address
    assert prefix == Prefix(expected.network_address.packed, length)
    assert str(prefix) == str(expected)
    assert addr.parse_prefix(str(prefix)) == prefix
    assert prefix.netmask == expected.netmask.packed
    assert prefix.contains(address)
    assert prefix.contains(expected.broadcast_address.packed)
    flipped = bytes((address[0] ^ 0x80,)) + address[1:]
    assert prefix.contains(flipped) is (length == 0)
    if len(address) == 4 and length < 31:
        assert prefix.broadcast == expected.broadcast_address.packed
    else:
        assert prefix.broadcast is None


def test_prefix_of_the_other_family_holds_nothing() -> None:
    """An IPv4 network does not contain IPv6 addresses, not even the default route."""
    assert not addr.parse_prefix("default").contains(bytes(16))
    assert addr.parse_prefix("default") == addr.parse_prefix("0.0.0.0/0")
    assert addr.parse_prefix("10.1.2.3") == Prefix(bytes((10, 1, 2, 3)), 32)


@pytest.mark.parametrize("text", ["10.0.0.1/24", "10.0.0.0/33", "10.0.0/24", "10.0.0.0/-1", "nowhere", ""])
def test_bad_prefix(text: str) -> None:
    """Host bits, impossible lengths and other text are refused."""
    with pytest.raises(ValueError):
        addr.parse_prefix(text)


@pytest.mark.parametrize(("network", "length"), [(b"\x0a\0\0\1", 24), (bytes(4), 33), (bytes(4), -1), (bytes(5), 8)])
def test_impossible_prefix_cannot_be_made(network: bytes, length: int) -> None:
    """Nor can such a Prefix be made by hand."""
    with pytest.raises(ValueError):
        Prefix(network, length)

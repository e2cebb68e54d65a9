"""Addresses as people write them, and as packets carry them: packed in 4 bytes, 16 for IPv6, 6 for a MAC."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

ANY = bytes(4)
"""0.0.0.0: this host on this network (RFC 1122 3.2.1.3 a)."""
LIMITED_BROADCAST = b"\xff\xff\xff\xff"
"""255.255.255.255 (RFC 1122 3.2.1.3 c)."""
LOOPBACK = b"\x7f\x00\x00\x01"

MAC_BROADCAST = b"\xff" * 6
MAC_ZERO = bytes(6)

_MAC = re.compile(r"[0-9a-fA-F]{1,2}(([:-])[0-9a-fA-F]{1,2})(\2[0-9a-fA-F]{1,2}){4}")


def parse_ipv4(text: str) -> bytes:
    """The 4 bytes of a dotted quad. ValueError for anything else, "010" too, which some read as octal."""
    return ipaddress.IPv4Address(text).packed


def format_ipv4(address: bytes) -> str:
    """The dotted quad of 4 bytes."""
    a, b, c, d = address
    return f"{a}.{b}.{c}.{d}"


def parse_address(text: str) -> bytes:
    """The 4 or 16 bytes of an IPv4 or IPv6 address. ValueError for anything else."""
    return ipaddress.ip_address(text).packed


def format_address(address: bytes) -> str:
    """The text of an address of 4 or 16 bytes; IPv6 as RFC 5952 writes it."""
    return format_ipv4(address) if len(address) == 4 else str(ipaddress.ip_address(bytes(address)))


def parse_mac(text: str) -> bytes:
    """The 6 bytes of "02:00:00:00:00:01" (or with dashes). ValueError for anything else."""
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is no MAC address (six bytes in hex, as 02:00:5e:00:53:01)")
    return bytes(int(part, 16) for part in re.split("[:-]", text))


def format_mac(mac: bytes) -> str:
    """The text of 6 bytes, in lower case with colons."""
    return bytes(mac).hex(":")


def is_multicast(address: bytes) -> bool:
    """224.0.0.0/4 (RFC 1112 4) or ff00::/8 (RFC 4291 2.7)."""
    return address[0] & 0xF0 == 0xE0 if len(address) == 4 else address[0] == 0xFF


def is_loopback(address: bytes) -> bool:
    """127.0.0.0/8 (RFC 1122 3.2.1.3 g) or ::1 (RFC 4291 2.5.3)."""
    return address[0] == 127 if len(address) == 4 else address == bytes(15) + b"\x01"


def is_unspecified(address: bytes) -> bool:
    """0.0.0.0 or ::."""
    return not any(address)


def is_broadcast(address: bytes, prefix: Prefix | None = None) -> bool:
    """255.255.255.255, or with `prefix` also that network's directed broadcast (RFC 1122 3.2.1.3 c, d)."""
    return address == LIMITED_BROADCAST or (prefix is not None and address == prefix.broadcast)


def is_multicast_mac(mac: bytes) -> bool:
    """The group bit of IEEE 802: set in multicast and in broadcast."""
    return bool(mac[0] & 1)


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """A network: the address with its host part zero, and how many leading bits are the network's."""

    network: bytes
    length: int

    def __post_init__(self) -> None:
        bits = len(self.network) * 8
        if bits not in (32, 128):
            raise ValueError(f"a network address of {len(self.network)} bytes")
        if not 0 <= self.length <= bits:
            raise ValueError(f"prefix length {self.length} is not in 0..{bits}")
        if int.from_bytes(self.network, "big") & ((1 << (bits - self.length)) - 1):
            raise ValueError(f"{format_address(self.network)}/{self.length} has host bits set")

    def contains(self, address: bytes) -> bool:
        """Whether `address`, of the same family, lies in this network."""
        if len(address) != len(self.network):
            return False
        shift = len(address) * 8 - self.length
        return int.from_bytes(address, "big") >> shift == int.from_bytes(self.network, "big") >> shift

    @property
    def netmask(self) -> bytes:
        """The mask with `length` leading ones."""
        size = len(self.network)
        return (((1 << self.length) - 1) << (size * 8 - self.length)).to_bytes(size, "big")

    @property
    def broadcast(self) -> bytes | None:
        """The directed broadcast address; None for IPv6 and for /31 (RFC 3021) and /32, which have none."""
        if len(self.network) != 4 or self.length > 30:
            return None
        return (int.from_bytes(self.network, "big") | ((1 << (32 - self.length)) - 1)).to_bytes(4, "big")

    def __str__(self) -> str:
        return f"{format_address(self.network)}/{self.length}"


def parse_prefix(text: str) -> Prefix:
    """The network that "10.0.0.0/24", "fd00::/64" or "default" (0.0.0.0/0) names.

    An address alone is a network of one. ValueError for anything else, host bits that are not 0 among it.
    """
    if text == "default":
        return Prefix(ANY, 0)
    network = ipaddress.ip_network(text)
    return Prefix(network.network_address.packed, network.prefixlen)


def parse_interface(text: str) -> tuple[bytes, Prefix]:
    """The address in "10.0.0.2/24", and the network it lies in; without a slash a network of one.

    ValueError for anything else.
    """
    interface = ipaddress.ip_interface(text)
    return interface.packed, Prefix(interface.network.network_address.packed, interface.network.prefixlen)

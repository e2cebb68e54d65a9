"""ioctl(2) for interfaces (netdevice(7)): the stack's, on whatever socket a program asks.

They are asked of the gateway each time (the call "interfaces" of docs/rpc.md), as addresses may change.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct, convert

from levelip.run.syscalls import INTERFACE_REQUESTS
from levelip.run.trapped import Trapped
from levelip.run.values import INT, sockaddr

if TYPE_CHECKING:
    from levelip.run.trap import Trap

IFNAMSIZ, IFREQ = 16, 40  # linux/if.h, bytes on 64-bit machines
IFCONF = struct.Struct("=i4xQ")
IFF_UP, IFF_BROADCAST, IFF_LOOPBACK, IFF_POINTOPOINT, IFF_RUNNING, IFF_NOARP, IFF_MULTICAST, IFF_LOWER_UP = (
    1, 2, 8, 0x10, 0x40, 0x80, 0x1000, 0x10000,
)  # fmt: skip
ARPHRD_ETHER, ARPHRD_LOOPBACK, ARPHRD_NONE = 1, 772, 0xFFFE  # linux/if_arp.h
TX_QUEUE = 1000  # packets: what Linux says of most devices


class Interface(Struct, array_like=True, frozen=True):
    """One, as the gateway tells of it; of each address its prefix length and broadcast address."""

    index: int
    name: str
    kind: str
    up: bool
    mtu: int
    mac: bytes
    addresses: list[tuple[bytes, int, bytes]]

    @property
    def flags(self) -> int:
        """IFF_ flags."""
        up = IFF_UP | IFF_RUNNING | IFF_LOWER_UP if self.up else 0
        if self.kind == "loopback":
            return up | IFF_LOOPBACK
        return up | IFF_MULTICAST | (IFF_BROADCAST if self.mac else IFF_POINTOPOINT | IFF_NOARP)

    @property
    def hardware(self) -> int:
        """ARPHRD_ number."""
        return ARPHRD_LOOPBACK if self.kind == "loopback" else ARPHRD_ETHER if self.mac else ARPHRD_NONE


class Way(Struct, array_like=True, frozen=True):
    """A route, likewise."""

    prefix: bytes
    length: int
    kind: str
    via: bytes
    source: bytes
    metric: int
    iface: int


def interfaces_of(data: dict[str, Any]) -> list[Interface]:
    """Those of the gateway's answer."""
    return convert(data["interfaces"], list[Interface], builtin_types=(bytes,))


def ways_of(data: dict[str, Any]) -> list[Way]:
    """Likewise."""
    return convert(data["routes"], list[Way], builtin_types=(bytes,))


def netmask(length: int) -> bytes:
    """255.255.255.0 for 24."""
    return (0xFFFFFFFF << (32 - length) & 0xFFFFFFFF).to_bytes(4, "big")


def _refuse(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class Ioctls:
    """Part of Trap."""

    def __init__(self, trap: Trap) -> None:
        self._trap = trap
        self._names = {number: name for name, number in INTERFACE_REQUESTS.items()}
        self._answers: dict[str, Callable[[Interface], bytes]] = {
            "SIOCGIFNAME": lambda _: b"",
            "SIOCGIFFLAGS": lambda one: (one.flags & 0xFFFF).to_bytes(2, "little"),
            "SIOCGIFADDR": lambda one: sockaddr(_first(one)[0], 0),
            "SIOCGIFDSTADDR": lambda one: sockaddr(_first(one)[0], 0),
            "SIOCGIFBRDADDR": lambda one: sockaddr(_first(one)[2], 0),
            "SIOCGIFNETMASK": lambda one: sockaddr(netmask(_first(one)[1]), 0),
            "SIOCGIFMETRIC": lambda _: INT.pack(0),
            "SIOCGIFMTU": lambda one: INT.pack(one.mtu),
            "SIOCGIFHWADDR": lambda one: struct.pack("=H14s", one.hardware, one.mac),
            "SIOCGIFINDEX": lambda one: INT.pack(one.index),
            "SIOCGIFTXQLEN": lambda _: INT.pack(TX_QUEUE),
        }

    def ioctl(self, call: Trapped) -> None:
        """One of INTERFACE_REQUESTS."""

        def done(code: int, data: dict[str, Any], _: str) -> None:
            try:
                if code:
                    raise _refuse(code)
                self._answer(call, interfaces_of(data))
                call.settle()
            except OSError as error:
                call.settle(code=error.errno or errno.EIO)

        self._trap.calls.ask("interfaces", {}, done)

    def _answer(self, call: Trapped, known: list[Interface]) -> None:
        request = self._names[call.args[1] & 0xFFFFFFFF]
        at = call.args[2]
        if request == "SIOCGIFCONF":
            self._list(call, at, known)
            return
        ifreq = call.read(at, IFREQ)
        if request == "SIOCGIFNAME":
            index = INT.unpack_from(ifreq, IFNAMSIZ)[0]
            found = next((one for one in known if one.index == index), None)
        else:
            name = ifreq[:IFNAMSIZ].split(b"\0")[0].split(b":")[0].decode(errors="replace")
            found = next((one for one in known if one.name == name), None)
        if found is None:
            raise _refuse(errno.ENODEV)
        if request == "SIOCGIFNAME":
            call.write(at, found.name.encode()[: IFNAMSIZ - 1].ljust(IFNAMSIZ, b"\0"))
        else:
            call.write(at + IFNAMSIZ, self._answers[request](found))

    @staticmethod
    def _list(call: Trapped, at: int, known: list[Interface]) -> None:
        """A struct ifreq an address, as many as there is room for; without room how much that would be."""
        room, where = IFCONF.unpack(call.read(at, IFCONF.size))
        rows = [
            one.name.encode()[: IFNAMSIZ - 1].ljust(IFNAMSIZ, b"\0") + sockaddr(address, 0) + bytes(8)
            for one in known
            for address, _, _ in one.addresses
        ]
        if where:
            rows = rows[: max(room, 0) // IFREQ]
            call.write(where, b"".join(rows))
        call.write(at, INT.pack(len(rows) * IFREQ))


def _first(one: Interface) -> tuple[bytes, int, bytes]:
    if not one.addresses:
        raise _refuse(errno.EADDRNOTAVAIL)
    return one.addresses[0]

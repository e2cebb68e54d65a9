"""Making, setting up and attaching to the tun/tap interface (Linux Documentation/networking/tuntap.rst).

Opening goes through /dev/net/tun; addresses and state of the host's side through netlink (pyroute2), and only where
something has to change, so that a device made earlier can be taken over without privileges.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass
from typing import Literal

from levelip.ipc.rundir import RunError
from levelip.wire.addr import format_mac
from levelip.wire.vnet import VNET_HEADER_LEN

TUN_DEVICE = "/dev/net/tun"

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOWNER = 0x400454CC
_TUNSETOFFLOAD = 0x400454D0
_TUNGETIFF = 0x800454D2
_TUNSETVNETHDRSZ = 0x400454D8
_IFF_TUN = 0x0001
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_TSO_ECN = 0x08  # super-segments with CWR too; where that is not offered the kernel cuts those itself
OFFLOADS = TUN_F_CSUM | TUN_F_TSO4

# linux/sockios.h, linux/if.h
_SIOCGIFFLAGS = 0x8913
_SIOCGIFADDR = 0x8915
_SIOCGIFNETMASK = 0x891B
_SIOCGIFMTU = 0x8921
_SIOCGIFHWADDR = 0x8927
_IFF_UP = 0x1
_IFREQ = struct.Struct("16sH22x")
_IFREQ_INT = struct.Struct("16si20x")
_IFREQ_MAC = struct.Struct("16s2x6s16x")
_IFREQ_IPV4 = struct.Struct("16s4x4s16x")

Kind = Literal["tap", "tun"]


class DeviceError(RunError):
    """The device cannot be opened or set up; the text says why and what would help."""


@dataclass(frozen=True, slots=True)
class HostSide:
    """What link sets on the interface that it creates: the host's own side of the cable."""

    mtu: int
    mac: bytes = b""  # empty: leave it
    address: str = ""  # with prefix length; empty: leave it


@dataclass(frozen=True, slots=True)
class Facts:
    """What an interface is now."""

    index: int
    up: bool
    mtu: int


def facts(name: str) -> Facts | None:
    """The interface's state in this network namespace, or None if there is no such interface. Needs no privilege."""
    request = _IFREQ.pack(name.encode(), 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            flags = _IFREQ.unpack(fcntl.ioctl(probe, _SIOCGIFFLAGS, request))[1]
            mtu = _IFREQ_INT.unpack(fcntl.ioctl(probe, _SIOCGIFMTU, request))[1]
            return Facts(socket.if_nametoindex(name), bool(flags & _IFF_UP), mtu)
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ENXIO):
                return None
            raise


def open_interface(name: str, kind: Kind, *, vnet: bool, attach: bool, offloads: int = OFFLOADS) -> tuple[int, bool]:
    """(descriptor, offload) of the tun or tap interface `name`, which is made unless it exists or `attach` is set.

    With `vnet` each frame starts with a virtio header of 10 bytes, if the kernel takes `offloads`; the second result
    says whether it does. The descriptor does not block. Raises DeviceError.
    """
    if attach and facts(name) is None:
        raise DeviceError(f"no interface {name} (device.attach); as root: ip tuntap add {name} mode {kind}")
    try:
        fd = os.open(TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        hint = "modprobe tun" if error.errno == errno.ENOENT else f"chmod 666 {TUN_DEVICE}, or run as root"
        raise DeviceError(f"{TUN_DEVICE}: {error.strerror}; {hint}") from None
    try:
        flags = (_IFF_TAP if kind == "tap" else _IFF_TUN) | _IFF_NO_PI
        _set_interface(fd, name, kind, flags | (_IFF_VNET_HDR if vnet else 0))
        if vnet:
            if not (_takes(fd, offloads | TUN_F_TSO_ECN) or _takes(fd, offloads)):
                os.close(fd)
                return open_interface(name, kind, vnet=False, attach=attach)[0], False
            fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_LEN))
        else:
            fcntl.ioctl(fd, _TUNSETOFFLOAD, 0)  # a device that persists remembers what an earlier process took
    except DeviceError:
        os.close(fd)
        raise
    return fd, vnet


def _takes(fd: int, offloads: int) -> bool:
    """Whether the kernel knows all of these offloads; they are set then."""
    try:
        fcntl.ioctl(fd, _TUNSETOFFLOAD, offloads)
    except OSError:
        return False
    return True


def _set_interface(fd: int, name: str, kind: Kind, flags: int) -> None:
    try:
        fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
    except OSError as error:
        match error.errno:
            case errno.EPERM:
                why = (
                    "making it needs CAP_NET_ADMIN: run as root, or let root make it for you: lvlip net up --user USER"
                )
            case errno.EBUSY:
                why = "another process has it open"
            case errno.EINVAL:
                why = f"it exists and is no {kind} device of one queue; choose another device.name"
            case _:
                why = os.strerror(error.errno or 0)
        raise DeviceError(f"{kind} {name}: {why}") from None


def current_name(fd: int) -> str:
    """The interface's name now (somebody may have renamed it). OSError EBADFD: the interface is gone."""
    name: bytes = _IFREQ.unpack(fcntl.ioctl(fd, _TUNGETIFF, _IFREQ.pack(b"", 0)))[0]
    return name.rstrip(b"\0").decode()


def set_persistent(fd: int, persist: bool) -> None:
    """Whether the interface outlives the descriptor; while it does, only our user may open it. Needs no privilege to
    end it."""
    if persist:
        fcntl.ioctl(fd, _TUNSETOWNER, os.geteuid())
    fcntl.ioctl(fd, _TUNSETPERSIST, int(persist))


def is_configured(name: str, side: HostSide) -> bool:
    """Whether the host's side is all that already, as after an earlier process that was killed; False where that is
    not certain: of several addresses the kernel tells the first (netdevice(7)). Needs no privilege."""
    now = facts(name)
    if now is None or not now.up or now.mtu != side.mtu:
        return False
    request = _IFREQ.pack(name.encode(), 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            if side.mac and _IFREQ_MAC.unpack(fcntl.ioctl(probe, _SIOCGIFHWADDR, request))[1] != side.mac:
                return False
            if not side.address:
                return True
            address, mask = (
                str(ipaddress.IPv4Address(_IFREQ_IPV4.unpack(fcntl.ioctl(probe, number, request))[1]))
                for number in (_SIOCGIFADDR, _SIOCGIFNETMASK)
            )
        except OSError:  # EADDRNOTAVAIL: it has none
            return False
    return ipaddress.ip_interface(f"{address}/{mask}") == ipaddress.ip_interface(side.address)


def configure(name: str, side: HostSide) -> None:
    """Give the host's side its MAC address, MTU and address and bring it up; what is so already is left alone.

    Raises DeviceError, with the command that would help.
    """
    if is_configured(name, side):
        return
    from pyroute2 import IPRoute, NetlinkError  # 0.2 s to import: not for a process that changes nothing

    wanted = ""
    try:
        with IPRoute() as route:
            index = route.link_lookup(ifname=name)[0]
            link = route.get_links(index)[0]
            if side.mac and link.get_attr("IFLA_ADDRESS") != format_mac(side.mac):
                wanted = f"ip link set {name} address {format_mac(side.mac)}"
                route.link("set", index=index, address=format_mac(side.mac))
            wanted = f"ip link set {name} mtu {side.mtu}"
            if link.get_attr("IFLA_MTU") != side.mtu:
                route.link("set", index=index, mtu=side.mtu)
            if side.address:
                wanted = f"ip address add {side.address} dev {name}"
                host = ipaddress.ip_interface(side.address)
                has = {(a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS"), a["prefixlen"])
                       for a in route.get_addr(index=index)}  # fmt: skip
                if (str(host.ip), host.network.prefixlen) not in has:
                    route.addr("add", index=index, address=str(host.ip), prefixlen=host.network.prefixlen)
            wanted = f"ip link set {name} up"
            if not link["flags"] & _IFF_UP:
                route.link("set", index=index, state="up")
    except NetlinkError as error:
        why = os.strerror(error.code)
        raise DeviceError(f"{name}: cannot carry out: {wanted}: {why}; do it as root, or run link as root") from None
    except IndexError:
        raise DeviceError(f"{name} vanished while it was set up") from None

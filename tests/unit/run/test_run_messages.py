"""struct msghdr in memory (our own stands for the program's), datagrams with tags, and answers to netlink requests."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import select
import socket
import struct
import threading
from pathlib import Path

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from levelip.client.datagramformat import DATAGRAM, MAX_ECHO, Told
from levelip.client.datagrams import DatagramPair
from levelip.rpc.messages import DatagramIn
from levelip.run import netlink, raw
from levelip.run.interfaces import Interface, Way, netmask
from levelip.run.messages import CMSGHDR, MSGHDR, Message
from levelip.run.tags import KEPT, Tags, clear, shows, take
from levelip.wire.ipv4 import Ipv4Header

TID = threading.get_native_id()


class Memory:
    """Buffers that stay where they are."""

    def __init__(self) -> None:
        self._kept: list[ctypes.Array[ctypes.c_char]] = []

    def put(self, data: bytes) -> int:
        self._kept.append(ctypes.create_string_buffer(data, max(len(data), 1)))
        return ctypes.addressof(self._kept[-1])

    def message(self, name: int, name_length: int, pieces: list[tuple[int, int]], control: bytes = b"") -> int:
        vector = self.put(b"".join(struct.pack("=QQ", *piece) for piece in pieces))
        where = self.put(control) if control else 0
        return self.put(MSGHDR.pack(name, name_length, vector, len(pieces), where, len(control), 0))


def test_a_message_is_gathered_and_scattered() -> None:
    """The pieces of a struct msghdr are one datagram, whose rest is cut; name, flags and lengths are told."""
    memory = Memory()
    name = memory.put(bytes(16))
    one, two = memory.put(b"abc"), memory.put(b"defgh")
    message = Message(TID, memory.message(name, 8, [(one, 3), (0, 0), (two, 5)]))
    assert message.size == 8 and message.gather() == b"abcdefgh"
    assert message.scatter(b"0123456789") == 8
    assert (ctypes.string_at(one, 3), ctypes.string_at(two, 5)) == (b"012", b"34567")
    message.answer(b"sixteen bytes of", [], socket.MSG_TRUNC)
    assert ctypes.string_at(name, 9) == b"sixteen \0", "no more than there is room for"
    _, length, _, _, _, control, flags = MSGHDR.unpack(ctypes.string_at(message.address, MSGHDR.size))
    assert (length, control, flags) == (16, 0, socket.MSG_TRUNC)


def test_ancillary_data() -> None:
    """It is read piece by piece; written as far as there is room, with MSG_CTRUNC, as Linux's put_cmsg cuts it."""
    memory = Memory()
    ttl = struct.pack("=Qii", 20, 0, 2) + struct.pack("=i", 9) + bytes(4)
    tos = struct.pack("=Qii", 17, 0, 1) + b"\x10" + bytes(7)
    message = Message(TID, memory.message(0, 0, [], ttl + tos))
    assert message.control() == [(0, 2, struct.pack("=i", 9)), (0, 1, b"\x10")]
    for bad in (struct.pack("=Qii", 15, 0, 2), struct.pack("=Qii", 1 << 40, 0, 2)):
        with pytest.raises(OSError) as refused:
            Message(TID, memory.message(0, 0, [], bad)).control()
        assert refused.value.errno == errno.EINVAL
    rows = [(0, 8, bytes(range(12))), (0, 2, struct.pack("=i", 64))]
    for room, lengths, cut in ((56, [28, 20], False), (55, [28, 20], False), (40, [28], True), (20, [20], True)):
        message = Message(TID, memory.message(0, 0, [], bytes(room)))
        message.answer(b"", rows, 0)
        fields = MSGHDR.unpack(ctypes.string_at(message.address, MSGHDR.size))
        written = ctypes.string_at(fields[4], fields[5])
        found, at = [], 0
        while at + CMSGHDR.size <= len(written):
            found.append(CMSGHDR.unpack_from(written, at)[0])
            at += (found[-1] + 7) // 8 * 8
        assert (found, bool(fields[6] & socket.MSG_CTRUNC)) == (lengths, cut), room


def test_wrong_messages() -> None:
    """An address that is not the program's is EFAULT, too many pieces EMSGSIZE."""
    memory = Memory()
    for address, code in ((8, errno.EFAULT), (memory.message(0, 0, [(8, 1)] * 1025), errno.EMSGSIZE)):
        with pytest.raises(OSError) as refused:
            Message(TID, address)
        assert refused.value.errno == code
    with pytest.raises(OSError) as refused:
        Message(TID, memory.message(0, 0, [(8, 1)])).gather()
    assert refused.value.errno == errno.EFAULT


def descriptors() -> int:
    """Of the files that carry headers; others of this process may come and go."""
    found = 0
    for path in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):
            found += "memfd:datagram" in str(path.readlink())
    return found


def test_tags() -> None:
    """A datagram is bare for a read, and brings its header along for recvmsg; peeking leaves both; files are reused."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    pair = DatagramPair(ours, 1, (2, 2, 17), 1)
    tags = Tags(lambda _: None, lambda _: True)
    gc.collect()  # what other tests have left is not closed meanwhile
    before = descriptors()
    with ours, theirs:
        for number in range(KEPT + 10):
            header = Told(DATAGRAM, 0, 64, number, b"\x0a\0\0\1", b"\x0a\0\0\2", 1).pack()
            tags.write(pair, header, b"payload")
            tags.write(pair, header, b"")
            assert theirs.recv(100) == b"payload"
            assert take(theirs, peek=True) == (header, b"") == take(theirs, peek=False)
        with pytest.raises(BlockingIOError):
            take(theirs, peek=False)
        assert tags.read(b"x") == (b"", 0, -1, -1, b"x") and tags.read(bytes(MAX_ECHO + 1)) is None
        assert descriptors() - before <= KEPT
        tags.close()
    assert descriptors() == before and tags._nobody.fileno() == -1


def test_errors_show_at_the_end() -> None:
    """As POLLERR alone, until a call of the kernel's has told it once (as ECONNRESET) or it is cleared; datagrams both
    ways are what they were, nobody else can send there, and a second one changes nothing."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs.bind("")
    written: list[bytes] = []

    def drain(_: DatagramPair) -> bool:
        written.append(ours.recv(100))
        return True

    with ours, theirs, select.epoll() as epoll, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        pair = DatagramPair(ours, 1, (2, 2, 17), 1)
        pair.name = theirs.getsockname()
        tags = Tags(lambda _: theirs.dup(), drain)
        epoll.register(theirs, select.EPOLLIN | select.EPOLLET)
        for call, told in (
            (lambda: theirs.recv(10, socket.MSG_DONTWAIT), True), (lambda: theirs.send(b"x"), True),
            (lambda: clear(theirs), False),
        ):  # fmt: skip
            tags.write(pair, Told(DATAGRAM).pack(), b"waits")
            theirs.send(b"written before")
            epoll.poll(0)
            assert tags.error(pair) and tags.error(pair) and shows(theirs)
            assert written.pop() == b"written before" and not written
            assert epoll.poll(0) == [(theirs.fileno(), select.EPOLLIN | select.EPOLLERR)]
            with contextlib.nullcontext() if not told else pytest.raises(ConnectionResetError):
                call()
            assert not shows(theirs)
            assert take(theirs, peek=False) == (Told(DATAGRAM).pack(), b"waits")
            with pytest.raises(BlockingIOError):
                theirs.recv(10, socket.MSG_DONTWAIT)
        theirs.send(b"after")
        assert ours.recv(100) == b"after"
        with pytest.raises(PermissionError):
            stranger.connect(pair.name)
        with pytest.raises(PermissionError):
            stranger.sendto(b"forged", pair.name)
        tags.close()


DEVICE = Interface(1, "lvl", "tap", True, 1500, b"\2\0\0\0\0\1", [(b"\x0a\0\0\2", 24, b"\x0a\0\0\xff")])
LO = Interface(2, "lo", "loopback", True, 65_535, bytes(6), [(b"\x7f\0\0\1", 8, b"")])
WAYS = [
    Way(b"\x0a\0\0\0", 24, "unicast", b"", b"\x0a\0\0\2", 0, 1),
    Way(b"\x0a\0\0\2", 32, "local", b"", b"\x0a\0\0\2", 0, 2),
    Way(bytes(4), 0, "unicast", b"\x0a\0\0\1", b"\x0a\0\0\2", 7, 1),
    Way(b"\xc0\0\2\0", 24, "prohibit", b"", bytes(4), 0, 0),
]


def rows(kind: int, body: bytes, *, dump: bool = True) -> list[bytes] | None:
    found = netlink._Answer([DEVICE, LO], WAYS, body).rows(kind, dump=dump)
    return None if found is None else [netlink._message(type_, 0, 1, 2, row) for type_, row in found]


def test_netlink_answers() -> None:
    """What pyroute2 reads out of a dump is what there is; of another family nothing."""
    links = [ifinfmsg(row) for row in rows(netlink.RTM_GETLINK, bytes(16)) or []]
    for link in links:
        link.decode()
    assert [(link["index"], link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_MTU")) for link in links] == [
        (1, "lvl", 1500), (2, "lo", 65_535),
    ]  # fmt: skip
    assert [link["ifi_type"] for link in links] == [1, 772] and links[0].get_attr("IFLA_ADDRESS") == "02:00:00:00:00:01"
    addresses = [ifaddrmsg(row) for row in rows(netlink.RTM_GETADDR, bytes(8)) or []]
    for address in addresses:
        address.decode()
    assert [(one.get_attr("IFA_LOCAL"), one["prefixlen"], one.get_attr("IFA_BROADCAST")) for one in addresses] == [
        ("10.0.0.2", 24, "10.0.0.255"), ("127.0.0.1", 8, None),
    ]  # fmt: skip
    routes = [rtmsg(row) for row in rows(netlink.RTM_GETROUTE, bytes(12)) or []]
    for route in routes:
        route.decode()
    assert [(one["type"], one.get_attr("RTA_DST"), one.get_attr("RTA_GATEWAY"), one["table"]) for one in routes] == [
        (1, "10.0.0.0", None, 254), (2, "10.0.0.2", None, 255), (1, None, "10.0.0.1", 254), (8, "192.0.2.0", None, 254),
    ]  # fmt: skip
    assert rows(netlink.RTM_GETADDR, bytes([socket.AF_INET6]) + bytes(7)) == []


def test_netlink_lookups() -> None:
    """One link by name or index, one route by its longest prefix; what is not there, or refuses, is none."""
    for body, name in (
        (bytes(4) + struct.pack("=i", 2) + bytes(8), "lo"),
        (bytes(16) + struct.pack("=HH4s", 8, netlink.IFLA_IFNAME, b"lvl\0"), "lvl"),
        (bytes(4) + struct.pack("=i", 3) + bytes(8), None),
        (b"", None),
    ):
        found = rows(netlink.RTM_GETLINK, body, dump=False)
        assert (found is None) == (name is None)
        if found is not None:
            link = ifinfmsg(found[0])
            link.decode()
            assert link.get_attr("IFLA_IFNAME") == name
    for where, via, there in (
        (b"\x0a\0\0\x09", None, True), (b"\x0a\1\0\0", "10.0.0.1", True), (b"\xc0\0\2\1", None, False),
    ):  # fmt: skip
        body = bytes([socket.AF_INET]) + bytes(11) + struct.pack("=HH4s", 8, netlink.RTA_DST, where)
        found = rows(netlink.RTM_GETROUTE, body, dump=False)
        assert (found is not None) == there
        if found is not None:
            route = rtmsg(found[0])
            route.decode()
            assert (route.get_attr("RTA_GATEWAY"), route["dst_len"]) == (via, 32)


@pytest.mark.rfc("RFC 1122 3.3.7-4")
def test_flags_of_an_interface() -> None:
    """netdevice(7): a device can do multicast, be it a tap or a tun; loopback says neither that nor broadcast."""
    tun = Interface(1, "lvl", "tun", True, 1500, b"", [])
    up, broadcast, loopback, pointopoint, noarp, multicast = 0x10041, 2, 8, 0x10, 0x80, 0x1000  # linux/if.h
    assert DEVICE.flags == up | broadcast | multicast
    assert tun.flags == up | pointopoint | noarp | multicast
    assert LO.flags == up | loopback
    assert Interface(1, "lvl", "tap", False, 1500, DEVICE.mac, []).flags == broadcast | multicast


def test_netmask() -> None:
    """As a struct sockaddr_in has it."""
    assert [netmask(length) for length in (0, 8, 24, 32)] == [
        bytes(4), b"\xff\0\0\0", b"\xff\xff\xff\0", b"\xff" * 4,
    ]  # fmt: skip


def test_raw_icmp() -> None:
    """A raw socket reads the packet; its identifier is that of the first echo request it sends."""
    message = DatagramIn(1, 0, bytes([10, 0, 0, 1]), 0, bytes([10, 0, 0, 2]), 0x10, 63, 1, b"\0\0reply")
    packet = raw.with_header(message)
    header = Ipv4Header.parse(packet)
    assert (header.src, header.dst, header.ttl, header.proto) == (message.address, message.local_address, 63, 1)
    assert header.total_length == len(packet) and packet[20:] == message.payload
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pair = DatagramPair(ours, 1, (2, 2, 1), 1)
        request = struct.pack("!BBHHH", 8, 0, 0, 4711, 1)
        assert raw.identifier(pair, request) is None and not raw.only_listens(pair), "an ICMP datagram socket"
        pair.dress = raw.with_header
        assert raw.identifier(pair, request) == 4711 and raw.only_listens(pair)
        assert raw.identifier(pair, request[:7]) is None
        pair.bound = (bytes(4), 4711)
        assert raw.identifier(pair, request) is None and not raw.only_listens(pair)

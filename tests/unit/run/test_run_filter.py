"""The seccomp filter, run by an interpreter of its instructions, and C's values."""

from __future__ import annotations

import errno
import os
import socket
import struct

import pytest

from levelip.run.bpf import INSTRUCTION, LOCAL, program
from levelip.run.notify import Listener, Notification
from levelip.run.syscalls import INTERFACE_REQUESTS, MACHINES, SIOCOUTQ, SIOCOUTQNSD, Machine
from levelip.run.trapped import Trapped
from levelip.run.values import dissolves, parse_sockaddr, seconds, sockaddr

ALLOW, TRAP = 0x7FFF0000, 0x7FC00000
NO_FAMILY, NO_CALL = 0x00050000 | errno.EAFNOSUPPORT, 0x00050000 | errno.ENOSYS
I386 = 0x40000003
READ = {"x86_64": 0, "aarch64": 63}


def verdict(machine: Machine, number: int, *args: int, audit: int | None = None, all_opens: bool = False) -> int:
    """What the filter says of a call."""
    instructions = program(machine, all_opens=all_opens)
    data = struct.pack("=iIQ6Q", number, machine.audit if audit is None else audit, 0, *args, *[0] * (6 - len(args)))
    code = [INSTRUCTION.unpack_from(instructions, at) for at in range(0, len(instructions), INSTRUCTION.size)]
    at = accumulator = 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif operation == 0x06:
            return int(value)
        else:
            true = {
                0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value),
            }[operation]  # fmt: skip
            at += if_true if true else if_false


@pytest.mark.parametrize("name", MACHINES)
def test_filter(name: str) -> None:
    """Calls that name addresses are trapped, local families and all else are the kernel's, io_uring is not there."""
    machine = MACHINES[name]
    for call in machine.calls:
        if call not in ("sendto", "recvfrom", "ioctl", "open", "openat"):
            assert verdict(machine, machine.calls[call], socket.AF_INET) == TRAP
    for call in ("sendto", "recvfrom"):
        number = machine.calls[call]
        assert verdict(machine, number, 3, 0x1000, 9, 0, 0, 0) == ALLOW, "send and recv are the kernel's"
        for address in (0x1000, 1, 1 << 32, 0x7FFF_0000_0000):
            assert verdict(machine, number, 3, 0x1000, 9, 0, address, 16) == TRAP
            assert verdict(machine, number, 3, 0x1000, 1, 2, address, 16) == TRAP
    one = [verdict(machine, machine.calls[call], 3, 0x1000, 1, 0, 0, 0) for call in ("sendto", "recvfrom")]
    assert one == [ALLOW, TRAP], "one byte is ssl's question whether there is a connection"
    assert verdict(machine, machine.calls["recvfrom"], 3, 0x1000, 1, socket.MSG_PEEK, 0, 0) == ALLOW
    more = [
        verdict(machine, machine.calls[call], 3, 0x1000, 9, flags, 0, 0)
        for call in ("sendto", "recvfrom")
        for flags in (socket.MSG_MORE, socket.MSG_MORE | socket.MSG_NOSIGNAL, socket.MSG_NOSIGNAL, 0xFFFF_7FFF)
    ]
    assert more == [TRAP, TRAP, ALLOW, ALLOW] + 4 * [ALLOW], "a send with MSG_MORE"
    for request in (*INTERFACE_REQUESTS.values(), SIOCOUTQ, SIOCOUTQNSD):
        assert verdict(machine, machine.calls["ioctl"], 3, request, 0x1000) == TRAP
    for request in (0x5401, 0x541B, 0x5421, 0x8914, 0):  # TCGETS, FIONREAD, FIONBIO, SIOCSIFFLAGS
        assert verdict(machine, machine.calls["ioctl"], 3, request, 0x1000) == ALLOW
    assert verdict(machine, machine.calls["socket"], socket.AF_NETLINK, socket.SOCK_RAW, 0) == TRAP
    netlink = [verdict(machine, machine.calls["socket"], socket.AF_NETLINK, socket.SOCK_RAW, proto) for proto in (4, 9)]
    assert netlink == [TRAP, ALLOW], "sockets; audit"
    for family in LOCAL:
        assert verdict(machine, machine.calls["socket"], family) == ALLOW
        assert verdict(machine, machine.calls["bind"], family) == TRAP, "its first argument is a descriptor"
    for family in (socket.AF_INET6, socket.AF_PACKET, 0, 31):
        assert verdict(machine, machine.calls["socket"], family) == TRAP
    assert verdict(machine, READ[name]) == ALLOW
    assert verdict(machine, machine.io_uring_setup) == NO_CALL


@pytest.mark.parametrize("all_opens", [False, True])
@pytest.mark.parametrize("name", MACHINES)
def test_filter_of_opens(name: str, all_opens: bool) -> None:
    """Trapped are those with O_RDONLY alone, as of fopen(3), by musl with O_LARGEFILE, and where that is wanted those
    with O_CLOEXEC; all others are the kernel's."""
    machine = MACHINES[name]
    plain = (os.O_RDONLY, machine.large_file)
    if all_opens:
        plain = (*plain, os.O_CLOEXEC, os.O_CLOEXEC | machine.large_file)
    others = (os.O_CLOEXEC, os.O_CLOEXEC | machine.large_file, os.O_DIRECTORY, os.O_NONBLOCK, os.O_WRONLY, os.O_RDWR,
              os.O_CREAT | os.O_WRONLY)  # fmt: skip
    for flags in (*plain, *others):
        expected = TRAP if flags in plain else ALLOW
        args = (0xFFFF_FFFF_FFFF_FF9C, 0x1000, flags, 0o666)
        assert verdict(machine, machine.calls["openat"], *args, all_opens=all_opens) == expected
        if "open" in machine.calls:
            assert verdict(machine, machine.calls["open"], *args[1:], all_opens=all_opens) == expected
    assert ("open" in machine.calls) == (name == "x86_64")


def test_filter_of_other_abis() -> None:
    """32-bit programs get no sockets, and everything else; x32 gets nothing."""
    machine = MACHINES["x86_64"]
    assert [verdict(machine, number, audit=I386) for number in (102, 359, 3)] == [NO_FAMILY, NO_FAMILY, ALLOW]
    assert verdict(machine, 0x40000000 | 41, 2) == NO_CALL


def test_sockaddr() -> None:
    """Addresses go both ways; what is too short or of another family has Linux's errno."""
    assert sockaddr(b"\x0a\0\0\1", 80) == struct.pack("=H", socket.AF_INET) + b"\0\x50\x0a\0\0\1" + bytes(8)
    assert parse_sockaddr(sockaddr(b"\x0a\0\0\1", 80)) == (b"\x0a\0\0\1", 80)
    assert sockaddr(b"", 0)[4:8] == bytes(4)
    for data, code in ((bytes(15), errno.EINVAL), (bytes(16), errno.EAFNOSUPPORT), (b"\x0a" * 28, errno.EAFNOSUPPORT)):
        with pytest.raises(OSError) as refused:
            parse_sockaddr(data)
        assert refused.value.errno == code
    assert parse_sockaddr(bytes(16), unspecified=True) == (bytes(4), 0)
    unspecified = bytes(2) + sockaddr(b"\x0a\0\0\1", 80)[2:]
    assert parse_sockaddr(unspecified, unspecified=True, any_address=True) == (b"\x0a\0\0\1", 80)
    with pytest.raises(OSError):
        parse_sockaddr(unspecified, unspecified=True)
    assert dissolves(bytes(2)) and dissolves(unspecified) and not dissolves(sockaddr(b"\x0a\0\0\1", 80))
    with pytest.raises(OSError):
        dissolves(b"\0")


def test_times() -> None:
    """No time is for ever, as in setsockopt(2)."""
    assert seconds(struct.pack("=qq", 1, 500_000)) == 1.5
    assert seconds(bytes(16)) is None


class Program(Listener):
    """A listener that carries nothing anywhere, and delivers as told."""

    def __init__(self) -> None:
        self.fd = -1
        self.alive = True
        self.answers: list[tuple[int, int, int]] = []

    def answer(self, id_: int, value: int = 0, code: int = 0) -> bool:
        if self.alive:
            self.answers.append((id_, value, code))
        return self.alive


def test_an_answer_that_was_interrupted_is_kept() -> None:
    """A setsockopt whose thread a signal took away is not done again when it is restarted; a connect is."""
    from levelip.client.control import Answer

    listener = Program()
    note = Notification(1, 10, 54, (3, 1, 2, 0, 4, 0))
    call = Trapped(listener, note, "setsockopt", 99, None)
    listener.alive = False
    assert not call.answer(Answer(0, errno.EINVAL, {}))
    assert call.kept is not None and not call.over
    again = Trapped(listener, Notification(2, 10, 54, note.args), "setsockopt", 99, None)
    assert call.same(again) and not call.same(Trapped(listener, note, "setsockopt", 98, None))
    listener.alive = True
    call.id = again.id
    assert call.answer(call.kept)
    assert listener.answers == [(2, 0, errno.EINVAL)]
    connect = Trapped(listener, Notification(3, 10, 42, note.args), "connect", 99, None)
    listener.alive = False
    assert not connect.answer(Answer(0, 0, {}))
    assert connect.kept is None and connect.over

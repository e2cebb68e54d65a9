"""System calls of a script: their arguments read, the program's call started, what it returned compared.

A call that takes a pointer may have `...` in its place: then the call has an address, buffer or length of its own
choice, as packetdrill does it (bind takes the local address and --bind_port, connect the remote one and
--connect_port).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from ipaddress import IPv4Address
from typing import Any

from levelip.wire.addr import format_ipv4
from simulation.epoll import Epoll
from simulation.program import NONBLOCK, Call, Descriptor, Outcome, Program
from simulation.script.answers import World
from simulation.script.constants import errno_name, errno_number, symbols
from simulation.script.internet import Row
from simulation.script.language import (
    Anything,
    Array,
    Assign,
    Either,
    Expression,
    Function,
    Integer,
    ScriptError,
    Struct,
    SystemCall,
    Text,
    Word,
)

F_GETFL, F_SETFL, F_GETFD, F_SETFD = 3, 4, 1, 2
O_RDWR = 2
SO_LINGER = 13
TIMEVALS = (20, 21)
EFAULT, ENOENT = 14, 2


def number(expression: Expression) -> int:
    """The value of an integer expression."""
    match expression:
        case Integer(value):
            return value
        case Word(name):
            if name not in symbols():
                raise ScriptError(f"{name} is no constant that is known here")
            return symbols()[name]
        case Either(items):
            total = 0
            for item in items:
                total |= number(item)
            return total
        case Function("htons" | "htonl" | "ntohs" | "ntohl", (argument,)):
            return number(argument)
    raise ScriptError(f"a number is needed, not {text(expression)}")


def text(expression: Expression) -> str:
    """An expression as written."""
    match expression:
        case Integer(value):
            return str(value)
        case Word(name):
            return name
        case Text(data, more):
            return f'"{data.decode("latin-1")}"' + ("..." if more else "")
        case Anything():
            return "..."
        case Either(items):
            return "|".join(map(text, items))
        case Array(items):
            return f"[{', '.join(map(text, items))}]"
        case Struct(items):
            return f"{{{', '.join(map(text, items))}}}"
        case Assign(left, right):
            return f"{text(left)}={text(right)}"
        case Function(name, arguments):
            return f"{name}({', '.join(map(text, arguments))})"


class Running:
    """A call on its way. `compare` gives, once it returned, the rows that a report shows."""

    def __init__(self, call: Call, finish: Callable[[Outcome], tuple[int, list[Row]]]) -> None:
        self._call = call
        self._finish = finish
        self.outcome: Outcome | None = None
        self.value = 0
        self.rows: list[Row] = []

    def advance(self) -> bool:
        """Go on as far as it goes; True once it has returned."""
        if self.outcome is None:
            try:
                next(self._call)
            except StopIteration as stop:
                outcome: Outcome = stop.value
                self.outcome = outcome
                self.value, self.rows = self._finish(outcome)
        return self.outcome is not None


class Calls:
    """The table of calls; one method each, `_NAME(spec) -> (generator, finish)`."""

    def __init__(self, program: Program, world: World) -> None:
        self.program = program
        self.world = world
        self.epolls: dict[int, Epoll] = {}
        self.files: dict[int, int] = {}  # open files of zeros: descriptor → bytes

    @classmethod
    def names(cls) -> list[str]:
        """Every call that is known."""
        return sorted(name.removeprefix("_call_") for name in dir(cls) if name.startswith("_call_"))

    def start(self, spec: SystemCall) -> Running:
        """Begin a call; nothing happens before its first `advance`."""
        handler = getattr(self, f"_call_{spec.name}", None)
        if handler is None:
            raise ScriptError(f"there is no system call {spec.name!r}; there are {', '.join(self.names())}")
        try:
            call, finish = (_done(-1, EFAULT), None) if _points_nowhere(spec) else handler(spec)
        except IndexError:
            raise ScriptError(f"{spec.name} needs more arguments") from None
        expected = spec.result

        def compare(outcome: Outcome) -> tuple[int, list[Row]]:
            value, rows = outcome.value, []
            if value >= 0 and finish is not None:
                value, rows = finish(outcome)
            wanted = None if isinstance(expected, Anything) else number(expected)
            error = errno_number(spec.errno) if spec.errno else None
            if spec.errno and error is None:
                raise ScriptError(f"{spec.errno} is no errno")
            got = f"-1 {errno_name(outcome.errno)}" if outcome.value < 0 else str(value)
            shown = text(expected) + (f" {spec.errno}" if spec.errno else "")
            differs = wanted is not None and wanted != value
            differs = differs or (error is not None and error != outcome.errno)
            return value, [Row("result", shown, got, differs), *rows]

        return Running(call, compare)

    # arguments

    def _fd(self, expression: Expression) -> int:
        fd = number(expression)
        if fd not in self.program.fds:
            raise _BadFd
        return fd

    def _address(self, expression: Expression, otherwise: tuple[str, int]) -> tuple[bytes, int]:
        if isinstance(expression, Struct):
            fields = expression.fields()
            where, port = fields.get("sin_addr"), fields.get("sin_port")
            family = fields.get("sa_family") or fields.get("sin_family")
            if family is not None and number(family) != 2:
                raise ScriptError("only AF_INET; the stack has no IPv6 yet")
            if isinstance(where, Function) and where.name == "inet_addr" and isinstance(where.arguments[0], Text):
                name = where.arguments[0].data.decode("latin-1")
                try:
                    packed = IPv4Address(name).packed
                except ValueError:
                    raise ScriptError(f"{name!r} is no IPv4 address") from None
                return packed, number(port) if port is not None else 0
            raise ScriptError('an address is {sa_family = AF_INET, sin_port = htons(N), sin_addr = inet_addr("...")}')
        return IPv4Address(otherwise[0]).packed, otherwise[1]

    def _new_fd(self, descriptor: Descriptor, expected: Expression) -> int:
        fd = self._free_fd(expected)
        self.program.fds[fd] = descriptor
        return fd

    def _free_fd(self, expected: Expression) -> int:
        """The number that the script expects, if it is free; else the lowest that is."""
        taken = self.program.fds.keys() | self.epolls.keys() | self.files.keys()
        fd = number(expected) if not isinstance(expected, Anything) else -1
        return fd if fd >= 0 and fd not in taken else next(free for free in range(3, 1 << 16) if free not in taken)

    @staticmethod
    def _same_address(expected: Expression, got: tuple[bytes, int]) -> list[Row]:
        if not isinstance(expected, Struct):
            return []
        fields = expected.fields()
        rows = []
        where, port = fields.get("sin_addr"), fields.get("sin_port")
        if isinstance(where, Function) and isinstance(where.arguments[0], Text):
            wanted = where.arguments[0].data.decode()
            rows.append(Row("address", wanted, format_ipv4(got[0]), wanted != format_ipv4(got[0])))
        if port is not None and not isinstance(port, Anything):
            rows.append(Row("port", str(number(port)), str(got[1]), number(port) != got[1]))
        return rows

    @staticmethod
    def _data(expression: Expression, size: int) -> bytes:
        """What a write writes: the string, or zeros."""
        data = expression.data if isinstance(expression, Text) else b""
        return data[:size].ljust(size, b"\0")

    @staticmethod
    def _same_data(expression: Expression, got: bytes) -> list[Row]:
        if not isinstance(expression, Text):
            return []
        wanted = expression.data
        fits = got.startswith(wanted) if expression.open else got == wanted
        return [Row("data", repr(wanted)[1:], repr(got[:64])[1:], not fits)]

    # calls

    def _call_socket(self, spec: SystemCall) -> Any:
        family = 2 if isinstance(spec.arguments[0], Anything) else number(spec.arguments[0])
        call = self.program.socket(family, number(spec.arguments[1]), number(spec.arguments[2]))
        return call, lambda outcome: (self._new_fd(outcome.data, spec.result), [])

    def _call_bind(self, spec: SystemCall) -> Any:
        fd = self._fd(spec.arguments[0])
        return self.program.bind(fd, *self._address(spec.arguments[1], (self.world.local, self.world.bind_port))), None

    def _call_listen(self, spec: SystemCall) -> Any:
        return self.program.listen(self._fd(spec.arguments[0]), number(spec.arguments[1])), None

    def _call_accept(self, spec: SystemCall) -> Any:
        flags = number(spec.arguments[3]) if len(spec.arguments) > 3 else 0

        def finish(outcome: Outcome) -> tuple[int, list[Row]]:
            descriptor, peer = outcome.data
            rows = self._same_address(spec.arguments[1], peer) if len(spec.arguments) > 1 else []
            return self._new_fd(descriptor, spec.result), rows

        return self.program.accept(self._fd(spec.arguments[0]), flags), finish

    _call_accept4 = _call_accept

    def _call_connect(self, spec: SystemCall) -> Any:
        fd = self._fd(spec.arguments[0])
        where = self._address(spec.arguments[1], (self.world.remote, self.world.connect_port))
        return self.program.connect(fd, *where), None

    def _named(self, spec: SystemCall, *, peer: bool) -> Any:
        call = self.program.name(self._fd(spec.arguments[0]), peer=peer)
        return call, lambda outcome: (0, self._same_address(spec.arguments[1], outcome.data))

    def _call_getsockname(self, spec: SystemCall) -> Any:
        return self._named(spec, peer=False)

    def _call_getpeername(self, spec: SystemCall) -> Any:
        return self._named(spec, peer=True)

    def _write(self, spec: SystemCall, data: bytes, flags: int = 0) -> Any:
        return self.program.send(self._fd(spec.arguments[0]), data, flags), None

    def _call_write(self, spec: SystemCall) -> Any:
        return self._write(spec, self._data(spec.arguments[1], number(spec.arguments[2])))

    def _call_send(self, spec: SystemCall) -> Any:
        data = self._data(spec.arguments[1], number(spec.arguments[2]))
        return self._write(spec, data, number(spec.arguments[3]))

    def _is_datagram(self, spec: SystemCall) -> bool:
        return self.program.fds[self._fd(spec.arguments[0])].stream.datagrams is not None

    def _call_sendto(self, spec: SystemCall) -> Any:
        if not self._is_datagram(spec) or len(spec.arguments) < 5 or isinstance(spec.arguments[4], Integer | Word):
            return self._call_send(spec)
        data = self._data(spec.arguments[1], number(spec.arguments[2]))
        to = self._address(spec.arguments[4], (self.world.remote, self.world.connect_port))
        return self.program.send(self._fd(spec.arguments[0]), data, number(spec.arguments[3]), to), None

    @staticmethod
    def _vector(expression: Expression) -> list[tuple[Expression, int]]:
        """(buffer, length) of each iovec."""
        if not isinstance(expression, Array):
            raise ScriptError("an iovec is [{..., LENGTH}, ...]")
        found = []
        for item in expression.items:
            if not isinstance(item, Struct) or len(item.items) != 2:
                raise ScriptError("an iovec is [{..., LENGTH}, ...]")
            found.append((item.items[0], number(item.items[1])))
        return found

    def _call_writev(self, spec: SystemCall) -> Any:
        return self._write(spec, b"".join(self._data(*part) for part in self._vector(spec.arguments[1])))

    def _call_sendmsg(self, spec: SystemCall) -> Any:
        message = self._message(spec)
        return self._write(spec, b"".join(self._data(*part) for part in message), number(spec.arguments[2]))

    def _message(self, spec: SystemCall) -> list[tuple[Expression, int]]:
        header = spec.arguments[1]
        vector = header.fields().get("msg_iov") if isinstance(header, Struct) else None
        if isinstance(header, Struct) and "msg_control" in header.fields():
            raise ScriptError("control messages (msg_control) are not supported")
        if vector is None:
            raise ScriptError("a message is {msg_name(...)=..., msg_iov(N)=[{..., LENGTH}], msg_flags=0}")
        return self._vector(vector)

    def _read(self, spec: SystemCall, parts: list[tuple[Expression, int]], flags: int = 0) -> Any:
        call = self.program.receive(self._fd(spec.arguments[0]), sum(size for _, size in parts), flags)

        def finish(outcome: Outcome) -> tuple[int, list[Row]]:
            rows: list[Row] = []
            data = outcome.data or b""
            if isinstance(data, tuple):  # a datagram, and where it came from
                data, sender = data
                rows += self._same_address(spec.arguments[4], sender) if len(spec.arguments) > 4 else []
            for expected, size in parts:
                rows += self._same_data(expected, data[:size])
                data = data[size:]
            return outcome.value, rows

        return call, finish

    def _call_read(self, spec: SystemCall) -> Any:
        return self._read(spec, [(spec.arguments[1], number(spec.arguments[2]))])

    def _call_recv(self, spec: SystemCall) -> Any:
        return self._read(spec, [(spec.arguments[1], number(spec.arguments[2]))], number(spec.arguments[3]))

    _call_recvfrom = _call_recv

    def _call_readv(self, spec: SystemCall) -> Any:
        return self._read(spec, self._vector(spec.arguments[1]))

    def _call_recvmsg(self, spec: SystemCall) -> Any:
        return self._read(spec, self._message(spec), number(spec.arguments[2]))

    def _call_shutdown(self, spec: SystemCall) -> Any:
        return self.program.shutdown(self._fd(spec.arguments[0]), number(spec.arguments[1])), None

    def _call_close(self, spec: SystemCall) -> Any:
        fd = number(spec.arguments[0])
        if self.epolls.pop(fd, None) is not None or self.files.pop(fd, None) is not None:
            return _done(0), None
        return self.program.close(self._fd(spec.arguments[0])), None

    def _call_fcntl(self, spec: SystemCall) -> Any:
        descriptor = self.program.fds[self._fd(spec.arguments[0])]
        command = number(spec.arguments[1])
        if command == F_GETFL:
            return _done(O_RDWR | (NONBLOCK if descriptor.nonblocking else 0)), None
        if command == F_SETFL:
            descriptor.nonblocking = bool(number(spec.arguments[2]) & NONBLOCK)
            return _done(0), None
        if command in (F_GETFD, F_SETFD):
            return _done(0), None
        raise ScriptError("fcntl knows F_GETFL, F_SETFL, F_GETFD and F_SETFD")

    def _call_ioctl(self, spec: SystemCall) -> Any:
        request = number(spec.arguments[1])
        if request not in (0x541B, 0x5411, 0x894B):
            raise ScriptError("ioctl knows SIOCINQ (FIONREAD), SIOCOUTQ (TIOCOUTQ) and SIOCOUTQNSD")
        expected = spec.arguments[2] if len(spec.arguments) > 2 else Anything()

        def finish(outcome: Outcome) -> tuple[int, list[Row]]:
            return 0, _same_numbers("value", expected, [outcome.data])

        return self.program.ioctl(self._fd(spec.arguments[0]), request), finish

    def _call_poll(self, spec: SystemCall) -> Any:
        wanted, expected = [], []
        if not isinstance(spec.arguments[0], Array):
            raise ScriptError("poll takes [{fd=N, events=POLLIN, revents=POLLIN}, ...]")
        for item in spec.arguments[0].items:
            fields = item.fields() if isinstance(item, Struct) else {}
            if "fd" not in fields or "events" not in fields:
                raise ScriptError("poll takes [{fd=N, events=POLLIN, revents=POLLIN}, ...]")
            wanted.append((number(fields["fd"]), number(fields["events"])))
            expected.append(fields.get("revents", Integer(0)))

        def finish(outcome: Outcome) -> tuple[int, list[Row]]:
            rows = []
            for (fd, _), want, got in zip(wanted, expected, outcome.data, strict=True):
                differs = not isinstance(want, Anything) and number(want) != got
                rows.append(Row(f"fd {fd}", text(want), _poll_text(got), differs))
            return outcome.value, rows

        return self.program.poll(wanted, number(spec.arguments[2])), finish

    # epoll

    def _call_epoll_create(self, spec: SystemCall) -> Any:
        fd = self._free_fd(spec.result)
        self.epolls[fd] = Epoll()
        return _done(fd), None

    _call_epoll_create1 = _call_epoll_create

    def _epoll(self, spec: SystemCall) -> Epoll:
        found = self.epolls.get(number(spec.arguments[0]))
        if found is None:
            raise _BadFd
        return found

    def _call_epoll_ctl(self, spec: SystemCall) -> Any:
        epoll, fd = self._epoll(spec), number(spec.arguments[2])
        fields = spec.arguments[3].fields() if isinstance(spec.arguments[3], Struct) else {}
        if fields.get("fd", spec.arguments[2]) != spec.arguments[2]:
            raise ScriptError("what epoll_wait tells has to be the descriptor: {events=..., fd=N}")
        outcome = epoll.control(self.program, number(spec.arguments[1]), fd, number(fields.get("events", Integer(0))))
        return _done(outcome.value, outcome.errno), None

    def _call_epoll_wait(self, spec: SystemCall) -> Any:
        wanted = spec.arguments[1].items if isinstance(spec.arguments[1], Array) else spec.arguments[1:2]

        def finish(outcome: Outcome) -> tuple[int, list[Row]]:
            rows = []
            for want, (fd, events) in zip(wanted, outcome.data, strict=False):
                fields = want.fields() if isinstance(want, Struct) else {}
                expected = fields.get("events", Anything())
                differs = not isinstance(expected, Anything) and number(expected) != events
                rows.append(Row(f"fd {fd}", text(expected), _poll_text(events), differs))
                if "fd" in fields:
                    rows.append(Row("fd", text(fields["fd"]), str(fd), number(fields["fd"]) != fd))
            return outcome.value, rows

        call = self._epoll(spec).wait(self.program, number(spec.arguments[2]), number(spec.arguments[3]))
        return call, finish

    # files of zeros, which `dd` has made: for sendfile

    def _call_open(self, spec: SystemCall) -> Any:
        name = spec.arguments[0].data.decode("latin-1") if isinstance(spec.arguments[0], Text) else ""
        if name not in self.world.files:
            return _done(-1, ENOENT), None
        fd = self._free_fd(spec.result)
        self.files[fd] = self.world.files[name]
        return _done(fd), None

    def _call_sendfile(self, spec: SystemCall) -> Any:
        size = self.files.get(number(spec.arguments[1]))
        if size is None:
            raise _BadFd
        at = spec.arguments[2]
        start = number(at.items[0]) if isinstance(at, Array) else 0
        data = bytes(max(min(number(spec.arguments[3]), size - start), 0))
        return self.program.send(self._fd(spec.arguments[0]), data), None

    # options

    def _call_setsockopt(self, spec: SystemCall) -> Any:
        fd = self._fd(spec.arguments[0])
        level, option = number(spec.arguments[1]), number(spec.arguments[2])
        value = _option_value(level, option, spec.arguments[3])
        if isinstance(value, int) and not isinstance(spec.arguments[4], Anything) and number(spec.arguments[4]) != 4:
            value = struct.pack("=i", value)[: number(spec.arguments[4])]
        return self.program.setsockopt(fd, level, option, value), None

    def _call_getsockopt(self, spec: SystemCall) -> Any:
        fd = self._fd(spec.arguments[0])
        level, option = number(spec.arguments[1]), number(spec.arguments[2])
        expected = spec.arguments[3]

        def finish(outcome: Outcome) -> tuple[int, list[Row]]:
            value: bytes = outcome.data
            if isinstance(expected, Text):
                got = value.rstrip(b"\0")
                return 0, [Row("value", repr(expected.data)[1:], repr(got)[1:], got != expected.data)]
            if isinstance(expected, Struct):
                names = {"onoff": 0, "linger": 4, "tv_sec": 0, "tv_usec": 8}
                rows = []
                for name, want in expected.fields().items():
                    if name not in names:
                        raise ScriptError(f"{name} is no field that is known here")
                    size = 8 if name.startswith("tv") else 4
                    got_field = int.from_bytes(value[names[name] : names[name] + size], "little", signed=True)
                    if not isinstance(want, Anything):
                        rows.append(Row(name, text(want), str(got_field), number(want) != got_field))
                return 0, rows
            numbers = [int.from_bytes(value[at : at + 4], "little", signed=True) for at in range(0, len(value), 4)]
            return 0, _same_numbers("value", expected, numbers)

        return self.program.getsockopt(fd, level, option), finish


class _BadFd(Exception):
    """EBADF: no such descriptor is open."""


def start(calls: Calls, spec: SystemCall) -> Running:
    """As Calls.start, but a descriptor that is not open is the call's EBADF."""
    try:
        return calls.start(spec)
    except _BadFd:
        wanted = number(spec.result) if not isinstance(spec.result, Anything) else -1
        differs = wanted != -1 or spec.errno not in ("", "EBADF")
        shown = text(spec.result) + (f" {spec.errno}" if spec.errno else "")
        return Running(_done(-1, 9), lambda _outcome: (-1, [Row("result", shown, "-1 EBADF", differs)]))


_TO_MEMORY = ("read", "recv", "recvfrom", "write", "send", "sendto")


def _points_nowhere(spec: SystemCall) -> bool:
    """NULL where the bytes are to be: EFAULT, as soon as there is one to carry."""
    return spec.name in _TO_MEMORY and spec.arguments[1:2] == (Word("NULL"),) and number(spec.arguments[2]) > 0


def _done(value: int, error: int = 0) -> Generator[None, None, Outcome]:
    yield from ()
    return Outcome(value, error)


def _same_numbers(name: str, expected: Expression, got: list[int]) -> list[Row]:
    if isinstance(expected, Anything):
        return []
    items = expected.items if isinstance(expected, Array) else (expected,)
    rows = []
    for index, want in enumerate(items):
        came = got[index] if index < len(got) else None
        if not isinstance(want, Anything):
            rows.append(Row(name, text(want), str(came), _int(number(want)) != came))
    return rows


def _option_value(level: int, option: int, expression: Expression) -> int | bytes:
    match expression:
        case Array((item,)):
            return _int(number(item))
        case Array(items):
            return b"".join(struct.pack("=i", number(item)) for item in items)
        case Text(data):
            return data
        case Struct():
            fields = {name: number(value) for name, value in expression.fields().items()}
            if (level, option) == (1, SO_LINGER):
                return struct.pack("=ii", fields.get("onoff", 0), fields.get("linger", 0))
            if level == 1 and option in TIMEVALS:
                return struct.pack("=qq", fields.get("tv_sec", 0), fields.get("tv_usec", 0))
            raise ScriptError("there is {onoff=N, linger=N} for SO_LINGER and {tv_sec=N, tv_usec=N} for timeouts")
    return number(expression)


def _int(value: int) -> int:
    """A C int, also where it is written as what its bits are without sign."""
    return value - (1 << 32) if 1 << 31 <= value < 1 << 32 else value


def _poll_text(value: int) -> str:
    import select

    names = [name for name in dir(select) if name.startswith("POLL") and getattr(select, name) & value]
    return "|".join(names) or "0"

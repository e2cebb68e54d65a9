"""What calls on datagram sockets answer, a line each: as semantics.py, on the kernel's sockets and on the stack's.

`python datagrams.py HOST [CASE]`, where HOST has a datagram echo at port ECHO and nobody at CLOSED.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import struct
import sys
import threading
import time

from semantics import CLOSED, ECHO, HOST, OWN, WAIT_S, error, libc, mask, raw, say

IP_PKTINFO, IP_RECVTTL, IP_RECVTOS = 8, 12, 13
PEER = (HOST, ECHO)


class iovec(ctypes.Structure):  # noqa: N801 - C's names
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class msghdr(ctypes.Structure):  # noqa: N801
    _fields_ = (
        ("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32), ("iov", ctypes.POINTER(iovec)),
        ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int), ("padding", ctypes.c_int), ("length", ctypes.c_uint32),
    )  # fmt: skip


def udp(*, blocking: bool = True) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(blocking)
    return sock


def timed() -> socket.socket:
    """A time limit of the kernel's, not of Python's, whose sockets do not block then."""
    sock = udp()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq", int(WAIT_S), 0))
    return sock


def all_are_back() -> None:
    """What was sent to the echo has come back: it answers in order, and this comes last."""
    with timed() as last:
        last.sendto(b"last", PEER)
        last.recv(9)
    time.sleep(0.3)


def address(port: int, host: str = HOST) -> bytes:
    return struct.pack("=HH4s8x", socket.AF_INET, socket.htons(port), socket.inet_aton(host))


def send(sock: socket.socket, data: bytes) -> int:
    """send(2), once whoever showed an error that a read has told is done with that: getsockname(2) comes after it."""
    sock.getsockname()
    return sock.send(data)


def refused_writes(sock: socket.socket) -> list[bool]:
    """Whether calls that cannot be trapped are refused where they have no destination (by another errno)."""
    fd = sock.fileno()
    calls = ((sock.send, b"x"), (os.write, fd, b"x"), (os.write, fd, b""), (os.writev, fd, [b"x", b"y"]))
    return [error(*call) != "ok" for call in calls]


def unbound() -> None:
    with timed() as sock:
        say("name", sock.getsockname(), error(sock.getpeername), mask(sock))
        say("no peer", error(sock.sendmsg, [b"x"]), error(sock.listen), error(sock.accept))
        say("nowhere", refused_writes(sock), mask(sock, 0, ALL))
        say("sendto", sock.sendto(b"hello", PEER), sock.getsockname()[0], sock.getsockname()[1] > 1023)
        say("answer", *sock.recvfrom(100), mask(sock))
        say("again", sock.sendto(b"", PEER), *sock.recvfrom(100))
        say("scattered", sock.sendmsg([b"ab", b"", b"cde"], [], 0, PEER), sock.recvmsg(100, 100))
        buffers = [bytearray(2), bytearray(2)]
        sock.sendto(b"abcde", PEER)
        say("gathered", sock.recvmsg_into(buffers), buffers)
        say("bind late", error(sock.bind, ("", OWN + 20)))
        for number in range(30):
            sock.sendto(b"%d" % number, PEER)
        all_are_back()
        say("nowhere with some unread", refused_writes(sock), sock.recv(9))
        sock.connect(PEER)
        say("connected, they stay", [sock.recv(9) for _ in range(9)])
        sock.connect((HOST, CLOSED))
        unspecified = struct.pack("=H14x", socket.AF_UNSPEC)
        say("and dissolved", raw("connect", sock.fileno(), unspecified, 16), [sock.recv(9) for _ in range(20)])
        say("at the end", refused_writes(sock), mask(sock, 0, ALL))


def connected() -> None:
    with timed() as sock:
        sock.connect(PEER)
        port = sock.getsockname()[1]
        say("names", sock.getpeername() == PEER, sock.getsockname()[0] != "0.0.0.0", port > 1023)
        say("send", sock.send(b"one"), sock.recv(10), sock.sendmsg([b"two"]), sock.recvfrom(10), sock.sendall(b""))
        say("empty", sock.recv(10))
        os.write(sock.fileno(), b"written")
        say("read", os.read(sock.fileno(), 100))
        say("elsewhere", sock.sendto(b"x", (HOST, ECHO)), sock.recvfrom(10)[1] == PEER)
        with udp() as other:
            other.sendto(b"not from the peer", ("127.0.0.1", port))
        say("others", error(sock.recvfrom, 10, socket.MSG_DONTWAIT))
        unspecified = struct.pack("=H14x", socket.AF_UNSPEC)
        say("dissolved", raw("connect", sock.fileno(), unspecified, 16), error(sock.getpeername), sock.getsockname())
        say("and then", error(sock.sendmsg, [b"x"]), sock.sendto(b"x", PEER), sock.recvfrom(10))
        say("nowhere", refused_writes(sock), mask(sock, 0, ALL))
        say("anew", error(sock.connect, PEER), sock.getpeername() == PEER, sock.send(b"x"), sock.recv(10))
        say("write", os.write(sock.fileno(), b"y"), sock.recv(9), os.writev(sock.fileno(), [b"y", b"z"]), sock.recv(9))
        child = os.fork()
        if not child:
            os._exit(raw("connect", sock.fileno(), unspecified, 16) != 0)
        say("dissolved by a child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), refused_writes(sock))


def lengths() -> None:
    with timed() as sock:
        sock.sendto(b"12345", PEER)
        sock.sendto(b"67890", PEER)
        say("peek", sock.recvfrom(3, socket.MSG_PEEK)[0], sock.recvmsg(3, 0, socket.MSG_PEEK)[0::2])
        say("cut", sock.recvfrom(3)[0], sock.recvmsg(3)[0::2])
        sock.sendto(b"12345", PEER)
        buffer = ctypes.create_string_buffer(3)
        where = ctypes.create_string_buffer(16)
        length = ctypes.c_uint32(16)
        got = libc.recvfrom(sock.fileno(), buffer, 3, socket.MSG_TRUNC, where, ctypes.byref(length))
        say("MSG_TRUNC", got, buffer.raw, length.value, where.raw == address(ECHO))
        sock.sendto(b"12345", PEER)
        mask(sock, WAIT_S, select.POLLIN)
        say("MSG_TRUNC of recv", libc.recv(sock.fileno(), buffer, 3, socket.MSG_TRUNC))
        sock.sendto(b"x", PEER)
        length = ctypes.c_uint32(4)
        say("little room", libc.recvfrom(sock.fileno(), buffer, 3, 0, where, ctypes.byref(length)), length.value)
        big = os.urandom(20_000)
        say("big", sock.sendto(big, PEER), sock.recvfrom(70_000)[0] == big)
        say("too big", error(sock.sendto, bytes(65_508), PEER), error(sock.sendmsg, [bytes(65_536)], [], 0, PEER))
        sock.connect(PEER)
        say("too big to send", error(sock.send, bytes(70_000)))


def waiting() -> None:
    with udp(blocking=False) as sock:
        say("nothing", error(sock.recvfrom, 1), error(sock.recvmsg, 1), error(sock.recv, 1), mask(sock))
        epoll = select.epoll()
        epoll.register(sock.fileno(), select.EPOLLIN | select.EPOLLET)
        sock.sendto(b"x", PEER)
        say("edge", len(epoll.poll(WAIT_S)), len(epoll.poll(0)), sock.recvfrom(9)[0], error(sock.recvfrom, 1))
    with udp() as sock:
        say("MSG_DONTWAIT", error(sock.recvfrom, 1, socket.MSG_DONTWAIT))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq", 0, 100_000))
        before = time.monotonic()
        say("timed", error(sock.recvfrom, 1), error(sock.recvmsg, 1), 0.15 < time.monotonic() - before < WAIT_S)
        say("timed recv", error(sock.recv, 1))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bytes(16))
        got: list[bytes] = []
        threads = [threading.Thread(target=lambda: got.append(sock.recvfrom(9)[0])) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        for number in range(3):
            sock.sendto(b"%d" % number, PEER)
        for thread in threads:
            thread.join()
        say("threads", sorted(got))
        reader = threading.Thread(target=lambda: got.append(sock.recv(9)))
        reader.start()
        time.sleep(0.1)
        sock.sendto(b"read", PEER)
        reader.join()
        say("recv in a thread", got[-1])
        child = os.fork()
        if not child:
            os._exit(0 if sock.recvfrom(9)[0] == b"child" else 1)
        time.sleep(0.1)
        sock.sendto(b"child", PEER)
        say("fork", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def interrupted() -> None:
    signal.signal(signal.SIGALRM, lambda *_: None)
    with udp() as sock:
        buffer, where, length = ctypes.create_string_buffer(9), ctypes.create_string_buffer(16), ctypes.c_uint32(16)
        arguments = sock.fileno(), buffer, 9, 0, where, ctypes.byref(length)
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)  # again and again, lest one comes before the call
        say("recvfrom", raw("recvfrom", *arguments))
        signal.siginterrupt(signal.SIGALRM, False)  # SA_RESTART
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        port = sock.sendto(b"x", PEER) and sock.getsockname()[1]
        say("under signals", libc.recvfrom(*arguments), buffer.value)
        late = threading.Timer(0.2, lambda: sock.sendto(b"late", PEER))
        late.start()
        say("restarted", libc.recvfrom(*arguments), buffer.value, sock.getsockname()[1] == port)
        got = set()
        for number in range(30):
            sock.sendto(b"%d" % number, PEER)
            got.add(libc.recvfrom(*arguments) == len(b"%d" % number))
        signal.setitimer(signal.ITIMER_REAL, 0)
        late.join()
        say("many", got, error(sock.recvfrom, 9, socket.MSG_DONTWAIT))


ALL = 0x200F  # POLLIN, POLLPRI, POLLOUT, POLLERR, POLLRDHUP
POLLERR = 8


def refused() -> None:
    with udp() as sock:
        epoll = select.epoll()
        epoll.register(sock.fileno(), select.EPOLLIN | select.EPOLLET)
        sock.connect((HOST, CLOSED))
        say(
            "send",
            sock.send(b"x"),
            mask(sock, WAIT_S, POLLERR),
            mask(sock, 0, ALL),
            [bits for _, bits in epoll.poll(WAIT_S)],
        )
        say("select", [len(rows) for rows in select.select([sock], [], [sock], 0)])
        say("told once", error(sock.recvfrom, 9), error(sock.recvfrom, 9, socket.MSG_DONTWAIT), mask(sock))
        sock.send(b"x")
        say("by sendmsg", mask(sock, WAIT_S, POLLERR), error(sock.sendmsg, [b"x"]), mask(sock, 0, ALL))
        sock.send(b"x")  # the kernel's calls fail, too, and then it is told
        say("by recv", mask(sock, WAIT_S, POLLERR), error(sock.recv, 9) != "ok")
        say("and not by recvfrom", error(sock.recvfrom, 9, socket.MSG_DONTWAIT))
        sock.send(b"x")
        say(
            "by send", mask(sock, WAIT_S, POLLERR), error(sock.send, b"x") != "ok", mask(sock, 0, ALL), send(sock, b"x")
        )
        say("by read", mask(sock, WAIT_S, POLLERR), error(os.read, sock.fileno(), 9) != "ok")
        say("SO_ERROR after it", sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), mask(sock, 0, ALL))
        reader = threading.Thread(target=lambda: say("waiting in recv", error(sock.recv, 9) != "ok"))
        reader.start()
        time.sleep(0.1)
        sock.send(b"x")
        reader.join()
        send(sock, b"x")
        mask(sock, WAIT_S, POLLERR)
        say("SO_ERROR", *[sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for _ in range(2)], mask(sock))
        waiter = threading.Thread(target=lambda: say("waiting", error(sock.recvfrom, 9)))
        waiter.start()
        time.sleep(0.1)
        sock.send(b"x")
        waiter.join()
        sock.connect(PEER)
        say("other peer", sock.send(b"fine"), sock.recvfrom(9))
    with udp() as sock:
        say("unconnected", sock.sendto(b"x", (HOST, CLOSED)))
        time.sleep(0.2)
        say("not told", mask(sock, 0, ALL), error(sock.recvfrom, 9, socket.MSG_DONTWAIT), sock.sendto(b"y", PEER))
        say("others come", sock.recvfrom(9))
        sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR, as glibc's resolver sets it
        say("asked for", sock.sendto(b"x", (HOST, CLOSED)), mask(sock, WAIT_S, POLLERR), error(sock.recvfrom, 9))
        say("in the queue", mask(sock, 0, ALL), error(sock.recvfrom, 9, socket.MSG_DONTWAIT), mask(sock, 0, ALL))
        say("beside it", sock.sendto(b"y", PEER))
        for _ in range(2000):  # POLLERR ends any wait of poll()'s
            if "IN" in mask(sock, 0, ALL):
                break
            time.sleep(0.01)
        say("and comes", mask(sock, 0, ALL), sock.recvfrom(9), mask(sock, 0, ALL))
        say("taken", sock.recvmsg(9, 200, 0x2000)[0], mask(sock, 0, ALL), error(sock.recvmsg, 9, 200, 0x2000))
        for number in (b"1", b"2"):
            say("two", sock.sendto(number, (HOST, CLOSED)))
            mask(sock, WAIT_S, POLLERR)
            say("each told", error(sock.recvfrom, 9))  # waits for it; ERR may be the last one's
        say("in order", [sock.recvmsg(9, 200, 0x2000)[0] for _ in range(2)], mask(sock, 0, ALL))
        say("nowhere", refused_writes(sock), mask(sock, 0, ALL))
    with udp() as sock:
        sock.connect((HOST, CLOSED))
        fd = sock.fileno()
        for number, call in enumerate((
            lambda: os.read(fd, 9), lambda: os.readv(fd, [bytearray(9)]), lambda: sock.recv(9),
            lambda: os.write(fd, b"y"), lambda: os.writev(fd, [b"y"]), lambda: sock.send(b"y"),
        )):  # fmt: skip
            send(sock, b"x")
            say(f"the kernel's {number}", mask(sock, WAIT_S, POLLERR), error(call) != "ok", mask(sock, 0, ALL))
        for number, call in enumerate((
            lambda: sock.recvfrom(9), lambda: sock.recvmsg(9), lambda: sock.recvmsg_into([bytearray(9)]),
            lambda: sock.sendto(b"y", PEER), lambda: sock.sendmsg([b"y"]),
        )):  # fmt: skip
            send(sock, b"x")
            say(f"trapped {number}", mask(sock, WAIT_S, POLLERR), error(call), mask(sock, 0, ALL))


def many() -> None:
    with timed() as sock:
        texts = [b"first", b"second", b"", b"fourth"]
        vectors = [iovec(ctypes.cast(ctypes.c_char_p(text), ctypes.c_void_p), len(text)) for text in texts]
        name = ctypes.create_string_buffer(address(ECHO), 16)
        where = ctypes.cast(name, ctypes.c_void_p)
        headers = (msghdr * 4)(*[msghdr(where, 16, ctypes.pointer(one), 1) for one in vectors])
        say("sendmmsg", libc.sendmmsg(sock.fileno(), headers, 4, 0), [one.length for one in headers])
        all_are_back()
        buffers = [ctypes.create_string_buffer(4) for _ in range(8)]
        names = [ctypes.create_string_buffer(16) for _ in range(8)]
        vectors = [iovec(ctypes.cast(one, ctypes.c_void_p), 4) for one in buffers]
        headers = (msghdr * 8)(
            *[
                msghdr(ctypes.cast(into, ctypes.c_void_p), 16, ctypes.pointer(one), 1)
                for into, one in zip(names, vectors, strict=True)
            ]
        )
        say("recvmmsg", libc.recvmmsg(sock.fileno(), headers, 8, socket.MSG_DONTWAIT, None))
        say("each", [(one.length, one.flags, one.namelen) for one in headers[:4]], [one.raw for one in buffers[:4]])
        say("from", [one.raw == address(ECHO) for one in names[:4]])
        say("none", raw("recvmmsg", sock.fileno(), headers, 8, socket.MSG_DONTWAIT, None))
        late = threading.Timer(0.2, lambda: sock.sendto(b"late", PEER))
        late.start()
        say("MSG_WAITFORONE", libc.recvmmsg(sock.fileno(), headers, 8, 0x10000, None), headers[0].length)
        late.join()


def told() -> None:
    with timed() as sock:
        for option in (IP_PKTINFO, IP_RECVTTL, IP_RECVTOS):
            sock.setsockopt(socket.IPPROTO_IP, option, 1)
        sock.sendto(b"x", PEER)
        data, rows, flags, where = sock.recvmsg(9, 200)
        own = sock.getsockname()[1]
        local = [(level, kind, len(value)) for level, kind, value in rows]
        say("told", data, local, flags, where, own > 1023, [value for _, kind, value in rows if kind != IP_PKTINFO])
        sock.sendto(b"x", PEER)
        say("no room", [row[:2] for row in sock.recvmsg(9, 20)[1]])
        sock.sendto(b"x", PEER)
        say("some room", [row[:2] for row in sock.recvmsg(9, socket.CMSG_SPACE(12))[1]])
        ways = [(socket.IPPROTO_IP, socket.IP_TTL, struct.pack("=i", 9))]
        say("way", sock.sendmsg([b"x"], ways, 0, PEER), error(sock.sendmsg, [b"x"], [(0, 77, b"1234")], 0, PEER))


def parts() -> None:
    """MSG_MORE and UDP_CORK: one datagram of several calls."""
    with timed() as sock:
        more = socket.MSG_MORE
        say("begun", sock.sendto(b"a", more, PEER), sock.sendto(b"bc", more, PEER))
        say("nothing yet", error(sock.recvfrom, 9, socket.MSG_DONTWAIT) if not time.sleep(0.1) else 0)
        say("whole", sock.sendto(b"d", PEER), sock.recvfrom(100))
        say("of the first's", sock.sendto(b"x", more, PEER), sock.sendto(b"y", (HOST, CLOSED)), sock.recvfrom(9))
        sock.connect(PEER)
        say("write", sock.send(b"a", more), os.write(sock.fileno(), b"b"), sock.recv(10))
        say("sendmsg", sock.sendmsg([b"1", b"2"], [], more), sock.send(b"3"), sock.recv(10))
        say("empty", sock.send(b"", more), sock.send(b"x"), sock.recv(10))
        say("too long", sock.send(bytes(60_000), more), error(sock.sendmsg, [bytes(6000)]))
        say("and lost", sock.send(b"fresh"), sock.recv(100))
        cork = socket.IPPROTO_UDP, 1
        say("cork", sock.getsockopt(*cork), error(sock.setsockopt, *cork, b"\1"), sock.setsockopt(*cork, 7))
        say("on", sock.getsockopt(*cork), sock.send(b"one "), os.write(sock.fileno(), b"two "), sock.sendmsg([b"3"]))
        say("held", error(sock.recvfrom, 9, socket.MSG_DONTWAIT) if not time.sleep(0.1) else 0)
        say("let go", sock.setsockopt(*cork, 0), sock.recv(100), sock.getsockopt(*cork))
        say("one each", sock.send(b"a"), sock.send(b"b"), sock.recv(9), sock.recv(9))
    with udp() as sock:
        say("no peer", error(sock.sendmsg, [b"x"], [], more), error(sock.send, b"x", more))
        say("added to", sock.sendto(b"a", more, PEER), os.write(sock.fileno(), b"b"), sock.recvfrom(9))
        say("and then nowhere", refused_writes(sock))
        say("corked", sock.setsockopt(*cork, 1), refused_writes(sock), sock.sendto(b"a", PEER), sock.send(b"b"))
        say("uncorked", sock.setsockopt(*cork, 0), sock.recvfrom(9), refused_writes(sock))
        say("left", sock.sendto(b"never sent", more, PEER))


def options() -> None:
    with udp() as sock:
        for level, option, value in ((1, 2, 1), (1, 6, 1), (1, 15, 1), (0, 1, 16), (0, 2, 33), (0, 33, 5), (0, 34, 0)):
            say(f"before {level} {option}", sock.getsockopt(level, option))
            sock.setsockopt(level, option, value)
            say(f"option {level} {option}", sock.getsockopt(level, option))
        for option in (socket.SO_ERROR, socket.SO_TYPE, socket.SO_ACCEPTCONN, socket.SO_DOMAIN, socket.SO_PROTOCOL):
            say(f"option {option}", sock.getsockopt(socket.SOL_SOCKET, option))
        say("TCP", error(sock.setsockopt, 6, 1, 1), error(sock.getsockopt, 6, 1), error(sock.setsockopt, 0, 999, 1))
        say("time", error(sock.setsockopt, 1, socket.SO_RCVTIMEO, struct.pack("=qq", 1, 0)))
        say("kept", sock.getsockopt(1, socket.SO_RCVTIMEO, 16))


def wrong() -> None:
    with udp() as sock:
        fd = sock.fileno()
        say("port", error(sock.sendto, b"x", (HOST, 0)))
        say("short", raw("sendto", fd, b"x", 1, 0, address(ECHO), 8), raw("connect", fd, address(ECHO), 8))
        say("family", raw("sendto", fd, b"x", 1, 0, b"\x07" + address(ECHO)[1:], 16))
        say("unspecified", raw("sendto", fd, b"x", 1, 0, bytes(2) + address(ECHO)[2:], 16))
        say("length", raw("sendto", fd, b"x", 1, 0, address(ECHO), -1))
        say("pointer", raw("sendto", fd, None, 1, 0, address(ECHO), 16), raw("recvmsg", fd, None, 0))
        say("not ours", error(sock.bind, ("192.0.2.1", 0)), raw("bind", fd, address(0, "0.0.0.0"), 3))
        say("urgent", raw("sendto", fd, b"x", 1, socket.MSG_OOB, address(ECHO), 16))
    for kind, proto in ((socket.SOCK_DGRAM, 250), (socket.SOCK_DGRAM, 6)):
        say(f"kind {kind} {proto}", error(socket.socket, socket.AF_INET, kind, proto))
    with udp() as one, udp() as two:
        one.bind(("0.0.0.0", OWN + 21))
        say("bound", one.getsockname(), error(one.bind, ("0.0.0.0", OWN + 22)))
        say("in use", error(two.bind, ("0.0.0.0", OWN + 21)), error(two.bind, ("127.0.0.1", OWN + 21)))
    with udp() as again:
        say("rebound", error(again.bind, ("0.0.0.0", OWN + 21)))


def shut() -> None:
    with udp() as sock:
        say("no peer", error(sock.shutdown, socket.SHUT_WR))
    with timed() as sock:
        sock.connect(PEER)
        sock.send(b"x")
        say("before", sock.recvfrom(9))
        sock.shutdown(socket.SHUT_WR)
        say("no more", error(sock.sendmsg, [b"x"]), error(sock.send, b"x"), mask(sock, 0, ALL))
        sock.shutdown(socket.SHUT_RD)
        say("nothing comes", sock.recvfrom(9), sock.recv(9), sock.getpeername() == PEER, mask(sock, 0, ALL))
        sock.setblocking(False)
        say("nor is waited for", error(sock.recvfrom, 9), error(sock.recv, 9))
    for call in (lambda sock: os.read(sock.fileno(), 9), lambda sock: sock.recvfrom(9)):
        with udp() as sock:
            sock.connect((HOST, CLOSED))
            sock.send(b"x")
            sock.shutdown(socket.SHUT_WR)
            say("an error after it", mask(sock, WAIT_S, POLLERR), error(call, sock) != "ok", mask(sock, 0, ALL))


def local() -> None:
    """AF_UNIX datagrams are the kernel's, through the same calls."""
    path = f"\0datagrams{os.getpid():08}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one, socket.socket(socket.AF_UNIX, 2) as two:
        one.bind(path)
        two.bind(path + "2")
        say("sendto", two.sendto(b"x", path), one.recvfrom(9)[1] == path.encode() + b"2")
        say("sendmsg", two.sendmsg([b"ab", b"c"], [], 0, path), one.recvmsg(9)[0])
        say("back", one.sendto(b"y", (path + "2").encode()), two.recvfrom(9, socket.MSG_PEEK)[0], two.recvfrom(9)[0])


CASES = (unbound, connected, lengths, waiting, interrupted, refused, many, told, parts, options, wrong, shut, local)

if __name__ == "__main__":
    for case in CASES:
        if len(sys.argv) < 3 or case.__name__ in sys.argv[2:]:
            print(f"-- {case.__name__}", flush=True)
            case()

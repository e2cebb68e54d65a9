"""What socket calls answer, a line each. It runs on the kernel's sockets and, unmodified, on the stack's, and both must
say the same: `python semantics.py HOST` where HOST has the peers of `tests/system/test_run.py`. Standard library only.

"listen PORT" on standard output asks for a client, which sends "ping" and closes after it has read until the end;
"reset" for the end of the one connection to RESET, a moment later.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable

ECHO, RESET, COUNT, HANGING, CLOSED, UNREAD = 7001, 7002, 7003, 7004, 7005, 7006
OWN = 7100  # first of the ports that we listen on
HOST = sys.argv[1] if len(sys.argv) > 1 else ""
SIOCOUTQ, SIOCOUTQNSD = 0x5411, 0x894B
MUCH = 150_000  # bytes: more than a peer that does not read acknowledges, less than what may be written then
LITTLE = 300_000  # bytes: more than a small SO_SNDBUF and the peer's buffer hold, less than the stack's do
ROUNDS = 30  # shutdowns while two threads write
WAIT_S = 60.0  # for what must come
HELD_S = 0.15  # less than the 200 ms, by a clock that ticks, that TCP_CORK and MSG_MORE hold something back
libc = ctypes.CDLL(None, use_errno=True)
BITS = {"IN": 1, "PRI": 2, "OUT": 4, "ERR": 8, "HUP": 16, "RDHUP": 0x2000}


def error(call: Callable[..., object], *args: object) -> str:
    """The name of the errno that a call raises, or ok."""
    try:
        call(*args)
    except TimeoutError as late:
        return errno.errorcode.get(late.errno or 0, "timed out")
    except OSError as failed:
        return errno.errorcode[failed.errno or 0]
    return "ok"


def raw(name: str, *args: object) -> str:
    """Likewise of a C function."""
    return "ok" if getattr(libc, name)(*args) >= 0 else errno.errorcode[ctypes.get_errno()]


def mask(sock: socket.socket, wait: float = 0, bits: int = 0x2005) -> str:
    """What poll() says, after at most `wait` seconds."""
    poll = select.poll()
    poll.register(sock.fileno(), bits)
    found = poll.poll(wait * 1000)
    return "|".join(name for name, bit in BITS.items() if found and found[0][1] & bit) or "nothing"


def say(what: str, *values: object) -> None:
    print(f"{what}: {', '.join(map(str, values))}", flush=True)


def exactly(sock: socket.socket, size: int) -> bytes:
    """So many bytes, in however many pieces they come."""
    data = b""
    while len(data) < size:
        data += sock.recv(size - len(data))
    return data


def held(sock: socket.socket, size: int, write: Callable[[], object]) -> str:
    """What poll() says a tenth of a second after a write of `size` bytes that is held back and would be echoed. A busy
    machine can take longer over it than it is held: then it is written again."""
    while True:
        before = time.monotonic()
        write()
        found = mask(sock, 0.1, select.POLLIN)
        if found == "nothing" or time.monotonic() - before < HELD_S:
            return found
        exactly(sock, size)


def together(sock: socket.socket, whole: bytes, *calls: Callable[[], object]) -> bytes:
    """What recv() answers of an echo of what the calls write, of which the first holds back what it writes: the whole,
    unless all of this took longer than it is held; then it is tried again."""
    while True:
        before = time.monotonic()
        for call in calls:
            call()
        data = sock.recv(100)
        if data == whole or time.monotonic() - before < HELD_S:
            return data
        exactly(sock, len(whole) - len(data))


def tcp(*, blocking: bool = True) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(blocking)
    return sock


def linked(port: int) -> socket.socket:
    sock = tcp()
    sock.connect((HOST, port))
    return sock


def fresh() -> None:
    with tcp() as sock:
        epoll = select.epoll()
        epoll.register(sock.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        say("poll", mask(sock), [number for _, number in epoll.poll(0)])
        say("fails", error(sock.recv, 1) != "ok", raw("send", sock.fileno(), b"x", 1, socket.MSG_NOSIGNAL) != "ok")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq", 3, 0))
        say("names", sock.getsockname(), error(sock.getpeername))
        copy = sock.dup()
        say("connect", error(sock.connect, (HOST, ECHO)), mask(sock), [number for _, number in epoll.poll(WAIT_S)])
        sock.sendall(b"both")
        say("echo", copy.recv(10), mask(copy))
        copy.close()
    for _ in range(3):  # each gives its port back at once, and what never had one is closed, too
        with tcp() as sock, tcp():
            say("bind", error(sock.bind, ("0.0.0.0", OWN + 9)), error(sock.listen))


def connected() -> None:
    with linked(ECHO) as sock:
        say("peer", sock.getpeername() == (HOST, ECHO), sock.getsockname()[1] > 1023)
        sock.sendall(b"x" * 100_000)
        got = 0
        while got < 100_000:
            got += len(sock.recv(100_000))
        say("echo", got, sock.recvfrom(1, socket.MSG_DONTWAIT) if mask(sock) != "OUT" else "empty")
        for option in (socket.SO_ERROR, socket.SO_TYPE, socket.SO_ACCEPTCONN, socket.SO_DOMAIN, socket.SO_PROTOCOL):
            say(f"option {option}", sock.getsockopt(socket.SOL_SOCKET, option))
        say("again", error(sock.connect, (HOST, ECHO)), mask(sock))
        say("no listener", error(sock.listen), error(sock.accept), error(sock.bind, ("", 0)))


def addressed() -> None:
    """Sends that name an address, which TCP ignores."""
    elsewhere = ("192.0.2.1", 9)
    with linked(ECHO) as sock:
        say("sendto", sock.sendto(b"to", elsewhere), sock.sendmsg([b"a", b"", b"bc"], [], 0, elsewhere))
        say("echo", sock.recv(5, socket.MSG_WAITALL), sock.sendto(b"", elsewhere))
        sock.setblocking(False)
        while True:  # until what was under way has come to rest
            full = error(lambda: [sock.sendto(bytes(1 << 20), elsewhere) for _ in range(100)])
            events = mask(sock)
            if full != "EAGAIN" or events == "IN":
                break
        say("full", full, events)
    with linked(COUNT) as sock:  # more than the buffers hold: the call waits
        say("all", sock.sendto(bytes(20_000_000), elsewhere))
        sock.shutdown(socket.SHUT_WR)
        say("shut", error(sock.sendto, b"x", elsewhere), sock.recv(20))
    with tcp() as sock:
        say("unconnected", error(sock.sendto, b"x", elsewhere), error(sock.sendmsg, [b"x"], [], 0, elsewhere))
        say("of ssl", error(sock.recv, 1))  # its question whether there is a connection: one byte
        sock.bind(("0.0.0.0", OWN + 8))
        say("of ssl, bound", error(sock.recv, 1))
        sock.listen()
        say("listener", error(sock.sendto, b"x", elsewhere), error(sock.recv, 1))
    with tcp() as sock:
        signal.signal(signal.SIGPIPE, lambda *_: say("a signal"))
        say("signal", error(sock.sendto, b"x", elsewhere), error(sock.sendto, b"x", socket.MSG_NOSIGNAL, elsewhere))
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def refused() -> None:
    sock = tcp()
    say("refused", error(sock.connect, (HOST, CLOSED)), sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    say("and then", error(sock.connect, (HOST, CLOSED)), error(sock.connect, (HOST, ECHO)), mask(sock))
    sock.close()
    sock = tcp(blocking=False)
    epoll = select.epoll()
    epoll.register(sock.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
    epoll.poll(0)
    say("nonblocking", error(sock.connect, (HOST, CLOSED)), mask(sock, WAIT_S))
    say("edge", [number for _, number in epoll.poll(WAIT_S)])
    say("told", *[sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for _ in range(2)], mask(sock), sock.recv(1))
    say("aborted", error(sock.connect, (HOST, ECHO)))
    say(
        "anew",
        error(sock.connect, (HOST, ECHO)),
        mask(sock, WAIT_S, select.POLLOUT),
        sock.getpeername() == (HOST, ECHO),
    )
    say("anew edge", [number for _, number in epoll.poll(WAIT_S)])
    sock.sendall(b"anew")
    say("anew says", mask(sock, WAIT_S, select.POLLIN), [number & 1 for _, number in epoll.poll(WAIT_S)], sock.recv(10))
    epoll.modify(sock.fileno(), select.EPOLLOUT)
    say("anew modified", [number for _, number in epoll.poll(WAIT_S)], error(epoll.unregister, sock.fileno()))
    sock.close()
    with tcp(blocking=False) as sock, tcp() as client:
        say("listens", error(sock.connect, (HOST, CLOSED)), mask(sock, WAIT_S) != "nothing", error(sock.listen))
        say("told", sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), error(sock.connect, (HOST, CLOSED)))
        say("listens then", error(sock.listen), mask(sock), error(client.connect, ("127.0.0.1", sock.getsockname()[1])))
        say("accepts", "IN" in mask(sock, WAIT_S), error(sock.accept))
    sock = tcp(blocking=False)
    word, event = 0x0123_4567_89AB_CDEF, struct.Struct("=IQ" if os.uname().machine == "x86_64" else "=I4xQ")
    say("watch", raw("epoll_ctl", epoll.fileno(), 1, sock.fileno(), event.pack(select.EPOLLIN, word)))
    copy = sock.dup()
    say(
        "refused once more",
        error(sock.connect, (HOST, CLOSED)),
        mask(sock, WAIT_S),
        error(sock.connect, (HOST, CLOSED)),
    )
    found = ctypes.create_string_buffer(event.size)
    waiter = threading.Thread(target=lambda: say("other thread", libc.epoll_wait(epoll.fileno(), found, 1, 60_000)))
    say("and connected", error(sock.connect, (HOST, ECHO)), mask(sock, WAIT_S, select.POLLOUT))
    libc.epoll_ctl(epoll.fileno(), 3, sock.fileno(), event.pack(select.EPOLLIN | select.EPOLLET, word))
    waiter.start()
    time.sleep(0.1)
    sock.sendall(b"word")
    waiter.join()
    say("its word", [hex(value) for value in event.unpack(found.raw)], sock.recv(10))
    copy.close()
    sock.close()
    sock = tcp(blocking=False)
    say("told by connect", error(sock.connect, (HOST, CLOSED)), mask(sock, WAIT_S), error(sock.connect, (HOST, CLOSED)))
    sock.close()


def nonblocking() -> None:
    sock = tcp(blocking=False)
    epoll = select.epoll()
    epoll.register(sock.fileno(), select.EPOLLOUT | select.EPOLLET)
    epoll.poll(0)
    say("begun", error(sock.connect, (HOST, ECHO)), mask(sock, WAIT_S), len(epoll.poll(WAIT_S)))
    say("outcome", sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    say("connect", error(sock.connect, (HOST, ECHO)), error(sock.connect, (HOST, ECHO)))
    say("recv", error(sock.recv, 1))
    with tcp(blocking=False) as hanging:
        say("hanging", error(hanging.connect, (HOST, HANGING)), mask(hanging, 0.3), error(hanging.send, b"x"))
        say("still", error(hanging.connect, (HOST, HANGING)), error(hanging.getpeername))
    with tcp() as late:
        late.settimeout(0.2)
        say("late", error(late.connect, (HOST, HANGING)), mask(late))
    sock.close()


def unspecified() -> None:
    """connect() with AF_UNSPEC: the socket has no peer any more, and does not listen."""

    def dissolve(sock: socket.socket, size: int = 16) -> str:
        return raw("connect", sock.fileno(), bytes(16), size)

    def told(sock: socket.socket) -> tuple[object, ...]:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), error(sock.getpeername), mask(sock)

    with tcp() as sock:
        say("fresh", dissolve(sock, 1), dissolve(sock, 2), dissolve(sock), *told(sock))
        say("fresh connects", error(sock.connect, (HOST, ECHO)), sock.send(b"one"), sock.recv(10))
    with linked(ECHO) as sock:
        epoll = select.epoll()
        epoll.register(sock.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq", 0, 100_000))
        sock.sendall(b"unread")
        mask(sock, WAIT_S, select.POLLIN)
        epoll.poll(0)
        say("connected", dissolve(sock), *told(sock), sock.getsockname()[0], error(sock.accept))
        say("fails", error(sock.recv, 9) != "ok", error(sock.send, b"x") != "ok", dissolve(sock), bool(epoll.poll(0)))
        say("connects", error(sock.connect, (HOST, ECHO)), sock.getpeername() == (HOST, ECHO), mask(sock))
        say("stream", sock.send(b"two"), mask(sock, WAIT_S, select.POLLIN), sock.recv(10), bool(epoll.poll(WAIT_S)))
        say("time", raw("recv", sock.fileno(), ctypes.create_string_buffer(9), 9, 0), sock.getblocking())
        say("listens", dissolve(sock), error(sock.listen), mask(sock), sock.getsockopt(1, socket.SO_ACCEPTCONN))
    with tcp() as sock, tcp() as client:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("0.0.0.0", OWN + 7))
        say("bound", dissolve(sock), sock.getsockname(), error(sock.bind, ("", 0)), error(sock.connect, (HOST, ECHO)))
        say("bound connected", dissolve(sock), *told(sock)[:2], sock.getsockname()[1], error(sock.listen), mask(sock))
        say("a client", error(client.connect, ("127.0.0.1", OWN + 7)), mask(sock, WAIT_S))
        found: list[str] = []
        waiting = threading.Thread(target=lambda: found.extend((error(sock.accept), error(sock.accept))))
        waiting.start()
        time.sleep(0.2)
        say("listener", dissolve(sock))
        waiting.join()
        say("accepts", *found)
        say("ended", sock.getsockname(), *told(sock)[:2], error(sock.accept), sock.getsockopt(1, socket.SO_ACCEPTCONN))
        say("nobody", error(tcp().connect, ("127.0.0.1", OWN + 7)))
        say("again", error(sock.listen), error(tcp().connect, ("127.0.0.1", OWN + 7)), error(sock.accept))
    with tcp() as sock:
        say("any port", error(sock.listen), dissolve(sock), *told(sock), error(sock.bind, ("0.0.0.0", OWN + 6)))
    with tcp(blocking=False) as sock:
        say("connecting", error(sock.connect, (HOST, HANGING)), dissolve(sock), *told(sock))
        say("and then", error(sock.connect, (HOST, ECHO)), mask(sock, WAIT_S, 4), error(sock.connect, (HOST, ECHO)))
    with tcp(blocking=False) as sock:
        say("refused", error(sock.connect, (HOST, CLOSED)), mask(sock, WAIT_S), dissolve(sock), told(sock)[:2])
        say("and then", error(sock.connect, (HOST, ECHO)), mask(sock, WAIT_S, 4), error(sock.connect, (HOST, ECHO)))
    with linked(RESET) as sock:
        sock.sendall(b"go")
        until_reset(sock)
        say("reset", dissolve(sock), *told(sock)[:2], error(sock.connect, (HOST, ECHO)), sock.send(b"x"), sock.recv(9))


def interrupted() -> None:
    signal.signal(signal.SIGALRM, lambda *_: None)
    address = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(HANGING), socket.inet_aton(HOST))
    then = "EINPROGRESS"
    while then == "EINPROGRESS":  # where a call is trapped it may be interrupted before it has begun (docs/run.md)
        with tcp() as sock:
            signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)  # again and again, lest one comes before the call
            called = raw("connect", sock.fileno(), address, 16)
            signal.setitimer(signal.ITIMER_REAL, 0)
            found = mask(sock)
            sock.setblocking(False)
            then = raw("connect", sock.fileno(), address, 16)
    say("connect", called, found)
    say("then", then)
    with tcp() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", OWN))
        listener.listen()
        signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
        called = raw("accept", listener.fileno(), None, None)
        signal.setitimer(signal.ITIMER_REAL, 0)
        say("accept", called)
        signal.siginterrupt(signal.SIGALRM, False)  # SA_RESTART
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        print(f"listen {OWN}", flush=True)
        fd = libc.accept(listener.fileno(), None, None)
        signal.setitimer(signal.ITIMER_REAL, 0)
        with socket.socket(fileno=fd) as sock:
            say("restarted", fd >= 0, sock.recv(10))
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        outcomes = set()
        for _ in range(30):
            with tcp() as sock:
                outcomes.add(raw("connect", sock.fileno(), address[:2] + struct.pack("!H", ECHO) + address[4:], 16))
        signal.setitimer(signal.ITIMER_REAL, 0)
        say("connects under signals", outcomes)
        signal.siginterrupt(signal.SIGALRM, True)


def listening() -> None:
    listener = tcp()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    say("unbound", error(listener.accept))
    listener.bind(("0.0.0.0", OWN + 1))
    say("bound", listener.getsockname(), error(listener.bind, ("0.0.0.0", OWN + 2)))
    listener.listen(5)
    with tcp() as second:
        say("in use", error(second.bind, ("0.0.0.0", OWN + 1)), error(second.bind, ("192.0.2.1", 0)))
    listener.setblocking(False)
    say("nobody", error(listener.accept), mask(listener), error(listener.getpeername))
    print(f"listen {OWN + 1}", flush=True)
    say("somebody", mask(listener, WAIT_S))
    length = ctypes.c_uint32(16)
    where = ctypes.create_string_buffer(16)
    fd = libc.accept4(listener.fileno(), where, ctypes.byref(length), socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    flags = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK, fcntl.fcntl(fd, fcntl.F_GETFD)
    say("accept4", length.value, struct.unpack_from("=H", where)[0], flags, mask(listener))
    with socket.socket(fileno=fd) as sock:
        mine = sock.getsockname()[1], sock.getpeername()[1] == socket.ntohs(struct.unpack_from("=H", where, 2)[0])
        say("ping", mine, mask(sock, WAIT_S, select.POLLIN), sock.recv(10))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq", 0, 200_000))
    print(f"listen {OWN + 1}", flush=True)
    mask(listener, WAIT_S)
    fd = libc.accept(listener.fileno(), None, None)
    say("accept", fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK, fcntl.fcntl(fd, fcntl.F_GETFD))
    ping = ctypes.create_string_buffer(9)
    say("a listener's time", libc.recv(fd, ping, 9, 0), raw("recv", fd, ping, 9, 0))
    os.close(fd)
    say("flags", raw("accept4", listener.fileno(), None, None, 4))
    listener.setblocking(True)
    before = time.monotonic()
    say("timed", raw("accept", listener.fileno(), None, None), 0.1 < time.monotonic() - before < WAIT_S)
    waiting = threading.Thread(target=lambda: say("shut", raw("accept", listener.fileno(), None, None)))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq", 0, 0))
    waiting.start()
    time.sleep(0.2)
    listener.shutdown(socket.SHUT_RDWR)
    waiting.join()
    time.sleep(0.1)
    say("a listener's still", listener.getsockname()[1] == OWN + 1, error(listener.accept))
    listener.close()
    with tcp() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        say("rebound", error(again.bind, ("0.0.0.0", OWN + 1)), error(again.listen))


def options() -> None:
    with linked(ECHO) as sock:
        for level, option, value in (
            (1, 9, 1), (1, 2, 1), (1, 10, 1), (6, 1, 1), (6, 3, 1), (6, 4, 77), (6, 5, 7), (6, 6, 5), (6, 12, 1),
            (6, 18, 9000), (0, 1, 16), (0, 2, 33),
        ):  # fmt: skip
            sock.setsockopt(level, option, value)
            say(f"option {level} {option}", sock.getsockopt(level, option))
        sock.setsockopt(6, 13, b"reno")
        say("congestion", sock.getsockopt(6, 13, 16).rstrip(b"\0"))
        sock.setsockopt(1, socket.SO_LINGER, struct.pack("=ii", 1, 3))
        say("linger", struct.unpack("=ii", sock.getsockopt(1, socket.SO_LINGER, 8)))
        info = sock.getsockopt(6, socket.TCP_INFO, 104)
        say("info", len(info), info[0], len(sock.getsockopt(6, socket.TCP_INFO, 8)))
        say("short", sock.getsockopt(6, 4, 2), error(sock.setsockopt, 6, 4, b"\1"), error(sock.setsockopt, 6, 999, 1))
        say("level", error(sock.getsockopt, 6, 999))
        sock.setsockopt(1, socket.SO_RCVTIMEO, struct.pack("=qq", 0, 100_000))
        say("time", raw("recv", sock.fileno(), ctypes.create_string_buffer(9), 9, 0))
        say("kept", sock.getsockopt(1, socket.SO_RCVTIMEO, 16))


def devices() -> None:
    """SO_BINDTODEVICE: of the interfaces that the program sees, the one that is no loopback."""
    device = next(name for _, name in socket.if_nameindex() if name.startswith("lvl")).encode()
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as sock:
            option = socket.SOL_SOCKET, socket.SO_BINDTODEVICE
            say("none", sock.getsockopt(*option, 16), error(sock.setsockopt, *option, b"nowhere0"))
            say("ours", error(sock.setsockopt, *option, device), sock.getsockopt(*option, 99) == device + b"\0")
            say("room", error(sock.getsockopt, *option, 15), error(sock.setsockopt, *option, device + b"\0"))
            say("back", error(sock.setsockopt, *option, b""), sock.getsockopt(*option, 16))


def wrong() -> None:
    with tcp() as sock:
        address = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(ECHO), socket.inet_aton(HOST))
        fd = sock.fileno()
        say("short", raw("connect", fd, address, 8), raw("bind", fd, address, 3), raw("connect", fd, address, -1))
        say("family", raw("connect", fd, b"\x07" + address[1:], 16), raw("bind", fd, b"\x07" + address[1:], 16))
        nowhere = raw("connect", fd, None, 16), raw("getsockname", fd, None, None), raw("setsockopt", fd, 1, 2, None, 4)
        say("pointer", *nowhere)
        say("unconnected", error(sock.getpeername), error(sock.shutdown, socket.SHUT_WR))
        say("no descriptor", raw("connect", 999, address, 16), raw("listen", 0, 5))
        length = ctypes.c_uint32(4)
        say("room", raw("getsockname", fd, ctypes.create_string_buffer(16), ctypes.byref(length)), length.value)
    for kind, proto in ((77, 0), (socket.SOCK_SEQPACKET, 0), (socket.SOCK_STREAM, 250)):
        say(f"kind {kind} {proto}", error(socket.socket, socket.AF_INET, kind, proto))


def until_reset(sock: socket.socket) -> None:
    """Ask for the reset once the bytes before it have come, and wait until it is there, which need not be asked for."""
    mask(sock, WAIT_S, select.POLLIN)
    print("reset", flush=True)
    mask(sock, WAIT_S, 0)


def endings() -> None:
    with linked(COUNT) as sock:
        sock.sendall(b"12345")
        sock.shutdown(socket.SHUT_WR)
        say("half", error(sock.send, b"x"), sock.recv(10), sock.recv(10), mask(sock))
        say("over", error(sock.shutdown, socket.SHUT_RDWR))
    with linked(RESET) as sock:
        sock.sendall(b"go")
        until_reset(sock)
        say("reset", mask(sock), sock.recv(5), error(sock.recv, 5), error(sock.recv, 5), error(sock.send, b"x"))
    with linked(RESET) as sock:
        sock.sendall(b"go")
        until_reset(sock)
        say("reset told", sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), sock.recv(5), error(sock.send, b"x"))
    with linked(UNREAD) as sock:  # its peer says on standard error of the test what it got
        mask(sock, WAIT_S, select.POLLIN)
    with linked(ECHO) as sock:
        child = os.fork()
        if not child:
            sock.sendall(b"child")
            os._exit(0 if sock.getpeername() == (HOST, ECHO) else 1)
        say("fork", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sock.recv(10))
        copy = sock.dup()
        sock.close()
        source = f"import socket; s = socket.socket(fileno={copy.fileno()}); s.send(b'exec'); print(s.getpeername()[1])"
        done = subprocess.run(
            [sys.executable, "-c", source], pass_fds=[copy.fileno()], capture_output=True, text=True, check=False
        )
        say("exec", done.stdout.strip(), done.stderr, copy.recv(10))
        ours, theirs = socket.socketpair()
        socket.send_fds(ours, [b"x"], [copy.fileno()])
        received = socket.recv_fds(theirs, 1, 1)[1][0]
        copy.close()
        with socket.socket(fileno=received) as passed:
            say("passed", passed.getpeername() == (HOST, ECHO))


def settled(holds: Callable[[], object]) -> None:
    """Until it holds, and goes on to: nobody reads at the other side."""
    looks, deadline = 0, time.monotonic() + WAIT_S
    while looks < 10 and time.monotonic() < deadline:
        looks = looks + 1 if holds() else 0
        time.sleep(0.02)


def resets() -> None:
    """What a reset meets: a write that waits, SO_ERROR once a read has told it, the peer's end."""
    with linked(RESET) as sock:
        sock.sendall(b"go")
        exactly(sock, 5)

        def write() -> None:
            while True:
                sock.send(bytes(30_000))

        said: list[str] = []
        writer = threading.Thread(target=lambda: said.append(error(write)))
        writer.start()
        settled(lambda: mask(sock) == "nothing")
        print("reset", flush=True)
        writer.join()
        say("writer", *said, error(sock.recv, 1), error(sock.send, b"x"))
    with linked(RESET) as sock:
        sock.sendall(b"go")
        until_reset(sock)
        data, read = sock.recv(5), error(sock.recv, 1)
        say("told", data, read, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), error(sock.recv, 1), mask(sock))
    for before in (b"", b"whole"):
        with tcp() as listener, tcp() as sock:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            sock.connect(listener.getsockname())
            with listener.accept()[0] as other:
                other.sendall(before)
                other.shutdown(socket.SHUT_WR)
                mask(sock, WAIT_S, 0x2000)
                other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
            mask(sock, WAIT_S, 0)
            say("behind the end", exactly(sock, len(before)), error(sock.recv, 1), error(sock.send, b"x"), sock.recv(1))


def left(sock: socket.socket, request: int = SIOCOUTQ) -> int:
    """What has not been acknowledged, or with SIOCOUTQNSD not been sent."""
    value = array.array("i", [0])
    fcntl.ioctl(sock, request, value)
    return value[0]


def outq(sock: socket.socket) -> int:
    """What has not been acknowledged, once it is nothing."""
    deadline = time.monotonic() + WAIT_S
    while (much := left(sock)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return much


def unacknowledged() -> None:
    """SIOCOUTQ and SIOCOUTQNSD."""
    with tcp() as sock, tcp(blocking=False) as hanging:
        say("fresh", left(sock), left(sock, SIOCOUTQNSD))
        sock.listen()
        say("listener", error(left, sock), error(left, sock, SIOCOUTQNSD))
        say("connecting", error(hanging.connect, (HOST, HANGING)), left(hanging), left(hanging, SIOCOUTQNSD))
    with tcp() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sock.connect((HOST, RESET))
        say("nothing yet", left(sock), sock.send(b"go"), outq(sock), left(sock, SIOCOUTQNSD))
        sock.sendall(bytes(MUCH))
        before = [0]

        def stands() -> bool:
            """As much as the last time, and what the peer has room for has been acknowledged."""
            old, before[0] = before[0], left(sock)
            return before[0] == old < MUCH

        settled(stands)
        say("not read", 0 < left(sock, SIOCOUTQNSD) <= left(sock) < MUCH)
        sock.shutdown(socket.SHUT_WR)
        say("shut", 0 < left(sock, SIOCOUTQNSD) <= left(sock) < MUCH)
        until_reset(sock)
        say("reset", "ERR" in mask(sock))
    with linked(COUNT) as sock:
        sock.sendall(bytes(MUCH))
        say("read", outq(sock), left(sock, SIOCOUTQNSD))
        sock.shutdown(socket.SHUT_WR)
        say("and shut", exactly(sock, 6), outq(sock), left(sock, SIOCOUTQNSD), sock.recv(9), outq(sock))
    one, two = socket.socketpair()
    with one, two:
        say("not ours", left(one), error(left, one, SIOCOUTQNSD), error(fcntl.ioctl, 0, SIOCOUTQNSD) != "ok")


def fill(sock: socket.socket) -> int:
    """Write until the socket is full; how many bytes it took."""
    sock.setblocking(False)
    taken = 0
    try:
        while True:
            taken += sock.send(b"f" * 100_000)
    except BlockingIOError:
        sock.setblocking(True)
    return taken


def halfclosed() -> None:
    """What comes after our own end: data, an end, a reset."""
    with linked(RESET) as sock:
        sock.sendall(b"go")
        sock.shutdown(socket.SHUT_WR)
        until_reset(sock)
        say("reset", mask(sock), sock.recv(5), error(sock.recv, 5), sock.recv(5), mask(sock), error(sock.send, b"x"))
    with linked(RESET) as sock:
        sock.sendall(b"go")
        sock.shutdown(socket.SHUT_WR)
        until_reset(sock)
        say(
            "told",
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR),
            sock.recv(5),
            sock.recv(5),
            error(sock.send, b"x"),
        )
    with linked(RESET) as sock:  # by another process, on a duplicate, with bytes that are never read
        taken = fill(sock) > 100_000
        if not (child := os.fork()):
            sock.dup().shutdown(socket.SHUT_WR)
            os._exit(0)
        os.waitpid(child, 0)
        until_reset(sock)
        say("full", taken, mask(sock), sock.recv(5), error(sock.recv, 5), sock.recv(5))
    with linked(RESET) as sock:
        sock.sendall(b"g")
        sock.shutdown(socket.SHUT_WR)
        data = sock.recv(5)
        print("reset", flush=True)
        say("waits", data, error(sock.recv, 5))
    with linked(COUNT) as sock:
        sock.sendall(b"12345")
        sock.shutdown(socket.SHUT_WR)
        say(
            "end",
            sock.recv(10),
            outq(sock),
            sock.recv(10),
            mask(sock),
            error(sock.shutdown, socket.SHUT_WR),
            mask(sock),
        )
        say("no error", sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), sock.recv(10))
    with linked(COUNT) as sock:
        taken = fill(sock)
        sock.shutdown(socket.SHUT_WR)
        say("whole", sock.recv(20) == b"%d" % taken, sock.recv(10), outq(sock))
    for _ in range(ROUNDS):
        with linked(COUNT) as sock:
            takes = [0, 0]

            def write(which: int, sock: socket.socket = sock, takes: list[int] = takes) -> None:
                size = random.randrange(1, 20_000)
                try:
                    while True:
                        takes[which] += sock.send(bytes(size), socket.MSG_NOSIGNAL)
                except BrokenPipeError:
                    pass

            threads = [threading.Thread(target=write, args=(which,)) for which in (0, 1)]
            for thread in threads:
                thread.start()
            time.sleep(random.random() / 200)
            sock.shutdown(socket.SHUT_WR)
            for thread in threads:
                thread.join()
            counted = sock.recv(20)
            if counted != b"%d" % sum(takes):
                say("writers", counted, takes)
    say("rounds", ROUNDS)


def buffers() -> None:
    """SO_SNDBUF bounds what is taken from a program whose peer does not read."""
    little = socket.SOL_SOCKET, socket.SO_SNDBUF, 8192
    for early in (True, False):
        with tcp() as sock:
            if early:
                sock.setsockopt(*little)
            sock.connect((HOST, RESET))
            sock.setsockopt(*little)
            sock.sendall(b"go")
            say("early" if early else "late", fill(sock) < LITTLE)
            until_reset(sock)
    with tcp() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(*little)
        listener.bind(("0.0.0.0", OWN + 5))
        listener.listen()
        print(f"listen {OWN + 5}", flush=True)
        with listener.accept()[0] as sock:
            say("a listener's", fill(sock) < LITTLE, sock.recv(4))


def corked() -> None:
    """TCP_CORK: what fills no segment stays for 200 ms, unless it is taken out; flags show once they are set."""
    tcp_level = socket.IPPROTO_TCP
    with linked(ECHO) as sock:
        for option in (socket.TCP_NODELAY, socket.TCP_CORK):
            sock.setsockopt(tcp_level, option, 7)
            say("flag", sock.getsockopt(tcp_level, option), error(sock.setsockopt, tcp_level, option, b"\1"))
        sock.setsockopt(tcp_level, socket.TCP_NODELAY, 0)
        say("held back", held(sock, 4, lambda: sock.sendall(b"held")))
        sock.setsockopt(tcp_level, socket.TCP_CORK, 0)
        say("let go", mask(sock, WAIT_S, select.POLLIN), sock.recv(10), sock.getsockopt(tcp_level, socket.TCP_CORK))
        for number in range(20):  # as a server writes its answers
            whole = b"head %02d body" % number
            found = together(
                sock, whole, lambda: sock.setsockopt(tcp_level, socket.TCP_CORK, 1),
                lambda whole=whole: sock.sendall(whole[:8]), lambda: sock.sendall(b"body"),
                lambda: sock.setsockopt(tcp_level, socket.TCP_CORK, 0),
            )  # fmt: skip
            if found != whole:
                say("in one piece", number, found)
        sock.setsockopt(tcp_level, socket.TCP_CORK, 1)
        sock.sendall(b"x" * 100_000)
        got = 0
        while got < 98_000:  # full segments go
            got += len(sock.recv(100_000))
        while got < 100_000:
            got += len(sock.recv(100_000))
        sock.setsockopt(tcp_level, socket.TCP_NODELAY, 1)
        before = time.monotonic()
        sock.sendall(b"late")
        say("at last", sock.recv(10), 0.1 < time.monotonic() - before < WAIT_S)
        sock.sendall(b"end")
        sock.shutdown(socket.SHUT_WR)
        say("with the end", mask(sock, WAIT_S, select.POLLIN) != "nothing", sock.recv(10), sock.recv(10))
    with tcp() as sock:
        for option in (socket.TCP_CORK, socket.TCP_NODELAY):
            sock.setsockopt(tcp_level, option, 1)
        sock.connect((HOST, ECHO))
        sock.setsockopt(tcp_level, socket.TCP_CORK, 1)
        sock.setsockopt(tcp_level, socket.TCP_CORK, 0)
        sock.sendall(b"x")
        say("before there was a peer", sock.getsockopt(tcp_level, socket.TCP_CORK), mask(sock, WAIT_S, select.POLLIN))


def more() -> None:
    """MSG_MORE: what fills no segment stays for 200 ms, unless something is written without it."""
    with linked(ECHO) as sock:
        say("written", held(sock, 5, lambda: sock.send(b"head ", socket.MSG_MORE)))
        say("let go", sock.send(b"body"), exactly(sock, 9))
        say("no cork", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK), sock.sendall(b"x"), sock.recv(10))
        for number in range(20):
            whole = b"head %02d and more body" % number
            found = together(
                sock, whole, lambda whole=whole: sock.send(whole[:8], socket.MSG_MORE),
                lambda: sock.sendmsg([b"and", b" more "], [], socket.MSG_MORE),
                lambda: os.write(sock.fileno(), b"body"),
            )  # fmt: skip
            if found != whole:
                say("in one piece", number, found)
        before = time.monotonic()
        sock.send(b"late", socket.MSG_MORE)
        say("at last", sock.recv(10), 0.1 < time.monotonic() - before < WAIT_S)
        sock.sendall(b"x" * 100_000, socket.MSG_MORE)
        got = 0
        while got < 90_000:
            got += len(sock.recv(100_000))
        sock.sendall(b"end")
        while got < 100_003:
            got += len(sock.recv(100_000))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        still = held(sock, 7, lambda: sock.send(b"one ", socket.MSG_MORE) + sock.send(b"two"))
        say("corked besides", still, sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        say("and let go", exactly(sock, 7))
        sock.send(b"last", socket.MSG_MORE)
        sock.shutdown(socket.SHUT_WR)
        say("with the end", mask(sock, WAIT_S, select.POLLIN) != "nothing", sock.recv(10), sock.recv(10))
        say("shut", error(sock.send, b"x", socket.MSG_MORE))
    with tcp() as sock:
        say("unconnected", error(sock.send, b"x", socket.MSG_MORE))
    with tcp(blocking=False) as sock:
        say("connecting", error(sock.connect, (HOST, HANGING)), error(sock.send, b"x", socket.MSG_MORE))
    with linked(ECHO) as sock:  # a record's end is of no meaning to a stream
        say("MSG_EOR", sock.send(b"one", socket.MSG_EOR), sock.sendmsg([b"two"], [], socket.MSG_EOR))
        data, rows, flags, _ = sock.recvmsg(6, 100, socket.MSG_WAITALL)
        say("and back", data, rows, flags)


def local() -> None:
    path = f"\0semantics{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        client.connect(path)
        sock, _ = server.accept()
        sock.sendall(b"unix")
        say("unix", client.recv(10), client.getpeername() == path.encode(), client.getsockopt(1, socket.SO_TYPE))
        credentials = struct.unpack("=iii", client.getsockopt(1, socket.SO_PEERCRED, 12))
        say("credentials", credentials[0] == os.getpid())
        sock.close()
    one, two = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    with one, two:
        one.bind(path)
        two.sendto(b"datagram", path)
        say("unix datagram", one.recv(100))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.bind((0, 0))
        say("netlink", netlink.getsockname()[0] > 0)
    pair = socket.socketpair()
    rights = array.array("i", [0])
    pair[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    say("rights", len(pair[1].recvmsg(1, 100)[1]))


def threads() -> None:
    failures: list[str] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                with linked(ECHO) as sock:
                    word = b"%d.%d" % (number, turn)
                    sock.sendall(word)
                    if sock.recv(20) != word:
                        failures.append(f"{word!r}")
        except OSError as failed:
            failures.append(str(failed))

    running = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    say("threads", failures)


CASES = (
    fresh, connected, addressed, refused, nonblocking, unspecified, interrupted, listening, options, devices, wrong,
    endings, resets, halfclosed, unacknowledged, buffers, corked, more, local, threads,
)  # fmt: skip

if __name__ == "__main__":
    for case in CASES:
        if len(sys.argv) < 3 or case.__name__ in sys.argv[2:]:
            print(f"-- {case.__name__}", flush=True)
            case()

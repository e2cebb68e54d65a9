"""What urgent data does to a stream, a line each: between two sockets that `Maker.pair` makes. By default both are
those of the running Python, on 127.0.0.1: the kernel's, or the stack's under `python -m levelip` and `lvlip run`.
"sends HOST": the sender is one of levelip.client, the receiver the kernel's at HOST; "receives HOST": the reverse.
"""

from __future__ import annotations

import array
import errno
import fcntl
import hashlib
import os
import select
import signal
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 60.0
NEVER_S = 20.0  # for what one way to run this does not show
SETTLE_S = 0.2  # in which nothing more happens, or what follows the urgent byte comes as well, as a rule
SIOCATMARK = 0x8905  # linux/sockios.h
SIOCSPGRP = 0x8902
OOB = socket.MSG_OOB
BULK = 100_000  # bytes before each urgent one
SMALL = 8192  # SO_RCVBUF of a receiver that does not read
BACKLOG = 60_000  # bytes that it has no room for; the urgent pointer reaches beyond them


class Maker:
    """Makes connections: which module sends, which receives, and at what address."""

    def __init__(self, mode: str = "", host: str = "127.0.0.1") -> None:
        sender = receiver = socket
        if mode:
            from levelip.client import socket as ours

            sender, receiver = (ours, socket) if mode == "sends" else (socket, ours)  # type: ignore[assignment]
        self.sender: Any = sender
        self.receiver: Any = receiver
        self.host = host

    def listener(self) -> Any:
        return self.receiver.create_server((self.host, 0))

    def pair(self, **options: int) -> tuple[Any, Any]:
        """Sender and receiver. The receiver does not wait, and inherits options of SOL_SOCKET from its listener."""
        with self.listener() as listener:
            for name, value in options.items():
                listener.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
            one = self.sender.create_connection(listener.getsockname(), PATIENCE_S)
            other, _ = listener.accept()
        other.setblocking(False)
        return one, other


def answer(call: Callable[..., object], *args: object) -> object:
    """What a call returns, or the errno that it raises."""
    try:
        return call(*args)
    except OSError as failed:
        return errno.errorcode.get(failed.errno or 0, repr(failed))


def until(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> object:
    """What a condition becomes, after a while."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def asked(sock: Any, request: int) -> int:
    value = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), request, value)
    return value[0]


def at_mark(sock: Any) -> bool:
    return bool(asked(sock, SIOCATMARK))


def bits(sock: Any, wanted: int) -> int:
    poll = select.poll()
    poll.register(sock.fileno(), wanted)
    return dict(poll.poll(0)).get(sock.fileno(), 0)


def urgent(sock: Any) -> bool:
    """Whether poll says that there is an urgent byte."""
    return bool(bits(sock, select.POLLPRI))


def come(sock: Any) -> bool:
    """Wait until an urgent byte is there, and as a rule what was sent after it, which `behind` waits for."""
    found = until(lambda: urgent(sock))
    time.sleep(SETTLE_S)
    return bool(found)


def behind(sock: Any, *arguments: int) -> object:
    """What recv() answers once what lies behind the mark has come: bytes, or the stream's end."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := answer(sock.recv, *arguments)) == "EAGAIN" and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def say(what: str, *values: object) -> None:
    print(f"{what}: {', '.join(map(str, values))}", flush=True)


def out_of_line(maker: Maker) -> None:
    one, two = maker.pair()
    say("before", urgent(two), at_mark(two), answer(two.recv, 1, OOB))
    say("sent", one.send(b"abc", OOB), one.send(b"def"), come(two))
    say("select", select.select([], [], [two], 0)[2] == [two], bits(two, select.POLLIN | select.POLLPRI))
    say("ahead", at_mark(two), two.recv(10), at_mark(two), urgent(two))
    say("taken", two.recv(1, OOB | socket.MSG_PEEK), two.recv(1, OOB), answer(two.recv, 1, OOB))
    say("gone", urgent(two), at_mark(two))
    say("after", behind(two, 10), at_mark(two), answer(two.recv, 1), answer(two.recv, 1, OOB))


def passed_over(maker: Maker) -> None:
    """Who reads on past the mark has not got the byte, and it is lost."""
    one, two = maker.pair()
    one.sendall(b"abc", OOB)
    one.sendall(b"def")
    come(two)
    say("read", two.recv(10), at_mark(two), behind(two, 10), at_mark(two))
    say("lost", urgent(two), answer(two.recv, 1, OOB), answer(two.recv, 1))


def taken_first(maker: Maker) -> None:
    """The byte can be taken before those that lie before it; reading stops where it was."""
    one, two = maker.pair()
    one.sendmsg([b"ab", b"c"], (), OOB)
    one.sendall(b"def")
    come(two)
    say("taken", two.recvmsg(5, 0, OOB), urgent(two), at_mark(two))
    say("rest", two.recv(2), at_mark(two), behind(two, 10, socket.MSG_PEEK), two.recv(2), at_mark(two), two.recv(9))


def in_line(maker: Maker) -> None:
    one, two = maker.pair()
    two.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    one.send(b"abc", OOB)
    one.send(b"def")
    come(two)
    until(lambda: asked(two, termios.FIONREAD) == 6)
    say("option", two.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE), asked(two, termios.FIONREAD))
    say("oob", answer(two.recv, 1, OOB), two.recv(10), at_mark(two), urgent(two))
    say("mark", two.recv(1), at_mark(two), urgent(two), two.recv(10))


def inherited(maker: Maker) -> None:
    """SO_OOBINLINE of a listener."""
    one, two = maker.pair(SO_OOBINLINE=1)
    one.send(b"abc", OOB)
    come(two)
    say("inherits", two.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE), two.recv(9), at_mark(two), two.recv(9))


def again(maker: Maker) -> None:
    """A second urgent byte: the first, if nobody took it, becomes ordinary."""
    one, two = maker.pair()
    one.send(b"abc", OOB)
    come(two)
    one.send(b"def", OOB)
    time.sleep(SETTLE_S)
    say("second", until(lambda: answer(two.recv, 1, OOB | socket.MSG_PEEK) == b"f"), two.recv(10), at_mark(two))
    say("taken", two.recv(1, OOB), answer(two.recv, 10))
    one.send(b"g", OOB)
    say("third", come(two), two.recv(1, OOB), answer(two.recv, 1), answer(two.recv, 1, OOB))


def buffers(maker: Maker) -> None:
    one, two = maker.pair()
    say("nothing", answer(one.send, b"", OOB), answer(one.sendall, b"", OOB), answer(one.sendmsg, [], (), OOB))
    one.send(b"x", OOB | socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    come(two)
    into, others = bytearray(b"..."), [bytearray(), bytearray(b"..")]
    say("peek", two.recv_into(into, 0, OOB | socket.MSG_PEEK), into)
    say("into", two.recvmsg_into(others, 0, OOB), others, answer(two.recv_into, into, 0, OOB))


def waiting(maker: Maker) -> None:
    """MSG_WAITALL ends at the mark."""
    one, two = maker.pair()
    one.send(b"abc", OOB)
    one.send(b"defghi")
    come(two)
    two.setblocking(True)
    say("waitall", two.recv(10, socket.MSG_WAITALL), two.recv(4, socket.MSG_WAITALL), two.recv(2))


def signals(maker: Maker) -> None:
    """SIGURG goes to whom F_SETOWN or SIOCSPGRP names, once for each mark."""
    heard: list[int] = []
    signal.signal(signal.SIGURG, lambda number, _: heard.append(number))
    one, two = maker.pair()
    one.send(b"nobody", OOB)
    come(two)
    say("unasked", heard)
    fcntl.fcntl(two.fileno(), fcntl.F_SETOWN, os.getpid())
    one.send(b"1", OOB)
    say("setown", until(lambda: len(heard) == 1), fcntl.fcntl(two.fileno(), fcntl.F_GETOWN) == os.getpid())
    fcntl.fcntl(two.fileno(), fcntl.F_SETOWN, 0)
    fcntl.ioctl(two.fileno(), SIOCSPGRP, array.array("i", [os.getpid()]))
    one.send(b"2", OOB)
    say("spgrp", until(lambda: len(heard) == 2))
    one.send(b"ordinary")
    time.sleep(SETTLE_S)
    say("ordinary", len(heard))


def ends(maker: Maker) -> None:
    """The byte outlives the stream's end, and a mark can be the last that is said."""
    one, two = maker.pair()
    one.send(b"abc", OOB)
    one.shutdown(socket.SHUT_WR)
    come(two)
    say("end", two.recv(10), at_mark(two), two.recv(1, OOB), behind(two, 10), answer(two.recv, 1, OOB))


def states(maker: Maker) -> None:
    """Without a connection."""
    with maker.receiver.socket() as fresh, maker.listener() as listener:
        say("receive", answer(fresh.recv, 1, OOB), answer(listener.recv, 1, OOB))
    with maker.sender.socket() as fresh:
        say("send", answer(fresh.send, b"x", OOB | socket.MSG_NOSIGNAL))
    with maker.receiver.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.setblocking(False)
        say("datagrams", answer(datagrams.sendto, b"x", OOB, (maker.host, 9)))


def announced(maker: Maker) -> None:
    """The peer's window is closed: the mark is known before its byte can come."""
    one, two = maker.pair(SO_RCVBUF=SMALL)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    one.sendall(bytes(BACKLOG))
    one.send(b"!", OOB)
    say("not there", until(lambda: answer(two.recv, 1, OOB) == "EAGAIN", NEVER_S), urgent(two), at_mark(two))
    total = 0
    while total < BACKLOG and until(lambda: bits(two, select.POLLIN)):
        total += len(two.recv(SMALL))
    say("there", total, until(lambda: urgent(two)), at_mark(two), two.recv(1, OOB), answer(two.recv, 1))


def bulk(maker: Maker) -> None:
    """Marks amid a long stream: each is where it was set, and no byte is lost."""
    one, two = maker.pair(SO_OOBINLINE=1)
    one.settimeout(PATIENCE_S)
    blocks = [hashlib.sha256(bytes([turn])).digest() * (BULK // 32) for turn in range(5)]
    turn = threading.Semaphore(1)

    def send() -> None:
        for block in blocks:
            turn.acquire(timeout=PATIENCE_S)
            one.sendall(block, OOB)
            one.sendall(block)
        one.shutdown(socket.SHUT_WR)

    writer = threading.Thread(target=send)
    writer.start()
    got, marks = bytearray(), []
    two.settimeout(PATIENCE_S)
    while True:
        select.select([two], [], [], PATIENCE_S)  # before a byte is there, its mark may be unknown
        if at_mark(two):
            marks.append(len(got) + 1)
            turn.release()
        data = two.recv(7000)
        if not data:
            break
        got += data
    writer.join()
    say("marks", [mark // len(blocks[0]) for mark in marks], [mark % len(blocks[0]) for mark in marks])
    say("bytes", bytes(got) == b"".join(block * 2 for block in blocks))


CASES = (
    out_of_line, passed_over, taken_first, in_line, inherited, again, buffers, waiting, signals, ends, states,
    announced, bulk,
)  # fmt: skip


if __name__ == "__main__":
    for case in CASES:
        print(f"-- {case.__name__}", flush=True)
        case(Maker(*sys.argv[1:]))

"""What Python's socket API answers, a line each, between a program and itself over 127.0.0.1. It runs on the kernel's
sockets and under `python -m levelip`, and both must say the same. Standard library only.
"""

from __future__ import annotations

import array
import errno
import io
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable

HOST = "127.0.0.1"
PATIENCE_S = 20.0
BITS = {"IN": 1, "PRI": 2, "OUT": 4, "ERR": 8, "HUP": 16, "RDHUP": 0x2000}
MSG_FASTOPEN = 0x2000_0000


def answer(call: Callable[..., object], *args: object) -> object:
    """What a call returns, or the errno or exception that it raises."""
    try:
        return call(*args)
    except TimeoutError as late:
        return errno.errorcode.get(late.errno or 0, "timed out")
    except OSError as failed:
        return errno.errorcode.get(failed.errno or 0, repr(failed))
    except (TypeError, ValueError, OverflowError) as failed:
        return type(failed).__name__


def mask(sock: socket.socket, *, until: int = 0) -> str:
    """What poll() says; `until` these bits are there, for a while."""
    poll = select.poll()
    poll.register(sock.fileno(), 0x2007)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = dict(poll.poll(0)).get(sock.fileno(), 0)
        if found & until == until or time.monotonic() > deadline:
            return "|".join(name for name, bit in BITS.items() if found & bit) or "nothing"
        time.sleep(0.01)


def say(what: str, *values: object) -> None:
    print(f"{what}: {', '.join(map(str, values))}", flush=True)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection."""
    with socket.create_server((HOST, 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    one.settimeout(PATIENCE_S)
    other.settimeout(PATIENCE_S)
    return one, other


def flags_of_streams() -> None:
    one, two = pair()
    one.sendall(b"abcdef")
    say("peek", two.recv(3, socket.MSG_PEEK), two.recv(3, socket.MSG_PEEK | socket.MSG_WAITALL), two.recv(2))
    say("dontwait", two.recv(100, socket.MSG_DONTWAIT))
    two.setblocking(False)
    say("nothing", answer(two.recv, 1, socket.MSG_OOB), answer(two.recv, 1, socket.MSG_ERRQUEUE))
    threading.Timer(0.1, one.sendall, [b"second half"]).start()
    one.sendall(b"first half, ")
    two.setblocking(True)
    say("waitall", two.recv(23, socket.MSG_WAITALL))
    two.settimeout(PATIENCE_S)
    one.send(b"a", socket.MSG_MORE)
    one.send(b"b", socket.MSG_MORE | socket.MSG_NOSIGNAL)
    one.sendall(b"c")
    say(
        "more",
        two.recv(10, socket.MSG_WAITALL | socket.MSG_PEEK)[:1],
        one.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK),
    )
    two.recv(10)
    one.sendall(b"thrown away, kept")
    buffer = bytearray(b"." * 12)
    say("trunc", two.recv_into(buffer, 0, socket.MSG_TRUNC), bytes(buffer), two.recv(10))
    say("nobytes", two.recv(0), one.send(b""), one.sendall(b""))
    for sock in (one, two):
        sock.close()


def messages() -> None:
    one, two = pair()
    say("sendmsg", one.sendmsg([b"ab", memoryview(b"cd"), array.array("B", b"ef")]), one.sendmsg([]))
    say("recvmsg", two.recvmsg(3), two.recvmsg(1, 100), two.recvmsg(1, 0, socket.MSG_PEEK)[0])
    buffers = [bytearray(1), bytearray(5)]
    say("into", two.recvmsg_into(buffers), buffers)
    say("bad", answer(one.sendmsg, b"ab"), answer(one.sendmsg, [object()]), answer(two.recvmsg, -1))
    say("worse", answer(two.recvmsg, 1, -1), answer(one.sendmsg, [b"x"], [(0, 0)]), answer(two.recvmsg_into, object()))
    one.sendall(b"xyz")
    say("from", two.recvfrom(1), two.recvfrom_into(bytearray(5), 1), answer(two.recvfrom_into, bytearray(1), 2))
    two.recv(1)
    say("sendto", one.sendto(b"1", 0, ("192.0.2.1", 1)), two.recv(10), answer(one.sendto, b"1", None))
    say("limits", answer(two.recv, -1), answer(two.recv_into, bytearray(2), 3), answer(one.send, "text"))
    for sock in (one, two):
        sock.close()


def fresh() -> None:
    with socket.socket() as sock:
        say("names", sock.getsockname(), answer(sock.getpeername), sock.family, sock.type, sock.proto)
        say(
            "bytes",
            answer(sock.recv, 1),
            answer(sock.send, b"x"),
            answer(sock.sendall, b"x"),
            answer(sock.sendmsg, [b"x"]),
        )
        say(
            "more bytes",
            answer(sock.recvmsg, 1),
            answer(sock.recv_into, bytearray(1)),
            answer(sock.sendto, b"x", (HOST, 1)),
        )
        say("calls", answer(sock.shutdown, socket.SHUT_RD), answer(sock.accept), answer(sock.shutdown, 7))
        say("args", answer(sock.bind, HOST), answer(sock.bind, (HOST,)), answer(sock.bind, (HOST, "1")))
        say("args", answer(sock.bind, (HOST, 1 << 16)), answer(sock.bind, (1, 1)), answer(sock.connect, (None, 1)))
        say(
            "args",
            answer(sock.listen, 1 << 31),
            answer(sock.setsockopt, 1, 9, None),
            answer(sock.getsockopt, 1, 4, 5000),
        )
        say("args", answer(sock.setsockopt, 1, 9, "x"), answer(sock.setsockopt, 1, 9, 1 << 31))
        file = io.BytesIO(b"x")
        say("file", answer(sock.sendfile, file))
    say("closed", answer(sock.getsockname), answer(sock.recv, 1), answer(sock.bind, (HOST, 0)), sock.fileno())
    say(
        "none", answer(socket.socket, socket.AF_INET, 77), answer(socket.socket, socket.AF_INET, socket.SOCK_STREAM, 17)
    )
    say("none", answer(lambda: socket.socket(fileno=-1)), answer(lambda: socket.socket(fileno="x")))


def listeners() -> None:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        say("bound", mask(sock, until=4) != "nothing", answer(sock.bind, (HOST, 0)))
        sock.listen()
        say("listening", mask(sock), answer(sock.recv, 1), answer(sock.send, b"x"), answer(sock.getpeername))
        sock.setblocking(False)
        say("none", answer(sock.accept), answer(sock.connect, sock.getsockname()))
        with socket.create_connection(sock.getsockname()):
            say("one", mask(sock, until=1))
            got, where = sock.accept()
            say(
                "accepted",
                got.getblocking(),
                got.gettimeout(),
                got.get_inheritable(),
                where == got.getpeername(),
                mask(sock),
            )
            got.close()
        with socket.socket() as second:
            say("again", answer(second.bind, sock.getsockname()))
        sock.settimeout(0.05)
        say("late", answer(sock.accept))
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 50_000))
        say("SO_RCVTIMEO", answer(sock.accept))
    say(
        "server",
        answer(socket.create_server, ("192.0.2.1", 0)),
        answer(lambda: socket.create_server((HOST, 0), dualstack_ipv6=True)),
    )


def masks() -> None:
    one, two = pair()
    say("connected", mask(one), mask(two))
    one.sendall(b"x")
    say("bytes", mask(two, until=1))
    one.shutdown(socket.SHUT_WR)
    say("shut", mask(one), mask(two, until=0x2001), two.recv(10), two.recv(10), mask(two))
    say("pipe", answer(one.send, b"x"), answer(one.shutdown, socket.SHUT_WR))
    two.shutdown(socket.SHUT_WR)
    say("both", mask(one, until=17), one.recv(1), mask(two, until=17))
    one.close()
    two.close()
    one, two = pair()
    one.sendall(b"left")
    mask(two, until=1)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()
    say("reset", mask(two, until=0x2018), two.recv(100), answer(two.recv, 1), two.recv(1), answer(two.send, b"x"))
    two.close()
    one, two = pair()
    two.sendall(b"unread")
    mask(one, until=1)
    one.close()
    say(
        "unread",
        mask(two, until=0x2018),
        two.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR),
        two.recv(1),
        answer(two.getpeername),
    )
    two.close()
    one, two = pair()
    one.shutdown(socket.SHUT_RD)
    say("SHUT_RD", one.recv(1), mask(one, until=1), one.sendall(b"x"), two.recv(1))
    one.close()
    two.close()


def timeouts() -> None:
    one, two = pair()
    one.settimeout(0.05)
    say("recv", answer(one.recv, 1), answer(one.recv_into, bytearray(1)), answer(one.recvmsg, 1), one.timeout)
    say("sendall", answer(one.sendall, bytes(1 << 26)))
    two.setblocking(False)
    one.setblocking(True)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 50_000))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, 60_000))
    say("SO_RCVTIMEO", answer(one.recv, 1), answer(one.sendall, bytes(1 << 26)))
    say(
        "kept",
        struct.unpack("@ll", one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16)),
        answer(one.setsockopt, 1, 20, 1),
    )
    one.close()
    two.close()
    default = socket.getdefaulttimeout()
    socket.setdefaulttimeout(7)
    with socket.socket() as sock:
        say("default", sock.gettimeout(), sock.getblocking())
    socket.setdefaulttimeout(default)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        say("nonblock", sock.gettimeout(), sock.type)


def descriptors() -> None:
    one, two = pair()
    copy = one.dup()
    say(
        "dup",
        copy.fileno() != one.fileno(),
        copy.get_inheritable(),
        copy.gettimeout(),
        copy.getpeername() == two.getsockname(),
    )
    one.close()
    copy.sendall(b"by the copy")
    say("still", two.recv(100))
    again = socket.fromfd(copy.fileno(), socket.AF_INET, socket.SOCK_STREAM)
    copy.close()
    number = again.detach()
    say("detached", again.fileno(), answer(again.send, b"x"))
    last = socket.socket(fileno=number)
    say("found", last.family, last.type, last.proto, last.fileno() == number, last.getpeername() == two.getsockname())
    with last.makefile("rwb") as file:
        last.close()
        file.write(b"line\n")
        file.flush()
        say("file", two.recv(100), last.fileno() >= 0)
    say("end", two.recv(1))
    two.close()
    one, two = pair()
    with tempfile.TemporaryFile() as file:
        file.write(bytes(70_000))
        sent = one.sendfile(file, 10, 60_000)
        got = 0
        while got < sent:
            got += len(two.recv(1 << 16))
        say("sendfile", sent, file.tell())
    one.close()
    two.close()


def processes() -> None:
    for end in ("return", "_exit", "kill"):
        with socket.create_server((HOST, 0)) as listener:
            sys.stdout.flush()
            child = os.fork()
            if not child:
                sock = socket.create_connection(listener.getsockname())
                sock.sendall(bytes(150_000))
                if end == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                os._exit(0)
            sock, _ = listener.accept()
            with sock:
                got = 0
                while part := sock.recv(1 << 16):
                    got += len(part)
            os.waitpid(child, 0)
            say(end, got)
    with socket.create_server((HOST, 0)) as listener:
        children = []
        for number in range(3):
            child = os.fork()
            if not child:
                sock, _ = listener.accept()
                sock.sendall(b"%d" % number)
                os._exit(0)
            children.append(child)
        answers = set()
        for _ in children:
            with socket.create_connection(listener.getsockname()) as sock:
                answers.add(sock.recv(10))
        for child in children:
            os.waitpid(child, 0)
        say("shared", sorted(answers))
    one, two = pair()
    child = os.fork()
    if not child:
        two.close()
        one.recv(1)
        os._exit(0)
    one.close()
    two.settimeout(0.1)
    say("held", answer(two.recv, 1))
    two.settimeout(PATIENCE_S)
    two.sendall(b"x")
    os.waitpid(child, 0)
    say("last holder", two.recv(1))
    two.close()


def connects() -> None:
    with socket.create_server((HOST, 0)) as listener:
        where = listener.getsockname()
        with socket.socket() as sock:
            sock.setblocking(False)
            say("begun", sock.connect_ex(where), mask(sock, until=4), sock.getsockopt(1, 4), sock.connect_ex(where))
        with socket.socket() as sock:
            say("blocking", sock.connect_ex(where), sock.connect_ex(where), sock.getpeername() == where)
        with socket.create_connection(where, PATIENCE_S, (HOST, 0)) as sock:
            say("timed", sock.gettimeout(), sock.getsockname()[0])
        with socket.socket() as sock:
            say("fastopen", answer(sock.sendto, b"early", MSG_FASTOPEN, where))
            got, _ = [listener.accept() for _ in range(4)][-1]
            say("came", got.recv(10))
            got.close()
    with socket.socket() as sock:
        say("refused", sock.connect_ex(where), answer(sock.connect, where), sock.getsockopt(1, 4))
    with socket.socket() as sock:
        say("nowhere", answer(sock.connect, ("255.255.255.255", 1)), answer(sock.connect, ("no such host.", 1)) != 0)
    say("created", answer(socket.create_connection, where), answer(socket.create_connection, (HOST, "x")))


def datagrams() -> None:
    one, two = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
    for sock in (one, two):
        sock.bind((HOST, 0))
        sock.settimeout(PATIENCE_S)
    there = two.getsockname()
    say("sendto", one.sendto(b"abc", there), two.recvfrom(2) == (b"ab", one.getsockname()))
    say("empty", one.sendto(b"", there), two.recvfrom(2)[0])
    say("unconnected", answer(one.send, b"x"), answer(one.getpeername))
    one.sendto(b"peeked", there)
    say("peek", two.recv(10, socket.MSG_PEEK), two.recvmsg(3)[::2])
    two.setblocking(False)
    say("dontwait", answer(two.recv, 1), answer(two.recv, 1, socket.MSG_ERRQUEUE))
    two.settimeout(PATIENCE_S)
    one.connect(there)
    say("connected", one.send(b"1"), two.recv(5), one.getpeername() == there, answer(one.listen))
    one.send(b"in ", socket.MSG_MORE)
    one.send(b"one piece")
    say("more", two.recv(100))
    say("oob", answer(one.send, b"x", socket.MSG_OOB))
    say("size", answer(one.send, bytes(65_508)), one.send(bytes(65_507)), len(two.recv(70_000)))
    say("sendmsg", one.sendmsg([b"a", b"b"]), two.recvmsg_into([bytearray(1), bytearray(9)])[::2])
    two.setsockopt(socket.IPPROTO_IP, 13, 1)
    one.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x20)
    one.send(b"x")
    say("ancillary", two.recvmsg(9, 100)[1:3])
    say("masks", mask(two), one.send(b"x"), mask(two, until=1))
    say("args", answer(one.sendto, b"x"), answer(one.sendto, b"x", None), answer(one.sendto, "x", there))
    say("args", answer(one.sendto, b"x", ("x", 1, 2)), answer(two.recvfrom, -1), answer(one.sendto, b"x", (HOST, 0)))
    two.recv(9)
    two.settimeout(0.05)
    say("timeout", answer(two.recv, 1), answer(two.recvfrom_into, bytearray(1)))
    say("file", answer(one.sendfile, io.BytesIO(b"x")))
    one.close()
    two.close()


CASES = (
    flags_of_streams, messages, fresh, listeners, masks, timeouts, descriptors, processes, connects, datagrams,
)  # fmt: skip


def main() -> None:
    for case in CASES:
        if len(sys.argv) < 2 or case.__name__ in sys.argv[1:]:
            print(f"-- {case.__name__}", flush=True)
            case()


if __name__ == "__main__":
    main()

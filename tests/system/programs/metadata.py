"""Says what IP options and receive metadata are at datagram sockets, as JSON: `metadata.py std` of the kernel, or of
whoever runs it, `metadata.py stack` of the stack. All over loopback; times are left out, so that it can be compared.
"""

from __future__ import annotations

import errno
import importlib
import json
import struct
import sys
import time
from typing import Any

IP, SOCKET = 0, 1
IP_OPTIONS, IP_RECVOPTS, IP_RETOPTS, IP_PKTINFO, IP_RECVTTL, IP_RECVTOS = 4, 6, 7, 8, 12, 13
SO_PASSCRED, SO_TIMESTAMP, SO_TIMESTAMPNS, SO_RXQ_OVFL = 16, 29, 35, 40
ROUTE = bytes.fromhex("01070f04") + bytes(12)
STAMPS = bytes.fromhex("44140501") + bytes(16)
TIMES = bytes.fromhex("440c0500") + bytes(8)
ALERT = bytes.fromhex("94040000")
socket: Any = importlib.import_module("socket" if sys.argv[1] != "stack" else "levelip.client.socket")
said: dict[str, Any] = {}


def attempt(name: str, call: Any, *args: Any) -> None:
    """The call's result, or its errno's name."""
    try:
        value = call(*args)
        said[name] = value.hex() if isinstance(value, bytes) else value
    except OSError as error:
        said[name] = errno.errorcode.get(error.errno or 0, type(error).__name__)


def new(*options: int, level: int = IP) -> Any:
    """A bound datagram socket with these options on."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(30)
    sock.bind(("127.0.0.1", 0))
    for option in options:
        sock.setsockopt(level, option, 1)
    return sock


def timeless(options: bytes) -> str:
    """Timestamp options without their times."""
    data, at = bytearray(options), 0
    while at < len(data) and data[at]:
        length = 1 if data[at] == 1 else data[at + 1]
        if data[at] == 68:
            step = 8 if data[at + 3] & 15 else 4
            for place in range(at + 4 + step - 4, min(at + data[at + 2] - 1, at + length), step):
                data[place : place + 4] = bytes(4)
        at += length
    return data.hex()


def told(name: str, sock: Any, room: int = 512) -> Any:
    """What recvmsg says: rows of ancillary data, flags."""
    data, ancillary, flags, _ = sock.recvmsg(100, room)
    rows = []
    for level, kind, value in ancillary:
        if level == SOCKET and kind in (SO_TIMESTAMP, SO_TIMESTAMPNS):
            seconds, part = struct.unpack("=qq", value)
            age = time.time() - seconds - part / (1e6 if kind == SO_TIMESTAMP else 1e9)
            rows.append([level, kind, -0.1 < age < 50])
        elif level == SOCKET:
            rows.append([level, kind, len(value), any(value)])
        elif kind == IP_PKTINFO:
            rows.append([level, kind, value[4:].hex()])
        else:
            rows.append([level, kind, timeless(value) if kind in (IP_RECVOPTS, IP_RETOPTS) else value.hex()])
    said[name] = [data.decode(), rows, flags]


def options() -> None:
    """Set, sent with each datagram, and told."""
    with new() as sender, new(IP_RECVOPTS, IP_RETOPTS) as receiver:
        where = receiver.getsockname()
        for name, value in (("route", ROUTE), ("stamps", STAMPS), ("times", TIMES), ("both", ROUTE + TIMES),
                            ("alert", ALERT), ("mixed", ALERT + TIMES), ("none", b"")):  # fmt: skip
            attempt(f"{name} set", sender.setsockopt, IP, IP_OPTIONS, value)
            attempt(f"{name} get", sender.getsockopt, IP, IP_OPTIONS, 100)
            for number in (1, 2):
                sender.sendto(b"%d" % number, where)
                told(f"{name} {number}", receiver)
        sender.setsockopt(IP, IP_OPTIONS, ROUTE)
        attempt("short get", sender.getsockopt, IP, IP_OPTIONS, 3)
        sender.sendto(b"no room", where)
        told("no room", receiver, 20)
        sender.sendmsg([b"own"], [(IP, IP_RETOPTS, ALERT)], 0, where)
        told("own", receiver)
        sender.sendmsg([b"own none"], [(IP, IP_RETOPTS, b"")], 0, where)
        told("own none", receiver)
        attempt("own bad", sender.sendmsg, [b"x"], [(IP, IP_RETOPTS, b"\7\3\5")], 0, where)
        attempt("own long", sender.sendmsg, [b"long"], [(IP, IP_RETOPTS, b"\1" * 44)], 0, where)
        told("own long told", receiver)
        attempt("too long", sender.sendto, bytes(65_507), where)
        attempt("longest", sender.sendto, bytes(65_507 - 16), where)
        receiver.recv(10)


def stamps() -> None:
    """When a datagram came; one option at most is on."""
    with new() as sender, new() as receiver:
        where = receiver.getsockname()
        for step, (option, value) in enumerate([
            (SO_TIMESTAMP, 1), (SO_TIMESTAMPNS, 1), (SO_TIMESTAMP, 7), (SO_TIMESTAMP, 0), (SO_TIMESTAMPNS, 1),
            (SO_TIMESTAMP, 0),
        ]):  # fmt: skip
            sender.sendto(b"before", where)
            receiver.setsockopt(SOCKET, option, value)
            said[f"stamps {step}"] = [receiver.getsockopt(SOCKET, one) for one in (SO_TIMESTAMP, SO_TIMESTAMPNS)]
            told(f"before {step}", receiver)
            sender.sendto(b"after", where)
            told(f"after {step}", receiver)


def order() -> None:
    """All at once: in Linux's order."""
    with new() as sender, new(IP_RETOPTS, IP_RECVOPTS, IP_RECVTOS, IP_RECVTTL, IP_PKTINFO) as receiver:
        receiver.setsockopt(SOCKET, SO_RXQ_OVFL, 1)
        receiver.setsockopt(SOCKET, SO_TIMESTAMP, 1)
        receiver.setsockopt(SOCKET, socket.SO_RCVBUF, 4000)
        sender.setsockopt(IP, IP_OPTIONS, ROUTE)
        for _ in range(400):
            sender.sendto(bytes(1000), receiver.getsockname())
        receiver.settimeout(2)
        try:
            while receiver.recv(10):
                pass
        except TimeoutError:
            pass
        receiver.settimeout(30)
        sender.sendto(b"all", receiver.getsockname())
        told("all", receiver)


def refused() -> None:
    """What sockets of this family have not."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as sock:
            attempt(f"passcred set {int(kind)}", sock.setsockopt, SOCKET, SO_PASSCRED, 1)
            attempt(f"passcred get {int(kind)}", sock.getsockopt, SOCKET, SO_PASSCRED)


def streams() -> None:
    """Set before a connection and on it, sent back to whoever opened it; bytes come through."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setsockopt(IP, IP_OPTIONS, ALERT)
        listener.listen()
        for name, value in (("route", ROUTE), ("times", TIMES), ("alert", ALERT), ("none", b"")):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.settimeout(30)
                client.setsockopt(IP, IP_OPTIONS, value)
                client.connect(listener.getsockname())
                server, _ = listener.accept()
                with server:
                    server.settimeout(30)
                    said[f"stream {name}"] = [
                        timeless(sock.getsockopt(IP, IP_OPTIONS, 100)) for sock in (client, server)
                    ]
                    for step, change in enumerate((None, STAMPS, b"")):
                        if change is not None:
                            attempt(f"stream {name} {step}", server.setsockopt, IP, IP_OPTIONS, change)
                            attempt(f"stream {name} {step} get", server.getsockopt, IP, IP_OPTIONS, 100)
                        server.sendall(bytes(100_000))
                        left = 100_000
                        while left:
                            left -= len(client.recv(left))
        attempt("stream bad", listener.setsockopt, IP, IP_OPTIONS, b"\7\3\3")


for part in (options, stamps, order, refused, streams):
    part()
print(json.dumps(said))

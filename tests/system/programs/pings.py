"""Says what ICMP datagram sockets and error queues do, as JSON: `pings.py std PEER` the kernel's, `pings.py stack PEER`
the stack's, `pings.py run PEER` those of whoever runs it, where recv and send are not told of errors. Addresses are
left out, so that they can be compared.
"""

from __future__ import annotations

import errno
import importlib
import json
import struct
import sys
import time
from typing import Any

MSG_ERRQUEUE, IP_RECVERR, IP_MTU_DISCOVER, IP_MTU, IP_RECVTTL = 0x2000, 11, 10, 14, 12
CLOSED = 7999
WAIT_S = 30.0  # for what must come
socket: Any = importlib.import_module("socket" if sys.argv[1] != "stack" else "levelip.client.socket")
PEER = sys.argv[2]
said: dict[str, Any] = {}


def attempt(name: str, call: Any, *args: Any) -> Any:
    """The call's result, or its errno's name."""
    try:
        said[name] = shown(call(*args))
    except OSError as error:
        said[name] = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return said[name]


def shown(value: Any) -> Any:
    """As JSON can say it."""
    return value.hex() if isinstance(value, bytes) else value


def request(number: int, data: bytes = b"are you there", *, kind: int = 8, code: int = 0) -> bytes:
    """An echo request, or what is none."""
    return struct.pack("!BBHHH", kind, code, 0xBEEF, 0xDEAD, number) + data


def new(proto: int = 0, *, errors: bool = False) -> Any:
    """A datagram socket."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, proto)
    sock.settimeout(WAIT_S)
    if errors:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    return sock


def queued(name: str, sock: Any) -> None:
    """The oldest error, when it has come."""
    deadline = time.monotonic() + WAIT_S
    sock.settimeout(0)
    while True:
        try:
            data, ancillary, flags, address = sock.recvmsg(10, 512, MSG_ERRQUEUE)
            break
        except BlockingIOError:
            assert time.monotonic() < deadline, name
            time.sleep(0.01)
    sock.settimeout(WAIT_S)
    rows = [
        (level, kind, value.hex().replace(socket.inet_aton(PEER).hex(), "PEER")) for level, kind, value in ancillary
    ]
    data = data[:2].hex() if data[:1] == b"\x08" else data.decode()
    said[name] = [data, rows, flags, address[1], address[0] == PEER]


def pings() -> None:
    """Echo requests."""
    with new(socket.IPPROTO_ICMP) as sock:
        said["what"] = [sock.getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_TYPE, socket.SO_PROTOCOL)]
        attempt("a reply is sent", sock.sendto, request(1, kind=0), (PEER, 0))
        attempt("another code", sock.sendto, request(1, code=1), (PEER, 0))
        attempt("too short", sock.sendto, b"\x08\0\0\0\0\0\0", (PEER, 0))
        attempt("no peer", lambda: sock.sendmsg([request(1)]) if sys.argv[1] == "run" else sock.send(request(1)))
        try:
            sock.send(request(1))
            said["to nowhere"] = "taken"
        except OSError:  # where a send cannot be trapped it is EPERM
            said["to nowhere"] = "refused"
        attempt("bound by then", sock.bind, ("", 4711))
    with new(socket.IPPROTO_ICMP) as sock:
        sock.bind(("", 4711))
        said["bound"] = sock.getsockname()[1]
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        for number in (1, 2):
            attempt(f"request {number}", sock.sendto, request(number), (PEER, 1234))
            data, ancillary, flags, (address, port) = sock.recvmsg(100, 100)
            checksum = data[2:4]
            said[f"reply {number}"] = [
                data[:2].hex(),
                data[4:].hex(),
                checksum != b"\0\0",
                flags,
                address == PEER,
                port,
            ]
            said[f"ttl {number}"] = [(level, kind, value.hex()) for level, kind, value in ancillary]
        with new(socket.IPPROTO_ICMP) as other:
            said["reuse"] = other.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            attempt("the same identifier", other.bind, ("", 4711))
            attempt("another", other.bind, ("", 4712))
            other.connect((PEER, 0))
            attempt("to the peer", other.send, request(9))
            said["from the peer"] = other.recv(100)[4:].hex()
            sock.settimeout(0.1)
            attempt("not for the other", sock.recv, 100)
        sock.settimeout(WAIT_S)
        attempt("large", sock.sendto, request(3, bytes(3000)), (PEER, 0))
        said["large reply"] = len(sock.recv(5000))
        attempt("too large", sock.sendto, request(3, bytes(65_508)), (PEER, 0))


def error_queue() -> None:
    """Errors about datagrams."""
    with new(errors=True) as sock:
        sock.settimeout(0)
        attempt("nothing there", sock.recvmsg, 10, 512, MSG_ERRQUEUE)
        sock.settimeout(WAIT_S)
        sock.sendto(b"to nobody, and longer than ten", (PEER, CLOSED))
        queued("port unreachable", sock)
        sock.settimeout(0)
        attempt("taken", sock.recvmsg, 10, 512, MSG_ERRQUEUE)
        said["SO_ERROR after it"] = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        attempt("no datagram", sock.recv, 10)
        sock.settimeout(WAIT_S)
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 2)
        attempt("IP_MTU unconnected", sock.getsockopt, socket.IPPROTO_IP, IP_MTU)
        attempt("too long", sock.sendto, bytes(1473), (PEER, CLOSED))
        queued("by our own verdict", sock)
        sock.connect((PEER, CLOSED))
        attempt("IP_MTU", sock.getsockopt, socket.IPPROTO_IP, IP_MTU)
        sock.send(b"x")
        deadline = time.monotonic() + WAIT_S
        receive = sock.recvfrom if sys.argv[1] == "run" else sock.recv
        while attempt("the error ends recv", receive, 10) not in ("ECONNREFUSED",):
            assert time.monotonic() < deadline
        queued("and is in the queue all the same", sock)


pings()
error_queue()
print(json.dumps(said))

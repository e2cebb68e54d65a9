"""A gateway that speaks the client's RPC (docs/rpc.md) and bridges each socket to one of the kernel's on 127.0.0.1.

It exists so that the client and its helper can be tested alone, with nothing but loopback: every call does what the
kernel's TCP does. It runs in a thread; `stop()` and a second one on the same endpoint are a restart with a new epoch.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
import select
import socket
import struct
import threading
from collections import deque
from pathlib import Path
from typing import Any

import zmq

from levelip.rpc.codec import Codec
from levelip.rpc.messages import VERSION, Hello, Pending, Reply, Request, ToGateway, Welcome
from levelip.rpc.place import Place
from levelip.rpc.stream import Accepted, Consumed, Data, Eof, Reset, Send

RING = 1 << 20  # bytes of each ring
SLOTS = 2048
INLINE_WINDOW = 262_144  # bytes in flight to a client without memory
PIECE = 65_536


class Client:
    """A session."""

    def __init__(self, peer: bytes) -> None:
        self.peer = peer
        self.epoch = 0
        self.token = secrets.token_bytes(16)
        self.name = ""
        self.memory: mmap.mmap | None = None
        self.slots = list(range(SLOTS))


class Sock:
    """A socket and its kernel socket."""

    def __init__(self, number: int, client: Client, kernel: socket.socket) -> None:
        self.number = number
        self.client = client
        self.kernel = kernel
        self.listening = False
        self.queue: deque[socket.socket] = deque()
        self.connecting = 0  # number of the request
        self.connected = False
        self.error = 0
        self.slot = -1
        self.out: deque[bytes | memoryview] = deque()
        self.sent = 0
        self.taken = 0  # written to the kernel
        self.eof_in = False
        self.received = 0
        self.consumed = 0
        self.eof_out = False
        self.mask = 0
        self.closing = False
        self.used = False  # the client has said more than socket(): it makes one ahead


class FakeGateway:
    """Serves `endpoint` from a thread. `memory`: offer session memory (a directory)."""

    def __init__(self, endpoint: str, *, memory: Path | None = None) -> None:
        self.endpoint = endpoint
        self.memory = memory
        self.epoch = secrets.randbits(63) | 1
        self.stats: dict[str, int] = {}
        self.aborted: list[int] = []
        self._codec: Codec[Any] = Codec(ToGateway)
        self._number = secrets.randbits(20) << 20
        self._clients: dict[bytes, Client] = {}
        self._socks: dict[int, Sock] = {}
        self._by_fd: dict[int, Sock] = {}
        self._box: dict[bytes, list[Any]] = {}
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.SNDHWM, 0)
        self._router.setsockopt(zmq.RCVHWM, 0)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.bind(endpoint)
        self._wake, self._stop = os.pipe()
        self._epoll = select.epoll()
        self._epoll.register(self._wake, select.EPOLLIN)
        self._fd = int(self._router.getsockopt(zmq.FD))
        self._epoll.register(self._fd, select.EPOLLIN | select.EPOLLET)
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._guard, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End as a killed gateway does: connections are reset, nobody is told."""
        os.write(self._stop, b"x")
        self._thread.join()
        os.close(self._stop)
        if self.failure is not None:
            raise self.failure

    def __enter__(self) -> FakeGateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def open_sockets(self) -> int:
        """How many sockets clients have used and not closed."""
        return sum(sock.used and not sock.closing for sock in list(self._socks.values()))

    @property
    def received(self) -> int:
        """How many bytes from peers it has handed over, on all sockets together."""
        return sum(sock.received for sock in list(self._socks.values()))

    @property
    def broken(self) -> bool:
        """Whether it has told of a connection's end by a reset."""
        return any(sock.error for sock in list(self._socks.values()))

    @property
    def connecting(self) -> int:
        """How many connects are under way."""
        return sum(sock.connecting > 0 for sock in list(self._socks.values()))

    # -- the thread

    def _guard(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.failure = error
            raise
        finally:
            for sock in self._socks.values():
                self._reset_kernel(sock.kernel)
                for waiting in sock.queue:
                    self._reset_kernel(waiting)
            self._router.close(0)
            self._context.term()
            self._epoll.close()
            os.close(self._wake)

    def _run(self) -> None:
        while True:
            self._flush()
            ready = int(self._router.getsockopt(zmq.EVENTS)) & zmq.POLLIN
            for fd, mask in self._epoll.poll(0 if ready else -1):
                if fd == self._wake:
                    return
                sock = self._by_fd.get(fd)
                if sock is not None:
                    self._kernel_event(sock, mask)
            for _ in range(100):
                if not int(self._router.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                    break
                peer, *parts = self._router.recv_multipart(zmq.DONTWAIT)
                self._message(peer, parts)

    def _tell(self, client: Client, message: Any) -> None:
        self._box.setdefault(client.peer, []).append(message)

    def _flush(self) -> None:
        for peer, messages in self._box.items():
            for start in range(0, len(messages), 500):
                parts = self._codec.encode(messages[start : start + 500], self.epoch, self._clients[peer].epoch)
                try:
                    self._router.send_multipart([peer, *parts])
                except zmq.ZMQError as error:
                    if error.errno != errno.EHOSTUNREACH:
                        raise
        self._box.clear()

    def _message(self, peer: bytes, parts: list[bytes]) -> None:
        epoch, to_epoch, messages = self._codec.decode(parts)
        if to_epoch not in (0, self.epoch):
            self.stats["stale_epoch"] = self.stats.get("stale_epoch", 0) + 1
            return
        client = self._clients.setdefault(peer, Client(peer))
        client.epoch = epoch
        for message in messages:
            self.stats[type(message).__name__] = self.stats.get(type(message).__name__, 0) + 1
            kind = type(message)
            if kind is Hello:
                self._hello(client, message)
            elif kind is Request:
                self._request(client, message)
            else:
                sock = self._socks.get(message.sock)
                if sock is not None and sock.connected:
                    self._stream(sock, message)

    def _hello(self, client: Client, hello: Hello) -> None:
        assert hello.version == VERSION
        if hello.memory:
            assert self.memory is not None
            path = self.memory / hello.memory
            fd = os.open(path, os.O_RDWR)
            client.memory = mmap.mmap(fd, os.fstat(fd).st_size)
            os.close(fd)
            path.unlink()
            client.name = hello.memory
        where = str(self.memory) if self.memory is not None else ""
        self._tell(client, Welcome(VERSION, self.epoch, client.token, where, 2 * RING, SLOTS))

    # -- calls

    def _request(self, client: Client, request: Request) -> None:
        sock = self._socks.get(request.sock)
        if request.op != "socket" and (sock is None or sock.client is not client or sock.closing):
            self._tell(client, Reply(request.request, errno.EBADF))
            return
        if sock is not None:
            sock.used = True
        try:
            data = getattr(self, f"_op_{request.op}")(client, sock, request)
        except OSError as error:
            self._tell(client, Reply(request.request, error.errno or errno.EIO))
            return
        if data is not None:
            self._tell(client, Reply(request.request, 0, data))

    def _new(self, client: Client, kernel: socket.socket) -> Sock:
        kernel.setblocking(False)
        self._number += 1
        sock = self._socks[self._number] = Sock(self._number, client, kernel)
        self._by_fd[kernel.fileno()] = sock
        self._epoll.register(kernel.fileno(), 0)
        return sock

    def _watch(self, sock: Sock) -> None:
        mask = 0
        if sock.listening:
            mask = select.EPOLLIN
        if sock.connecting or (sock.connected and sock.out):
            mask |= select.EPOLLOUT
        if sock.connected and not sock.eof_out and sock.received - sock.consumed < self._window(sock):
            mask |= select.EPOLLIN
        if mask != sock.mask:
            sock.mask = mask
            self._epoll.modify(sock.kernel.fileno(), mask)

    def _window(self, sock: Sock) -> int:
        return RING if sock.client.memory is not None else INLINE_WINDOW

    def _op_socket(self, client: Client, _: Sock, request: Request) -> dict[str, Any]:
        args = request.args
        if args["family"] != socket.AF_INET:
            raise OSError(errno.EAFNOSUPPORT, "")
        return {"sock": self._new(client, socket.socket(args["family"], args["type"], args["proto"])).number}

    def _op_bind(self, _: Client, sock: Sock, request: Request) -> dict[str, Any]:
        sock.kernel.bind((socket.inet_ntoa(request.args["address"]), request.args["port"]))
        return self._name(sock.kernel.getsockname())

    def _op_listen(self, _: Client, sock: Sock, request: Request) -> dict[str, Any]:
        sock.kernel.listen(request.args["backlog"])
        sock.listening = True
        self._watch(sock)
        return self._name(sock.kernel.getsockname())

    def _op_accept(self, client: Client, sock: Sock, request: Request) -> dict[str, Any]:
        if not sock.listening:
            raise OSError(errno.EINVAL, "")
        if not sock.queue:
            raise OSError(errno.EAGAIN, "")
        new = self._new(client, sock.queue.popleft())
        new.used = True
        self._tell(client, Pending(sock.number, len(sock.queue)))
        return {"sock": new.number, **self._establish(new)}

    def _op_connect(self, _: Client, sock: Sock, request: Request) -> dict[str, Any] | None:
        where = (socket.inet_ntoa(request.args["address"]), request.args["port"])
        code = sock.kernel.connect_ex(where)
        if code == errno.ECONNABORTED and not request.args.get("nonblocking"):
            # the last attempt failed as well: Linux tells it, as our kernel socket is non-blocking; the client's is not
            code = sock.kernel.connect_ex(where)
        if code == errno.EINPROGRESS:
            sock.connecting = request.request
            self._watch(sock)
            return None
        if code:
            raise OSError(code, "")
        return self._establish(sock)

    def _op_shutdown(self, _: Client, sock: Sock, __: Request) -> dict[str, Any]:
        sock.kernel.getpeername()
        return {}

    def _op_close(self, client: Client, sock: Sock, request: Request) -> dict[str, Any]:
        if request.args.get("abort") or request.args.get("unread"):
            self.aborted.append(sock.number)
            self._drop(sock, abort=True)
            return {}
        sock.eof_in = True
        if sock.out:
            sock.closing = True
        else:
            self._drop(sock)
        return {}

    def _op_getsockname(self, _: Client, sock: Sock, __: Request) -> dict[str, Any]:
        return self._name(sock.kernel.getsockname())

    def _op_getpeername(self, _: Client, sock: Sock, __: Request) -> dict[str, Any]:
        return self._name(sock.kernel.getpeername())

    def _op_setsockopt(self, _: Client, sock: Sock, request: Request) -> dict[str, Any]:
        sock.kernel.setsockopt(request.args["level"], request.args["option"], request.args["value"])
        return {}

    def _op_getsockopt(self, _: Client, sock: Sock, request: Request) -> dict[str, Any]:
        where = (request.args["level"], request.args["option"])
        value = sock.kernel.getsockopt(*where, 256)
        if where == (socket.SOL_SOCKET, socket.SO_ERROR) and sock.error:
            value, sock.error = struct.pack("=i", sock.error), 0
        return {"value": value}

    @staticmethod
    def _name(name: tuple[str, int]) -> dict[str, Any]:
        return {"address": socket.inet_aton(name[0]), "port": name[1]}

    def _establish(self, sock: Sock) -> dict[str, Any]:
        sock.connected = True
        sock.connecting = 0
        rings: list[Any] = ["", 0, 0, 0, 0]
        if sock.client.memory is not None:
            sock.slot = sock.client.slots.pop(0)
            base = sock.slot * 2 * RING
            rings = [sock.client.name, base, RING, base + RING, RING]
        local, remote = sock.kernel.getsockname(), sock.kernel.getpeername()
        self._watch(sock)
        return {
            "local_address": socket.inet_aton(local[0]),
            "local_port": local[1],
            "remote_address": socket.inet_aton(remote[0]),
            "remote_port": remote[1],
            "rings": rings,
            "limit": RING,
        }

    # -- bytes

    def _stream(self, sock: Sock, message: Any) -> None:
        kind = type(message)
        if kind is Send:
            assert message.offset <= sock.sent, "gap"
            assert message.offset + message.length <= sock.taken + RING, "beyond the limit"
            skip = sock.sent - message.offset
            if skip >= message.length:
                return
            if message.payload:
                assert len(message.payload) == message.length
                sock.out.append(memoryview(message.payload)[skip:])
            else:
                assert sock.client.memory is not None
                base = sock.slot * 2 * RING
                place = Place("", base, RING, message.offset, message.length).slice(skip)
                view = memoryview(sock.client.memory)
                sock.out.extend(view[at : at + length] for at, length in place.spans())
            sock.sent = message.offset + message.length
            self._write(sock)
        elif kind is Consumed:
            assert message.upto <= sock.received
            sock.consumed = max(sock.consumed, message.upto)
            self._watch(sock)
        elif kind is Eof:
            assert message.at == sock.sent
            sock.eof_in = True
            self._write(sock)
        elif kind is Reset:
            self._drop(sock, abort=True)

    def _write(self, sock: Sock) -> None:
        before = sock.taken
        try:
            while sock.out:
                done = sock.kernel.send(sock.out[0])
                sock.taken += done
                if done < len(sock.out[0]):
                    sock.out[0] = sock.out[0][done:]
                else:
                    sock.out.popleft()
        except BlockingIOError:
            pass
        except OSError as error:
            self._broken(sock, error.errno or errno.EPIPE)
            return
        if sock.taken > before:
            self._tell(sock.client, Accepted(sock.number, sock.taken, sock.taken + RING))
        if not sock.out and sock.eof_in:
            if sock.closing:
                self._drop(sock)
                return
            with contextlib.suppress(OSError):
                sock.kernel.shutdown(socket.SHUT_WR)
        self._watch(sock)

    def _read(self, sock: Sock) -> None:
        room = self._window(sock) - (sock.received - sock.consumed)
        if room <= 0 or sock.eof_out:
            return
        if sock.client.memory is not None:
            at = sock.received % RING
            base = sock.slot * 2 * RING + RING
            view = memoryview(sock.client.memory)[base + at : base + min(RING, at + room)]
            got = sock.kernel.recv_into(view)
            payload: bytes | Place = Place(sock.client.name, base, RING, sock.received, got)
            if 0 < got <= 2048:
                payload = bytes(view[:got])
        else:
            payload = sock.kernel.recv(min(room, PIECE))
            got = len(payload)
        if not got:
            sock.eof_out = True
            self._tell(sock.client, Eof(sock.number, sock.received))
        else:
            self._tell(sock.client, Data(sock.number, sock.received, payload))
            sock.received += got
        self._watch(sock)

    def _kernel_event(self, sock: Sock, mask: int) -> None:
        if sock.listening:
            try:
                while True:
                    sock.queue.append(sock.kernel.accept()[0])
            except BlockingIOError:
                pass
            self._tell(sock.client, Pending(sock.number, len(sock.queue)))
        elif sock.connecting:
            number = sock.connecting
            code = sock.kernel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            sock.connecting = 0
            if code:
                sock.error = code
                self._watch(sock)
                self._tell(sock.client, Reply(number, code))
            else:
                self._tell(sock.client, Reply(number, 0, self._establish(sock)))
        elif sock.connected:
            try:
                if mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                    self._read(sock)
            except BlockingIOError:
                pass
            except OSError as error:
                self._broken(sock, error.errno or errno.ECONNRESET)
                return
            if mask & select.EPOLLOUT and sock.number in self._socks:
                self._write(sock)
            if mask & select.EPOLLHUP and sock.eof_out and sock.number in self._socks:
                self._epoll.modify(sock.kernel.fileno(), select.EPOLLET)  # both directions are over

    def _broken(self, sock: Sock, code: int) -> None:
        if sock.closing:
            self._drop(sock)
            return
        sock.connected = False
        sock.error = code
        sock.out.clear()
        self._epoll.modify(sock.kernel.fileno(), select.EPOLLET)
        self._tell(sock.client, Reset(sock.number, code))

    def reset_everything(self) -> None:
        """Abort all connections from the peer's side of the kernel sockets (to be called while the thread is idle)."""
        for sock in list(self._socks.values()):
            if sock.connected:
                self._reset_kernel(sock.kernel)

    @staticmethod
    def _reset_kernel(kernel: socket.socket) -> None:
        if kernel.fileno() >= 0:
            try:
                kernel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
            finally:
                kernel.close()

    def _drop(self, sock: Sock, *, abort: bool = False) -> None:
        self._by_fd.pop(sock.kernel.fileno(), None)
        self._epoll.unregister(sock.kernel.fileno())
        for waiting in sock.queue:
            self._reset_kernel(waiting)
        if abort:
            self._reset_kernel(sock.kernel)
        sock.kernel.close()
        if sock.slot >= 0:
            sock.client.slots.append(sock.slot)
        self._socks.pop(sock.number, None)  # last: tests wait for it

"""Libraries on the stack, each as client and as server of itself, with TLS and without: `libraries.py CERTS ADDRESS
PEER`.

It runs under `python -m levelip`, which is all that makes them use the stack. A line a case: its name and "ok", or
what went wrong. CERTS is a directory with ca.pem and server.pem; ADDRESS is the stack's; PEER the kernel's,
where nobody listens.
"""

from __future__ import annotations

import asyncio
import http.client
import http.server
import os
import selectors
import socket
import socketserver
import ssl
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOST = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"
PATIENCE_S = 60.0
DATA = bytes(range(256)) * 1200  # 300 KB, more than one segment and one buffer
PEER = sys.argv[3] if len(sys.argv) > 3 else HOST
CERTS = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()


def server_context() -> ssl.SSLContext:
    """With a certificate for HOST."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTS / "server.pem")
    return context


def client_context() -> ssl.SSLContext:
    """Which trusts it, and nobody else."""
    return ssl.create_default_context(cafile=str(CERTS / "ca.pem"))


def is_ours(sock: Any) -> bool:
    """Whether a socket is the stack's: the kernel would say AF_INET of its descriptor."""
    domain = int(getattr(sock, "_sock", sock).fileno())
    from levelip.client import kernel

    with kernel.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, os.dup(domain)) as probe:
        return kernel.socket.getsockopt(probe, socket.SOL_SOCKET, socket.SO_DOMAIN) == socket.AF_UNIX


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


class Thread(threading.Thread):
    """Raises what went wrong when it is joined."""

    def __init__(self, target: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._work = target
        self.failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except BaseException as failure:
            self.failure = failure

    def __enter__(self) -> Thread:
        return self

    def __exit__(self, *_: object) -> None:
        self.join(PATIENCE_S)
        assert not self.is_alive(), "the other side did not end"
        if self.failure is not None:
            raise self.failure


# the standard library


def sockets_in_tls() -> None:
    """ssl: a listener that is wrapped, so that accept() shakes hands; a client that is wrapped before it connects."""
    with socket.create_server((HOST, 0)) as plain, server_context().wrap_socket(plain, server_side=True) as listener:
        listener.settimeout(PATIENCE_S)

        def serve() -> None:
            connection, address = listener.accept()
            with connection:
                assert isinstance(connection, ssl.SSLSocket)
                assert is_ours(connection)
                assert connection.getpeername() == address
                got = b""
                while len(got) < len(DATA):
                    got += connection.recv(1 << 16)
                connection.sendall(got[::-1])
                connection.unwrap().close()

        with Thread(serve), socket.socket() as bare:
            bare.settimeout(PATIENCE_S)
            with client_context().wrap_socket(bare, server_hostname=HOST) as sock:
                sock.connect(listener.getsockname())
                assert is_ours(sock)
                assert sock.version() == "TLSv1.3"
                sock.sendall(DATA)
                with sock.makefile("rb") as file:
                    assert file.read(len(DATA)) == DATA[::-1]
                    assert file.read() == b""


def untrusted_certificates() -> None:
    """ssl: a client that does not know the issuer raises, and the listener hears of it."""
    with server_context().wrap_socket(socket.create_server((HOST, 0)), server_side=True) as listener:

        def serve() -> None:
            try:
                listener.accept()
            except ssl.SSLError as failed:
                assert "UNKNOWN_CA" in str(failed)
            else:
                raise AssertionError("no error")

        with Thread(serve), socket.create_connection(listener.getsockname()) as sock:
            try:
                ssl.create_default_context().wrap_socket(sock, server_hostname=HOST)
            except ssl.SSLCertVerificationError:
                return
            raise AssertionError("trusted")


def tls_without_waiting() -> None:
    """ssl: a non-blocking socket in a selector: SSLWantRead and SSLWantWrite, and what epoll says."""
    with server_context().wrap_socket(socket.create_server((HOST, 0)), server_side=True) as listener:
        client_waits = threading.Event()

        def serve() -> None:
            assert client_waits.wait(PATIENCE_S)
            connection, _ = listener.accept()
            with connection:
                connection.sendall(DATA)

        with Thread(serve), socket.create_connection(listener.getsockname()) as raw:
            raw.setblocking(False)
            sock = client_context().wrap_socket(raw, server_hostname=HOST, do_handshake_on_connect=False)
            with sock, selectors.EpollSelector() as selector:
                selector.register(sock, selectors.EVENT_READ)
                waited, got = 0, b""
                work: Callable[[], Any] = sock.do_handshake
                while True:
                    try:
                        part = work()
                    except ssl.SSLWantReadError:
                        waited += 1
                        client_waits.set()
                        assert selector.select(PATIENCE_S)
                        continue
                    if work == sock.do_handshake:
                        work = lambda: sock.recv(1 << 16)  # noqa: E731
                    elif not part:
                        break
                    else:
                        got += part
                assert waited
                assert got == DATA


def many_in_a_selector() -> None:
    """selectors: ten clients of an echo server with one thread and one selector."""
    with socket.create_server((HOST, 0)) as listener, selectors.DefaultSelector() as selector:
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ)
        clients = []
        for number in range(10):
            sock = socket.socket()
            sock.setblocking(False)
            assert sock.connect_ex(listener.getsockname()) == 115  # EINPROGRESS
            selector.register(sock, selectors.EVENT_WRITE, b"client %d" % number)
            clients.append(sock)
        answers = set()
        served = []
        while len(answers) < 10:
            ready = selector.select(PATIENCE_S)
            assert ready, "nothing happens"
            for key, mask in ready:
                sock = key.fileobj  # type: ignore[assignment]
                if sock is listener:
                    served.append(sock.accept()[0])
                    selector.register(served[-1], selectors.EVENT_READ, "served")
                elif key.data == "served":
                    data = sock.recv(100)
                    if data:
                        sock.sendall(data.upper())
                    else:
                        selector.unregister(sock)
                elif mask & selectors.EVENT_WRITE:
                    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                    sock.sendall(key.data)
                    selector.modify(sock, selectors.EVENT_READ, key.data)
                else:
                    answer = sock.recv(100)
                    assert answer == key.data.upper()
                    answers.add(answer)
                    selector.unregister(sock)
        for sock in (*clients, *served):
            sock.close()


async def _streams(server_tls: ssl.SSLContext | None, client_tls: ssl.SSLContext | None) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readexactly(len(DATA)))[::-1])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0, ssl=server_tls)
    async with server:
        assert is_ours(server.sockets[0])
        port = server.sockets[0].getsockname()[1]

        async def one() -> None:
            reader, writer = await asyncio.open_connection(HOST, port, ssl=client_tls)
            assert is_ours(writer.get_extra_info("socket"))
            assert writer.get_extra_info("peername") == (HOST, port)
            writer.write(DATA)
            assert await reader.read() == DATA[::-1] or not client_tls
            writer.close()
            await writer.wait_closed()

        await asyncio.wait_for(asyncio.gather(*[one() for _ in range(5)]), PATIENCE_S)


def asyncio_streams() -> None:
    """asyncio: five clients of one server."""
    asyncio.run(_streams(None, None))


def asyncio_streams_in_tls() -> None:
    """asyncio: the same in TLS, which it does in memory."""
    asyncio.run(_streams(server_context(), client_context()))


def asyncio_datagrams() -> None:
    """asyncio: datagram endpoints, bound and connected, and what a closed port says."""

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(data.upper(), addr)

    class Ask(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.answers: asyncio.Queue[Any] = asyncio.Queue()

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.answers.put_nowait((data, addr))

        def error_received(self, exc: Exception) -> None:
            self.answers.put_nowait(type(exc))

    async def talk() -> None:
        loop = asyncio.get_running_loop()
        echo, _ = await loop.create_datagram_endpoint(Echo, local_addr=(HOST, 0))
        where = echo.get_extra_info("sockname")
        assert is_ours(echo.get_extra_info("socket"))
        transport, ask = await loop.create_datagram_endpoint(Ask, remote_addr=where)
        for size in (1, 1400, 9000, 60_000):
            transport.sendto(b"a" * size)
            assert await asyncio.wait_for(ask.answers.get(), PATIENCE_S) == (b"A" * size, where)
        echo.close()
        transport.close()
        transport, ask = await loop.create_datagram_endpoint(Ask, remote_addr=(PEER, 9))
        transport.sendto(b"anybody?")
        assert await asyncio.wait_for(ask.answers.get(), PATIENCE_S) is ConnectionRefusedError
        transport.close()

    asyncio.run(talk())


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET with DATA and POST with what it got."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(DATA)

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class HttpServer:
    """http.server in a thread, in TLS if asked."""

    def __init__(self, *, tls: bool) -> None:
        self.server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        if tls:
            self.server.socket = server_context().wrap_socket(self.server.socket, server_side=True)
        assert is_ours(self.server.socket)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> HttpServer:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def _http(client: http.client.HTTPConnection) -> None:
    for _ in range(3):  # over one connection
        client.request("GET", "/")
        response = client.getresponse()
        assert (response.status, response.read()) == (200, DATA)
    client.request("POST", "/", DATA)
    assert client.getresponse().read() == DATA
    assert is_ours(client.sock)
    client.close()


def http_client_and_server() -> None:
    """http.client and http.server."""
    with HttpServer(tls=False) as server:
        _http(http.client.HTTPConnection(HOST, server.port, timeout=PATIENCE_S))


def https_client_and_server() -> None:
    """The same with a wrapped listener and HTTPSConnection."""
    with HttpServer(tls=True) as server:
        _http(http.client.HTTPSConnection(HOST, server.port, timeout=PATIENCE_S, context=client_context()))


def socketservers() -> None:
    """socketserver: threads and forks, streams and datagrams."""

    class Upper(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline().upper())

    class UpperDatagram(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            sock.sendto(data.upper(), self.client_address)

    for kind, handler in (
        (socketserver.ThreadingTCPServer, Upper),
        (socketserver.ForkingTCPServer, Upper),
        (socketserver.UDPServer, UpperDatagram),
        (socketserver.ForkingUDPServer, UpperDatagram),
    ):
        with kind((HOST, 0), handler) as server:
            assert is_ours(server.socket)
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            with socket.socket(type=kind.socket_type) as sock:
                sock.settimeout(PATIENCE_S)
                sock.connect(server.server_address)
                sock.sendall(b"hello\n")
                assert sock.recv(100) == b"HELLO\n", kind
            server.shutdown()
            thread.join(PATIENCE_S)


# others


def requests_library() -> None:
    """requests, with TLS and without, over connections that are kept."""
    import requests

    for tls in (False, True):
        with HttpServer(tls=tls) as server, requests.Session() as session:
            session.trust_env = False
            url = f"http{'s' * tls}://{HOST}:{server.port}/"
            for _ in range(3):
                answer = session.post(url, DATA, timeout=PATIENCE_S, verify=str(CERTS / "ca.pem"))
                assert answer.content == DATA
            try:
                requests.get(url.replace("https", "http") if tls else url + "x", timeout=PATIENCE_S)
            except requests.ConnectionError:
                assert tls


def aiohttp_library() -> None:
    """aiohttp, client and server, with TLS and without, and a WebSocket."""
    import aiohttp
    from aiohttp import web

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def chat(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            await ws.send_str(message.data.upper())
        return ws

    async def talk() -> None:
        for tls in (False, True):
            app = web.Application(client_max_size=1 << 20)
            app.add_routes([web.post("/", echo), web.get("/chat", chat)])
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, HOST, 0, ssl_context=server_context() if tls else None)
            await site.start()
            port = runner.addresses[0][1]
            url = f"http{'s' * tls}://{HOST}:{port}/"
            connector = aiohttp.TCPConnector(ssl=client_context() if tls else True)
            async with aiohttp.ClientSession(connector=connector) as session:
                answers = await asyncio.gather(*[_post(session, url) for _ in range(5)])
                assert answers == [DATA] * 5
                async with session.ws_connect(url + "chat") as ws:
                    await ws.send_str("hello")
                    assert (await ws.receive_str()) == "HELLO"
            await runner.cleanup()

    async def _post(session: aiohttp.ClientSession, url: str) -> bytes:
        async with session.post(url, data=DATA) as answer:
            return await answer.read()

    asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))


def uvicorn_library() -> None:
    """uvicorn, with TLS and without, asked by http.client."""
    import uvicorn

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        length = str(len(body or DATA)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body or DATA})

    for tls in (False, True):
        pem = str(CERTS / "server.pem")
        files = {"ssl_certfile": pem, "ssl_keyfile": pem} if tls else {}
        config = uvicorn.Config(
            app, host=HOST, port=0, log_level="error", lifespan="off", loop="asyncio", http="h11", **files
        )
        server = uvicorn.Server(config)
        with Thread(server.run):
            while not server.started:
                threading.Event().wait(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            assert is_ours(server.servers[0].sockets[0])
            if tls:
                _http(http.client.HTTPSConnection(HOST, port, timeout=PATIENCE_S, context=client_context()))
            else:
                _http(http.client.HTTPConnection(HOST, port, timeout=PATIENCE_S))
            server.should_exit = True


def forked_workers() -> None:
    """multiprocessing: a listener that processes share by fork, one of which is sent its connection's descriptor."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    with socket.create_server((HOST, 0)) as listener:

        def work(number: int) -> None:
            connection, _ = listener.accept()
            connection.sendall(b"%d" % number)
            connection.close()

        workers = [context.Process(target=work, args=(number,)) for number in range(3)]
        for worker in workers:
            worker.start()
        answers = set()
        for _ in workers:
            with socket.create_connection(listener.getsockname(), timeout=PATIENCE_S) as sock:
                answers.add(read_all(sock))
        assert answers == {b"0", b"1", b"2"}
        ours, theirs = context.Pipe()

        def take() -> None:
            with theirs.recv() as connection:
                connection.sendall(b"from there")

        worker = context.Process(target=take)
        worker.start()
        with socket.create_connection(listener.getsockname(), timeout=PATIENCE_S) as sock:
            connection, _ = listener.accept()
            ours.send(connection)
            connection.close()
            assert read_all(sock) == b"from there"
        for process in (*workers, worker):
            process.join(PATIENCE_S)
            assert process.exitcode == 0


def _serve_spawned(listener: socket.socket, number: int) -> None:
    connection, _ = listener.accept()
    with connection, socket.create_connection(listener.getsockname()) as own:
        connection.sendall(b"%d %s" % (number, str(is_ours(own)).encode()))


def spawned_workers() -> None:
    """multiprocessing: processes that are spawned, not forked, get the listener and are on the stack themselves."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with socket.create_server((HOST, 0)) as listener:
        workers = [context.Process(target=_serve_spawned, args=(listener, number)) for number in range(2)]
        for worker in workers:
            worker.start()
        with socket.create_connection(listener.getsockname(), timeout=PATIENCE_S) as sock:
            first = read_all(sock)
        for worker in workers:
            worker.join(PATIENCE_S)
        assert first in (b"0 True", b"1 True"), first
        assert [worker.exitcode for worker in workers] == [0, 0]


def other_programs() -> None:
    """subprocess: a descriptor passed over exec to another program on the stack, which asks it for its names; the
    program that made it may be gone."""
    import subprocess

    with socket.create_server((HOST, 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        connection, address = listener.accept()
        source = (
            "import socket, sys; s = socket.socket(fileno=int(sys.argv[1]));print(s.getpeername()[1]); s.sendall(b'x')"
        )
        command = [sys.executable, "-m", "levelip", "-c", source, str(connection.fileno())]
        with connection:
            done = subprocess.run(
                command, pass_fds=[connection.fileno()], capture_output=True, text=True, timeout=PATIENCE_S, check=True
            )
        assert done.stdout == f"{address[1]}\n"
        assert read_all(sock) == b"x"


CASES = (
    sockets_in_tls, untrusted_certificates, tls_without_waiting, many_in_a_selector, asyncio_streams,
    asyncio_streams_in_tls, asyncio_datagrams, http_client_and_server, https_client_and_server, socketservers,
    requests_library, aiohttp_library, uvicorn_library, forked_workers, spawned_workers, other_programs,
)  # fmt: skip


def main() -> None:
    for case in CASES:
        if len(sys.argv) > 4 and case.__name__ not in sys.argv[4:]:
            continue
        try:
            case()
        except BaseException:
            traceback.print_exc()
            print(f"{case.__name__}: failed", flush=True)
        else:
            print(f"{case.__name__}: ok", flush=True)


if __name__ == "__main__":
    main()

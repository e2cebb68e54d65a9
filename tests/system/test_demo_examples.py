"""The sample programs in examples/ do what their docstrings say, between our sockets and the kernel's."""

from __future__ import annotations

import hashlib
import random
import select
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from tests.system.harness import ROOT, Stack
from tests.system.namespace import Namespace

EXAMPLES = ROOT / "examples"
CONTENT = random.Random(3).randbytes(3_000_000)


def start(stack: Stack, *argv: str, ready: str) -> subprocess.Popen[str]:
    """An example as an application of the stack, once it has said that it is ready."""
    program = stack.popen([str(EXAMPLES / argv[0]), *argv[1:]], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert select.select([program.stdout], [], [], 60)[0], stack.report()
    said = program.stdout.readline()
    assert ready in said, said
    return program


def connect(namespace: Namespace, host: str, port: int) -> socket.socket:
    """A kernel socket of the namespace, connected."""
    client = namespace.socket()
    client.settimeout(60)
    client.connect((host, port))
    return client


def read_all(client: socket.socket) -> bytes:
    """Until end of file."""
    data = b""
    while piece := client.recv(1 << 16):
        data += piece
    return data


def serve_once(listener: socket.socket, answer: Callable[[bytes], bytes]) -> threading.Thread:
    """Answer one connection's first request, in a thread."""

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.sendall(answer(connection.recv(1 << 16)))

    listener.settimeout(60)
    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_http_server_serves_files_to_the_kernel(stack: Stack, namespace: Namespace, tmp_path: Path) -> None:
    """A file comes whole, a missing one is 404, and two connections are served at once."""
    (tmp_path / "file").write_bytes(CONTENT)
    start(stack, "http_server.py", "--port", "8080", "--directory", str(tmp_path), ready="serving")
    idle = connect(namespace, stack.address, 8080)
    for name, status in (("file", b"200"), ("nothing", b"404")):
        with connect(namespace, stack.address, 8080) as client:
            client.sendall(f"GET /{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            head, _, body = read_all(client).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 " + status), head
        assert status != b"200" or body == CONTENT
    idle.close()


def test_http_download_from_the_kernel(stack: Stack, namespace: Namespace, tmp_path: Path) -> None:
    """The file that was served lies in the output, and its sha256 is told."""
    listener = namespace.socket()
    listener.bind((stack.host, 8000))
    listener.listen()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(CONTENT)}\r\nConnection: close\r\n\r\n".encode()
    thread = serve_once(listener, lambda request: head + CONTENT if request.startswith(b"GET /file ") else b"")
    output = tmp_path / "output"
    url = f"http://{stack.host}:8000/file"
    program = stack.popen(
        [str(EXAMPLES / "http_download.py"), url, "-o", str(output)], stderr=subprocess.PIPE, text=True
    )
    _, said = program.communicate(timeout=60)
    thread.join(60)
    assert program.returncode == 0, said
    assert output.read_bytes() == CONTENT
    assert hashlib.sha256(CONTENT).hexdigest() in said


def test_http_download_says_what_is_wrong(stack: Stack, namespace: Namespace) -> None:
    """A port where nobody listens, and a body that ends too early: status 1 and a sentence."""
    url = f"http://{stack.host}:8000/file"

    def failed() -> str:
        program = stack.popen([str(EXAMPLES / "http_download.py"), url], stderr=subprocess.PIPE, text=True)
        said = str(program.communicate(timeout=60)[1])
        assert program.returncode == 1, said
        assert "Traceback" not in said
        return said

    assert "Connection refused" in failed()
    listener = namespace.socket()
    listener.bind((stack.host, 8000))
    listener.listen()
    thread = serve_once(listener, lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
    assert "95 more expected" in failed()
    thread.join(60)


def test_echo_server_echoes_to_many(stack: Stack, namespace: Namespace) -> None:
    """Twenty connections at once each get back what they sent, and the end when they end."""
    start(stack, "echo.py", "serve", "--port", "7777", ready="echo server")
    clients = [connect(namespace, stack.address, 7777) for _ in range(20)]
    for number, client in enumerate(clients):
        client.sendall(CONTENT[number * 5000 : (number + 1) * 5000])
    for client in clients:
        client.shutdown(socket.SHUT_WR)
    for number, client in enumerate(clients):
        assert read_all(client) == CONTENT[number * 5000 : (number + 1) * 5000]
        client.close()


def test_echo_client_prints_the_echo(stack: Stack, namespace: Namespace) -> None:
    """What a kernel echo server sends back is printed."""
    listener = namespace.socket()
    listener.bind((stack.host, 7))
    listener.listen()
    thread = serve_once(listener, lambda request: request.upper())
    assert stack.python(EXAMPLES / "echo.py", "say", stack.host, "7", "hello") == "HELLO\n"
    thread.join(60)

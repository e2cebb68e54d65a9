"""Clients of the gateway that share no line with ours: the examples in C++ and Node.js, client and server, against the
kernel. Each is built here from what it names; where that is not to be had the test is skipped and says so."""

from __future__ import annotations

import shutil
import socket as std
import subprocess
import threading
from pathlib import Path

import pytest

from levelip.rpc.paths import door_endpoint
from tests.system.harness import ROOT, Stack
from tests.system.namespace import Namespace
from tests.system.streams import KernelServer, digest, read_all, stream

pytestmark = pytest.mark.timeout(400)

SIZE = 3_000_000
LIMIT_S = 100
HEADERS = ("zmq.hpp", "msgpack.hpp")
INSTALL = "as root: apt-get install -y g++ libzmq3-dev cppzmq-dev libmsgpack-cxx-dev"


@pytest.fixture(scope="module")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the example in C++."""
    if shutil.which("g++") is None or not all(Path("/usr/include", name).exists() for name in HEADERS):
        pytest.skip(f"not to be had here: {', '.join(HEADERS)} and a compiler ({INSTALL})")
    built = tmp_path_factory.mktemp("cpp") / "echo"
    source = ROOT / "examples" / "cpp" / "echo.cpp"
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(built), str(source), "-lzmq"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [str(built)]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the example in Node.js, with its packages beside it."""
    npm, program = shutil.which("npm"), shutil.which("node")
    if npm is None or program is None:
        pytest.skip("not to be had here: node and npm")
    directory = tmp_path_factory.mktemp("node")
    for name in ("package.json", "echo.mjs"):
        shutil.copy(ROOT / "examples" / "node" / name, directory)
    install = [npm, "install", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=0"]
    done = subprocess.run(install, cwd=directory, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        pytest.skip(f"not to be had here: the packages zeromq and @msgpack/msgpack ({done.stderr.strip()[-200:]})")
    probe = [program, "--input-type=module", "-e", "await import('zeromq')"]
    done = subprocess.run(probe, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        pytest.skip(f"not to be had here: zeromq's native module ({done.stderr.strip()[-200:]})")
    return [program, str(directory / "echo.mjs")]


@pytest.fixture
def example(request: pytest.FixtureRequest) -> list[str]:
    command: list[str] = request.getfixturevalue(request.param)
    return command


def echo(sock: std.socket) -> None:
    while chunk := sock.recv(65_536):
        sock.sendall(chunk)


@pytest.mark.parametrize("example", ["cpp", "node"], indirect=True)
def test_an_example_as_client_and_server(shared_stack: Stack, example: list[str]) -> None:
    """It sends 3 MB to the kernel's echo server and reads them back, and echoes 3 MB of the kernel's: every byte."""
    host = shared_stack.namespace
    assert host is not None
    endpoint = door_endpoint(shared_stack.name, shared_stack.directory)
    data = stream(1, SIZE)
    with KernelServer(host, shared_stack.host, echo) as server:
        command = [*example, "ask", endpoint, shared_stack.host, str(server.port)]
        done = subprocess.run(command, input=data, capture_output=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert digest(done.stdout) == digest(stream(1, SIZE))
    _serves(shared_stack, host, [*example, "serve", endpoint, "7007"], data)


def _serves(stack: Stack, host: Namespace, command: list[str], data: bytes) -> None:
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None and process.stderr.readline() == "listening\n"
        with host.socket() as sock:
            sock.settimeout(LIMIT_S)
            sock.connect((stack.address, 7007))
            sender = threading.Thread(target=_send_all, args=(sock, data), daemon=True)
            sender.start()
            assert read_all(sock) == digest(stream(1, SIZE))
            sender.join(LIMIT_S)
        assert process.wait(LIMIT_S) == 0, process.stderr.read()
    finally:
        process.kill()
        process.wait(60)


def _send_all(sock: std.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(std.SHUT_WR)


@pytest.mark.parametrize("example", ["cpp", "node"], indirect=True)
def test_an_example_is_told_what_went_wrong(shared_stack: Stack, example: list[str]) -> None:
    """A connection that is refused ends it with the errno's sentence and status 1."""
    endpoint = door_endpoint(shared_stack.name, shared_stack.directory)
    command = [*example, "ask", endpoint, shared_stack.host, "1"]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 1 and (b"refused" in done.stderr or b"errno 111" in done.stderr), done.stderr

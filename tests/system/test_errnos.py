"""Errors and ends of connections, as programs see them. Wherever Linux can be asked it is: the same two programs run
between two kernel sockets, with our client, and with our server, and must see the same."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket as std
import struct
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from levelip.client import socket as levelip_socket
from tests.system import streams
from tests.system.harness import Stack
from tests.system.streams import PATIENCE_S, KernelServer, digest, kernel_connect, read_all, read_exactly, stream

RESET_ON_CLOSE = struct.pack("=ii", 1, 0)  # struct linger
LIMIT_S = 60.0
MUCH = 1_000_000


# what the programs of the scenarios do


def attempt(call: Callable[..., Any], *args: Any) -> Any:
    """The call's result, or the name of its errno."""
    try:
        return call(*args)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, repr(error))


def wait(sock: std.socket) -> None:
    """Until something has come: data, an end, an error."""
    assert select.select([sock], [], [], PATIENCE_S)[0], "nothing comes"


def send_until_it_fails(sock: std.socket) -> str:
    """The error that ends it; the first bytes may still go, as the peer's RST is under way."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            sock.send(b"x")
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        time.sleep(0.01)
    return "goes on"


def so_error(sock: std.socket) -> str:
    return errno.errorcode.get(sock.getsockopt(std.SOL_SOCKET, std.SO_ERROR), "0")


def reset(sock: std.socket) -> None:
    sock.setsockopt(std.SOL_SOCKET, std.SO_LINGER, RESET_ON_CLOSE)
    sock.close()


def waits_for_nothing(sock: std.socket) -> list[Any]:
    wait(sock)
    return [attempt(sock.recv, 10), attempt(sock.recv, 10), so_error(sock)]


def resets(sock: std.socket) -> list[Any]:
    assert sock.recv(1) == b"!"
    reset(sock)
    return []


def reads_until_reset(sock: std.socket) -> list[Any]:
    sock.send(b"!")
    wait(sock)
    ends = [attempt(sock.recv, 10), attempt(sock.recv, 10), attempt(sock.send, b"x"), so_error(sock)]
    return [*ends, attempt(sock.getpeername), attempt(sock.shutdown, std.SHUT_WR)]


def asks_for_the_error(sock: std.socket) -> list[Any]:
    sock.send(b"!")
    wait(sock)
    return [so_error(sock), so_error(sock), attempt(sock.recv, 10), attempt(sock.send, b"x")]


def writes_until_reset(sock: std.socket) -> list[Any]:
    sock.send(b"!")
    wait(sock)
    return [attempt(sock.send, b"x"), attempt(sock.send, b"x"), attempt(sock.recv, 10)]


def sends_and_resets(sock: std.socket) -> list[Any]:
    sock.sendall(bytes(1000))
    assert sock.recv(1) == b"!"
    reset(sock)
    return []


def reads_late(sock: std.socket) -> list[Any]:
    found = [len(read_exactly(sock, 400))]
    sock.send(b"!")
    poll = select.poll()
    poll.register(sock, 0)  # POLLERR and POLLHUP need no asking
    assert poll.poll(PATIENCE_S * 1000), "no reset comes"
    return [*found, len(read_exactly(sock, 600)), attempt(sock.recv, 10), attempt(sock.recv, 10)]


def closes(sock: std.socket) -> list[Any]:
    sock.close()
    return []


def writes_after_the_end(sock: std.socket) -> list[Any]:
    wait(sock)
    return [attempt(sock.recv, 10), attempt(sock.send, b"x"), send_until_it_fails(sock), attempt(sock.recv, 10)]


def closes_with_unread_data(sock: std.socket) -> list[Any]:
    wait(sock)
    time.sleep(0.05)
    sock.close()
    return []


def sends_and_waits(sock: std.socket) -> list[Any]:
    sock.sendall(bytes(1000))
    wait(sock)
    return [attempt(sock.recv, 10), attempt(sock.recv, 10)]


def half_closes_first(sock: std.socket) -> list[Any]:
    sock.sendall(stream(1, MUCH))
    sock.shutdown(std.SHUT_WR)
    return [attempt(sock.send, b"x"), read_all(sock), attempt(sock.recv, 10), so_error(sock)]


def half_closes_last(sock: std.socket) -> list[Any]:
    found = read_all(sock)
    sock.sendall(stream(2, MUCH))
    sock.shutdown(std.SHUT_WR)
    return [found, attempt(sock.recv, 10), attempt(sock.send, b"x")]


def shuts_down_reading(sock: std.socket) -> list[Any]:
    sock.shutdown(std.SHUT_RD)
    found = [attempt(sock.recv, 10)]
    sock.sendall(b"still")
    sock.shutdown(std.SHUT_WR)
    return found


def reads_five(sock: std.socket) -> list[Any]:
    return [read_exactly(sock, 5), attempt(sock.recv, 10)]


def calls_again(sock: std.socket) -> list[Any]:
    found = [attempt(sock.listen), attempt(sock.bind, ("", 0))]
    sock.setblocking(True)  # with a timeout, accept() would first wait for something to read
    found.append(attempt(sock.accept))
    sock.close()
    return found


def connects_again(sock: std.socket) -> list[Any]:
    """A connect that is refused must not keep the peer from seeing the close. (The first one may yet be the end of the
    connect that did not wait, 0 on Linux.)"""
    peer = sock.getpeername()
    sock.setblocking(False)
    sock.connect_ex(peer)
    found = [sock.connect_ex(peer)]
    sock.close()
    return found


SCENARIOS: dict[str, tuple[Callable[[std.socket], list[Any]], Callable[[std.socket], list[Any]]]] = {
    "reset-reading": (reads_until_reset, resets),
    "reset-so-error": (asks_for_the_error, resets),
    "reset-writing": (writes_until_reset, resets),
    "reset-after-data": (reads_late, sends_and_resets),
    "peer-closed-writing": (writes_after_the_end, closes),
    "linger-0": (resets, reads_until_reset),
    "close-unread": (sends_and_waits, closes_with_unread_data),
    "half-close": (half_closes_first, half_closes_last),
    "shutdown-reading": (shuts_down_reading, reads_five),
    "calls-on-connected": (calls_again, waits_for_nothing),
    "connect-on-connected": (connects_again, waits_for_nothing),
    "close-close": (closes, waits_for_nothing),
}
"""Name → what one side does with its socket, and what the other does; each tells what it saw."""


def act(side: int, name: str, sock: std.socket) -> list[Any]:
    with sock:
        sock.settimeout(PATIENCE_S)
        return SCENARIOS[name][side](sock)


def app_act(side: int, name: str, host: str, port: int) -> list[Any]:
    """One side on the stack, as the client."""
    return act(side, name, levelip_socket.create_connection((host, port), timeout=PATIENCE_S))


def app_serve(side: int, name: str, port: int) -> list[Any]:
    """One side on the stack, as the server."""
    with levelip_socket.create_server(("", port)) as server:
        server.settimeout(PATIENCE_S)
        return act(side, name, server.accept()[0])


@pytest.mark.parametrize("name", SCENARIOS)
def test_both_sides_see_what_linux_shows(shared_stack: Stack, name: str) -> None:
    """Each scenario between two kernel sockets, then with each side on the stack, connecting and accepting."""
    stack, namespace = shared_stack, shared_stack.namespace
    assert namespace is not None
    with ThreadPoolExecutor(1) as other, namespace.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        listener.settimeout(PATIENCE_S)
        port = listener.getsockname()[1]

        def kernel_accepts(side: int) -> Any:
            return other.submit(lambda: act(side, name, listener.accept()[0]))

        expected = {}
        for side in (0, 1):
            accepting = kernel_accepts(1 - side)
            seen = act(side, name, kernel_connect(namespace, "127.0.0.1", port))
            expected[side] = (seen, accepting.result(LIMIT_S))
            assert (seen, accepting.result()) == (expected[0] if side == 0 else expected[0][::-1])
        for side in (0, 1):
            accepting = kernel_accepts(1 - side)
            ours = stack.submit(app_act, side, name, stack.host, port)
            assert (ours.result(LIMIT_S), accepting.result(LIMIT_S)) == expected[side], "our client"
        for side in (0, 1):
            ours = stack.submit(app_serve, 1 - side, name, 7000 + side)
            with kernel_connect(namespace, stack.address, 7000 + side) as sock:
                assert (act(side, name, sock), ours.result(LIMIT_S)) == expected[side], "our server"


# connections that do not come about


def app_connect(host: str, port: int) -> tuple[str, str, float]:
    """How a blocking connect fails, what SO_ERROR says then, and how long it took."""
    with levelip_socket.socket() as sock:
        start = time.monotonic()
        failure = attempt(sock.connect, (host, port))
        return failure, so_error(sock), time.monotonic() - start


def app_connect_nonblocking(host: str, port: int) -> tuple[str, str, str]:
    """The same without blocking: connect, SO_ERROR once writable, and connect again."""
    with levelip_socket.socket() as sock:
        sock.setblocking(False)
        first = attempt(sock.connect, (host, port))
        assert select.select([], [sock], [], PATIENCE_S)[1]
        return first, so_error(sock), so_error(sock)


@pytest.fixture
def impatient(shared_stack: Stack) -> Iterator[Stack]:
    """A stack that gives up soon."""
    settings = {"tcp.syn_retries": 2, "tcp.rto_initial_ms": 100, "link.arp_retry_ms": 100}
    before = {}
    for key, value in settings.items():
        section, _, name = key.partition(".")
        before[key] = shared_stack.ask(section, "get", section=section)["values"][name]
        shared_stack.set(key, value)
    yield shared_stack
    for key, value in before.items():
        shared_stack.set(key, value)


SOON_S = 30.0
"""Far below the two minutes of the defaults, and far above what a busy machine needs: the times themselves are those of
timers, which tests in virtual time know to the millisecond (tests/scripts/rfc9293/3.8.3-syn-gives-up.pkt)."""
REFUSALS = {
    "refused": ("10.0.0.1", errno.ECONNREFUSED, 0.0),  # nobody listens there
    "silent": ("192.0.2.1", errno.ETIMEDOUT, 0.7),  # by the gateway, which does not forward: 100 + 200 + 400 ms
    "nobody": ("10.0.0.77", errno.EHOSTUNREACH, 0.3),  # no ARP answer: three requests
    "ours": ("10.0.0.2", errno.ECONNREFUSED, 0.0),
    "loopback": ("127.0.0.1", errno.ECONNREFUSED, 0.0),
    "broadcast": ("255.255.255.255", errno.ENETUNREACH, 0.0),
    "group": ("224.0.0.1", errno.ENETUNREACH, 0.0),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_connect_that_fails(impatient: Stack, case: str) -> None:
    """The errno tells why, blocking or not, and it does not take as long as the default settings."""
    host, code, least = REFUSALS[case]
    name = errno.errorcode[code]
    if case == "nobody":
        impatient.set("tcp.syn_retries", 6)  # link has the time that it takes to find that out
    failure, rest, took = impatient.submit(app_connect, host, 9).result(LIMIT_S)
    assert (failure, rest) == (name, "0")
    assert least <= took < SOON_S
    first, later, rest = impatient.submit(app_connect_nonblocking, host, 9).result(LIMIT_S)
    assert (first, later) in ((("EINPROGRESS", name)), (name, "0"))
    assert rest == "0"


def test_no_route_at_all(impatient: Stack) -> None:
    """Without a gateway, an address outside of the network is unreachable at once; with one again it is tried."""
    gateway = impatient.ask("ip", "get", section="ip")["values"]["gateway"]

    def routes() -> Any:
        return impatient.snapshot("tcp")["routes"]  # which ip tells it

    before = routes()
    impatient.set("ip.gateway", "")
    try:
        impatient.wait_until(lambda: routes() != before, "tcp has heard of it")
        failure, _, took = impatient.submit(app_connect, "192.0.2.1", 9).result(LIMIT_S)
    finally:
        impatient.set("ip.gateway", gateway)
    impatient.wait_until(lambda: routes() == before, "tcp has heard of it")
    assert failure == "ENETUNREACH"
    assert took < SOON_S
    assert impatient.submit(app_connect, "192.0.2.1", 9).result(LIMIT_S)[0] == "ETIMEDOUT"


# addresses


def app_addresses(port: int) -> list[Any]:
    """bind() on what is taken, foreign or free again."""
    first, second, third = levelip_socket.socket(), levelip_socket.socket(), levelip_socket.socket()
    found = [attempt(first.bind, ("10.0.0.2", port)), attempt(second.bind, ("10.0.0.2", port))]
    found += [attempt(second.bind, ("0.0.0.0", port)), attempt(second.bind, ("10.0.0.99", port))]
    found += [attempt(second.bind, ("127.0.0.1", port)), attempt(first.bind, ("10.0.0.2", port + 1))]
    first.close()
    found.append(attempt(third.bind, ("10.0.0.2", port)))
    for sock in (second, third):
        sock.close()
    return found


def test_addresses_in_use(shared_stack: Stack) -> None:
    """EADDRINUSE for the same port on the same or any address, EADDRNOTAVAIL for one that is not ours, EINVAL for a
    second bind; another address of ours is fine, and a closed socket's port is free at once."""
    found = shared_stack.submit(app_addresses, 7100).result(LIMIT_S)
    assert found == [None, "EADDRINUSE", "EADDRINUSE", "EADDRNOTAVAIL", None, "EINVAL", None]


# processes that die


def app_listen_until_killed(port: int) -> None:
    """A server that reads nothing; to be killed."""
    server = levelip_socket.create_server(("", port))
    kept = [server.accept()[0] for _ in range(2)]
    print("accepted", flush=True)
    time.sleep(PATIENCE_S)
    del kept


@pytest.mark.parametrize("unread", [False, True], ids=["idle", "unread"])
def test_our_process_is_killed(shared_stack: Stack, unread: bool) -> None:
    """SIGKILL closes our program's sockets as Linux does: FIN where all was read, RST where data was not, and its
    port refuses."""
    stack, namespace = shared_stack, shared_stack.namespace
    assert namespace is not None
    program = f"from tests.system.test_errnos import app_listen_until_killed as run; run({7200 + unread})"
    app = stack.popen(["-c", program], stdout=-1, text=True)
    with (
        kernel_connect(namespace, stack.address, 7200 + unread) as one,
        kernel_connect(namespace, stack.address, 7200 + unread) as two,
    ):
        assert app.stdout is not None and app.stdout.readline() == "accepted\n"
        for sock in (one, two) if unread else ():
            sock.sendall(b"unread")
        if unread:
            stack.wait_until(lambda: _acknowledged(one) and _acknowledged(two), "data has come")
        os.kill(app.pid, signal.SIGKILL)
        ends = [attempt(sock.recv, 10) for sock in (one, two)]
    assert ends == (["ECONNRESET"] * 2 if unread else [b"", b""])

    def refused() -> bool:
        with namespace.socket() as sock:
            return attempt(sock.connect, (stack.address, 7200 + unread)) == "ECONNREFUSED"

    stack.wait_until(refused, "the port refuses")  # the kernel closes a killed process's newest descriptors first


def _acknowledged(sock: std.socket) -> bool:
    """TCP_INFO: tcpi_unacked is the 32-bit number at offset 24 (linux/tcp.h)."""
    return int.from_bytes(sock.getsockopt(std.IPPROTO_TCP, std.TCP_INFO, 28)[24:28], sys.byteorder) == 0


@pytest.mark.parametrize("unread", [False, True], ids=["idle", "unread"])
def test_the_peers_process_is_killed(shared_stack: Stack, unread: bool) -> None:
    """The kernel's side of the same: our program reads the end of the stream, or gets ECONNRESET."""
    stack, namespace = shared_stack, shared_stack.namespace
    assert namespace is not None
    program = (
        "import socket, time; s = socket.create_server(('', 0)); print(s.getsockname()[1], flush=True)\n"
        f"c, _ = s.accept(); c.recv({0 if unread else 10}); print('read', flush=True); time.sleep({PATIENCE_S})"
    )
    peer = namespace.popen([sys.executable, "-c", program], stdout=-1, text=True)
    assert peer.stdout is not None
    port = int(peer.stdout.readline())
    ours = stack.submit(app_end, stack.host, port)
    stack.wait_until(lambda: _delivered(stack, port), "the peer has our bytes")
    assert peer.stdout.readline() == "read\n"
    peer.kill()
    assert ours.result(LIMIT_S) == ("ECONNRESET" if unread else b"")


def app_end(host: str, port: int) -> Any:
    with levelip_socket.create_connection((host, port), timeout=PATIENCE_S) as sock:
        sock.sendall(b"hello")
        return attempt(sock.recv, 10)


def _delivered(stack: Stack, port: int) -> bool:
    rows = [row for row in stack.ask("tcp", "ss")["sockets"] if row["remote_port"] == port]
    return any(row["state"] == "ESTABLISHED" and row["info"]["bytes_acked"] >= 5 for row in rows)


def test_a_reset_in_the_middle_of_a_transfer(shared_stack: Stack) -> None:
    """The kernel resets while we send: what was sent until then counts for nothing, and the next transfer is whole."""
    stack, namespace = shared_stack, shared_stack.namespace
    assert namespace is not None

    def cut(sock: std.socket) -> None:
        read_exactly(sock, 2_000_000)
        reset(sock)

    with KernelServer(namespace, stack.host, cut) as server, pytest.raises((ConnectionResetError, BrokenPipeError)):
        stack.submit(streams.app_upload, stack.host, server.port, 1, 50_000_000).result(LIMIT_S)
    with KernelServer(namespace, stack.host, streams.answers_digest) as server:
        got = stack.submit(streams.app_upload, stack.host, server.port, 1, MUCH)
        assert got.result(LIMIT_S) == digest(stream(1, MUCH))

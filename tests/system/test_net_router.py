"""A whole stack reaches a third host: `lvlip net up --nat` makes its namespace the router in between."""

from __future__ import annotations

import hashlib
import random
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable

import pytest

from levelip.wire import icmp
from levelip.wire.icmp import IcmpMessage
from levelip.wire.ipv4 import Ipv4Header
from tests.system.harness import Stack
from tests.system.namespace import Namespace

SIZE = 3_000_000
"""Bytes each way: some fifty super-segments."""
LIMIT_S = 60.0
WORLD = "198.51.100.2"
PORT = 8000


def payload(seed: int) -> bytes:
    """Bytes that differ everywhere."""
    return random.Random(seed).randbytes(SIZE)


def exchange(address: str, port: int) -> tuple[str, str]:
    """An application of the stack: sends all of one payload, then reads to the end. (its own address, sha256)."""
    from levelip.client import socket as ours

    digest = hashlib.sha256()
    with ours.create_connection((address, port), timeout=LIMIT_S) as sock:
        sock.sendall(payload(1))
        sock.shutdown(socket.SHUT_WR)
        while data := sock.recv(65_536):
            digest.update(data)
        return sock.getsockname()[0], digest.hexdigest()


class Server(threading.Thread):
    """Takes one connection: reads to the end, then sends. `peer` and `digest` tell what it saw."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(daemon=True)
        self.listener = listener
        self.peer = ""
        self.digest = ""

    def run(self) -> None:
        connection, (self.peer, _) = self.listener.accept()
        digest = hashlib.sha256()
        with connection:
            connection.settimeout(LIMIT_S)
            while data := connection.recv(65_536):
                digest.update(data)
            self.digest = digest.hexdigest()
            connection.sendall(payload(2))


@pytest.fixture
def world(namespace: Namespace, make_namespace: Callable[..., Namespace]) -> Namespace:
    """The third host, which knows no route to the stack's network; the namespace of the stack lies in between."""
    made = make_namespace()
    namespace.connect(made, ("out0", "198.51.100.1/24"), ("far0", f"{WORLD}/24"))
    return made


def test_download_through_the_router(namespace: Namespace, world: Namespace, make_stack: Callable[..., Stack]) -> None:
    """After `net up --nat` a connection to a host beyond the router carries megabytes both ways, masqueraded; `ping`
    reaches it too; after `net down` nothing does, and the stack itself goes on."""
    stack = make_stack(namespace)
    flags = [flag for key, value in stack.settings.items() if key.startswith(("device.kind", "device.host", "ip."))
             for flag in ("--set", f"{key}={value}")]  # fmt: skip
    assert stack.lvlip("ping", WORLD, "-c", "1", "-W", "0.5", check=False).returncode == 1
    stack.lvlip("net", "up", "--nat", "out0", *flags)

    listener = world.socket()
    listener.settimeout(LIMIT_S)
    listener.bind((WORLD, PORT))
    listener.listen()
    server = Server(listener)
    server.start()
    own, digest = stack.submit(exchange, WORLD, PORT).result(LIMIT_S)
    server.join(LIMIT_S)
    listener.close()
    assert own == stack.address
    assert server.peer == "198.51.100.1"  # the router's address: masqueraded
    assert server.digest == hashlib.sha256(payload(1)).hexdigest()
    assert digest == hashlib.sha256(payload(2)).hexdigest()

    shown = stack.lvlip("ping", WORLD, "-c", "3", "-i", "0.05", "-W", "50").stdout
    assert f"64 bytes from {WORLD}: icmp_seq=3 ttl=63" in shown  # one router on the way
    assert "3 packets transmitted, 3 received, 0% packet loss" in shown
    expired = stack.lvlip("ping", WORLD, "-c", "1", "-t", "1", check=False).stdout
    assert "From 10.0.0.1 icmp_seq=1 Time to live exceeded" in expired

    stack.lvlip("net", "down")
    assert stack.lvlip("ping", WORLD, "-c", "1", "-W", "0.5", check=False).returncode == 1
    assert stack.lvlip("ping", stack.host, "-c", "1").returncode == 0


def test_ping_both_ways(stack: Stack, namespace: Namespace) -> None:
    """The kernel's echo requests are answered byte for byte, ours by the kernel; nobody there is told as such."""
    with namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.settimeout(60)
        raw.connect((stack.address, 0))
        times = []
        for sequence in range(50):
            size = (0, 1, 56, 1472)[sequence % 4]
            request = IcmpMessage.echo_request(ident=0x4C56, sequence=sequence, payload=bytes(range(256)) * 6)
            request = IcmpMessage(request.type, 0, request.rest, request.payload[:size])
            start = time.perf_counter()
            raw.send(request.serialize(fill_checksum=True))
            while True:
                data = raw.recv(2048)
                header = Ipv4Header.parse(data)
                answer = IcmpMessage.parse(data, header.length)
                if answer.type == icmp.ECHO_REPLY and answer.sequence == sequence:
                    break
            times.append(time.perf_counter() - start)
            assert answer.payload == request.payload and answer.checksum_ok
        print(f"median {statistics.median(times) * 1000:.3f} ms")
    answered = stack.lvlip("ping", stack.host, "-c", "5", "-i", "0.02", "-W", "50", "-s", "1472").stdout
    assert "5 packets transmitted, 5 received, 0% packet loss" in answered
    nobody = stack.lvlip("ping", "10.0.0.77", "-c", "1", check=False)
    assert nobody.returncode == 1
    assert f"From {stack.address} icmp_seq=1 Destination Host Unreachable" in nobody.stdout
    assert stack.lvlip("ping", "127.0.0.1", "-c", "1", "-s", "60000").returncode == 0


def test_protocol_that_nobody_speaks(stack: Stack, namespace: Namespace) -> None:
    """The kernel learns protocol unreachable for its datagram, by an ICMP error that it takes as valid."""
    with namespace.socket(socket.AF_INET, socket.SOCK_RAW, 253) as raw:  # RFC 3692: for experiments
        raw.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR, linux/in.h
        raw.settimeout(60)
        raw.connect((stack.address, 0))
        raw.send(b"anybody?")
        with pytest.raises(OSError) as caught:
            raw.recv(100)
        assert caught.value.errno == 92  # ENOPROTOOPT, as Linux icmp_err_convert has it for protocol unreachable
        _, ancillary, _, _ = raw.recvmsg(100, 512, socket.MSG_ERRQUEUE)
        _, _, error_type, code = struct.unpack_from("IBBB", ancillary[0][2])
        assert (error_type, code) == (icmp.DEST_UNREACH, icmp.PROT_UNREACH)

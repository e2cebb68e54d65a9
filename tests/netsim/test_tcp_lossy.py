"""Two tcp cores over a link that loses, repeats, reorders, delays and corrupts: every byte arrives, in order, once."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from tests.netsim.net import MS, Impairment, Net
from tests.netsim.tcp_apps import TcpHost, pair, pattern, small_config


def exchange(how: Impairment, size: int, seed: int, *, back: Impairment | None = None, **more: Any) -> tuple[Any, ...]:
    """`size` bytes each way at once, and both ends of file."""
    net, a, b, to_b, to_a = pair(how, back, seed=seed, **more)
    b.listen(80)
    b.reply = pattern(seed, size)
    sock = a.connect(b.address, 80, pattern(seed + 1, size), eof=True)
    done = net.run(lambda: sock.eof and bool(b.accepted) and b.accepted[0].eof, seconds=1200)
    other = b.accepted[0]
    assert bytes(other.received) == sock.to_send, f"seed {seed}: to b"
    assert bytes(sock.received) == b.reply, f"seed {seed}: to a"
    assert done, f"seed {seed}: no end"
    assert sock.error is None and other.error is None
    return net, a, b, to_b, to_a


KINDS = {
    "clean": Impairment(),
    "loss 1%": Impairment(loss=0.01),
    "loss 10%": Impairment(loss=0.10),
    "duplicates": Impairment(duplicate=0.10),
    "reordering": Impairment(reorder=0.10),
    "corruption": Impairment(corrupt=0.05),
    "everything": Impairment(loss=0.03, duplicate=0.03, reorder=0.05, corrupt=0.02, jitter=2 * MS),
    "long path": Impairment(delay=80 * MS, loss=0.005),
    "whole super-segments": Impairment(split=False, loss=0.02),
}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_both_directions(kind: str, seed: int) -> None:
    """300 KB each way through rings of 256 KB; bytes compared."""
    net, a, b, to_b, _ = exchange(KINDS[kind], 300_000, seed)
    if kind == "corruption":
        net.run(seconds=2)
        refused = b.core.counters["drop.tcp_checksum"] + b.core.counters["drop.tcp_malformed"]
        assert to_b.corrupted == refused > 0
    if kind == "clean":
        assert not a.core.counters["retransmissions"] and not b.core.counters["retransmissions"]


@pytest.mark.parametrize(
    "more",
    [
        {"gso_max": 0},
        {"inline": True},
        {"fixed_isn": 2**32 - 10},
        {"mtu": 576},
        {"a": small_config(timestamps=False, sack=False, window_scaling=False)},
        {"b": small_config(nagle=False, delayed_ack_ms=0, receive_buffer=5000)},
        {"a": small_config(send_buffer=4096), "b": small_config(send_buffer=4096)},
    ],
    ids=["no offload", "inline", "isn wraps", "mtu 576", "no options", "tiny window", "tiny credit"],
)
def test_configurations(more: dict[str, Any]) -> None:
    """The same with everything a bit different, at 2 % loss."""
    exchange(Impairment(loss=0.02, reorder=0.02), 150_000, 3, **more)


@pytest.mark.matrix(sample=4)
@pytest.mark.parametrize("seed", range(100, 140))
def test_many_seeds(seed: int) -> None:
    """Bad weather in many ways."""
    rate = (seed % 10) / 100
    how = Impairment(loss=rate, duplicate=rate / 2, reorder=rate, corrupt=rate / 4, jitter=MS, delay=(seed % 7) * MS)
    exchange(how, 60_000, seed, back=Impairment(loss=rate / 2))


def test_one_loss_is_repaired_without_a_timeout() -> None:
    """By duplicate ACKs with SACK blocks and a fast retransmit."""
    net, a, b, to_b, _ = pair(Impairment(), gso_max=0)
    b.listen(80)
    sock = a.connect(b.address, 80, pattern(1, 200_000), eof=True)
    net.run(lambda: bool(b.accepted))
    seen = 0

    def twentieth(packet: Any) -> bool:
        nonlocal seen
        seen += len(packet.payload) > 0
        return seen == 20

    to_b.lose_next.append(twentieth)
    assert net.run(lambda: b.accepted[0].eof)
    assert bytes(b.accepted[0].received) == sock.to_send
    assert a.core.counters["fast_retransmits"] == 1
    assert a.core.counters["retransmissions"] == 1
    assert a.core.counters["rto_timeouts"] == 0


def test_half_close() -> None:
    """a ends its direction first; b goes on for a while and a receives it all."""
    net, a, b, _, _ = pair(Impairment(loss=0.02))
    b.listen(80)
    sock = a.connect(b.address, 80, b"request", eof=True)
    net.run(lambda: bool(b.accepted) and b.accepted[0].eof)
    other = b.accepted[0]
    for number in range(20):
        other.write(pattern(number, 7000), net.now)
        net.run(seconds=0.5)
    other.then_eof = True
    other.pump(net.now)
    assert net.run(lambda: sock.eof)
    assert bytes(sock.received) == other.to_send


def test_a_reader_that_stops() -> None:
    """The window closes, probes go out, and when it reads again all arrives."""
    net, a, b, _, _ = pair(Impairment(loss=0.05), seed=9)
    b.listen(80)
    sock = a.connect(b.address, 80, pattern(3, 600_000), eof=True)
    net.run(lambda: bool(b.accepted))
    other = b.accepted[0]
    other.reading = False
    read = len(other.received)
    net.run(seconds=120)
    assert a.core.counters["probes_out"] > 3 and len(other.received) - read <= 262_144
    while not other.eof:
        before = len(other.received)
        other.read(net.now)
        net.run(lambda at=before: len(other.received) > at or other.eof, seconds=200)  # type: ignore[misc]
        assert len(other.received) > before or other.eof
    assert bytes(other.received) == sock.to_send


def test_many_connections_at_once() -> None:
    """40 connections share a bad link; each gets its own bytes."""
    net, a, b, _, _ = pair(Impairment(loss=0.03, reorder=0.03), seed=11)
    b.listen(80)
    socks = [a.connect(b.address, 80, pattern(number, 10_000), eof=True) for number in range(40)]
    assert net.run(lambda: len(b.accepted) == 40 and all(other.eof for other in b.accepted), seconds=300)
    sent = sorted(sock.to_send for sock in socks)
    assert sorted(bytes(other.received) for other in b.accepted) == sent


def test_simultaneous_open_over_the_network() -> None:
    """Both connect to each other's port at once."""
    from levelip.frames.seam import Bind

    net, a, b, _, _ = pair(Impairment())
    for host, port in ((a, 1111), (b, 2222)):
        host.core.receive(Bind(1, host.next_id + 1, b"", port), net.now)
    one = a.connect(b.address, 2222, b"from a", eof=True)
    two = b.connect(a.address, 1111, b"from b", eof=True)
    assert net.run(lambda: one.eof and two.eof)
    assert bytes(one.received) == b"from b" and bytes(two.received) == b"from a"


def test_loopback_inside_one_core() -> None:
    """ip gives our segments back to us: both ends of the connection live in one core."""
    net = Net()
    host = TcpHost(net, "alone", b"\x7f\0\0\x01", small_config())
    host.node.wire("tcp", "ip", host.core.receive)
    host.listen(80)
    host.reply = pattern(1, 400_000)
    sock = host.connect(host.address, 80, pattern(2, 400_000), eof=True)
    assert net.run(lambda: sock.eof and bool(host.accepted) and host.accepted[0].eof, seconds=5)
    assert bytes(sock.received) == host.reply
    assert bytes(host.accepted[0].received) == sock.to_send
    assert not host.core.counters["retransmissions"]


def test_a_dead_network() -> None:
    """ETIMEDOUT after the retries, on both sides; nothing is left."""
    net, a, b, to_b, to_a = pair(Impairment(), a=small_config(retries=5), b=small_config(retries=5))
    b.listen(80)
    sock = a.connect(b.address, 80, b"hello")
    net.run(lambda: bool(b.accepted) and bool(b.accepted[0].received))
    to_b.how = to_a.how = Impairment(loss=1.0)
    sock.write(b"into the void", net.now)
    b.accepted[0].write(b"likewise", net.now)
    net.run(seconds=600)
    assert sock.error == errno.ETIMEDOUT and b.accepted[0].error == errno.ETIMEDOUT


def test_resources_come_back() -> None:
    """After 100 connections in turn through 8 slots: no connection, slot, port or timer is left but TIME-WAIT's."""
    net, a, b, _, _ = pair(Impairment(loss=0.02), a=small_config(connections=8, time_wait_ms=1000),
                           b=small_config(connections=8, time_wait_ms=1000))  # fmt: skip
    b.listen(80)
    b.reply = b"bye"
    for number in range(100):
        sock = a.connect(b.address, 80, pattern(number, 2000), eof=True)
        assert net.run(lambda: sock.eof and bool(b.accepted) and b.accepted[-1].eof, seconds=100), number  # noqa: B023
        sock.close(net.now)
        b.accepted[-1].close(net.now)
        net.run(seconds=0.2)
    net.run(seconds=100)
    for host in (a, b):
        left = host.core.snapshot()
        assert left["connections"] == [] and left["timewaits"] == [] and left["slots"]["regions"] == {}
        assert list(left["ports"]["bindings"]) == ([80] if host is b else [])
        assert left["timers"]["heap"] == []

"""Loss recovery over a simulated network: bytes compared, the sums of the send space recounted after every event."""

from __future__ import annotations

from typing import Any

import pytest

from layers.tcp.core import TcpCore
from tests.netsim.net import MS, SECOND, Impairment
from tests.netsim.tcp_apps import pair, pattern, small_config
from tests.netsim.tcp_invariants import check_connections


class Checked(TcpCore):
    """A core whose connections are looked at after every verb."""

    def receive(self, frame: Any, now: int) -> None:
        super().receive(frame, now)
        check_connections(self)

    def handle_timer(self, now: int) -> None:
        super().handle_timer(now)
        check_connections(self)

    def outgoing(self, room: Any) -> Any:
        out = super().outgoing(room)
        check_connections(self)
        return out


def transfer(how: Impairment, size: int, seed: int, *, back: Impairment | None = None, **more: Any) -> tuple[Any, ...]:
    """`size` bytes each way at once, and both ends of file; every event checked."""
    net, a, b, to_b, to_a = pair(how, back, seed=seed, core_type=Checked, **more)
    b.listen(80)
    b.reply = pattern(seed, size)
    sock = a.connect(b.address, 80, pattern(seed + 1, size), eof=True)
    start = net.now
    done = net.run(lambda: sock.eof and bool(b.accepted) and b.accepted[0].eof, seconds=600)
    other = b.accepted[0]
    assert bytes(other.received) == sock.to_send, f"seed {seed}: to b"
    assert bytes(sock.received) == b.reply, f"seed {seed}: to a"
    assert done and sock.error is None and other.error is None, f"seed {seed}: no end"
    return (net.now - start) / SECOND, a, b, to_b, to_a


@pytest.mark.matrix(sample=12)
@pytest.mark.parametrize("sack", [True, False], ids=["sack", "no sack"])
@pytest.mark.parametrize("gso_max", [65_535, 0], ids=["gso", "no gso"])
@pytest.mark.parametrize("loss", [0, 1, 3, 10])
@pytest.mark.parametrize("other", ["nothing", "reorder", "duplicate"])
@pytest.mark.parametrize("isn", [-1, 2**32 - 10])
def test_weather(sack: bool, gso_max: int, loss: int, other: str, isn: int) -> None:
    """Loss of 0 to 10 %, alone or with 5 % overtaken or repeated; with SACK and without; large segments and small."""
    how = Impairment(loss=loss / 100, delay=5 * MS)
    if other != "nothing":
        setattr(how, other, 0.05)
    transfer(how, 150_000, 10 * loss + sack, gso_max=gso_max, fixed_isn=isn, b=small_config(sack=sack))


@pytest.mark.matrix(sample=4)
@pytest.mark.parametrize("seed", range(40))
def test_ten_percent(seed: int) -> None:
    """300 KB both ways at 10 % loss each: no more than back-off of a few SYNs and tails. (It took up to 110 s when
    only the RTO found a retransmission that was lost again.)"""
    took, *_ = transfer(Impairment(loss=0.10), 300_000, seed)
    assert took < 12


@pytest.mark.matrix(sample=4)
@pytest.mark.parametrize("seed", range(16))
def test_timestamps_off(seed: int) -> None:
    """No timestamps: Karn's rule alone, no Eifel."""
    quiet = small_config(timestamps=False, sack=seed % 2 == 0)
    transfer(Impairment(loss=0.04, reorder=0.04, jitter=MS), 100_000, seed, a=quiet, b=quiet)


def test_goodput_at_one_percent() -> None:
    """4 MB over 100 Mbit/s, 40 ms, 1 % loss: what a Reno window allows, 1.2 MSS / (RTT sqrt(p)) = 3.5 Mbit/s, without
    a single timeout, and each loss repaired once."""
    how, back = Impairment(loss=0.01, delay=20 * MS, gap=120_000), Impairment(delay=20 * MS)
    net, a, b, to_b, _ = pair(how, back, a=small_config(send_buffer=4_194_304, send_ring=4_194_304),
                              b=small_config(receive_buffer=4_194_304, receive_ring=4_194_304))  # fmt: skip
    b.listen(80)
    sock = a.connect(b.address, 80, pattern(1, 4_000_000), eof=True)
    start = net.now
    assert net.run(lambda: bool(b.accepted) and b.accepted[0].eof, seconds=60)
    assert bytes(b.accepted[0].received) == sock.to_send
    counters = a.core.counters
    assert counters["rto_timeouts"] == 0
    assert counters["retransmissions"] <= to_b.lost + 3
    assert 2.0 < 32 / ((net.now - start) / SECOND) < 6.0  # Mbit/s


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("sack", [True, False], ids=["sack", "no sack"])
def test_small_writes(seed: int, sack: bool) -> None:
    """400 writes of 100 bytes, 2 ms apart, without Nagle, at 5 % loss: each is a packet and an entry of its own."""
    how = Impairment(loss=0.05, delay=5 * MS)
    net, a, b, *_ = pair(how, seed=seed, core_type=Checked, a=small_config(nagle=False), b=small_config(sack=sack))
    b.listen(80)
    sock = a.connect(b.address, 80, b"")
    assert net.run(lambda: bool(b.accepted), seconds=30)
    for number in range(400):
        sock.write(pattern(number, 100), net.now)
        net.run(seconds=0.002)
    other = b.accepted[0]
    assert net.run(lambda: len(other.received) == 40_000, seconds=20)
    assert bytes(other.received) == sock.to_send
    if sack:
        assert a.core.counters["rto_timeouts"] <= 3

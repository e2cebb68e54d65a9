"""What transfers over bad networks come to, to the counter: the same network, the same seed, the same figures.

Rules are checked one by one elsewhere; here, that the sum of them does not change unnoticed. Whoever changes behaviour
writes the table anew, `python -m tests.netsim.test_tcp_figures`, and reads the difference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.netsim.net import MS, Impairment
from tests.netsim.tcp_apps import TcpHost, pair, pattern, small_config

TABLE = Path(__file__).with_name("figures.txt")
NETWORKS: dict[str, Impairment] = {
    "loss": Impairment(loss=0.05, delay=20 * MS),
    "heavy loss": Impairment(loss=0.2, delay=20 * MS),
    "reordering": Impairment(reorder=0.2, delay=10 * MS),
    "jitter": Impairment(jitter=30 * MS, loss=0.01, delay=20 * MS),
    "duplicates": Impairment(duplicate=0.2, loss=0.03, delay=5 * MS),
    "whole super-segments": Impairment(split=False, loss=0.05, delay=20 * MS),
    "all of it": Impairment(loss=0.03, duplicate=0.03, reorder=0.05, corrupt=0.02, jitter=3 * MS, delay=10 * MS),
}
WAYS: dict[str, dict[str, Any]] = {
    "": {},
    "without SACK": {"sack": False, "congestion": "newreno"},
    "without timestamps": {"timestamps": False},
    "ECN, probing": {"ecn": 1, "mtu_probing": 2, "congestion": "newreno"},
    "plain": {"sack": False, "timestamps": False, "window_scaling": False, "tlp": False, "frto": False},
    "small": {"receive_buffer": 16_384, "receive_initial": 16_384, "delayed_ack_ms": 0, "nagle": False},
}
SEEDS = (1, 2, 3)
IDLE = ("last_data_sent", "last_data_recv", "last_ack_recv")


def figures(network: str, way: str, seed: int) -> list[str]:
    """80,000 bytes one way and 30,000 back; both ends of file; then both hosts' counters and what TCP_INFO says."""
    gso = 0 if seed == 3 else 65_535
    net, a, b, *_ = pair(NETWORKS[network], seed=seed, a=small_config(**WAYS[way]), b=small_config(**WAYS[way]),
                         gso_max=gso)  # fmt: skip
    b.listen(80)
    b.reply = pattern(seed, 30_000)
    sock = a.connect(b.address, 80, pattern(seed + 1, 80_000), eof=True)
    begun = net.now
    assert net.run(lambda: sock.eof and bool(b.accepted) and b.accepted[0].eof, seconds=1200)
    assert bytes(b.accepted[0].received) == sock.to_send and bytes(sock.received) == b.reply
    return [f"{network}, {way}, {seed}: {(net.now - begun) // 1000} µs", *_host(a, net.now), *_host(b, net.now)]


def _host(host: TcpHost, now: int) -> list[str]:
    counters = " ".join(f"{name}={value}" for name, value in sorted(host.core.counters.items()) if value)
    rows = [row for row in host.core.control(1, "ss", {}, now)["sockets"] if row["info"]]
    infos = [" ".join(f"{name}={value}" for name, value in row["info"].items() if value and name not in IDLE)
             for row in rows]  # fmt: skip
    return [f"  counters {counters}", *(f"  info {info}" for info in infos)]


CASES = [(network, way, seed) for network in NETWORKS for way in WAYS for seed in SEEDS]


def _written() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            key = line.rpartition(":")[0]
            found[key] = []
        found[key].append(line)
    return found


@pytest.mark.parametrize(("network", "way", "seed"), CASES[::2], ids=lambda value: str(value) or "usual")
def test_a_transfer_comes_to_the_same(network: str, way: str, seed: int) -> None:
    """Every counter of both hosts, every field of TCP_INFO, and how long it took."""
    assert figures(network, way, seed) == _written()[f"{network}, {way}, {seed}"]


if __name__ == "__main__":
    TABLE.write_text("\n".join(line for case in CASES[::2] for line in figures(*case)) + "\n", encoding="utf-8")

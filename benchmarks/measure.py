"""One bulk run with everything that is noted about it, and how long a run must be."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from benchmarks import probes, proof
from benchmarks.pattern import PERIOD
from benchmarks.worlds import StackWorld, VethWorld

World = StackWorld | VethWorld
GIGA = 1e9
_FIRST_SIZE = 16 << 20  # bytes of the run that tells how fast it goes
_LEAST_S = 0.25  # shorter runs tell nothing
_MOST_BYTES = 32 << 30
_MIB = 1 << 20
_offsets = itertools.count(1)


@dataclass
class Bulk:
    """One run. `cpu` and `switches` are by process, over the run's `seconds`."""

    direction: str
    size: int
    seconds: float
    cpu: dict[str, float] = field(default_factory=dict)
    switches: dict[str, int] = field(default_factory=dict)
    vouched: dict[str, int] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)

    @property
    def gbit(self) -> float:
        """Gbit/s of payload."""
        return self.size * 8 / self.seconds / GIGA

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all processes of both sides."""
        return sum(self.cpu.values())

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "direction": self.direction,
            "bytes": self.size,
            "seconds": self.seconds,
            "gbit_per_s": self.gbit,
            "cpu_s": self.cpu,
            "context_switches": self.switches,
            "bytes_vouched_for": self.vouched,
            "drops": self.drops,
        }


def run(world: World, direction: str, size: int, *, prove: bool = True, rate: int = 0) -> Bulk:
    """One transfer of `size` bytes, compared whole; what we send, at `rate` bytes/s where one is given. AgentError if
    it fails, NoProof if counters do not add up."""
    stack = world if isinstance(world, StackWorld) else None
    counters = stack.counters() if stack is not None else {}
    processes = world.processes()
    cpu = {name: probes.cpu_seconds(pid) for name, pid in processes.items()}
    switches = {name: probes.switches(pid) for name, pid in processes.items()}
    offset = next(_offsets) * 1_000_003 % PERIOD  # where the last run left off would hide what it left behind
    paced = {"rate": rate} if rate else {}
    seconds = world.client.call(direction, offset=offset, size=size, limit=120, **paced)["seconds"]
    done = Bulk(direction, size, seconds)
    done.cpu = {name: probes.cpu_seconds(pid) - cpu[name] for name, pid in processes.items()}
    done.switches = {name: probes.switches(pid) - switches[name] for name, pid in processes.items()}
    if stack is not None:
        grown = proof.growth(counters, stack.counters())
        done.drops = {
            f"{layer}.{name}": count
            for layer in grown
            for name, count in grown[layer].items()
            if count and (name.startswith("drop.") or "retransmi" in name or name == "device_pool_empty")
        }
        if prove:
            done.vouched = proof.check(direction, size, grown)
    return done


def size_for(world: World, direction: str, seconds: float) -> int:
    """How many bytes take about `seconds`; finding out also warms the path up."""
    size = _FIRST_SIZE
    while True:
        took = run(world, direction, size, prove=False).seconds
        if took >= min(_LEAST_S, seconds) or size >= _MOST_BYTES:
            break
        size = min(_MOST_BYTES, int(size * max(2.0, _LEAST_S * 1.2 / took)))
    wanted = int(size / took * seconds)
    return max(_MIB, min(_MOST_BYTES, wanted // _MIB * _MIB))


def cpu_table(runs: list[Bulk]) -> dict[str, dict[str, float]]:
    """Process → share of one CPU in percent, CPU seconds for 10^9 bytes, context switches for 10^6 bytes; over all."""
    seconds = sum(one.seconds for one in runs)
    size = sum(one.size for one in runs)
    table = {}
    for name in runs[0].cpu:
        cpu = sum(one.cpu.get(name, 0.0) for one in runs)
        switched = sum(one.switches.get(name, 0) for one in runs)
        table[name] = {
            "percent_of_a_cpu": 100 * cpu / seconds,
            "cpu_s_per_gb": cpu / size * 1e9,
            "switches_per_mb": switched / size * 1e6,
        }
    return table

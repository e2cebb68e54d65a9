"""Two tcp cores over a link that loses, one of them recorded, in virtual time: recordings for tests."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from layers.tcp.core import TcpCore
from levelip.config import Config
from levelip.ipc.recorder import Recorded, head_of
from levelip.tracing.recording import Recording
from tests.netsim.net import Impairment, Net
from tests.netsim.tcp_apps import Socket, pair, pattern

LOG = logging.getLogger("test")


def recorded(core: Any, config: Any, *, process: str = "tcp", flight: int = 0) -> Recorded:
    """A recorded core that, as the loop does, takes the events after each flush."""
    head = head_of(process, stack="t", epoch=1, config=Config(), wall_offset=0)
    return Recorded(core, config, head, flight=flight, log=LOG, now=0)


class LoopLike:
    """What the loop does around `outgoing`: it takes the events after it."""

    def __init__(self, core: Recorded) -> None:
        self._core = core

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def outgoing(self, room: dict[str, int]) -> Any:
        output = self._core.outgoing(room)
        self._core.events()
        return output

    def receive(self, frame: Any, now: int) -> None:
        self._core.receive(frame, now)


def transfer(
    path: Path, *, size: int = 300_000, seed: int = 1, how: Impairment | None = None, flight: int = 0,
    start: bool = True, whole: bool = False, events: bool = True, **more: Any,
) -> tuple[Recorded, Net, Socket]:  # fmt: skip
    """A server that sends `size` bytes is recorded into `path`."""
    made: list[Recorded] = []

    def core_type(config: Any, rng: Any, now: int) -> Any:
        core = recorded(TcpCore(config, rng, now), config, flight=flight)
        if not made and start:
            core.control(0, "record.start", {"file": str(path), "whole": whole, "events": events}, now)
        made.append(core)
        return LoopLike(core)

    net, a, b, _, _ = pair(how or Impairment(loss=0.02, reorder=0.02), seed=seed, core_type=core_type, **more)
    b.listen(80)
    b.reply = pattern(seed, 1000)
    sock = a.connect(b.address, 80, pattern(seed + 1, size), eof=True)
    assert net.run(lambda: sock.eof and bool(b.accepted) and b.accepted[0].eof, seconds=1200)
    assert bytes(b.accepted[0].received) == sock.to_send
    return made[0], net, sock


def stop(core: Recorded, path: Path) -> Recording:
    """End a recording into a file and open it."""
    core.control(0, "record.stop", {}, 0)
    core.close()
    assert core.control(0, "record.status", {}, 0)["writing"]["error"] == ""
    return Recording(path)

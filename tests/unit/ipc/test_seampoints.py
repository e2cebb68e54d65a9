"""Where stages stand in a process, and what becomes of what they kept when they go."""

from __future__ import annotations

from typing import Any

import pytest

from levelip.frames.core import ControlError
from levelip.ipc.seampoints import SeamPoints
from tests.unit.ipc.stoppingtools import FakePort

NOW = 7


class Keeps:
    """A stage that lets nothing go."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def push(self, frames: list[Any], now: int) -> list[Any]:
        self.kept += frames
        return []

    def due(self, now: int) -> list[Any]:
        return []

    def next_timer(self) -> int | None:
        return None

    def drain(self) -> list[Any]:
        return self.kept


class Process:
    """`fed` and `sent`: (port, frames, instant) that went on."""

    def __init__(self, name: str, *ports: FakePort) -> None:
        self.fed: list[tuple[str, list[Any], int]] = []
        self.sent: list[tuple[str, list[Any], int]] = []
        self.points = SeamPoints(
            name,
            {port.name: port for port in ports},
            feed=lambda port, frames, now: self.fed.append((port.name, frames, now)),
            emit=lambda port, frames, now: self.sent.append((port.name, frames, now)),
            now=lambda: NOW,
        )

    def ways(self, seam: str, direction: str = "both") -> list[tuple[str, str, bool]]:
        """(port, way, whether it leads into the core)."""
        found = self.points.ways(seam, direction)
        return [(one.port.name, one.way, one.points is self.points.inbound) for one in found]


@pytest.fixture
def link() -> Process:
    return Process("link", FakePort("device", "link"), FakePort("ip", "link-ip"))


def test_each_process_has_what_it_takes_in_and_link_what_leaves_by_the_device(link: Process) -> None:
    """So each direction of each seam stands in one process."""
    assert link.ways("link") == [("device", "up", True), ("device", "down", False)]
    assert link.ways("link", "down") == [("device", "down", False)]
    assert link.ways("link-ip") == [("ip", "down", True)]
    assert link.ways("link-ip", "up") == [] and link.ways("ip-tcp") == []
    ip = Process("ip", FakePort("link", "link-ip"), FakePort("tcp", "ip-tcp"), FakePort("udp", "ip-udp"))
    assert ip.ways("link-ip") == [("link", "up", True)]
    assert ip.ways("ip-tcp") == [("tcp", "down", True)] and ip.ways("ip-udp") == [("udp", "down", True)]
    with pytest.raises(ControlError, match="up, down or both"):
        link.ways("link", "sideways")


def test_what_a_stage_kept_goes_on_when_it_is_replaced_or_taken_away(link: Process) -> None:
    """Into the core on the way in, out of the port on the way out; without a stage there is no point."""
    up, down = link.points.ways("link", "both")
    for where in (up, down):
        for _ in range(2):  # the second one in the place of the first
            link.points.stand(where, "fault", Keeps())
            where.points["device"].push([where.way], NOW)
    assert link.fed == [("device", ["up"], NOW)] and link.sent == [("device", ["down"], NOW)]
    assert link.points.standing("fault") == [up, down] and link.points.standing("addon") == []
    link.points.remove(up, "fault")
    assert link.fed == [("device", ["up"], NOW)] * 2 and len(link.sent) == 1
    assert not link.points.inbound and link.points.standing("fault") == [down]


def test_a_point_stays_while_another_stage_stands_there(link: Process) -> None:
    """What the first kept meets the one behind it."""
    up = link.points.ways("link", "up")[0]
    behind = Keeps()
    link.points.stand(up, "debug", behind)
    link.points.stand(up, "addon", Keeps())
    up.points["device"].push(["frame"], NOW)
    link.points.remove(up, "addon")
    assert behind.kept == ["frame"] and link.fed == [("device", [], NOW)]
    assert link.points.standing("debug") == [up]

"""Places in the stack, and who holds it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from levelip.debug import holding
from levelip.debug.points import POINTS, points_of, seam_and_way
from levelip.debug.tap import PROCESSES, SEAMS
from levelip.ipc import stopping
from levelip.ipc.clock import Hold, Holder
from levelip.ipc.control import ControlError


def test_processes_know_how_many_points_there_are() -> None:
    """They cannot import the list; a hold of all points one by one is a hold of everything."""
    assert len(POINTS) == stopping.POINTS


def test_each_seam_has_two_points_and_each_point_one_process() -> None:
    """The process into whose core frames pass there; at both ends of the stack the last process has both."""
    assert sorted(POINTS) == sorted(f"{seam} {way}" for seam in SEAMS for way in ("up", "down"))
    assert set(POINTS.values()) == set(PROCESSES)


@pytest.mark.parametrize(
    ("where", "points"),
    [
        ("tcp", ["ip-tcp up", "tcp-gateway down"]),
        ("link", ["link up", "link-ip down"]),
        ("device", ["link up", "link down"]),
        ("ip-tcp", ["ip-tcp up", "ip-tcp down"]),
        ("ip-tcp:up", ["ip-tcp up"]),
        ("gateway-client down", ["gateway-client down"]),
    ],
)
def test_a_layer_is_what_enters_it_and_a_seam_is_both_ways(where: str, points: list[str]) -> None:
    assert points_of(where) == points


@pytest.mark.parametrize("where", ["", "tpc", "ip-tcp:sideways", "tcp:up", "device:"])
def test_what_is_no_place_is_refused(where: str) -> None:
    """With the places that there are. ("device:" has no direction, which is the same as none.)"""
    if where == "device:":
        assert seam_and_way(where) == ("link", "")
        return
    with pytest.raises(ControlError, match="there are"):
        points_of(where)
    with pytest.raises(ControlError, match="there are"):
        seam_and_way(where)


def test_a_holder_is_known_by_pid_and_start() -> None:
    """So that a later process of the same pid is not taken for it."""
    me = holding.holder("test")
    assert me.pid == os.getpid() and holding.alive(me)
    assert not holding.alive(Holder(me.pid, me.start + 1, me.user, me.tool))
    assert holding.same(me, Holder(me.pid, me.start, "x", "y"))
    child = subprocess.Popen([sys.executable, "-c", ""])
    start = holding.started(child.pid)
    child.wait()
    assert not holding.alive(Holder(child.pid, start, "x", "y"))
    assert "which has ended" in holding.describe(Hold(Holder(child.pid, start, "x", "y"), 0.0))
    assert "left no word" in holding.describe(None)

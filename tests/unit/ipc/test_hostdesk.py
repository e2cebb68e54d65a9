"""A host's clock and breakpoints for a debugger on another host, and how a stop gets from one to the other."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from levelip.frames.core import ControlError
from levelip.ipc.breakpoints import BREAKPOINTS, Breakpoint, read_breakpoints
from levelip.ipc.clock import Hold, Holder
from levelip.ipc.hostdesk import HostDesk, hold_more, started
from levelip.ipc.runtime import Runtime

POINTS = 14
AFAR = Holder(5, 6, "me", "lvlip debug", page="other/1/2", host="elsewhere")
HERE = Holder(os.getpid(), started(os.getpid()), "me", "test")
DEAD = Holder(os.getpid(), started(os.getpid()) + 1, "me", "test")


class Desk:
    """A desk of ip, and what it told other hosts."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.clock = runtime.clock
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.desk = HostDesk(runtime, lambda name, args: self.told.append((name, args)), POINTS)

    def ask(self, name: str, **args: Any) -> dict[str, Any]:
        return self.desk.command(f"host.{name}", args)

    def hold(self, why: Hold, *, force: bool = False) -> None:
        self.ask("hold", why=msgspec.to_builtins(why), force=force)


@pytest.fixture
def desk(runtime: Callable[..., Runtime]) -> Desk:
    return Desk(runtime("ip"))


def test_a_clock_is_held_shown_and_let_go_from_afar(desk: Desk) -> None:
    """By a debugger of another host, whose name stands on the page; it jumps only while it stands."""
    assert desk.ask("advance", ns=5) == {"done": False}
    desk.hold(Hold(AFAR, 1.0, ["link up"]))
    shown = desk.ask("clock")
    assert shown["held"] and shown["page"] == desk.clock.page and msgspec.convert(shown["why"], Hold).holder == AFAR
    assert desk.ask("advance", ns=5) == {"done": True}
    assert desk.ask("clock")["now"] == shown["now"] + 5
    assert desk.ask("resume") == {"done": True} and desk.ask("resume") == {"done": False}
    assert desk.ask("clock")["why"] is None


def test_a_holder_of_this_host_keeps_what_it_holds(desk: Desk) -> None:
    """More is held for the one from afar, but the stack stays with who lives; not if that has ended, nor by force."""
    desk.clock.hold(Hold(HERE, 1.0, ["link up"]))
    desk.hold(Hold(AFAR, 2.0, ["ip-tcp up"]))
    why = desk.clock.why()
    assert why is not None and why.holder == HERE and why.at == ["ip-tcp up", "link up"] and why.since == 1.0
    desk.hold(Hold(AFAR, 2.0, []), force=True)
    why = desk.clock.why()
    assert why is not None and why.holder == AFAR and why.at == []
    desk.clock.resume()
    desk.clock.hold(Hold(DEAD, 1.0))
    desk.hold(Hold(AFAR, 2.0))
    why = desk.clock.why()
    assert why is not None and why.holder == AFAR


def test_whether_a_process_of_this_host_lives(desk: Desk) -> None:
    """As the page of another host names it; one of a third host is not known to live."""
    for holder, lives in ((HERE, True), (DEAD, False), (AFAR, False)):
        assert desk.ask("alive", holder=msgspec.to_builtins(holder)) == {"alive": lives}
    abroad = msgspec.structs.replace(HERE, page=desk.clock.page, host="this")
    assert desk.ask("alive", holder=msgspec.to_builtins(abroad)) == {"alive": True}


def test_a_stop_is_told_once_and_goes_round_no_further(desk: Desk) -> None:
    """With the pages that know already; one that comes back is not carried out, one that comes holds this clock."""
    stop = {"breakpoint": 3, "text": "tcp", "process": "ip"}
    desk.desk.stopped(Hold(HERE, 1.0))
    assert desk.told == []  # held by a person, whose debugger holds the others itself
    desk.desk.stopped(None)
    why = Hold(HERE, 1.0, [], stop)
    desk.desk.stopped(why)
    desk.desk.stopped(Hold(HERE, 1.0, [], stop, ["t1"]))
    ((name, args),) = desk.told
    there = msgspec.convert(args["why"], Hold)
    assert name == "host.halt" and there.stop["via"] == [desk.clock.page] and there.holder.page == desk.clock.page
    desk.ask("halt", why=args["why"])
    assert not desk.clock.held
    desk.ask("halt", why=msgspec.to_builtins(Hold(AFAR, 1.0, [], {**stop, "via": ["other/1/2"]})))
    assert desk.clock.held
    desk.desk.stopped(desk.clock.why())
    assert desk.told[-1][1]["why"]["stop"]["via"] == ["other/1/2", desk.clock.page]
    desk.desk.stopped(None)
    desk.desk.stopped(why)
    assert len(desk.told) == 3  # the same breakpoint, another time


def test_the_owner_of_a_breakpoint_that_stops_from_afar_may_be_here(desk: Desk) -> None:
    """Then the page names it as any process of this host."""
    abroad = msgspec.structs.replace(HERE, page=desk.clock.page, host="this")
    desk.ask("halt", why=msgspec.to_builtins(Hold(abroad, 1.0, [], {"breakpoint": 1, "via": ["other/1/2"]})))
    why = desk.clock.why()
    assert why is not None and why.holder == HERE


def test_breakpoints_are_read_and_written(desk: Desk) -> None:
    """Those of this host's file."""
    assert desk.ask("breakpoints") == {"rows": []}
    one = Breakpoint(2, "tcp", False, AFAR, at="link up")
    rows = [msgspec.to_builtins(one)]
    assert desk.ask("breakpoints", rows=rows) == {"rows": rows}
    assert read_breakpoints(desk.runtime.run.path / BREAKPOINTS) == [one]
    with pytest.raises(ControlError, match=r"there are host\.clock"):
        desk.ask("nonsense")


def test_all_points_one_by_one_are_everything(desk: Desk) -> None:
    """Then the page names none, as for a hold of all."""
    names = [f"p{number}" for number in range(POINTS)]
    for name in names:
        hold_more(desk.clock, Hold(HERE, 1.0, [name]), POINTS, alive=lambda _: False, force=False)
    why = desk.clock.why()
    assert why is not None and why.at == []

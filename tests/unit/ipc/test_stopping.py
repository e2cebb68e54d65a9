"""A process while stack time stands: nothing of it moves but what a debugger asks for; breakpoints stop it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from levelip.frames.core import ControlError
from levelip.frames.packet import Packet
from levelip.frames.seam import NeighbourUp
from levelip.ipc.breakpoints import BREAKPOINTS, Breakpoint, write_breakpoints
from levelip.ipc.clock import Hold, Holder
from levelip.ipc.runtime import Runtime
from levelip.tracing.events import Event
from tests.unit.ipc.stoppingtools import Layer, frame, packet

ME = Holder(1, 1, "me", "test")
MakeLayer = Callable[..., Layer]


@pytest.fixture
def layer(runtime: Callable[..., Runtime]) -> Iterator[MakeLayer]:
    """Makes a layer's loop around a core that passes packets on; all are closed at the end."""
    made: list[Layer] = []

    def make(name: str = "ip") -> Layer:
        made.append(Layer(runtime, name))
        return made[-1]

    yield make
    for one in made:
        one.close()


def hold(one: Layer, *at: str) -> None:
    assert one.runtime.clock.hold(Hold(ME, time.time(), list(at)))


def break_at(one: Layer, expression: str, **more: Any) -> None:
    """Write a breakpoint down and tell the process."""
    spec = Breakpoint(1, expression, more.pop("about_events", False), ME, **more)
    write_breakpoints(one.runtime.run.path / BREAKPOINTS, [spec])
    assert one.ask("debug.breakpoints") == {"refused": []}


def stood(one: Layer) -> int:
    return one.runtime.clock.now()


# holding


def test_nothing_stands_in_the_way_while_nobody_debugs(layer: MakeLayer) -> None:
    """No stage, no watching, no interest: frames pass without a look."""
    one = layer()
    one.below.coming = [packet(1)]
    one.round()
    assert one.fed() == [1]
    assert not one.loop.inbound and not one.loop.outbound
    assert not one.loop.watching and not one.core.interest


def test_held_frames_wait_and_go_in_order_when_time_goes_on(layer: MakeLayer) -> None:
    """The core is not fed and its timer does not run; afterwards it gets the same frames, oldest first, and newer
    ones behind them; then nothing stands there any more."""
    one = layer()
    one.core.deadlines = [stood(one)]
    hold(one)
    one.below.coming = [packet(1), packet(2)]
    one.above.coming = [packet(3, down=True)]
    one.round()
    one.below.coming = [packet(4)]
    one.round()
    assert one.fed() == []
    assert one.core.deadlines
    assert [number for _, number in one.held()] == [1, 2, 4, 3]
    assert one.runtime.clock.resume()
    one.below.coming = [packet(5)]
    one.round()
    assert one.fed() == [1, 2, 4, 5, 3]
    assert not one.core.deadlines
    assert [frame.id for frame in one.above.sent] == [1, 2, 4, 5]
    assert not one.loop.inbound


def test_a_hold_of_one_seam_lets_the_others_pass_at_the_standing_instant(layer: MakeLayer) -> None:
    """`hold ip-tcp`: what comes from link is fed at the instant at which time stands, what comes from tcp waits."""
    one = layer()
    hold(one, "ip-tcp up", "ip-tcp down")
    one.below.coming, one.above.coming = [packet(1)], [packet(2, down=True)]
    one.round()
    assert [(frame.id, now) for frame, now in one.core.fed] == [(1, stood(one))]
    assert [frame.id for frame in one.above.sent] == [1]
    assert [number for _, number in one.held()] == [2]
    one.runtime.clock.explain(Hold(ME, 0, []))
    one.below.coming = [packet(3)]
    one.round()
    assert [number for _, number in one.held()] == [3, 2]


def test_a_full_queue_is_not_fed(layer: MakeLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses happen in the device's queue, not here; a step makes room for what comes next."""
    monkeypatch.setattr("levelip.ipc.debugstage.MOST_FRAMES", 3)
    one = layer("link")
    hold(one)
    one.below.coming = [frame(1), frame(2), frame(3)]
    one.round()
    one.below.coming = [frame(4)]
    one.round()
    assert len(one.below.coming) == 1
    assert one.ask("debug.state")["queues"][0]["full"]
    one.ask("debug.step", held="l1")
    one.round()
    assert [number for _, number in one.held()][:3] == [2, 3, 4]


def test_a_process_that_starts_while_the_stack_is_held_is_held(layer: MakeLayer) -> None:
    """The page says so before its first round."""
    one = layer()
    hold(one)
    two = layer("link")
    two.below.coming = [frame(1)]
    two.round()
    assert two.fed() == []
    assert two.held() == [("l1", 1)]


def test_news_of_neighbours_keep_their_place_among_the_frames(layer: MakeLayer) -> None:
    """A neighbour that came back while the stack was held is told of after what it had sent before."""
    one = layer()
    hold(one)
    one.below.coming = [packet(1), NeighbourUp("link", 7), packet(2)]
    one.round()
    assert one.runtime.clock.resume()
    one.round()
    assert [type(frame).__name__ for frame, _ in one.core.fed] == ["Packet", "NeighbourUp", "Packet"]


# steps


def test_a_step_hands_over_one_frame_at_the_standing_instant_and_tells_what_came_of_it(layer: MakeLayer) -> None:
    """Its output goes on to the neighbour; what the core decided is told, though nobody listens to events."""
    one = layer()
    hold(one)
    one.below.coming = [packet(1), packet(2, ttl=1)]
    one.round()
    first = one.ask("debug.step", held="i1")
    assert [(frame.id, now) for frame, now in one.core.fed] == [(1, stood(one))]
    assert first["fed"]["held"] == "i1"
    assert first["output"] == [{"port": "tcp", "seam": "ip-tcp", "way": "up", "kind": "Packet", "id": 1}]
    assert [frame.id for frame in one.above.sent] == [1]
    second = one.ask("debug.step", held="i2")
    assert second["output"] == []
    assert [event[1:3] for event in second["events"]] == [["drop", "ip_torn"]]
    assert not one.core.interest
    assert one.held() == []


def test_what_a_step_of_link_sends_to_the_device_is_held_before_it(layer: MakeLayer) -> None:
    """The last point where a packet can be looked at."""
    one = layer("link")
    hold(one)
    one.above.coming = [packet(1, down=True)]
    one.round()
    one.ask("debug.step", held="l1")
    assert one.below.sent == []
    (row,) = one.ask("debug.held")["held"]
    assert (row["held"], row["seam"], row["way"]) == ("l2", "link", "down")
    one.ask("debug.step", held="l2")
    assert [frame.id for frame in one.below.sent] == [1]


def test_timers_run_at_the_instant_to_which_the_clock_was_let_jump(layer: MakeLayer) -> None:
    """`step --timer`: not before; once, and the core is told the deadline as the time."""
    one = layer()
    hold(one)
    one.round()
    due = stood(one) + 5_000_000
    one.core.deadlines = [due]
    assert one.ask("debug.state")["next_deadline"] == due
    assert one.ask("debug.timer")["events"] == []
    assert one.runtime.clock.advance(due)
    assert not one.runtime.clock.advance(due)
    assert stood(one) == due
    one.round()
    assert one.core.deadlines == [due]
    assert [event[0:2] for event in one.ask("debug.timer")["events"]] == [[due, "timer"]]
    assert one.core.deadlines == []
    before, begun = one.runtime.clock.now(), time.monotonic_ns()
    one.runtime.clock.resume()
    assert 0 <= one.runtime.clock.now() - before <= time.monotonic_ns() - begun


def test_a_running_stack_is_not_stepped(layer: MakeLayer) -> None:
    """And a frame that is not held (any more) is told so."""
    one = layer()
    with pytest.raises(ControlError, match="the stack runs"):
        one.ask("debug.step", held="i1")
    hold(one)
    for name, text in (("i1", "not held any more"), ("t1", "not the name of a frame that ip holds"), (5, "not the")):
        with pytest.raises(ControlError, match=text):
            one.ask("debug.step", held=name)


# breakpoints


def test_a_breakpoint_at_a_packet_stops_before_it_and_after_what_came_before(layer: MakeLayer) -> None:
    """Its packet is first in the queue; all else that comes is held, at other ports too; the page says why."""
    one = layer()
    break_at(one, "tcp.dstport == 81", at="link-ip up")
    one.below.coming = [packet(1), packet(2, dport=81), packet(3)]
    one.above.coming = [packet(4, down=True)]
    one.round()
    assert one.fed() == [1]
    assert one.runtime.clock.held
    assert one.held() == [("i1", 2), ("i2", 3), ("i3", 4)]
    why = one.runtime.clock.why()
    assert why is not None and why.holder == ME
    assert why.stop["held"] == "i1" and why.stop["breakpoint"] == 1
    assert one.runtime.clock.resume()
    one.round()
    one.round()
    assert sorted(one.fed()) == [1, 2, 3, 4]
    assert not one.runtime.clock.held


def test_once_and_after_are_counted(layer: MakeLayer) -> None:
    """--after 2 --once: the third stops, the fourth does not."""
    one = layer()
    break_at(one, "tcp.dstport == 81", after=2, once=True)
    one.below.coming = [packet(number, dport=81) for number in range(1, 6)]
    one.round()
    assert one.fed() == [1, 2]
    one.runtime.clock.resume()
    one.round()
    assert one.fed() == [1, 2, 3, 4, 5]
    assert one.ask("debug.state")["breakpoints"] == {"1": [3, 1]}


def test_what_was_held_is_looked_at_when_it_goes(layer: MakeLayer) -> None:
    """Two packets of a breakpoint that came while the stack was held stop it once each."""
    one = layer()
    break_at(one, "tcp.dstport == 81")
    hold(one)
    one.below.coming = [packet(1), packet(2, dport=81), packet(3, dport=81)]
    one.round()
    one.runtime.clock.resume()
    one.round()
    assert one.fed() == [1] and one.runtime.clock.held
    one.runtime.clock.resume()
    one.round()
    assert one.fed() == [1, 2] and one.runtime.clock.held
    one.runtime.clock.resume()
    one.round()
    assert one.fed() == [1, 2, 3] and not one.runtime.clock.held


def test_an_event_stops_after_the_call_that_made_it(layer: MakeLayer) -> None:
    """What had come with it is held, before all else; the core's interest ends with the breakpoint."""
    one = layer()
    break_at(one, "event drop and reason == ip_torn", about_events=True)
    one.below.coming = [packet(1), packet(2, ttl=1), packet(3)]
    one.round()
    assert one.fed() == [1, 2]
    assert one.core.interest
    assert [number for _, number in one.held()] == [3]
    why = one.runtime.clock.why()
    assert why is not None and why.stop["event"][1:4] == ["drop", "ip_torn", 2]
    write_breakpoints(one.runtime.run.path / BREAKPOINTS, [])
    one.ask("debug.breakpoints")
    one.runtime.clock.resume()
    one.round()
    assert one.fed() == [1, 2, 3]
    assert not one.core.interest and not one.loop.watching


def test_a_deadline_is_an_event_for_breakpoints(layer: MakeLayer) -> None:
    """--on due: the stack stops after a timer's call."""
    one = layer()
    break_at(one, "", about_events=True, event="due")
    one.core.deadlines = [stood(one)]
    one.round()
    assert one.runtime.clock.held
    assert one.core.deadlines == []


def test_a_stop_of_another_while_only_a_part_is_held_holds_all(layer: MakeLayer) -> None:
    """Frames that pass at the standing instant meet breakpoints, too."""
    one = layer()
    break_at(one, "tcp.dstport == 81")
    hold(one, "ip-tcp down")
    one.below.coming = [packet(1, dport=81), packet(2)]
    one.round()
    assert one.fed() == []
    why = one.runtime.clock.why()
    assert why is not None and why.at == [] and why.stop["held"] == "i1"


def test_a_breakpoint_that_cannot_be_worked_out_is_out_of_use(layer: MakeLayer) -> None:
    """It is told in the log; the frame passes, and the process lives."""
    one = layer()
    break_at(one, "tcp.dstport == 81")
    one.stopping.breakpoints.on_packets[0].expression = object()  # type: ignore[assignment]
    one.below.coming = [packet(1, dport=81), packet(2, dport=81)]
    one.round()
    assert one.fed() == [1, 2]
    assert not one.stopping.breakpoints.on_packets


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*)*x$"])
def test_no_regular_expression_stops_a_layer(layer: MakeLayer, pattern: str) -> None:
    """A hundred packets of 1,400 bytes, over each of which a backtracking engine stays for good, are fed within a
    second of this thread's own time."""
    one = layer()
    break_at(one, f'tcp.payload matches "{pattern}"')
    one.below.coming = [packet(number, payload=b"a" * 1400 + b"!") for number in range(1, 101)]
    began = time.thread_time()
    one.round()
    assert time.thread_time() - began < 1.0
    assert len(one.fed()) == 100 and not one.runtime.clock.held


def test_a_file_of_breakpoints_that_is_none_is_told(layer: MakeLayer) -> None:
    """Nothing dies of it, also at the start of a process."""
    one = layer()
    path = one.runtime.run.path / BREAKPOINTS
    path.write_text("{}")
    assert "does not hold breakpoints" in one.ask("debug.breakpoints")["refused"][0]
    write_breakpoints(path, [Breakpoint(1, "tcp.nonsense", False, ME)])
    assert "there is no field" in one.ask("debug.breakpoints")["refused"][0]
    two = layer("link")
    assert two.stopping.breakpoints.counts() == {}


# held packets


def test_held_packets_are_shown_replaced_dropped_and_repeated(layer: MakeLayer) -> None:
    """A dropped one is counted by its reason; a copy has an id of its own and names its original."""
    one = layer()
    hold(one)
    one.below.coming = [packet(1), packet(2), packet(3)]
    one.round()
    whole = msgspec.msgpack.decode(one.ask("debug.frame", held="i1")["frame"], type=Packet)
    assert whole == packet(1)
    other = msgspec.structs.replace(whole, checksum=3)
    assert one.ask("debug.replace", held="i1", frame=msgspec.msgpack.encode(other))["row"]["place"] == 0
    one.ask("debug.drop", held="i2")
    copy = one.ask("debug.dup", held="i1")["held"]
    one.ask("debug.move", held="i3", place=0)
    one.ask("debug.delay", held="i1", ns=10**12)
    assert one.runtime.counters["drop.debug_drop"] == 1
    one.runtime.clock.resume()
    one.round()
    (third, _), (second, _) = one.core.fed
    assert third.id == 3
    assert second.causes == [1] and second.id not in (0, 1) and second.checksum == 3
    assert one.held() == [("i1", 1)]
    assert copy == "i4"


def test_what_is_done_by_hand_is_told(layer: MakeLayer) -> None:
    """At once, though the stack stands: what a packet became, and its drop with the reason."""
    one = layer()
    seen: list[Event] = []
    one.loop.tap.watch(seen.append)
    one.round()
    hold(one)
    one.below.coming = [packet(1), packet(2)]
    one.round()
    whole = one.ask("debug.frame", held="i1")["frame"]
    one.ask("debug.replace", held="i1", frame=whole, changes=["ip.ttl=9"])
    one.ask("debug.dup", held="i1")
    one.ask("debug.delay", held="i1", ns=5)
    one.ask("debug.drop", held="i2")
    one.ask("debug.inject", seam="link-ip", way="up", frame=whole)
    told = [(event.kind, event.reason, event.frame, event.data.get("what")) for event in seen]
    hands = [("hand", "", 1, what) for what in ("changed", "repeated", "delayed")]
    assert told == [*hands, ("drop", "debug_drop", 2, None), ("hand", "", 1, "made")]
    assert seen[0].data["changes"] == ["ip.ttl=9"]
    assert (seen[0].data["seam"], seen[0].data["way"]) == ("link-ip", "up")


def test_only_packets_can_be_changed(layer: MakeLayer) -> None:
    """News of neighbours, routes and streams are not."""
    one = layer()
    hold(one)
    one.below.coming = [NeighbourUp("link", 7)]
    one.round()
    for command, more in (("drop", {}), ("dup", {}), ("delay", {"ns": 1}), ("move", {"place": 0})):
        with pytest.raises(ControlError, match="only packets can be changed"):
            one.ask(f"debug.{command}", held="i1", **more)
    assert one.ask("debug.frame", held="i1")["frame"] == b""


@pytest.mark.parametrize(
    ("command", "args"),
    [
        ("debug.replace", {"held": "i1", "frame": b"\x01"}),
        ("debug.inject", {"seam": "link-ip", "way": "up", "frame": b"\xff"}),
        ("debug.inject", {"seam": "tcp-gateway", "way": "up", "frame": b""}),
        ("debug.inject", {"seam": "link-ip", "way": "sideways", "frame": b""}),
        ("debug.delay", {"held": "i1", "ns": -1}),
        ("debug.delay", {"held": "i1", "ns": (1 << 64) - 1}),
        ("debug.move", {"held": "i1", "place": "x"}),
        ("debug.drop", {}),
        ("debug.nonsense", {}),
    ],
)
def test_nonsense_is_refused(layer: MakeLayer, command: str, args: dict[str, Any]) -> None:
    """With a sentence, and nothing changes."""
    one = layer()
    hold(one)
    one.below.coming = [packet(1)]
    one.round()
    with pytest.raises(ControlError):
        one.ask(command, **args)
    assert one.held() == [("i1", 1)]


def test_an_injected_packet_passes_or_waits_as_if_it_had_come(layer: MakeLayer) -> None:
    """In both directions; where frames are held, behind the others; a breakpoint sees it."""
    one = layer()
    data = msgspec.msgpack.encode(packet(0))
    assert one.ask("debug.inject", seam="link-ip", way="up", frame=data)["held"] == ""
    assert len(one.fed()) == 1 and one.fed()[0] != 0
    assert len(one.above.sent) == 1
    hold(one)
    one.below.coming = [packet(1)]
    one.round()
    assert one.ask("debug.inject", seam="link-ip", way="up", frame=data)["held"] == "i2"
    with pytest.raises(ControlError, match="no frame for ip-tcp"):
        one.ask("debug.inject", seam="ip-tcp", way="down", frame=data)
    with pytest.raises(ControlError, match="ip does not see ip-tcp up"):
        one.ask("debug.inject", seam="ip-tcp", way="up", frame=data)


# what lvlip fault does


def test_a_fault_is_an_event_for_breakpoints(layer: MakeLayer) -> None:
    """What a gate does stops the stack as a decision of the core would; nothing is made while nobody wants it."""
    one = layer()
    one.ask("fault.set", seam="link-ip", direction="up", loss=1.0)
    one.below.coming = [packet(1)]
    one.round()
    assert one.ask("fault.show")["faults"][0]["lost"] == 1 and one.runtime.clock.running() is not None
    assert not one.loop.faults.teller.take()
    break_at(one, "reason == fault_loss", about_events=True)
    one.below.coming = [packet(2)]
    one.round()
    assert one.runtime.clock.running() is None
    (stop,) = one.ask("debug.state")["stops"]
    assert stop["event"][1:4] == ["drop", "fault_loss", 2]


def test_faults_are_told_of_while_all_is_held(layer: MakeLayer) -> None:
    """They act on what comes, also while the core has nothing to do; what they did does not pile up."""
    one = layer()
    one.ask("fault.set", seam="link-ip", direction="up", loss=1.0)
    seen: list[Event] = []
    one.loop.tap.watch(seen.append)
    one.round()
    hold(one)
    for number in range(3):
        one.below.coming = [packet(number)]
        one.round()
    assert [event.frame for event in seen] == [0, 1, 2]
    assert one.held() == [] and not one.loop.faults.teller.take()

"""Pipes between two processes: hello, loss and return of a neighbour, refusal of what is not ours."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import zmq

from levelip.frames.packet import IpToTransport, Segment, TransportToIp
from levelip.frames.seam import Close, GatewayToTcp, NeighbourDown, NeighbourUp, TcpToGateway
from levelip.ipc.pipe import Pipe, PipeWord
from levelip.ipc.rundir import Locked, RunDirectory
from levelip.ipc.runtime import Runtime
from levelip.rpc.stream import Consumed
from levelip.tracing import reasons

Make = Callable[..., Runtime]
LIMIT_S = 200.0


def segment(payload: bytes = b"x") -> Segment:
    return Segment(1, [], False, 0, 1, b"\x0a\0\0\1", b"\x0a\0\0\2", 6, 64, 0, b"h" * 20, payload, 1, 0)


def until(pipes: list[Pipe], done: Callable[[], bool]) -> dict[str, list[Any]]:
    """Turn the pipes, as their loops would, until `done`; what each received, by the name of its process."""
    got: dict[str, list[Any]] = {pipe.name: [] for pipe in pipes}
    deadline = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < deadline, f"nothing more came: {got}"
        zmq.zmq_poll([(source, zmq.POLLIN) for pipe in pipes for source in pipe.readable()], 20)
        for pipe in pipes:
            got[pipe.name] += pipe.receive(100, 0)
            pipe.tick()
    return got


def fill(pipe: Pipe) -> int:
    """Send numbered segments until the neighbour's queue is full as well, which takes nothing out of it, and not just
    ours for the moment in which ZeroMQ's thread did not have its turn: how many."""
    sent = looks = 0
    deadline = time.monotonic() + LIMIT_S
    while looks < 20:
        assert time.monotonic() < deadline
        if pipe.room():
            pipe.send([segment(b"%06d" % sent + bytes(1500))], 0)
            sent, looks = sent + 1, 0
        else:
            looks += 1
            time.sleep(0.01)
    return sent


def pair(one: Runtime, other: Runtime, *, lossless: bool = False) -> tuple[Pipe, Pipe]:
    kinds = (TcpToGateway, GatewayToTcp) if lossless else (TransportToIp, IpToTransport)
    seam = "tcp-gateway" if lossless else "ip-tcp"
    return (
        Pipe(one, other.name, seam, kinds[0], lossless=lossless),
        Pipe(other, one.name, seam, kinds[1], lossless=lossless),
    )


def test_both_sides_learn_each_others_epoch_and_frames_cross(runtime: Make) -> None:
    """After hello each core is told NeighbourUp with the other's epoch; then a batch crosses in order."""
    ip, tcp = runtime("ip"), runtime("tcp")
    at_ip, at_tcp = pair(ip, tcp)
    got = until([at_ip, at_tcp], lambda: at_ip.up is not None and at_tcp.up is not None)
    got["tcp"] += at_ip.receive(10, 0)
    assert NeighbourUp("tcp", tcp.epoch) in got["tcp"]
    seen: list[Any] = []
    at_ip.send([segment(bytes([i])) for i in range(200)], 0)
    deadline = time.monotonic() + LIMIT_S
    while len(seen) < 200 and time.monotonic() < deadline:
        seen += [frame for frame in at_tcp.receive(1000, 0) if isinstance(frame, Segment)]
    assert [frame.payload for frame in seen] == [bytes([i]) for i in range(200)]
    at_ip.close()
    at_tcp.close()


@pytest.mark.parametrize("lossless", [False, True])
def test_words_pass_frames_for_which_there_is_no_room(runtime: Make, lossless: bool) -> None:
    """A debugger's words are no frames, and are heard behind frames that nobody takes; those come later, in order."""
    one, other = (runtime("gateway"), runtime("tcp")) if lossless else (runtime("ip"), runtime("tcp"))
    here, there = pair(one, other, lossless=lossless)
    until([here, there], lambda: here.up is not None and there.up is not None)
    there.receive(10, 0)
    frames = [Consumed(5, n) if lossless else segment(bytes([n])) for n in range(100)]
    here.send(frames, 0)
    word = PipeWord(7, other.name, "ask", "debug.state", {"x": b"y"}, 3)
    assert here.say(word)
    deadline = time.monotonic() + LIMIT_S
    while not there.words and time.monotonic() < deadline:
        there.look_ahead()
    assert there.words == [word]
    got: list[Any] = []
    while len(got) < 100 and time.monotonic() < deadline:
        got += there.receive(30, 0)
    assert got == frames
    here.close()
    there.close()


def test_a_word_among_frames_is_refused(runtime: Make) -> None:
    """It stands alone; one to a neighbour that is not up is not taken."""
    ip, tcp = runtime("ip"), runtime("tcp")
    at_ip, at_tcp = pair(ip, tcp)
    word = PipeWord(7, "tcp", "ask", "status", {})
    assert not at_ip.say(word)
    until([at_ip, at_tcp], lambda: at_ip.up is not None and at_tcp.up is not None)
    at_tcp.receive(10, 0)
    at_ip.send([word, segment()], 0)
    got: list[Any] = []
    deadline = time.monotonic() + LIMIT_S
    while not got and time.monotonic() < deadline:
        got += at_tcp.receive(10, 0)
    assert got == [segment()] and at_tcp.words == []
    assert tcp.counters["drop.bad_message"] == 1
    at_ip.close()
    at_tcp.close()


def test_what_came_is_told_as_it_came(runtime: Make) -> None:
    """Batch by batch, the msgpack of just the frames that were received; None where a frame is not as it came."""
    ip, tcp = runtime("ip"), runtime("tcp")
    at_ip, at_tcp = pair(ip, tcp)
    until([at_ip, at_tcp], lambda: at_ip.up is not None and at_tcp.up is not None)
    at_ip.receive(10, 0)
    at_tcp.receive(10, 0)
    at_ip.send([segment(bytes([i])) for i in range(100)], 0)
    seen: list[Any] = []
    came: list[Any] = []
    deadline = time.monotonic() + LIMIT_S
    while len(seen) < 100 and time.monotonic() < deadline:
        seen += at_tcp.receive(1000, 0)
        assert at_tcp.came is not None
        came += at_tcp.came
    assert [count for count, _ in came] == [64, 36]
    assert [frame for _, raw in came for frame in msgspec.msgpack.decode(raw, type=list[Segment])] == seen
    at_ip.send([segment(), segment(b"y" * 3000)], 0)  # a part of its own
    while not (got := at_tcp.receive(1000, 0)) and time.monotonic() < deadline:
        pass
    assert got[1].payload == b"y" * 3000 and at_tcp.came is None
    at_ip.close()
    at_tcp.close()


def test_a_neighbour_that_dies_and_comes_back_is_down_and_up_again(runtime: Make, run: RunDirectory) -> None:
    """The loss is learned from the monitor, the return from a hello; frames meanwhile are counted."""
    ip, tcp = runtime("ip"), runtime("tcp")
    at_ip, at_tcp = pair(ip, tcp)
    until([at_ip, at_tcp], lambda: at_ip.up is not None and at_tcp.up is not None)
    at_tcp.close()
    got = until([at_ip], lambda: at_ip.up is None)
    assert NeighbourDown("tcp") in got["tcp"]
    at_ip.send([segment()] * 3, 0)
    assert ip.counters[reasons.NEIGHBOUR_DOWN.counter] == 3
    os.close(tcp.lock)
    again = runtime("tcp")
    at_again = Pipe(again, "ip", "ip-tcp", IpToTransport, lossless=False)
    until([at_ip, at_again], lambda: at_ip.up == again.epoch and at_again.up == ip.epoch)
    at_ip.close()
    at_again.close()


def test_a_stream_message_for_an_earlier_start_is_dropped(runtime: Make) -> None:
    """On a stream pipe a message names the epoch it is meant for; another epoch's is counted as stale."""
    gateway, tcp = runtime("gateway"), runtime("tcp")
    at_gateway, at_tcp = pair(gateway, tcp, lossless=True)
    until([at_gateway, at_tcp], lambda: at_gateway.up is not None and at_tcp.up is not None)
    at_gateway.up = tcp.epoch + 1
    at_gateway.send([Close(1)], 0)
    at_gateway.up = tcp.epoch
    at_gateway.send([Close(2)], 0)
    seen: list[Any] = []
    until([at_gateway], lambda: bool(seen.extend(at_tcp.receive(10, 0)) or Close(2) in seen))
    assert Close(1) not in seen
    assert tcp.counters[reasons.STALE_EPOCH.counter] == 1
    at_gateway.close()
    at_tcp.close()


GARBAGE = [
    ([b""], reasons.GARBAGE),
    ([b"\xc1"], reasons.GARBAGE),
    ([msgspec.msgpack.encode([1, 2])], reasons.GARBAGE),
    ([msgspec.msgpack.encode([99, 1, 0, []])], reasons.UNKNOWN_VERSION),
    ([msgspec.msgpack.encode([1, 1, 0, [[77, 1]]])], reasons.BAD_MESSAGE),
    ([msgspec.msgpack.encode([1, 1, 0, [[2, "x"]]])], reasons.BAD_MESSAGE),
    ([msgspec.msgpack.encode([1, 1, 0, []])] + [b""] * 2000, reasons.BAD_PARTS),
    ([msgspec.msgpack.encode((1, 1, 0, [segment()]))], reasons.STALE_EPOCH),
]


@pytest.mark.parametrize(("parts", "reason"), GARBAGE)
def test_what_is_not_ours_is_counted_and_life_goes_on(
    runtime: Make, run: RunDirectory, parts: list[bytes], reason: reasons.Reason
) -> None:
    """Garbage, another version, an unknown kind, wrong fields, a stranger's epoch: refused with a reason."""
    tcp = runtime("tcp")
    at_tcp = Pipe(tcp, "ip", "ip-tcp", IpToTransport, lossless=False)
    stranger = tcp.context.socket(zmq.PUSH)
    stranger.linger = 0
    stranger.connect(f"ipc://{run.pipe('ip', 'tcp')}")
    stranger.send_multipart(parts)
    until([at_tcp], lambda: tcp.counters.get(reason.counter, 0) == 1)
    stranger.close()
    at_tcp.close()


def test_nothing_is_queued_for_a_neighbour_that_was_never_there(runtime: Make) -> None:
    """Stream pipes take nothing, packet pipes take, drop and count."""
    gateway = runtime("gateway")
    pipe = Pipe(gateway, "tcp", "tcp-gateway", TcpToGateway, lossless=True)
    assert pipe.room() == 0
    pipe.send([Consumed(1, 1)], 0)
    assert gateway.counters[reasons.NEIGHBOUR_DOWN.counter] == 1
    pipe.close()


def test_a_second_start_is_refused_with_the_holders_pid(runtime: Make) -> None:
    """The lock names who holds it."""
    runtime("ip")
    with pytest.raises(Locked, match=f"pid {os.getpid()}"):
        runtime("ip")


@pytest.fixture(autouse=True)
def _no_descriptor_is_left(run: RunDirectory) -> None:
    assert run.path.stat().st_mode & 0o777 == 0o700


def test_a_full_packet_pipe_keeps_one_batch_and_says_that_it_is_full(runtime: Make) -> None:
    """What the neighbour does not take waits, in order; only what is sent in spite of `room` is dropped and counted."""
    ip, tcp = runtime("ip"), runtime("tcp")
    at_ip, at_tcp = pair(ip, tcp)
    until([at_ip, at_tcp], lambda: at_ip.up is not None and at_tcp.up is not None)
    assert at_ip.room() > 0
    assert at_ip.writable() == []
    sent = fill(at_ip)  # 4,096 messages here, 4,096 there, and the kernel's buffers
    assert at_ip.waiting == 1
    assert at_ip.writable() != []
    assert reasons.PIPE_FULL.counter not in ip.counters
    at_ip.send([segment(b"too much")] * 3, 0)
    assert ip.counters[reasons.PIPE_FULL.counter] == 3
    got: list[bytes] = []
    deadline = time.monotonic() + LIMIT_S
    while len(got) < sent and time.monotonic() < deadline:
        got += [frame.payload[:6] for frame in at_tcp.receive(1000, 0) if isinstance(frame, Segment)]
        at_ip.room()
    assert got == [b"%06d" % number for number in range(sent)]
    assert at_ip.room() > 0
    at_ip.close()
    at_tcp.close()


def test_what_waits_for_a_neighbour_that_dies_is_dropped_and_counted(runtime: Make) -> None:
    """The batch that a full pipe kept does not go to the next process of that name."""
    ip, tcp = runtime("ip"), runtime("tcp")
    at_ip, at_tcp = pair(ip, tcp)
    until([at_ip, at_tcp], lambda: at_ip.up is not None and at_tcp.up is not None)
    fill(at_ip)
    assert at_ip.waiting == 1
    at_tcp.close()
    until([at_ip], lambda: at_ip.up is None)
    assert at_ip.room() > 0
    assert ip.counters[reasons.NEIGHBOUR_DOWN.counter] == 1
    at_ip.close()

"""Two tcp cores, random calls of their applications, random weather, restarts: a byte is right or it is not there."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from layers.tcp.core import TcpCore
from levelip.frames.packet import Route, Routes
from levelip.frames.seam import NeighbourUp
from tests.netsim.net import MS, Impairment
from tests.netsim.tcp_apps import Socket, TcpHost, pair, pattern, small_config

CONNECTIONS = 5
PATIENCE_S = 1000
"""Stack time in which all that was written arrives once the weather is good: an RTO may have backed off to 120 s."""

STEP_S = 20

SIZES = st.sampled_from([1, 7, 1000, 1448, 20_000, 70_000, 150_000])
PLACES = st.integers(0, CONNECTIONS - 1)
SIDES = st.booleans()


@dataclass
class Conversation:
    """Both ends. What one has written the other has, or the beginning of it."""

    client: Socket
    server: Socket | None = None
    broken: bool = False  # a process died, or an application aborted or left data unread: errors may follow

    def ends(self) -> list[tuple[Socket, Socket]]:
        """(writer, reader), both ways."""
        return [(self.client, self.server), (self.server, self.client)] if self.server is not None else []


class TwoStacks(RuleBasedStateMachine):
    """`hosts`: one connects, the other listens on port 80."""

    @initialize(
        seed=st.integers(0, 200), offload=st.booleans(), wrap=st.booleans(), fast=st.booleans(), sack=st.booleans(),
        stamps=st.booleans(), loss=st.sampled_from([0, 0.02, 0.1]),
    )  # fmt: skip
    def start(self, seed: int, offload: bool, wrap: bool, fast: bool, sack: bool, stamps: bool, loss: float) -> None:
        """Two hosts."""
        config = small_config(sack=sack, timestamps=stamps, connections=32, syn_retries=12, synack_retries=12)
        how: dict[str, Any] = {
            "gso_max": 65_535 if offload else 0, "fixed_isn": 0xFFFF_FF00 if wrap else -1, "header_prediction": fast,
        }  # fmt: skip
        self.net, self.a, self.b, *self.links = pair(Impairment(loss=loss), seed=seed, a=config, b=config, **how)
        self.links[0].to = lambda frame, now: self.b.core.receive(frame, now)  # noqa: PLW0108 - whichever core is there by then
        self.links[1].to = lambda frame, now: self.a.core.receive(frame, now)  # noqa: PLW0108
        self.b.listen(80)
        self.talks: list[Conversation] = []
        self.epochs = 100
        self.written = 0

    def pick(self, number: int, side: bool) -> tuple[Conversation | None, Socket | None]:
        """One of the conversations, and one of its ends if that is there."""
        if not self.talks:
            return None, None
        talk = self.talks[number % len(self.talks)]
        return talk, talk.client if side else talk.server

    def ready(self) -> bool:
        """Something can be opened."""
        return len(self.talks) < CONNECTIONS

    # applications

    @precondition(ready)
    @rule(size=SIZES)
    def connect(self, size: int) -> None:
        """A connection that has something to say at once."""
        self.written += 1
        self.talks.append(Conversation(self.a.connect(self.b.address, 80, pattern(self.written, size))))

    @rule(place=PLACES, side=SIDES, size=SIZES)
    def write(self, place: int, side: bool, size: int) -> None:
        """More of it, from either end."""
        _, sock = self.pick(place, side)
        if sock is not None and not sock.then_eof and sock.error is None:
            self.written += 1
            sock.write(pattern(self.written, size), self.net.now)

    @rule(place=PLACES, side=SIDES)
    def finish(self, place: int, side: bool) -> None:
        """shutdown(SHUT_WR) behind all that was written."""
        _, sock = self.pick(place, side)
        if sock is not None:
            sock.then_eof = True
            sock.pump(self.net.now)

    @rule(place=PLACES, side=SIDES)
    def pause(self, place: int, side: bool) -> None:
        """The application does not read for a while, or reads again."""
        _, sock = self.pick(place, side)
        if sock is not None:
            sock.reading = not sock.reading
            if sock.reading:
                sock.read(self.net.now)

    @rule(place=PLACES, side=SIDES, abort=st.booleans())
    def close(self, place: int, side: bool, abort: bool) -> None:
        """close(), or a reset."""
        talk, sock = self.pick(place, side)
        if talk is not None and sock is not None:
            talk.broken = sock.then_eof = True
            sock.error = sock.error or -1
            sock.close(self.net.now, abort=abort)

    # the world

    @rule(ms=st.sampled_from([1, 5, 40, 250, 3000, 30_000]))
    def wait(self, ms: int) -> None:
        """Time passes."""
        self.net.run(seconds=ms / 1000)

    @rule(
        way=st.booleans(), loss=st.sampled_from([0, 0.01, 0.1, 0.4]), reorder=st.sampled_from([0, 0.1]),
        duplicate=st.sampled_from([0, 0.1]), corrupt=st.sampled_from([0, 0.02]), delay=st.sampled_from([0, 1, 30]),
    )  # fmt: skip
    def weather(self, way: bool, loss: float, reorder: float, duplicate: float, corrupt: float, delay: int) -> None:
        """One direction gets better or worse."""
        self.links[way].how = Impairment(loss, duplicate, reorder, corrupt, delay * MS, jitter=delay * MS // 2)

    @rule(ms=st.sampled_from([10, 500, 10_000]))
    def blackout(self, ms: int) -> None:
        """Nothing gets through: ip or link is restarted."""
        before = [link.how for link in self.links]
        for link in self.links:
            link.how = Impairment(loss=1.0)
        self.net.run(seconds=ms / 1000)
        for link, how in zip(self.links, before, strict=True):
            link.how = how

    @rule(side=SIDES)
    def restore(self, side: bool) -> None:
        """The core gives way to one restored from its snapshot: nobody notices."""
        host = self.a if side else self.b
        self.settle(host)
        self.replace(host, TcpCore.restore(host.config, host.core.snapshot()))

    @rule(side=SIDES)
    def crash(self, side: bool) -> None:
        """The process dies with all it knows, and another starts: its applications learn it from the gateway."""
        host = self.a if side else self.b
        self.epochs += 1
        secret = bytes([self.epochs % 256] * 32)
        config = msgspec.structs.replace(host.config, epoch=self.epochs, isn_secret=secret, fixed_isn=-1)
        host.config = config
        self.replace(host, TcpCore(config, random.Random(self.epochs), self.net.now))
        host.core.receive(Routes([Route(bytes(4), 0, host.address, 1500, 65_535)], [host.address]), self.net.now)
        host.core.receive(NeighbourUp("gateway", 77), self.net.now)
        for talk in self.talks:
            talk.broken = True
            sock = talk.client if side else talk.server
            if sock is not None and sock.error is None:
                sock.error = -1
        host.sockets.clear()
        self.b.accepted.clear()  # nobody will know whose they were
        if not side:
            self.b.listen(80)

    def settle(self, host: TcpHost) -> None:
        """All output is taken, as the shell does before it commits."""
        host.node.flush(self.net.now)

    def replace(self, host: TcpHost, core: TcpCore) -> None:
        """Another core in the place of a host's."""
        host.core = core
        host.node.cores["tcp"] = core

    # what must hold

    @invariant()
    def bytes_are_right(self) -> None:
        """What arrived is the beginning of what was written."""
        if not hasattr(self, "talks"):
            return
        for talk in self.talks:
            if talk.server is None and talk.client.port:
                found = [sock for sock in self.b.accepted if sock.peer[1] == talk.client.port]
                if found:
                    talk.server = found[0]
                    self.b.accepted.remove(found[0])
        for talk in self.talks:
            for writer, reader in talk.ends():
                assert writer.to_send.startswith(reader.received), "wrong bytes"
                if reader.eof:
                    assert writer.then_eof and len(reader.received) == writer.sent, "end of file before the end"
        self.talks = [talk for talk in self.talks if not (talk.broken and self.over(talk))]

    @staticmethod
    def over(talk: Conversation) -> bool:
        """Both ends know that it has ended."""
        return all(sock is None or sock.error is not None or sock.eof for sock in (talk.client, talk.server))

    def teardown(self) -> None:
        """The weather clears up, all read and finish: everything arrives, or its reader learns that it will not."""
        if not hasattr(self, "talks"):
            return
        for link in self.links:
            link.how = Impairment()
        for _ in range(PATIENCE_S // STEP_S):
            self.finish_all()
            if self.net.run(self.all_done, seconds=STEP_S, steps=20_000):
                break
        self.bytes_are_right()
        for talk in self.talks:
            assert talk.broken or talk.server is not None, "never accepted"
            for writer, reader in talk.ends():
                if not talk.broken:
                    assert reader.error is None, f"errno {reader.error} without a cause"
                    assert reader.eof and reader.received == writer.to_send, "something is missing"

    def finish_all(self) -> None:
        """Every application reads, and ends its stream behind what it has written."""
        for talk in self.talks:
            for sock in (talk.client, talk.server):
                if sock is not None and sock.error is None:
                    sock.then_eof = sock.reading = True
                    sock.pump(self.net.now)
                    sock.read(self.net.now)

    def all_done(self) -> bool:
        """Both ends of each have seen the end, or an error where something broke."""
        self.bytes_are_right()
        return all(
            (talk.broken or talk.server is not None)
            and all(sock.eof or sock.error is not None for sock in (talk.client, talk.server) if sock is not None)
            for talk in self.talks
        )


TestTwoStacks = pytest.mark.timeout(600)(TwoStacks.TestCase)  # to shrink a failure takes its time
TestTwoStacks.settings = settings(max_examples=300, stateful_step_count=30, deadline=None, derandomize=True)

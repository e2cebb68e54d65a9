"""Whatever clients and tcp say, in whatever order: the core never raises, and its tables stay bounded."""

from __future__ import annotations

from typing import Any

from gateway_bench import CHILD, LIMIT, LOCAL, OPEN, REFUSED, REMOTE, SILENT, Bench
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import GatewayCore
from levelip.frames.seam import (
    ClientLost,
    Connected,
    Datagram,
    Failed,
    FromClient,
    Incoming,
    NeighbourDown,
    NeighbourUp,
    Released,
    Result,
)
from levelip.rpc.messages import Hello, Request, SendDatagram, TookDatagrams
from levelip.rpc.place import Place, Rings
from levelip.rpc.stream import Accepted, Consumed, Data, Eof, Reset, Send

FIRST = 7 << 32 | 1
SOCKS = st.sampled_from([0, *range(FIRST, FIRST + 6), *range(CHILD, CHILD + 3)])
OFFSETS = st.sampled_from([0, 1, 100, LIMIT, 1 << 62])
BYTES = st.sampled_from([b"", b"x", b"x" * 100])
PLACES = st.builds(Place, st.sampled_from(["", "own-1", "f" * 32]), OFFSETS, st.just(1 << 20), OFFSETS, st.just(100))
ADDRESSES = st.sampled_from([b"", REMOTE, bytes(16)])
ERRNOS = st.sampled_from([0, 104, 111, 4095])
RINGS = st.builds(Rings, st.sampled_from(["own-1", "f" * 32]), *[st.just(1 << 20)] * 4)
VALUES = st.one_of(
    st.integers(-3, 70_000), st.binary(max_size=20), st.none(), st.booleans(), st.text(max_size=3),
    st.sampled_from([LOCAL, REMOTE, OPEN, REFUSED, SILENT, 1, 6, 1 << 70]),
)  # fmt: skip
OPS = [
    "socket", "bind", "listen", "accept", "connect", "shutdown", "close", "setsockopt", "getsockopt", "getsockname",
    "getpeername", "unheard-of",
]  # fmt: skip
NAMES = ["family", "type", "proto", "address", "port", "backlog", "how", "abort", "unread", "level", "option", "value"]
SANE: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "socket": st.sampled_from([{}, {"type": 2}]),
    "bind": st.fixed_dictionaries({"address": st.just(LOCAL), "port": st.sampled_from([0, 80])}),
    "connect": st.fixed_dictionaries(
        {"address": st.just(REMOTE), "port": st.sampled_from([OPEN, REFUSED, SILENT])},
        optional={"nonblocking": st.booleans()},
    ),
    "shutdown": st.fixed_dictionaries({"how": st.integers(0, 2)}),
    "close": st.fixed_dictionaries({}, optional={"abort": st.booleans()}),
    "setsockopt": st.fixed_dictionaries(
        {"level": st.sampled_from([0, 1, 6]), "option": st.integers(0, 40), "value": st.integers(-1, 99)}
    ),
    "getsockopt": st.fixed_dictionaries({"level": st.sampled_from([0, 1, 6]), "option": st.integers(0, 40)}),
}
REQUESTS = st.one_of(
    st.sampled_from(OPS).flatmap(
        lambda op: st.builds(Request, st.integers(0, 9), st.just(op), SOCKS, SANE.get(op, st.just({})))
    ),
    st.builds(
        Request, st.integers(0, 9), st.sampled_from(OPS), SOCKS, st.dictionaries(st.sampled_from(NAMES), VALUES)
    ),
)
FROM_CLIENT = st.one_of(
    REQUESTS,
    st.builds(Hello, st.sampled_from([1, 1, 1, 2]), st.just("x"), BYTES, st.sampled_from(["", "f" * 32, "../x"])),
    st.builds(Send, SOCKS, OFFSETS, OFFSETS, st.one_of(BYTES, PLACES)),
    st.builds(Consumed, SOCKS, OFFSETS),
    st.builds(Eof, SOCKS, OFFSETS),
    st.builds(Reset, SOCKS, ERRNOS),
    st.builds(SendDatagram, SOCKS, ADDRESSES, st.just(9), st.one_of(BYTES, PLACES), st.integers(0, 2)),
    st.builds(TookDatagrams, SOCKS, OFFSETS),
)
PEERS = st.sampled_from([(b"a", 1000, 10), (b"b", 1000, 11), (b"c", 0, 12), (b"a", 0, 13)])
DATA = st.sampled_from(
    [{}, {"address": LOCAL, "port": 5}, {"address": 7, "port": "x"}, {"state": [1], "rtt": -5, "snd_mss": 1 << 80}]
)
FRAMES = st.one_of(
    st.builds(lambda who, message: FromClient(*who, message), PEERS, FROM_CLIENT),
    st.builds(lambda who, message: FromClient(*who, message), PEERS, FROM_CLIENT),
    st.builds(lambda who, dead: ClientLost(who[0], dead), PEERS, st.booleans()),
    st.builds(Result, st.integers(0, 20), ERRNOS, DATA),
    st.builds(
        Connected, SOCKS, st.just(LOCAL), st.just(9), st.just(REMOTE), st.just(OPEN), RINGS, st.sampled_from([0, LIMIT])
    ),
    st.builds(
        Incoming, SOCKS, SOCKS, st.just(LOCAL), st.just(9), st.just(REMOTE), st.just(OPEN), RINGS, st.just(LIMIT)
    ),
    st.builds(Released, SOCKS),
    st.builds(Accepted, SOCKS, OFFSETS, OFFSETS),
    st.builds(Data, SOCKS, OFFSETS, st.one_of(BYTES, PLACES)),
    st.builds(Eof, SOCKS, OFFSETS),
    st.builds(Reset, SOCKS, ERRNOS),
    st.builds(NeighbourUp, st.sampled_from(["tcp", "udp", "ip"]), st.sampled_from([1, 2])),
    st.builds(NeighbourDown, st.sampled_from(["tcp", "udp", "ip"])),
    st.builds(Datagram, SOCKS, OFFSETS, ADDRESSES, st.just(9), ADDRESSES, st.just(0), st.just(1), st.just(1), BYTES),
    st.builds(Failed, SOCKS, ERRNOS, st.just(3), st.just(3), ADDRESSES, ADDRESSES, st.just(9)),
    st.integers(1, 20_000),  # ms that pass
    st.sampled_from(["not a frame", None]),
)


def bounded(core: GatewayCore, peers: int) -> None:
    """Every table follows from what is alive."""
    state = core._state
    owned = sum(len(session.sockets) for session in state.sessions.values())
    queued = sum(len(sock.queue) for sock in state.sockets.values())
    assert len(state.sessions) <= peers
    assert len(state.sockets) + len(state.datagrams) == owned + queued
    assert set(state.pins) <= {orphan.region for orphan in state.orphans.values()}
    for one in state.datagrams.values():
        assert one.taken <= one.upto and len(one.waiting) <= 16 and one.session in state.sessions
    for sock in state.sockets.values():
        assert sock.consumed <= sock.relayed <= sock.received
        assert len(sock.waiting) <= 16
        assert sock.session in state.sessions


@settings(max_examples=150, deadline=None)
@given(st.lists(FRAMES, max_size=60))
def test_arbitrary_frames_never_raise(frames: list[Any]) -> None:
    """Any sequence of frames, with a tcp that answers nothing of its own accord, leaves a core that can go on, whose
    snapshot restores, and that is empty when all clients are gone."""
    bench = Bench(tcp_up=False, clients=4, sockets_per_client=8)
    bench.answering = False
    core = bench.core
    core.set("rejoin_ms", 100, 0)
    for frame in frames:
        if isinstance(frame, int):
            bench.now += frame * 1_000_000
            core.handle_timer(bench.now)
        else:
            core.receive(frame, bench.now)
        core.outgoing({})
        core.events()
        bounded(core, 4)
    again = GatewayCore.restore(bench.config, core.snapshot())
    assert again.snapshot() == core.snapshot()
    for peer in list(core._by_peer):
        core.receive(ClientLost(peer), bench.now)
    core.handle_timer(bench.now + 10**12)
    core.receive(NeighbourDown("tcp"), bench.now)
    core.receive(NeighbourDown("udp"), bench.now)
    core.receive(NeighbourUp("tcp", 9), bench.now)
    state = core._state
    assert not (state.sessions or state.sockets or state.datagrams)
    assert not (state.orphans or state.pins or state.ended_regions or state.asked)

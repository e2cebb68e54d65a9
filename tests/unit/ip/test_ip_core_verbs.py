"""The verbs that every core has: the same future after restore, no input that raises, every reason used."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ip_host import FAR, LOOPBACK, MS, OWN, PEER, TCP_HEAD, Host, icmp_packet, link_state, packet, quote_of, segment

from layers.ip.config import IpCoreConfig
from layers.ip.core import Core
from levelip.config import IpConfig
from levelip.frames.core import ControlError
from levelip.frames.packet import Doubt, LinkToIp, Packet, PathMtu, Segment, TransportToIp, Unreachable
from levelip.frames.seam import NeighbourDown, NeighbourUp
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.wire.checksum import internet_checksum
from levelip.wire.icmp import IcmpMessage
from levelip.wire.igmp import ALL_SYSTEMS, QUERY, IgmpMessage

PLACE = Place("pool", 0, 65_536, 54, 9000)


def something(rng: random.Random) -> Any:
    """One of the frames that the core knows, most of them good."""
    request = IcmpMessage.echo_request(ident=rng.randrange(4), sequence=rng.randrange(8), payload=bytes(20))
    return rng.choice(
        [
            lambda: packet(
                TCP_HEAD + bytes(rng.randrange(50)), ttl=rng.randrange(256), trailer=bytes(rng.randrange(8))
            ),
            lambda: packet(place=PLACE, gso_size=1448),
            lambda: packet(proto=rng.choice([17, 99, 132]), options=rng.randbytes(rng.randrange(9))),
            lambda: packet(src=rng.choice([OWN, LOOPBACK, FAR, PEER]), dst=rng.choice([OWN, FAR, b"\xff" * 4])),
            lambda: icmp_packet(request),
            lambda: icmp_packet(IcmpMessage.echo_reply(request)),
            lambda: icmp_packet(IcmpMessage.dest_unreachable(rng.randrange(16), quote_of(), mtu=1300)),
            lambda: segment(bytes(rng.randrange(1600)), dst=rng.choice([PEER, FAR, OWN, LOOPBACK, b"\xe0\0\0\1"])),
            lambda: segment(PLACE, gso_size=1448),
            lambda: link_state(mtu=rng.choice([1500, 1400]), up=rng.random() < 0.8),
            lambda: Unreachable(1, PEER, quote_of(), [5]),
            lambda: NeighbourUp(rng.choice(["tcp", "link"]), rng.randrange(1 << 60)),
            lambda: packet(
                bytes(8 * rng.randrange(1, 9)),
                proto=rng.choice([1, 6, 99]),
                ident=rng.randrange(3),
                frag_offset=rng.choice([0, 4, 8]),
                flags=rng.randrange(2),
                tos=rng.randrange(4),
            ),
            lambda: PathMtu(rng.choice([PEER, FAR]), rng.randrange(500, 1500)),
            lambda: Doubt(rng.choice([PEER, FAR])),
            lambda: icmp_packet(IcmpMessage.redirect(1, quote_of(), gateway=bytes((10, 0, 0, rng.randrange(9))))),
            lambda: packet(
                rng.choice([IgmpMessage.query(), IgmpMessage(QUERY, 50, bytes(4))]).serialize(fill_checksum=True),
                dst=ALL_SYSTEMS,
                proto=2,
                ttl=1,
                options=bytes((148, 4, 0, 0)),
            ),
            lambda: segment(bytes(rng.randrange(4000)), dont_fragment=False, checksum=rng.randrange(3)),
            lambda: NeighbourDown(rng.choice(["tcp", "link"])),
        ]
    )()


def drive(core: Core, rng: random.Random, steps: int, now: int, token: int) -> list[Any]:
    """Feed a core with what `rng` chooses; all that it does."""
    seen: list[Any] = []
    for step in range(steps):
        now += rng.randrange(20 * MS) if rng.random() < 0.95 else 20_000 * MS
        if rng.random() < 0.2:
            try:
                args = {"dst": rng.choice(["10.0.0.1", "127.0.0.1", "192.0.2.7"]), "timeout_ms": rng.randrange(1, 99)}
                if rng.random() < 0.5:
                    args |= {"id": rng.randrange(4), "seq": rng.randrange(8)}
                seen.append(core.control(token + step, "ping", args, now))
            except ControlError as error:
                seen.append(str(error))
        else:
            core.receive(something(rng), now)
        due = core.next_timer()
        if due is not None and due <= now:
            core.handle_timer(now)
        if rng.random() < 0.5:
            room = {"link": rng.randrange(5), "tcp": rng.randrange(5)}
            seen.append(msgspec.to_builtins(core.outgoing(room), builtin_types=(bytes,)))
        if rng.random() < 0.3:
            seen.append(msgspec.to_builtins(core.events()))
    return seen


@pytest.mark.parametrize("seed", range(20))
def test_same_future_after_restore(seed: int) -> None:
    """A core made from a snapshot in mid-run does exactly what the first one does from there on."""
    rng = random.Random(seed)
    host = Host(icmp_burst=5, icmp_rate_per_s=3, queue=20, multicast_groups=["239.1.2.3"], fragment_memory=9000)
    drive(host.core, rng, 60, host.now, 0)
    data = msgspec.msgpack.decode(msgspec.msgpack.encode(host.core.snapshot()))
    config = msgspec.convert(msgspec.to_builtins(host.core.config), IpCoreConfig)
    twin = Core.restore(config, data)
    assert twin.snapshot() == host.core.snapshot()
    future = rng.getrandbits(64)
    once = drive(host.core, random.Random(future), 120, host.now + 10**9, 1000)
    again = drive(twin, random.Random(future), 120, host.now + 10**9, 1000)
    assert once == again
    assert twin.snapshot() == host.core.snapshot()


def test_getters_are_pure(host: Host) -> None:
    """next_timer and snapshot change nothing."""
    host.ping()
    before = host.core.snapshot()
    assert host.core.next_timer() == host.core.next_timer()
    assert host.core.snapshot() == before


def test_no_interest_no_events(host: Host) -> None:
    """Nobody listens: nothing is collected."""
    host.core.interest = False
    for _ in range(50):
        host.core.receive(packet(proto=99), host.now)
        host.core.receive(packet(dst=FAR), host.now)
    assert host.core.events() == []


@settings(max_examples=300)
@given(
    head=st.binary(max_size=100),
    payload=st.binary(max_size=60) | st.just(PLACE),
    fixed=st.booleans(),
    flags=st.integers(0, 3),
    state=st.integers(0, 5),
)
def test_any_packet_is_survived(head: bytes, payload: bytes | Place, fixed: bool, flags: int, state: int) -> None:
    """Whatever bytes come from outside, nothing raises, and what is not delivered has a reason."""
    if fixed and len(head) >= 20:  # a right version, length and checksum, so that the rest is reached
        header = bytearray(head)
        header[0] = 0x40 | min(15, max(5, header[0] & 15), len(head) // 4)
        header[2:4] = (len(head) + len(payload)).to_bytes(2, "big")
        header[6:8] = b"\0\0"
        header[10:12] = b"\0\0"
        header[16:20] = OWN
        header[10:12] = internet_checksum(bytes(header[: (header[0] & 15) * 4])).to_bytes(2, "big")
        head = bytes(header)
    host = Host()
    host.core.receive(Packet(1, [], False, 0, 1, head, payload, state, 0, b"", flags), host.now)
    out = host.flush()
    drops = [event for event in host.core.events() if event.kind == "drop"]
    assert len(out) <= 1
    assert out or drops
    assert all(reasons.lookup(event.reason) for event in drops)


@settings(max_examples=200)
@given(
    src=st.sampled_from([b"", OWN, LOOPBACK, PEER]) | st.binary(min_size=4, max_size=16),
    dst=st.sampled_from([OWN, PEER, FAR, LOOPBACK]) | st.binary(min_size=4, max_size=16),
    proto=st.integers(0, 255),
    head=st.binary(max_size=80),
    payload=st.binary(max_size=80) | st.integers(0, 1 << 20).map(lambda n: Place("s", 0, 1 << 20, 0, n)),
    gso=st.sampled_from([0, 1, 536, 1448, 65_535]),
    flags=st.integers(0, 3),
    fragment=st.booleans(),
)
def test_any_segment_is_survived(
    src: bytes, dst: bytes, proto: int, head: bytes, payload: Any, gso: int, flags: int, fragment: bool
) -> None:
    """Whatever a transport sends, nothing raises; it goes out, comes back, or has a reason."""
    host = Host()
    host.core.receive(
        Segment(1, [], False, 0, 0, src, dst, proto, 0, 0, head, payload, 1, gso, fragment, flags), host.now
    )
    out = host.flush()
    drops = [event for event in host.core.events() if event.kind == "drop"]
    assert out or drops or proto == 1  # an echo to ourselves may end in silence
    for _, frame in out:
        if isinstance(frame, Packet) and isinstance(frame.payload, bytes):
            assert len(frame.head) + len(frame.payload) <= 1500 or gso


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_from_a_neighbour(data: bytes) -> None:
    """What the decoder lets through can be fed to the core."""
    host = Host()
    try:
        frame = msgspec.msgpack.decode(data, type=LinkToIp | TransportToIp)
    except (msgspec.DecodeError, ValueError):
        return
    host.feed(frame)


@settings(max_examples=100)
@given(head=st.binary(max_size=60), hop=st.binary(min_size=4, max_size=16))
def test_any_report_of_link_is_survived(head: bytes, hop: bytes) -> None:
    """Whatever link says it gave up."""
    host = Host()
    host.feed(Unreachable(1, hop, head, []))


@pytest.mark.rfc("RFC 1122 3.1-9")
def test_every_reason_of_ip_is_asserted() -> None:
    """Each row of the list that belongs to ip is counted somewhere in these tests."""
    source = "".join(path.read_text() for path in Path(__file__).parent.glob("test_ip_*.py"))
    names = {value: name for name, value in vars(reasons).items() if isinstance(value, reasons.Reason)}
    missing = [
        names[reason]
        for reason in reasons.all_reasons()
        if reason.layer == "ip" and f"reasons.{names[reason]}" not in source
    ]
    assert missing == []


def test_tcp_restarts(host: Host) -> None:
    """What waits for a tcp that is gone is dropped; its successor gets routes, not old errors."""
    host.core.receive(icmp_packet(IcmpMessage.dest_unreachable(1, quote_of())), host.now)
    host.core.receive(segment(), host.now)
    host.core.receive(NeighbourDown("tcp"), host.now)
    assert host.core.counters[reasons.NEIGHBOUR_DOWN.counter] == 1
    assert [port for port, _ in host.flush()] == ["link"]


def test_settings_change(host: Host) -> None:
    """TTL, echo and limits hold from the next packet on."""
    host.core.set("ttl", 7, host.now)
    assert host.sent(segment()).head[8] == 7
    host.core.set("echo_reply", False, host.now)
    host.dropped(icmp_packet(IcmpMessage.echo_request(ident=1, sequence=1)), reasons.ICMP_ECHO_OFF)
    host.core.set("icmp_rate_per_s", 0, host.now)
    host.dropped(packet(proto=99), reasons.ICMP_RATE_LIMITED)


def test_configuration_is_plain() -> None:
    """The core's configuration survives a round trip as plain data, for replay."""
    config = IpCoreConfig(ip=IpConfig(ttl=3), epoch=77)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=IpCoreConfig) == config

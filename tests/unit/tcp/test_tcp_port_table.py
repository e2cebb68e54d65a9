"""The table of ports and the route table alone, at their limits."""

from __future__ import annotations

import pytest

from layers.tcp.ports import TABLE, Binding, Ports
from layers.tcp.routes import RouteTable, ip_header, mss_of
from levelip.frames.packet import Route, Routes

ANY, A, B = bytes(4), b"\x0a\0\0\1", b"\x0a\0\0\2"
V6 = bytes(15) + b"\2"


# ports


def test_every_holder_of_a_port_is_asked() -> None:
    """One of another address, one that shares, ourselves: none of them hides the one behind that is in the way."""
    ports = Ports()
    ports.hold(1, Binding(A, 80))  # ourselves
    ports.hold(2, Binding(B, 80))  # another address
    ports.hold(3, Binding(A, 80, reuse_port=True))
    ports.hold(4, Binding(A, 80, reuse_address=True))
    want = Binding(A, 80, reuse_address=True, reuse_port=True)
    assert not ports.conflicts(1, want)
    ports.hold(5, Binding(A, 80))
    assert ports.conflicts(1, want)
    ports.release(5)
    assert not ports.conflicts(1, want)
    ports.hold(4, Binding(A, 80, reuse_address=True, listening=True))
    assert ports.conflicts(1, want)
    assert not ports.conflicts(1, Binding(A, 81))


def test_a_socket_holds_one_port() -> None:
    """Another takes the place of the first; released, nothing is left; twice is no harm."""
    ports = Ports()
    ports.hold(1, Binding(ANY, 80))
    ports.hold(1, Binding(ANY, 81))
    assert list(ports.bindings) == [81] and ports.by_socket[1].port == 81
    ports.hold(2, Binding(A, 81))
    ports.release(1)
    assert list(ports.bindings[81]) == [2] and list(ports.by_socket) == [2]
    ports.release(2)
    ports.release(2)
    assert ports.bindings == {} and ports.by_socket == {}


@pytest.mark.parametrize(
    ("first", "last", "start", "order"),
    [
        (100, 102, 0, [100, 101, 102, 0]),
        (100, 102, 2, [102, 100, 101, 0]),
        (100, 102, 7, [101, 102, 100, 0]),
        (100, 100, 5, [100, 0]),
    ],
)
def test_a_port_to_bind_is_looked_for_all_round(first: int, last: int, start: int, order: list[int]) -> None:
    """From `start` on, each of the range once; then 0."""
    ports = Ports()
    for sock, port in enumerate(order):
        want = Binding(ANY, 1)
        assert ports.free_for_bind(sock, want, first, last, start) == port == want.port
        ports.hold(sock, want)


def test_what_one_holds_oneself_is_free() -> None:
    """A socket may be bound again to its own port."""
    ports = Ports()
    ports.hold(7, Binding(ANY, 100))
    assert ports.free_for_bind(7, Binding(ANY, 0), 100, 100, 0) == 100
    assert ports.free_for_bind(8, Binding(ANY, 0), 100, 100, 0) == 0


def chosen(
    ports: Ports, *, remote_port: int = 80, secret: bytes = bytes(32), local: bytes = A, remote: bytes = B
) -> int:
    return ports.free_for_connect(secret, local, remote, remote_port, 1000, 60_000, lambda port: False)


def test_ephemeral_ports_go_up_by_one_to_the_same_place() -> None:
    """RFC 6056 3.3.4: a keyed offset for each remote side, and a counter that remote sides share by another hash."""
    ports = Ports()
    found = [chosen(ports) for _ in range(3)]
    assert found == [found[0], found[0] + 1, found[0] + 2]
    firsts = {
        found[0], chosen(Ports(), remote_port=81), chosen(Ports(), remote_port=80 + 256), chosen(Ports(), local=V6[:4]),
        chosen(Ports(), remote=A), chosen(Ports(), secret=b"x" * 32),
    }  # fmt: skip
    assert len(firsts) == 6
    counters = [index for index, count in enumerate(ports.table) if count]
    assert len(counters) == 1 and ports.table[counters[0]] == 3 and len(ports.table) == TABLE == 256


def test_counters_are_chosen_by_all_of_the_remote_side() -> None:
    """Each of address, port, our address, secret: some of many lead to another counter."""

    def used(**how: object) -> int:
        ports = Ports()
        chosen(ports, **how)  # type: ignore[arg-type]
        return next(index for index, count in enumerate(ports.table) if count)

    for many in (
        [{"remote_port": port} for port in range(80, 90)],
        [{"remote": bytes((10, 0, 0, last))} for last in range(10)],
        [{"local": bytes((10, 0, 0, last))} for last in range(10)],
        [{"secret": bytes((last,)) * 32} for last in range(10)],
    ):
        assert len({used(**how) for how in many}) > 5


def test_ephemeral_ports_that_are_taken_are_passed_over() -> None:
    """A port that bind() chose, and one with such a connection; one that connect() chose may serve another."""
    ports = Ports()
    first = chosen(ports)
    ports = Ports()
    ports.hold(1, Binding(A, first))
    assert chosen(ports) == first + 1
    ports = Ports()
    ports.hold(1, Binding(A, first, chosen=False))
    assert chosen(ports) == first
    ports = Ports()
    asked: list[int] = []

    def taken(port: int) -> bool:
        asked.append(port)
        return len(asked) < 3

    assert ports.free_for_connect(bytes(32), A, B, 80, 1000, 60_000, taken) == first + 2
    assert asked == [first, first + 1, first + 2]


def test_ephemeral_ports_that_are_all_taken() -> None:
    """Each of the range is tried once."""
    asked: list[int] = []
    found = Ports().free_for_connect(bytes(32), A, B, 80, 10, 14, lambda port: asked.append(port) or True)  # type: ignore[func-returns-value]
    assert found == 0 and sorted(asked) == [10, 11, 12, 13, 14]


# routes


def test_what_learned_mtus_hold() -> None:
    """Until their instant, and only while they are less than the route's."""
    table = RouteTable()
    route = Route(A, 24, A, 1500, 0)
    table.learn(B, 1400, 100, 0)
    assert table.path_mtu(route, B, 99) == (1400, 100)
    assert table.path_mtu(route, B, 100) == (1500, -1)
    assert table.path_mtu(route, A, 0) == (1500, -1)
    table.learn(B, 1500, 100, 0)
    assert table.path_mtu(route, B, 0) == (1500, -1)
    table.learn(B, 1499, 100, 0)
    assert table.path_mtu(route, B, 0) == (1499, 100)


def test_addresses_that_are_ours() -> None:
    """Any, loopback (all of 127, or ::1), what ip told; and all of them before it told anything."""
    table = RouteTable(known=True)
    table.addresses = [A]
    ours = [ANY, A, b"\x7f\0\0\1", b"\x7f\1\2\3", bytes(16), bytes(15) + b"\1"]
    others = [B, b"\x80\0\0\1", bytes(15) + b"\2", b"\x7f" + bytes(15)]
    assert all(table.is_ours(address) for address in ours)
    assert not any(table.is_ours(address) for address in others)
    assert all(RouteTable().is_ours(address) for address in others)


def test_the_mss_of_an_mtu() -> None:
    """RFC 9293 3.7.1: less the fixed headers, 40 or 60 bytes; an MTU is at least 68 and a packet at most 65,535."""
    assert (ip_header(A), ip_header(V6)) == (20, 40)
    assert [mss_of(mtu, A) for mtu in (1500, 68, 67, 65_535, 65_536)] == [1460, 28, 28, 65_495, 65_495]
    assert mss_of(1500, V6) == 1440


def test_the_longest_prefix_is_found_and_remembered() -> None:
    """Also a default route, and none; of another family none. What ip tells anew holds at once."""
    table = RouteTable()
    assert table.lookup(B) is None
    near, all_, six = Route(b"\x0a\0\0\0", 8, A, 1500, 0), Route(ANY, 0, A, 1400, 0), Route(bytes(16), 0, V6, 1300, 0)
    table.replace(Routes([all_, near, six], [A]))
    for _ in range(2):  # the second time from its cache
        assert table.lookup(B) == near and table.lookup(b"\x0b\0\0\1") == all_ and table.lookup(V6) == six
    assert table.known and table.is_ours(A) and not table.is_ours(B)
    table.replace(Routes([all_], [B]))
    assert table.lookup(B) == all_ and table.lookup(V6) is None and not table.is_ours(A)

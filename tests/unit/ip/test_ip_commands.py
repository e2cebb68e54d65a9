"""Control commands of ip: each answer whole, each refusal in its words, numbers at their limits."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ip_host import FAR, MS, OWN, PEER, SECOND, Host, link_state, packet, read_icmp

from levelip.config import IpConfig
from levelip.frames.core import DEFERRED, ControlError
from levelip.frames.packet import Local, Packet, PathMtu, Routes
from levelip.frames.seam import Answer
from levelip.wire.ipv4 import FLAG_DF, FLAG_MF

FARTEXT = "192.0.2.7"
UNREACHABLE = "Network is unreachable"


def command(host: Host, name: str, **args: Any) -> dict[str, Any]:
    return host.core.control(1, name, args, host.now)


def refused(host: Host, name: str, text: str, **args: Any) -> None:
    """The command fails with just these words, and nothing comes of it."""
    with pytest.raises(ControlError, match=f"^{re.escape(text)}$"):
        command(host, name, **args)
    assert host.flush() == []


# tables


def test_addresses() -> None:
    """lo first; of a network of two addresses there is no broadcast; device, MTU and state are link's."""
    host = Host(addresses=["192.0.2.2/31"], mtu=1400)
    lo = {"address": "127.0.0.1", "prefix": 8, "broadcast": "", "device": "lo", "mtu": 65_535, "up": True}
    own = {"address": "10.0.0.2", "prefix": 24, "broadcast": "10.0.0.255", "device": "tap0", "mtu": 1400, "up": True}
    pair = {**own, "address": "192.0.2.2", "prefix": 31, "broadcast": ""}
    assert command(host, "addresses") == {"addresses": [lo, own, pair]}
    host.feed(link_state(up=False))
    assert [row["up"] for row in command(host, "addresses")["addresses"]] == [True, False, False]
    unknown = command(Host(device=False), "addresses")["addresses"][1]
    assert (unknown["device"], unknown["up"]) == ("", False)


def test_route_rows_name_the_device() -> None:
    """Local rows are lo's, always up, with its MTU; a row that refuses has no device; the others are the device's."""
    host = Host(routes=["unreachable 203.0.113.0/24 metric 5"], mtu=1400)
    rows = {row["prefix"]: row for row in command(host, "route")["routes"]}
    assert rows["10.0.0.2/32"] == {
        "prefix": "10.0.0.2/32", "kind": "local", "via": "", "source": "10.0.0.2", "metric": 0, "device": "lo",
        "mtu": 65_535, "up": True,
    }  # fmt: skip
    assert rows["203.0.113.0/24"] == {
        "prefix": "203.0.113.0/24", "kind": "unreachable", "via": "", "source": "10.0.0.2", "metric": 5, "device": "",
        "mtu": 1400, "up": True,
    }  # fmt: skip
    host.feed(link_state(up=False))
    states = {row["prefix"]: (row["device"], row["up"]) for row in command(host, "route")["routes"]}
    assert (states["default"], states["10.0.0.2/32"]) == (("tap0", False), ("lo", True))
    early = {row["prefix"]: (row["device"], row["up"]) for row in command(Host(device=False), "route")["routes"]}
    assert (early["default"], early["127.0.0.0/8"]) == (("", True), ("lo", True))


def test_route_get_answers_whole(host: Host) -> None:
    """Through the gateway, to a neighbour, to a group, to ourselves."""
    far = command(host, "route.get", dst=FARTEXT)
    assert far == {
        "prefix": "default", "kind": "unicast", "via": "10.0.0.1", "source": "10.0.0.2", "metric": 0, "device": "tap0",
        "mtu": 1500, "up": True, "dst": FARTEXT, "next_hop": "10.0.0.1", "group": False,
    }  # fmt: skip
    near = command(host, "route.get", dst="10.0.0.1")
    assert (near["dst"], near["next_hop"], near["group"], near["via"]) == ("10.0.0.1", "10.0.0.1", False, "")
    assert command(host, "route.get", dst="10.0.0.255")["group"] is True
    assert command(host, "route.get", dst="224.0.0.1")["group"] is True
    own = command(host, "route.get", dst="10.0.0.2")
    assert (own["next_hop"], own["mtu"], own["device"]) == ("", 65_535, "lo")
    host.feed(PathMtu(FAR, 1280))
    assert command(host, "route.get", dst=FARTEXT)["mtu"] == 1280


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("blackhole", "Invalid argument"),
        ("unreachable", "No route to host"),
        ("prohibit", "Permission denied"),
    ],
)
def test_route_get_and_ping_say_what_connect_would(kind: str, error: str) -> None:
    """The errno of a route that refuses, in the C library's words; none at all: network unreachable."""
    host = Host(routes=[f"{kind} 192.0.2.0/24"])
    assert command(host, "route.get", dst=FARTEXT)["error"] == error
    assert host.ping(FARTEXT) == {"error": error, "local": True}
    nowhere = Host(gateway="")
    assert command(nowhere, "route.get", dst=FARTEXT) == {"dst": FARTEXT, "error": UNREACHABLE}
    assert nowhere.ping(FARTEXT) == {"error": UNREACHABLE, "local": True}
    assert "error" not in command(host, "route.get", dst="10.0.0.1")


def test_route_cache(host: Host) -> None:
    """What is left of the time of each, in ms, rounded down and never below 0; flushed, it is empty."""
    assert command(host, "route.cache") == {"cache": []}
    host.feed(PathMtu(FAR, 1280))
    host.feed(PathMtu(PEER, 1000))
    host.now += SECOND + 1
    assert command(host, "route.cache") == {
        "cache": [
            {"dst": FARTEXT, "mtu": 1280, "mtu_expires_ms": 598_999},
            {"dst": "10.0.0.1", "mtu": 1000, "mtu_expires_ms": 598_999},
        ]
    }
    assert command(host, "route.flush") == {"flushed": 2}
    assert command(host, "route.cache") == {"cache": []} and command(host, "route.flush") == {"flushed": 0}
    assert command(host, "route.get", dst=FARTEXT)["mtu"] == 1500


def test_fragments() -> None:
    """Who waits for what: the oldest first."""
    host = Host(fragment_time_ms=30_000)
    host.feed(packet(bytes(16), frag_offset=0, flags=FLAG_MF, ident=7))
    host.now += SECOND
    host.feed(packet(bytes(8), frag_offset=3, flags=FLAG_MF, ident=8, src=FAR))
    host.feed(packet(bytes(8), frag_offset=5, flags=FLAG_MF, ident=8, src=FAR))
    host.now += 1
    found = command(host, "fragments")
    assert found["datagrams"] == 2 and found["memory"] > 32
    assert found["oldest"] == [
        {
            "src": "10.0.0.1", "dst": "10.0.0.2", "proto": 6, "ident": 7, "fragments": 1, "bytes": 16, "refused": False,
            "expires_ms": 28_999,
        },
        {
            "src": FARTEXT, "dst": "10.0.0.2", "proto": 6, "ident": 8, "fragments": 2, "bytes": 16, "refused": False,
            "expires_ms": 29_999,
        },
    ]  # fmt: skip
    for ident in range(100, 200):
        host.feed(packet(bytes(8), frag_offset=3, flags=FLAG_MF, ident=ident))
    found = command(host, "fragments")
    assert found["datagrams"] == 102 and len(found["oldest"]) == 100
    host.now += 3600 * SECOND
    assert command(host, "fragments")["oldest"][0]["expires_ms"] == 0


# changes


def test_routes_come_and_go(host: Host) -> None:
    """Added and deleted routes are told to tcp; the beginning of one that fits it alone is enough to delete it."""
    assert command(host, "route.add", route="198.51.100.0/24 via 10.0.0.9 metric 3") == {
        "added": "198.51.100.0/24 via 10.0.0.9 metric 3"
    }
    [(port, told)] = host.flush()
    assert port == "tcp" and isinstance(told, Routes)
    assert bytes((198, 51, 100, 0)) in [route.prefix for route in told.routes]
    command(host, "route.add", route="198.51.100.0/24 via 10.0.0.8 metric 4")
    host.flush()
    assert command(host, "route.get", dst="198.51.100.7")["next_hop"] == "10.0.0.9"
    refused(
        host, "route.add",
        "198.51.100.0/24 via 10.0.0.7 metric 4: there is a route to 198.51.100.0/24 with metric 4 already",
        route="198.51.100.0/24 via 10.0.0.7 metric 4",
    )  # fmt: skip
    refused(
        host, "route.del",
        "198.51.100.0/24: which one: 198.51.100.0/24 via 10.0.0.9 metric 3; 198.51.100.0/24 via 10.0.0.8 metric 4",
        route="198.51.100.0/24",
    )  # fmt: skip
    refused(host, "route.del", "198.51.100.0/2: there is no such route", route="198.51.100.0/2")
    assert command(host, "route.del", route="198.51.100.0/24 via 10.0.0.9") == {
        "deleted": "198.51.100.0/24 via 10.0.0.9 metric 3"
    }
    [(port, told)] = host.flush()
    assert port == "tcp" and isinstance(told, Routes)
    assert command(host, "route.get", dst="198.51.100.7")["next_hop"] == "10.0.0.8"


def test_the_gateway_is_a_route_too(host: Host) -> None:
    """ip.gateway shows as the default route, and deleting it empties the setting."""
    assert command(host, "route.del", route="default") == {"deleted": "default via 10.0.0.1"}
    assert command(host, "route.get", dst=FARTEXT)["error"] == UNREACHABLE
    host.flush()
    refused(host, "route.del", "default: there is no such route", route="default")


def test_what_is_refused_changes_nothing(host: Host) -> None:
    """A route by way of nobody's network: the words name the setting, the table stays."""
    before = command(host, "route")
    with pytest.raises(ControlError, match=r"ip\.routes"):
        command(host, "route.add", route="198.51.100.0/24 via 172.16.0.1")
    with pytest.raises(ControlError, match="route"):
        command(host, "route.add", route="nonsense")
    assert command(host, "route") == before and host.flush() == []


def test_addresses_by_command(host: Host) -> None:
    """link hears of the address and its broadcasts, in order and once; tcp of the routes."""
    assert command(host, "address.add", address="192.0.2.2/24") == {"added": "192.0.2.2/24"}
    assert command(host, "address.add", address="198.51.100.2/24") == {"added": "198.51.100.2/24"}
    out = host.flush()
    assert [port for port, _ in out].count("link") == 1  # the older message is replaced
    [local] = [frame for _, frame in out if isinstance(frame, Local)]
    assert local.addresses == [OWN, bytes((192, 0, 2, 2)), bytes((198, 51, 100, 2))]
    assert local.broadcasts == sorted(
        [
            b"\xff" * 4, bytes((10, 0, 0, 255)), bytes((10, 0, 0, 0)), bytes((192, 0, 2, 255)), bytes((192, 0, 2, 0)),
            bytes((198, 51, 100, 255)), bytes((198, 51, 100, 0)),
        ]
    )  # fmt: skip
    assert local.groups == [bytes((224, 0, 0, 1))]
    refused(host, "address.del", "192.0.2.9 is no address of this stack", address="192.0.2.9")
    refused(
        host, "address.del", "the first address (ip.address) cannot be removed while the stack runs",
        address="10.0.0.2/24",
    )  # fmt: skip
    assert command(host, "address.del", address="192.0.2.2/24") == {"deleted": "192.0.2.2"}
    assert {port for port, _ in host.flush()} == {"link", "tcp"}


def test_groups_by_command(host: Host) -> None:
    """Joined, link lets it pass; left, no longer; what was not joined cannot be left."""
    assert command(host, "group.join", group="239.1.2.3") == {"joined": "239.1.2.3"}
    [local] = [frame for _, frame in host.flush() if isinstance(frame, Local)]
    assert local.groups == sorted([bytes((224, 0, 0, 1)), bytes((239, 1, 2, 3))])
    assert command(host, "group.leave", group="239.1.2.3") == {"left": "239.1.2.3"}
    [local] = [frame for _, frame in host.flush() if isinstance(frame, Local)]
    assert local.groups == [bytes((224, 0, 0, 1))]
    refused(host, "group.leave", "239.1.2.3 was not joined by command", group="239.1.2.3")
    with pytest.raises(ControlError, match=r"group.*10\.0\.0\.1"):
        command(host, "group.join", group="10.0.0.1")


def test_an_unknown_command_names_those_that_there_are(host: Host) -> None:
    """All, in order."""
    refused(
        host, "fly",
        "ip knows no command 'fly'; there are address.add, address.del, addresses, fragments, group.join, group.leave, "
        "groups, ping, route, route.add, route.cache, route.del, route.flush, route.get",
    )  # fmt: skip


# ping


def test_a_ping_as_it_goes_out(host: Host) -> None:
    """What was asked for is in the packet: ident, number, size, ttl, tos, DF; it waits a second unless told else."""
    assert host.ping("10.0.0.1", id=0, seq=7, size=300, ttl=3, tos=4, dont_fragment=True, timeout_ms=250) is DEFERRED
    [(port, out)] = host.flush()
    assert port == "link" and isinstance(out, Packet)
    header, message = read_icmp(out)
    assert (header.src, header.dst, header.ttl, header.tos, header.flags) == (OWN, PEER, 3, 4, FLAG_DF)
    assert (message.ident, message.sequence, message.payload) == (0, 7, (bytes(range(256)) * 2)[:300])
    assert (out.causes, out.traced, out.ingress) == ([], False, host.now)
    assert host.core.next_timer() == host.now + 250 * MS
    plain = Host()
    plain.ping("10.0.0.1")
    header, message = read_icmp(plain.flush()[0][1])
    assert (header.ttl, header.tos, header.flags) == (IpConfig().ttl, 0, 0)
    assert (message.sequence, message.payload) == (1, bytes(range(56)))
    assert plain.core.next_timer() == plain.now + SECOND


@pytest.mark.parametrize(
    ("key", "low", "high"),
    [("id", 0, 65_535), ("seq", 0, 65_535), ("size", 0, 65_507), ("ttl", 1, 255), ("timeout_ms", 1, 3_600_000),
     ("tos", 0, 255)],
)  # fmt: skip
def test_numbers_at_their_limits(host: Host, key: str, low: int, high: int) -> None:
    """The limits themselves are taken, one beyond is not; nor what is no number."""
    for value in (low, high):
        assert host.ping("10.0.0.1", **{"id": value % 7, "seq": value % 99, key: value}) is DEFERRED
    host.flush()
    for wrong in (low - 1, high + 1, "1", None, True, 1.0):
        refused(
            host, "ping", f"{key}: a number in {low}..{high} is needed, not {wrong!r}",
            **{"dst": "10.0.0.1", key: wrong},
        )  # fmt: skip


def test_whom_ping_does_not_ask(host: Host) -> None:
    """Broadcasts and groups; and no address at all."""
    for dst in ("255.255.255.255", "10.0.0.255", "10.0.0.0", "224.0.0.1"):
        words = f"{dst} is a broadcast or multicast address; ping asks single hosts"
        refused(host, "ping", words, dst=dst)
    refused(host, "ping", "dst: an IPv4 address is needed, not 'x'", dst="x")
    refused(host, "ping", "dst: an IPv4 address is needed, not None")


def test_ping_and_a_device_that_is_down(host: Host) -> None:
    """Others cannot be asked, ourselves can."""
    host.feed(link_state(up=False))
    assert host.ping("10.0.0.1") == {"error": UNREACHABLE, "local": True}
    assert host.ping("10.0.0.2") is DEFERRED
    assert host.ping("127.0.0.1") is DEFERRED


@pytest.mark.parametrize(("dst", "mtu"), [("10.0.0.1", 1500), (FARTEXT, 1280), ("127.0.0.1", 65_535)])
def test_ping_and_what_is_too_long(host: Host, dst: str, mtu: int) -> None:
    """With DF the packet must fit the path: header 20, ICMP 8, data. Without it is cut."""
    host.feed(PathMtu(FAR, 1280))
    host.flush()
    fits = min(mtu - 28, 65_507)
    assert host.ping(dst, size=fits, dont_fragment=True) is DEFERRED
    if fits < 65_507:
        words = {"error": f"message too long, mtu: {mtu}", "mtu": mtu, "local": True}
        assert host.ping(dst, seq=2, size=fits + 1, dont_fragment=True) == words
        assert host.ping(dst, seq=2, size=fits + 1) is DEFERRED


def test_a_reply_is_answered_with_its_figures(host: Host) -> None:
    """Whence, TTL, size with the ICMP header, and how long it took."""
    host.ping("10.0.0.1", token=9, id=5, seq=6, size=10)
    _, message = read_icmp(host.flush()[0][1])
    host.now += 3 * MS
    reply = type(message).echo_reply(message).serialize(fill_checksum=True)
    [(port, answer)] = host.feed(packet(reply, proto=1, ttl=61))
    assert port == "control" and isinstance(answer, Answer)
    assert (answer.token, answer.data) == (9, {"from": "10.0.0.1", "ttl": 61, "size": 18, "rtt_ns": 3 * MS})
    assert host.core.next_timer() is None

"""A transport's progress confirms the neighbour on the way (RFC 4861 7.3.1)."""

from __future__ import annotations

import msgspec
import pytest
from ip_host import FAR, LOOPBACK, OWN, PEER, Host, link_state

from levelip.frames.packet import Confirmed, Progress
from levelip.frames.seam import NeighbourDown

MAC = bytes.fromhex("020000000002")


@pytest.fixture
def tap(host: Host) -> Host:
    """A host on Ethernet."""
    host.feed(msgspec.structs.replace(link_state(), kind="tap", mac=MAC))
    return host


@pytest.mark.rfc("RFC 4861 7.3.1-2", "RFC 1122 3.3.1.4-6")
@pytest.mark.parametrize(("dst", "hop"), [(PEER, PEER), (FAR, PEER)])
def test_link_is_told_the_next_hop(tap: Host, dst: bytes, hop: bytes) -> None:
    """On the link the peer itself, else the gateway."""
    assert tap.feed(Progress(dst)) == [("link", Confirmed(hop))]
    assert tap.core.counters["neighbours_confirmed"] == 1


@pytest.mark.parametrize("dst", [OWN, LOOPBACK, b"\xff" * 4, bytes((224, 0, 0, 1))])
def test_what_has_no_neighbour(tap: Host, dst: bytes) -> None:
    """Ourselves, and groups."""
    assert tap.feed(Progress(dst)) == []


def test_a_tun_has_no_neighbours(host: Host) -> None:
    """A device without a MAC address: link is told nothing."""
    host.feed(msgspec.structs.replace(link_state(), kind="tun", mac=b""))
    assert host.feed(Progress(PEER)) == []


def test_what_waits_for_a_link_that_is_gone_is_dropped(tap: Host) -> None:
    """As all that waits for it."""
    tap.core.receive(Progress(PEER), tap.now)
    tap.core.receive(NeighbourDown("link"), tap.now)
    assert [frame for port, frame in tap.core.outgoing({}) if port == "link"] == []

"""ECN and segmentation offload: super-segments with CWR cross the device whole, both ways (RFC 3168 6.1.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from link_bench import Bench
from link_tcp import TcpPeer, neighbour, neighbour_that_may_be_slow

from levelip.wire.tcp import ACK, CWR, ECE, PSH, SYN, TcpHeader
from levelip.wire.vnet import GSO_ECN, VnetHeader
from tests.system.streams import read_exactly, stream


class EcnPeer(TcpPeer):
    """It agrees when the kernel asks."""

    def send(self, flags: int, payload: Any = b"", **more: Any) -> None:
        """As asked; a SYN-ACK with ECE."""
        super().send(flags | ECE if flags & SYN else flags, payload, **more)


@pytest.fixture
def kernel_asks(bench: Bench) -> None:
    """net.ipv4.tcp_ecn = 1 in the test's namespace."""
    Path("/proc/sys/net/ipv4/tcp_ecn").write_text("1")


@pytest.mark.usefixtures("kernel_asks")
@pytest.mark.rfc("RFC 3168 6.1.2")
def test_a_super_segment_with_cwr_from_the_kernel_is_not_cut(bench: Bench) -> None:
    """An ECE makes the kernel reduce and say CWR: on a super-segment, whose virtio header has GSO_ECN."""
    port = bench.open()
    neighbour_that_may_be_slow()
    peer = EcnPeer(bench, port)
    client = peer.handshake()
    client.setblocking(False)
    data = stream(1, 400_000)
    sent = client.send(data)
    got = bytearray()
    with_cwr = []
    for step in range(200):
        if len(got) >= 60_000:
            break
        frame, payload = peer.take()
        if TcpHeader.parse(frame.head, 34).flags & CWR:
            vnet = VnetHeader.parse(frame.vnet)
            with_cwr.append((vnet.gso_type & GSO_ECN, len(payload)))
        got += payload
        peer.send(ACK | ECE if step == 0 else ACK)
    client.close()
    assert sent >= 60_000 and bytes(got) == data[: len(got)]
    assert with_cwr and with_cwr[0][1] > 1460 and with_cwr[0][0] == GSO_ECN


@pytest.mark.usefixtures("kernel_asks")
@pytest.mark.rfc("RFC 3168 6.1.2")
def test_the_kernel_takes_our_super_segment_with_cwr(bench: Bench) -> None:
    """60,000 bytes with CWR and GSO_ECN are one packet that the kernel takes."""
    port = bench.open()
    neighbour()
    peer = EcnPeer(bench, port)
    client = peer.handshake()
    data = stream(1, 60_000)
    peer.send_stored(ACK | PSH | CWR, data)
    assert read_exactly(client, len(data)) == data
    client.close()
    assert not bench.counters


def test_where_the_kernel_refuses_ecn_the_rest_is_still_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """TUN_F_TSO_ECN with an unknown bit beside it is refused; the second attempt without it is not."""
    monkeypatch.setattr("layers.link.tuntap.TUN_F_TSO_ECN", 0x8000)
    port = bench.open()
    assert port.state.gso_max == 65_535

"""The device port against a real tun or tap interface, with the kernel on the other side."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from typing import Any

import pytest
from link_bench import HOST, HOST_MAC, STACK, STACK_MAC, Bench, wait_for
from link_tcp import SESSION, TcpPeer, ip, is_ipv4, neighbour, neighbour_that_may_be_slow

from layers.link.tuntap import DeviceError, HostSide, facts, is_configured
from levelip.frames.packet import DeviceFrame, DeviceState
from levelip.rpc.place import Place
from levelip.wire.arp import ArpPacket
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.ethernet import EthernetHeader
from levelip.wire.ipv4 import Proto, header_checksum_ok
from levelip.wire.segment import complete_tcp_checksum, header_length
from levelip.wire.tcp import ACK, PSH
from levelip.wire.vnet import GSO_TCPV4, VnetHeader
from tests.system.streams import read_exactly, stream

pytestmark = pytest.mark.usefixtures("netns")

ETH = STACK_MAC + HOST_MAC  # from the host to the stack
SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 263, 8, 23


def test_creates_configures_and_removes(bench: Bench) -> None:
    """The port makes the interface with MAC, MTU, address and state; without `persist` it goes with the port."""
    port = bench.open(mtu=1400)
    assert port.state == DeviceState("tst0", "tap", True, True, 1400, True, 65535)
    shown = subprocess.run(["ip", "addr", "show", "tst0"], check=True, capture_output=True, text=True).stdout
    assert HOST_MAC.hex(":") in shown and "10.0.0.1/24" in shown and "mtu 1400" in shown
    port.close()
    assert facts("tst0") is None


def test_persists_and_is_taken_over(bench: Bench) -> None:
    """A persistent interface outlives the port; the next one takes it over as it is, index and all."""
    bench.open(persist=True).close()
    before = facts("tst0")
    assert before is not None
    port = bench.open(persist=True)
    assert facts("tst0") == before
    port.persist(False)
    port.close()
    assert facts("tst0") is None


def test_what_is_configured_already_takes_no_netlink(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was killed left it so: the next is there sooner without pyroute2, which takes long to import."""
    bench.open(persist=True).close()
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pyroute2", None)
        bench.open(persist=True).close()
    side = HostSide(1500, HOST_MAC, "10.0.0.1/24")
    assert is_configured("tst0", side) and is_configured("tst0", HostSide(1500))
    for other in (replace(side, mtu=1400), replace(side, mac=STACK_MAC)):
        assert not is_configured("tst0", other), other
    for address in ("10.0.0.3/24", "10.0.0.1/16", "::1/64"):
        assert not is_configured("tst0", replace(side, address=address)), address
    assert not is_configured("none", side)
    for undo, command in (("up", ("link", "set", "tst0", "down")), ("address", ("addr", "flush", "dev", "tst0"))):
        ip(*command)
        assert not is_configured("tst0", side), undo
        bench.open(persist=True).close()
        assert is_configured("tst0", side), undo
    ip("link", "del", "tst0")


def test_attaches_and_changes_nothing(bench: Bench) -> None:
    """`attach` uses an interface that exists, with its own MTU, and leaves it behind."""
    ip("tuntap", "add", "tst0", "mode", "tap")
    ip("link", "set", "tst0", "mtu", "1300", "up")
    port = bench.open(attach=True)
    assert (port.state.up, port.state.mtu) == (True, 1300)
    port.close()
    assert facts("tst0") is not None


@pytest.mark.parametrize(
    ("prepare_command", "options", "words"),
    [
        ((), {"attach": True}, "no interface tst0"),
        (("tuntap", "add", "tst0", "mode", "tun"), {}, "no tap device"),
        ((), {"name": "lo"}, "lo: it exists and is no tap device"),
        ((), {"host": HostSide(65_535)}, "cannot carry out: ip link set tst0 mtu 65535: Invalid argument"),
    ],
)
def test_says_why_it_cannot_open(bench: Bench, prepare_command: tuple[str, ...], options: Any, words: str) -> None:
    """What is wrong with the interface is said in words."""
    if prepare_command:
        ip(*prepare_command)
    with pytest.raises(DeviceError, match=words):
        bench.open(**options)


def test_says_that_another_process_has_it(bench: Bench) -> None:
    """Only one process can have the interface open."""
    bench.open()
    with pytest.raises(DeviceError, match="another process has it open"):
        bench.open()


def test_udp_datagram_arrives_with_partial_checksum(bench: Bench) -> None:
    """What the kernel itself sends comes with NEEDS_CSUM: its checksum was left to the device."""
    port = bench.open()
    neighbour()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"hello", ("10.0.0.2", 7))
    frame = wait_for(port, is_ipv4(Proto.UDP))[-1]
    assert frame.head[:12] == ETH
    assert frame.head.endswith(b"hello") and frame.payload == b""
    vnet = VnetHeader.parse(frame.vnet)
    assert vnet.needs_csum and (vnet.csum_start, vnet.csum_offset) == (34, 6)


def test_without_offload_checksums_are_complete(bench: Bench) -> None:
    """With offload off there is no virtio header, the kernel computes checksums and cuts to the MTU."""
    port = bench.open(offload=False)
    assert (port.state.checksum_offload, port.state.gso_max) == (False, 0)
    neighbour()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"hello", ("10.0.0.2", 7))
    frame = wait_for(port, is_ipv4(Proto.UDP))[-1]
    assert frame.vnet == b""
    assert internet_checksum(frame.head[34:], pseudo_header_sum(HOST, STACK, Proto.UDP, len(frame.head) - 34)) == 0


def test_super_segment_arrives_whole_in_the_pool(bench: Bench) -> None:
    """With TSO the kernel hands over tens of KB at once; the payload stays in a slot, the headers come inline."""
    port = bench.open()
    neighbour_that_may_be_slow()
    peer = TcpPeer(bench, port)
    client = peer.handshake()
    data = stream(1, 60_000)
    got = bytearray()
    biggest = 0
    writer = threading.Thread(target=client.sendall, args=(data,))
    writer.start()
    while len(got) < len(data):
        frame, payload = peer.take()
        if isinstance(frame.payload, Place):
            vnet = VnetHeader.parse(frame.vnet)
            assert vnet.needs_csum and vnet.gso_kind == GSO_TCPV4 and vnet.gso_size == 1460
            biggest = max(biggest, frame.payload.length)
        got += payload
        peer.send(ACK)
    writer.join()
    client.close()
    assert bytes(got) == data
    assert biggest > 10_000


def test_super_segment_from_shared_memory_is_accepted(bench: Bench) -> None:
    """A segment of 60,000 bytes, written from a client's memory with a virtio header, is one the kernel takes whole."""
    port = bench.open()
    neighbour()
    peer = TcpPeer(bench, port)
    client = peer.handshake()
    data = stream(1, 60_000)
    peer.send_stored(ACK | PSH, data)
    assert read_exactly(client, len(data)) == data
    client.close()
    assert not bench.counters


def test_ring_that_wraps_is_written_in_order(bench: Bench) -> None:
    """A payload that wraps around the end of its ring goes out as one frame."""
    port = bench.open()
    neighbour()
    peer = TcpPeer(bench, port)
    client = peer.handshake()
    data = stream(1, 8000)
    bench.session(SESSION, data[3000:] + bytes(1000) + data[:3000])
    peer.send(ACK | PSH, Place(SESSION, 0, 9000, 6000, len(data)), gso_size=1460)
    assert read_exactly(client, len(data)) == data
    client.close()


@pytest.mark.parametrize("offload", [True, False], ids=["device", "software"])
def test_memory_cut_short_is_counted(bench: Bench, offload: bool) -> None:
    """A client that truncates its memory costs its own frames and nothing else: EFAULT, not SIGBUS."""
    port = bench.open(offload=offload)
    neighbour()
    peer = TcpPeer(bench, port)
    client = peer.handshake()
    path = bench.session(SESSION, bytes(20_000))
    place = Place(SESSION, 0, 20_000, 0, 10_000)
    assert bench.memory.read(place) == bytes(10_000)  # opens the region
    os.truncate(path, 0)
    peer.send(ACK | PSH, place, gso_size=1460)
    assert bench.counters["drop.memory_lost"] == 1
    client.close()


def test_software_cutting_and_checksums(bench: Bench) -> None:
    """Without offload a super-segment is cut and every checksum computed by the port; the kernel accepts the bytes."""
    port = bench.open(offload=False)
    neighbour()
    peer = TcpPeer(bench, port)
    client = peer.handshake()
    data = stream(1, 20_000)
    bench.session(SESSION, data)
    peer.send(ACK | PSH, Place(SESSION, 0, len(data), 0, len(data)), gso_size=1460)
    assert read_exactly(client, len(data)) == data
    client.close()


def test_kernel_that_takes_no_offload(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Where TUNSETOFFLOAD fails, the port says so, does checksums itself, and still takes super-segments."""
    port = bench.open(offloads=1 << 30)
    assert (port.state.checksum_offload, port.state.gso_max) == (False, 65535)
    assert "takes no offload" in caplog.text
    neighbour()
    client = TcpPeer(bench, port).handshake()
    client.close()


def test_unverified_long_frame_goes_inline(bench: Bench) -> None:
    """A long frame whose checksum nobody vouches for must be read by a core, so it is no Place."""
    port = bench.open(mtu=9000, offload=False)
    neighbour()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(stream(1, 8000), ("10.0.0.2", 7))
    frame = wait_for(port, is_ipv4(Proto.UDP))[-1]
    assert frame.payload == b"" and frame.head.endswith(stream(1, 8000))


def test_exhausted_pool_goes_inline(bench: Bench) -> None:
    """With every slot in use frames still come, as bytes, and that is counted."""
    port = bench.open()
    neighbour()
    while (slot := bench.pool.slot()) is not None:
        bench.pool.place(slot[0], 0, 10)
    peer = TcpPeer(bench, port)
    client = peer.handshake()
    client.sendall(stream(1, 10_000))
    frame = wait_for(port, lambda f: is_ipv4(Proto.TCP)(f) and len(f.head) > 2048)[-1]
    assert frame.payload == b""
    assert bench.counters["device_pool_empty"] > 0
    client.close()


def test_gate_leaves_frames_in_the_device(bench: Bench) -> None:
    """While ip takes nothing the device is not polled and not read; then all that waited comes."""
    port = bench.open()
    neighbour()
    bench.full = True
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(20):
            sender.sendto(b"%d" % number, ("10.0.0.2", 7))
    assert port.fileno() not in port.readable()
    assert not [frame for frame in port.receive(64, 0) if isinstance(frame, DeviceFrame)]
    bench.full = False
    frames = wait_for(port, lambda f: is_ipv4(Proto.UDP)(f) and f.head.endswith(b"19"))
    assert [f.head[42:] for f in frames if is_ipv4(Proto.UDP)(f)] == [b"%d" % number for number in range(20)]


def test_reads_no_more_than_its_batch(bench: Bench) -> None:
    """One call reads 64 frames at most, however many wait."""
    port = bench.open()
    neighbour()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(100):
            sender.sendto(b"x", ("10.0.0.2", 7))
    assert sum(map(is_ipv4(Proto.UDP), port.receive(1000, 0))) <= 64
    wait_for(port, is_ipv4(Proto.UDP))


def test_down_and_up_are_told(bench: Bench) -> None:
    """The interface going down and up, and a new MTU, are told as DeviceState; frames meanwhile are counted."""
    port = bench.open()
    ip("link", "set", "tst0", "down")
    down = wait_for(port, lambda f: isinstance(f, DeviceState))[-1]
    assert not down.up
    port.send([DeviceFrame(1, [], b"\xff" * 60, b"")], 0)
    assert bench.counters["drop.device_down"] == 1
    ip("link", "set", "tst0", "mtu", "1200", "up")
    up = wait_for(port, lambda f: isinstance(f, DeviceState) and f.up)[-1]
    assert up.mtu == 1200
    assert not bench.lost


def test_refused_frame_is_counted(bench: Bench) -> None:
    """A frame that the kernel calls invalid (shorter than an Ethernet header) is counted, and life goes on."""
    port = bench.open()
    port.send([DeviceFrame(1, [], b"\xff" * 5, b"")], 0)
    assert bench.counters["drop.device_error"] == 1


def test_deleted_interface_is_made_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """While link has the privilege, an interface that somebody deleted is made anew, and it says so."""
    port = bench.open(persist=True)
    ip("link", "delete", "tst0")
    states = [f for f in wait_for(port, lambda f: isinstance(f, DeviceState) and f.up) if isinstance(f, DeviceState)]
    assert [state.up for state in states] == [False, True]  # so that the core announces itself again
    assert facts("tst0") is not None and "opening it again" in caplog.text
    assert not bench.lost
    neighbour()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"back", ("10.0.0.2", 7))
    wait_for(port, is_ipv4(Proto.UDP))


def test_attached_interface_is_waited_for(bench: Bench) -> None:
    """An attached interface that vanishes is down until somebody makes it again."""
    ip("tuntap", "add", "tst0", "mode", "tap")
    ip("link", "set", "tst0", "up")
    port = bench.open(attach=True)
    ip("link", "delete", "tst0")
    assert not wait_for(port, lambda f: isinstance(f, DeviceState))[-1].up
    port.send([DeviceFrame(1, [], b"\xff" * 60, b"")], 0)
    assert bench.counters["drop.device_down"] == 1
    ip("tuntap", "add", "tst0", "mode", "tap")
    ip("link", "set", "tst0", "up")
    assert wait_for(port, lambda f: isinstance(f, DeviceState) and f.up)[-1].name == "tst0"


def test_renamed_interface_is_followed(bench: Bench) -> None:
    """An interface that is renamed stays the same one."""
    port = bench.open()
    ip("link", "set", "tst0", "down")
    ip("link", "set", "tst0", "name", "tst9")
    ip("link", "set", "tst9", "up")
    assert wait_for(port, lambda f: isinstance(f, DeviceState) and f.up)[-1].name == "tst9"


def test_tun_carries_bare_packets(bench: Bench) -> None:
    """A tun device gives and takes IP packets without link header; TCP works over it, super-segments too."""
    port = bench.open("tun")
    assert not port.state.ethernet
    peer = TcpPeer(bench, port, link=b"")
    client = peer.handshake()
    data = stream(1, 30_000)
    bench.session(SESSION, data)
    peer.send(ACK | PSH, Place(SESSION, 0, len(data), 0, len(data)), gso_size=1460)
    assert read_exactly(client, len(data)) == data
    client.sendall(data)
    frame = wait_for(port, lambda f: isinstance(f, DeviceFrame) and isinstance(f.payload, Place))[-1]
    assert frame.head[0] == 0x45 and header_length(frame.head) == len(frame.head)
    client.close()


def test_what_the_kernel_sees_of_our_frame(bench: Bench) -> None:
    """A plain frame reaches a packet socket on the host's side byte for byte."""
    port = bench.open()
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
    tap.bind(("tst0", 0))
    tap.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    tap.settimeout(60)
    arp = ArpPacket.request(sha=STACK_MAC, spa=STACK, tpa=HOST).serialize()
    frame = EthernetHeader(b"\xff" * 6, STACK_MAC, 0x0806).serialize() + arp
    port.send([DeviceFrame(1, [], frame, b"")], 0)
    assert tap.recv(2000) == frame
    tap.close()
    reply = wait_for(port, lambda f: isinstance(f, DeviceFrame) and f.head[12:14] == b"\x08\x06")[-1]
    assert ArpPacket.parse(reply.head, 14).sha == HOST_MAC


def test_software_pieces_are_whole_packets(bench: Bench) -> None:
    """What software cutting puts on the cable are packets with right lengths and checksums, none above the MTU."""
    port = bench.open(offload=False)
    seen = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    seen.bind(("tst0", 0))
    seen.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    seen.settimeout(60)
    peer = TcpPeer(bench, port)
    peer.send(ACK, stream(1, 4000), gso_size=1460)
    pieces = [seen.recv(65536)[14:] for _ in range(3)]
    seen.close()
    assert [len(piece) for piece in pieces] == [1500, 1500, 40 + 4000 - 2 * 1460]
    for piece in pieces:
        assert header_checksum_ok(piece)
        assert complete_tcp_checksum(piece[:40], piece[40:]) == piece[:40]
    assert b"".join(piece[40:] for piece in pieces) == stream(1, 4000)

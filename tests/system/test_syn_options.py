"""SYN and SYN-ACK beside the kernel's own on the same wire: nothing by which a peer or a tool could tell them apart.

The kernel connects to us and we to the kernel; a packet socket sees all four. Compared byte for byte apart from ports,
numbers, and the value of the timestamp; window scale and window follow each side's buffers, by the same rule.
"""

from __future__ import annotations

import socket as std
import struct
import time

from levelip.client import socket as levelip_socket
from levelip.wire.options import parse_options
from levelip.wire.tcp import ACK, SYN
from tests.system.harness import Stack
from tests.system.namespace import Namespace

ETH_P_ALL = 3  # both ways
SECONDS = 60.0


def connect_to(host: str, port: int) -> None:
    """An application of the stack that connects."""
    with levelip_socket.socket() as sock:
        sock.connect((host, port))


def listen_once(port: int) -> None:
    """One that accepts."""
    with levelip_socket.socket() as sock:
        sock.bind(("", port))
        sock.listen()
        sock.settimeout(SECONDS)
        sock.accept()[0].close()


def masked(options: bytes) -> bytes:
    """With TSval, TSecr and the shift of the window scale as zeros."""
    out, at = bytearray(options), 0
    while at < len(out):
        kind = out[at]
        if kind == 1:
            at += 1
            continue
        length = out[at + 1]
        if kind == 8:
            out[at + 2 : at + 10] = bytes(8)
        elif kind == 3:
            out[at + 2] = 0
        at += length
    return bytes(out)


class Syn:
    """What is compared of a SYN."""

    def __init__(self, packet: bytes) -> None:
        self.tos, self.flags_offset, self.ttl = packet[1], packet[6:8], packet[8]
        tcp = packet[(packet[0] & 15) * 4 :]
        self.source, self.bits = packet[12:16], tcp[13]
        self.ports = struct.unpack_from(">HH", tcp)
        self.window, self.urgent = struct.unpack_from(">H2xH", tcp, 14)
        self.raw = tcp[20 : tcp[12] >> 2 & 0x3C]
        self.options = parse_options(self.raw)

    def shape(self) -> tuple[object, ...]:
        """All that must be the same."""
        return self.tos, self.flags_offset, self.ttl, self.bits, self.urgent, masked(self.raw)


def collect(tap: std.socket, port: int) -> tuple[Syn, Syn]:
    """The SYN to this port and the SYN-ACK from it, the first of each: who was slow to be answered sends another."""
    found: dict[int, Syn] = {}
    deadline = time.monotonic() + SECONDS
    while len(found) < 2:
        assert time.monotonic() < deadline, "no SYN and SYN-ACK"
        packet = tap.recv(65_536)
        if packet[0] >> 4 == 4 and packet[9] == 6 and packet[(packet[0] & 15) * 4 + 13] & SYN:
            syn = Syn(packet)
            if syn.ports[syn.bits == SYN] != port:  # source and destination
                continue
            found.setdefault(syn.bits, syn)
    return found[SYN], found[SYN | ACK]


def test_syns_as_the_kernels(stack: Stack, namespace: Namespace) -> None:
    """Options, their order and padding, MSS, flags, TTL, DF, and the rules for window and scale."""
    tap = namespace.socket(std.AF_PACKET, std.SOCK_DGRAM, std.htons(ETH_P_ALL))
    tap.settimeout(SECONDS)
    listener = namespace.socket()
    listener.bind((stack.host, 9000))
    listener.listen()
    ours = stack.submit(connect_to, stack.host, 9000)
    ours.result(SECONDS)
    our_syn, kernel_syn_ack = collect(tap, 9000)
    listener.accept()[0].close()
    ours.result(SECONDS)
    waiting = stack.submit(listen_once, 9001)
    stack.wait_listening(9001)
    client = namespace.socket()
    client.settimeout(SECONDS)
    client.connect((stack.address, 9001))
    kernel_syn, our_syn_ack = collect(tap, 9001)
    client.close()
    waiting.result(SECONDS)
    tap.close()
    assert our_syn.bits == kernel_syn.bits == SYN and our_syn_ack.bits == kernel_syn_ack.bits == SYN | ACK
    assert our_syn.source == our_syn_ack.source != kernel_syn.source
    assert our_syn.shape() == kernel_syn.shape()
    assert our_syn_ack.shape() == kernel_syn_ack.shape()
    # TSecr: 0 in a SYN, the other's TSval in a SYN-ACK
    for syn, answer in ((our_syn, kernel_syn_ack), (kernel_syn, our_syn_ack)):
        assert syn.options.timestamps is not None and answer.options.timestamps is not None
        assert syn.options.timestamps[1] == 0 and answer.options.timestamps[1] == syn.options.timestamps[0]
    # the window is never scaled here: 65,535 in whole segments, 1460 in a SYN, 1448 in a SYN-ACK
    assert our_syn.window == 64_240 and our_syn_ack.window == 65_160
    assert kernel_syn.window == 64_240 and kernel_syn_ack.window == 65_160
    # our receive buffer of 4 MB: 2^22, 22 - 15
    assert our_syn.options.wscale == our_syn_ack.options.wscale == 7

"""The kernel's side of a tap or tun, and just enough of TCP to talk to it past the stack's own."""

from __future__ import annotations

import errno
import socket
import subprocess
from pathlib import Path
from typing import Any

from link_bench import HOST, HOST_MAC, STACK, STACK_MAC, Bench, wait_for, whole

from layers.link.offload import prepare
from levelip.frames.packet import DeviceFrame
from levelip.rpc.place import Place
from levelip.wire.ipv4 import Ipv4Header, Proto
from levelip.wire.segment import header_length
from levelip.wire.seq import SEQ_MASK, seq_diff
from levelip.wire.tcp import ACK, SYN, TcpHeader, pack_tcp

SESSION = "0123456789abcdef" * 2
"""Name of a client's memory file."""


def ip(*args: str) -> None:
    """The `ip` command in the test's namespace."""
    subprocess.run(["ip", *args], check=True, capture_output=True)


def neighbour(name: str = "tst0") -> None:
    """The host knows the stack's MAC address without asking."""
    ip("neigh", "replace", "10.0.0.2", "lladdr", STACK_MAC.hex(":"), "dev", name)


def neighbour_that_may_be_slow(name: str = "tst0") -> None:
    """As `neighbour`; and the kernel hands over what its congestion window allows at once (else the less, the longer a
    round trip takes), and sends nothing again because we are slow."""
    neighbour(name)
    Path("/proc/sys/net/ipv4/tcp_min_tso_segs").write_text("44")
    ip("route", "replace", "10.0.0.0/24", "dev", name, "proto", "kernel", "scope", "link", "src", "10.0.0.1",
       "rto_min", "60s")  # fmt: skip


def is_ipv4(proto: int) -> Any:
    """Whether a frame of a tap is IPv4 of that protocol."""

    def wanted(frame: Any) -> bool:
        return isinstance(frame, DeviceFrame) and frame.head[12:14] == b"\x08\x00" and frame.head[23] == proto

    return wanted


class TcpPeer:
    """Just enough of TCP to hold a connection of the kernel's open."""

    def __init__(self, bench: Bench, port: Any, *, link: bytes = HOST_MAC + STACK_MAC + b"\x08\x00") -> None:
        self.bench = bench
        self.port = port
        self.link = link
        self.seq = 1000
        self.ack = 0
        self.host_port = 0

    def handshake(self, *, mss: int = 1460) -> socket.socket:
        """The kernel connects to 10.0.0.2:80; its socket."""
        client = socket.socket()
        client.setblocking(False)
        assert client.connect_ex(("10.0.0.2", 80)) == errno.EINPROGRESS
        syn = wait_for(self.port, self._tcp)[-1]
        header = TcpHeader.parse(whole(self.bench.memory, syn), len(self.link) + 20)
        assert header.flags & SYN
        self.host_port = header.src_port
        self.ack = (header.seq + 1) & SEQ_MASK
        options = b"\x02\x04" + mss.to_bytes(2, "big") + b"\x01\x03\x03\x07"
        self.send(SYN | ACK, options=options)
        self.seq += 1
        wait_for(self.port, self._ack)  # not its SYN again, which comes if we took a second
        client.setblocking(True)
        client.settimeout(60)
        return client

    def _tcp(self, frame: Any) -> bool:
        at = len(self.link)
        return isinstance(frame, DeviceFrame) and len(frame.head) >= at + 40 and frame.head[at + 9] == Proto.TCP

    def _ack(self, frame: Any) -> bool:
        return self._tcp(frame) and not self._header(frame).flags & SYN

    def _header(self, frame: DeviceFrame) -> TcpHeader:
        return TcpHeader.parse(frame.head, len(self.link) + 20)

    def head(self, flags: int, length: int, options: bytes = b"") -> bytes:
        tcp = pack_tcp(80, self.host_port, seq=self.seq, ack=self.ack, flags=flags, window=65535, options=options)
        header = Ipv4Header.build(STACK, HOST, proto=Proto.TCP, payload_length=len(tcp) + length)
        return header.serialize(fill_checksum=True) + tcp

    def send(self, flags: int, payload: Any = b"", *, options: bytes = b"", gso_size: int = 0) -> None:
        """Send one segment, its checksum left to the device."""
        head, payload, vnet = prepare(self.head(flags, len(payload), options), payload, gso_size, len(self.link))
        self.port.send([DeviceFrame(1, [], self.link + head, payload, vnet)], 0)

    def send_stored(self, flags: int, data: bytes) -> None:
        """Send one super-segment out of a client's memory."""
        self.bench.session(SESSION, bytes(5000) + data + bytes(5000))
        self.send(flags, Place(SESSION, 0, len(data) + 10_000, 5000, len(data)), gso_size=1460)

    def take(self) -> tuple[DeviceFrame, bytes]:
        """The next TCP packet of the kernel, and its bytes behind all headers; acknowledged by what is sent next. Of
        what it sends again, because we were slow, those that are new."""
        frame: DeviceFrame = wait_for(self.port, self._ack)[-1]
        at = len(self.link)
        head_len = header_length(frame.head[at:])
        assert head_len is not None
        payload = whole(self.bench.memory, frame)[at + head_len :]
        if isinstance(frame.payload, Place):
            assert len(frame.head) == at + head_len
            self.bench.memory.free(frame.payload)
        again = seq_diff(self.ack, self._header(frame).seq)
        assert again >= 0, "a tap loses nothing"
        payload = payload[again:]
        self.ack = (self.ack + len(payload)) & SEQ_MASK
        return frame, payload

"""A connection that happened, as a script: packets of a capture in, lines out.

Only packets are known, so the calls are inferred: connect or accept from the handshake; a write from the first byte
sent to the segment that has PSH (which empties the queue, RFC 9293 3.9.1.2); a read after each piece that came in
order; shutdown from our FIN. Numbers become relative; windows of ours are left out, as they depend on when the program
read.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from levelip.configfile import keys, literal
from levelip.tracing.capturefile import CaptureError
from levelip.tracing.captures import ip_packet, read_capture
from levelip.wire.errors import Malformed
from levelip.wire.ipv4 import Ipv4Header, Proto
from levelip.wire.options import KIND_EOL, KIND_MSS, KIND_SACK
from levelip.wire.tcp import ACK, FIN, PSH, RST, SYN, TcpHeader
from simulation.script.packets import MASK, Flow, flags_text, options_text, read_options, seq_text

if TYPE_CHECKING:
    from levelip.ipc.rundir import RunDirectory

US = 1000
SEAMS = ("link-ip", "ip-tcp", "link")  # where packets are taken from, the best first
OWN_ADDRESSES = ("ip.address", "ip.gateway")  # settings in whose place a script has options
_SETTING = re.compile(r'[-+.\w]+|"[-+.:/\w]*"')  # a setting's value in a script


@dataclass(frozen=True, slots=True)
class Pace:
    """How late a stack that runs in earnest was. What it did came up to `tolerance_us` after its time; packets that
    came within `batch_ns` of each other, unanswered, were taken together by a round of its loop."""

    tolerance_us: int
    batch_ns: int


PACES = (Pace(20_000, 1_000_000), Pace(100_000, 20_000_000), Pace(500_000, 100_000_000))
"""Of an idle machine, and of busy ones."""


class RecordError(ValueError):
    """The capture holds nothing that could become a script."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An IP packet at an instant, ns. `outbound`: of the stack; None: the capture does not say."""

    at: int
    data: bytes
    outbound: bool | None


@dataclass(slots=True)
class _Segment:
    at: int
    outbound: bool
    tcp: TcpHeader
    length: int


@dataclass(slots=True)
class _Entry:
    """A line to be: a packet ("in", "out"), or a call ("call", "accept", "write" or "read" up to offset `end`).

    `end` of a packet that came: the number behind it; of one that was sent: what it acknowledges (-1: nothing).
    """

    at: int
    kind: str
    text: str = ""
    end: int = 0
    push: bool = False


@dataclass(slots=True)
class _Connection:
    """What is being written down."""

    local: bytes
    remote: bytes
    local_port: int
    remote_port: int
    active: bool
    local_isn: int | None = None
    remote_isn: int | None = None
    sent: int = 1  # next new byte of ours, and of the peer's
    received: int = 1
    opened: bool = False
    accepted: bool = False
    shut: bool = False
    entries: list[_Entry] = field(default_factory=list)

    @property
    def fd(self) -> int:
        return 3 if self.active else 4

    def add(self, at: int, kind: str, text: str = "", *, end: int = 0, push: bool = False) -> None:
        self.entries.append(_Entry(at, kind, text, end, push))


def packets_of_capture(path: Path) -> list[Seen]:
    """The IP packets of a file that `lvlip capture` (or another tool) wrote, of its best interface."""
    by_interface: dict[str, list[Seen]] = {}
    try:
        for packet in read_capture(path):
            with contextlib.suppress(CaptureError):  # another protocol's
                outbound = {"down": True, "up": False}.get(packet.direction)
                seen = Seen(packet.at, ip_packet(packet), outbound)
                by_interface.setdefault(packet.interface, []).append(seen)
    except CaptureError as error:
        raise RecordError(str(error)) from None
    if not by_interface:
        raise RecordError(f"there are no IPv4 packets in {path}")
    best = min(by_interface, key=lambda name: SEAMS.index(name) if name in SEAMS else len(SEAMS))
    return by_interface[best]


def make_script(
    packets: Iterable[Seen], *, local: bytes = b"", port: int = 0, settings: Sequence[str] = (),
    source: str = "a capture", pace: Pace = PACES[0],
) -> str:  # fmt: skip
    """The script of the first whole connection (that with `port`, if given). RecordError if there is none.

    `local`: the stack's address, where the capture has no directions. `settings`: lines "tcp.key=value".
    """
    segments, connection = _pick(list(packets), local, port)
    for segment in sorted(segments, key=lambda one: (one.at, one.outbound)):
        _segment(connection, segment)
    return _text(connection, segments, settings, source, pace)


def _pick(packets: list[Seen], local: bytes, port: int) -> tuple[list[_Segment], _Connection]:
    found: list[_Segment] = []
    connection: _Connection | None = None
    for seen in packets:
        parsed = _parse(seen)
        if parsed is None:
            continue
        ip, tcp, length = parsed
        outbound = seen.outbound if not local else ip.src == local
        if outbound is None:
            raise RecordError("the capture does not say which packets are the stack's; name its address with --local")
        ours, theirs = (tcp.src_port, tcp.dst_port) if outbound else (tcp.dst_port, tcp.src_port)
        if connection is None:
            if not tcp.flags & SYN or tcp.flags & (ACK | RST) or (port and port not in (ours, theirs)):
                continue
            ends = (ip.src, ip.dst) if outbound else (ip.dst, ip.src)
            connection = _Connection(*ends, ours, theirs, active=outbound)
        if (ours, theirs) == (connection.local_port, connection.remote_port):
            found.append(_Segment(seen.at, outbound, tcp, length))
    if connection is None:
        raise RecordError("there is no connection whose first SYN was captured")
    return found, connection


def _parse(seen: Seen) -> tuple[Ipv4Header, TcpHeader, int] | None:
    try:
        ip = Ipv4Header.parse(seen.data)
        if ip.version != 4 or ip.proto != Proto.TCP or ip.is_fragment:
            return None
        tcp = TcpHeader.parse(seen.data, ip.ihl * 4)
    except Malformed:
        return None
    return ip, tcp, ip.total_length - ip.ihl * 4 - tcp.length


def _segment(connection: _Connection, segment: _Segment) -> None:
    """One segment, with the calls that led to it or follow from it."""
    tcp = segment.tcp
    if tcp.flags & SYN:
        if segment.outbound:
            connection.local_isn = tcp.seq
        else:
            connection.remote_isn = tcp.seq
    ours, theirs = connection.local_isn or 0, connection.remote_isn or 0
    if segment.outbound:
        _sent(connection, segment, (tcp.seq - ours) & MASK, (tcp.ack - theirs) & MASK)
    else:
        _came(connection, segment, (tcp.seq - theirs) & MASK, (tcp.ack - ours) & MASK)


def relative_options(tcp: TcpHeader, base: int) -> str:
    """The options of a segment behind a blank, SACK blocks relative to `base`; "" if there are none."""
    options = list(read_options(tcp.options, Flow(0, 0)))
    for index, option in enumerate(options):
        if option.kind == KIND_SACK:
            numbers = tuple((number - base) & MASK for number in option.numbers)
            options[index] = type(option)(KIND_SACK, numbers)
    while options and options[-1].kind == KIND_EOL:
        options.pop()
    return f" {options_text(options)}" if options else ""


def _sent(connection: _Connection, segment: _Segment, seq: int, ack: int) -> None:
    tcp, at = segment.tcp, segment.at
    if connection.active and not connection.opened:
        connection.opened = True
        connection.add(at, "call", "connect(3, ..., ...) = -1 EINPROGRESS (Operation now in progress)")
    end = seq + segment.length
    if segment.length and end > connection.sent:
        connection.add(at, "write", end=end, push=bool(tcp.flags & PSH))
        connection.sent = end
    if tcp.flags & FIN and not connection.shut:
        connection.shut = True
        connection.add(at, "call", f"shutdown({connection.fd}, SHUT_WR) = 0")
    text = f"> {flags_text(tcp.flags)} {seq_text(seq, segment.length)}"
    if tcp.flags & ACK:
        text += f" ack {ack}"
    known = ack if tcp.flags & ACK else -1
    connection.add(at, "out", text + relative_options(tcp, connection.remote_isn or 0), end=known)


def _came(connection: _Connection, segment: _Segment, seq: int, ack: int) -> None:
    tcp, at = segment.tcp, segment.at
    text = f"< {flags_text(tcp.flags)} {seq_text(seq, segment.length)}"
    if tcp.flags & ACK:
        text += f" ack {ack}"
    text += f" win {tcp.window}"
    end = seq + segment.length
    behind = end + bool(tcp.flags & FIN) if segment.length or tcp.flags & FIN else -1
    connection.add(at, "in", text + relative_options(tcp, connection.local_isn or 0), end=behind)
    if not connection.active and not connection.accepted and tcp.flags & ACK and not tcp.flags & (SYN | RST):
        connection.accepted = True
        connection.add(at, "accept")
    if segment.length and seq <= connection.received < end:
        connection.add(at, "read", end=end)
        connection.received = end


def address_lines(local: bytes, remote: bytes) -> list[str]:
    """The options of a script's head for our address and the peer's, which is the gateway if it is near."""
    router = remote if local[:3] == remote[:3] else local[:3] + bytes([local[3] ^ 1])
    return [
        f"--local_ip={IPv4Address(local)}",
        f"--remote_ip={IPv4Address(remote)}",
        f"--gateway_ip={IPv4Address(router)}",
        "--netmask_ip=255.255.255.0",
    ]


def _text(
    connection: _Connection, segments: list[_Segment], settings: Sequence[str], source: str, pace: Pace
) -> str:
    ours = [segment for segment in segments if segment.outbound]
    syn = next((segment for segment in ours if segment.tcp.flags & SYN), None)
    options = read_options(syn.tcp.options, Flow(0, 0)) if syn is not None else ()
    mss = next((option.numbers[0] for option in options if option.kind == KIND_MSS), 1460)
    whole = any(segment.length > mss for segment in ours)
    local, remote = str(IPv4Address(connection.local)), str(IPv4Address(connection.remote))
    head = [
        f"// Recorded from {' '.join(source.split())} by lvlip script record: {local}:{connection.local_port}, "
        f"{remote}:{connection.remote_port}.",
        "",
        f"--tolerance_usecs={pace.tolerance_us}",
        *address_lines(connection.local, connection.remote),
        f"--mtu={mss + 40}",
        f"--{'connect' if connection.active else 'bind'}_port="
        f"{connection.remote_port if connection.active else connection.local_port}",
        *[f"--set={setting}" for setting in settings],
    ]
    if not whole:
        head += ["", "`ethtool -K tun0 tso off`"]
    head += ["", f"{'0':>10} socket(..., SOCK_STREAM, IPPROTO_TCP) = 3"]
    if connection.active:
        head += [f"{'+0':>10} fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0"]
    else:
        head += [
            f"{'+0':>10} setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0",
            f"{'+0':>10} bind(3, ..., ...) = 0",
            f"{'+0':>10} listen(3, 16) = 0",
        ]
    return "\n".join([*head, *_with_calls(connection, pace), ""])


def _answers_first(entries: list[_Entry]) -> list[_Entry]:
    """An answer that does not know of the packets before it was on its way when they came: it goes before them."""
    found: list[_Entry] = []
    for entry in entries:
        place = len(found)
        if entry.kind == "out" and entry.end >= 0:
            while place and (found[place - 1].kind == "read" or _unknown(found[place - 1], entry)):
                place -= 1
            while place < len(found) and found[place].kind == "read":  # of what it does know
                place += 1
        if place < len(found):
            entry.at = min(entry.at, found[place].at)
        found.insert(place, entry)
    return found


def _unknown(came: _Entry, answer: _Entry) -> bool:
    return came.kind == "in" and came.end > answer.end


def _batched(entries: list[_Entry], batch_ns: int) -> list[_Entry]:
    """Packets that came together marked so, what was read of them behind the last."""
    found: list[_Entry] = []
    reads: list[_Entry] = []
    for index, entry in enumerate(entries):
        later = next((one for one in entries[index + 1 :] if one.kind not in ("read", "accept")), None)
        if entry.kind == "in" and later is not None and later.kind == "in" and later.at - entry.at < batch_ns:
            if not any(one.kind == "accept" for one in entries[index + 1 : entries.index(later)]):
                entry.text = entry.text.replace("< ", "< [batch] ", 1)
        if entry.kind == "read" and found and found[-1].text.startswith("< [batch]"):
            reads = [entry]  # a later read takes all that an earlier one would have
            continue
        if entry.kind == "read":
            reads = []
        elif reads and entry.kind != "in":
            found += reads
            reads = []
        found.append(entry)
    return found + reads


def _with_calls(connection: _Connection, pace: Pace) -> Iterator[str]:
    """The lines, with their times; a write reaches to the segment with PSH, so that later pieces need none."""
    fd = connection.fd
    entries = _batched(_answers_first(connection.entries), pace.batch_ns)
    last = entries[0].at
    written = read = 1
    for index, entry in enumerate(entries):
        text = entry.text
        match entry.kind:
            case "write":
                if entry.end <= written:
                    continue
                end = entry.end
                for later in entries[index:]:
                    if later.kind == "write":
                        end = later.end
                        if later.push:
                            break
                text = f"write({fd}, ..., {end - written}) = {end - written}"
                written = end
            case "read":
                text = f"read({fd}, ..., {entry.end - read}) = {entry.end - read}"
                read = entry.end
            case "accept":
                text = f"accept(3, ..., ...) = {fd}"
        gap = max(0, (entry.at - last) // US)
        last += gap * US
        time = f"+{gap / 1e6:.6f}".rstrip("0").rstrip(".")
        yield f"{time:>10} {text}"


def live_packets(
    run: RunDirectory, *, port: int, seconds: float, ready: Callable[[], None], stop: Callable[[Sequence[Seen]], bool]
) -> list[Seen]:
    """Packets that a running stack's ip sees on the side of link, until `stop` says so or the time is over.

    `ready` is called once every packet from then on will be seen.
    """
    import time

    from levelip.debug.tap import (
        DIRECTION,
        FIELDS,
        HEAD,
        KIND,
        LENGTH,
        MONO,
        PAYLOAD,
        PROCESS,
        SEAM,
        TYPE,
        Request,
        TapReader,
        goes_up,
    )
    from levelip.tracing.pcapng import packet_bytes

    filter_ = {"port": port} if port else {}
    reader = TapReader(run, Request({"ip": ["link-ip"]}, [], "headers", filter_))
    found: list[Seen] = []
    deadline = time.monotonic() + seconds
    try:
        reader.open()
        ready()

        def take(records: Sequence[Any]) -> None:
            for record in records:
                if not isinstance(record, list) or record[KIND] != "f":
                    continue
                payload = record[PAYLOAD] or b""
                made = packet_bytes(
                    record[TYPE], record[FIELDS], record[HEAD], payload, record[LENGTH], 0, ethernet=False
                )
                if made is not None:
                    outbound = not goes_up(record[PROCESS], record[SEAM], record[DIRECTION])
                    found.append(Seen(record[MONO], made[0], outbound))

        while time.monotonic() < deadline and not stop(found):
            take(reader.read(0.2))
        take(reader.drain())
    finally:
        reader.close()
    return found


def live_settings(run: RunDirectory) -> list[str]:
    """The settings of a running stack that a script can set and that are not the defaults."""
    from levelip.ipc.control import ControlClient
    from simulation.host import SECTIONS

    found: list[str] = []
    for section in SECTIONS:  # each is a layer's
        if run.holder(section) is None:
            continue
        client = ControlClient(run, section)
        try:
            values = client.request("get", section=section)["values"]
        finally:
            client.close()
        found += setting_lines(section, values)
    return found


def setting_lines(section: str, values: Mapping[str, Any]) -> Iterator[str]:
    """ "tcp.key=value" of what is not the default. Addresses, routes and names of the network (all lists are such) are
    no concern of a script, whose head has its own. RecordError as of `setting_text`."""
    for name, value in values.items():
        key = keys().get(f"{section}.{name}")
        if key is None or value == key.default or isinstance(value, list) or key.dotted in OWN_ADDRESSES:
            continue
        yield setting_text(key.dotted, value)


def setting_text(dotted: str, value: Any) -> str:
    """ "tcp.key=value", as a script says it. RecordError for what would not end where it is to: a recording may be
    somebody else's, and what stands behind it in a script may be code."""
    text = literal(value)
    if dotted not in keys() or not _SETTING.fullmatch(text):
        raise RecordError(f"no script can say that {dotted!r} is {value!r}"[:200])
    return f"{dotted}={text}"


def finished(packets: Sequence[Seen]) -> bool:
    """Whether a connection is over: both have sent FIN, or one RST."""
    fins = set()
    for seen in packets:
        parsed = _parse(seen)
        if parsed is None:
            continue
        if parsed[1].flags & RST:
            return True
        if parsed[1].flags & FIN:
            fins.add(seen.outbound)
    return len(fins) == 2

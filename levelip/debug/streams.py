"""Which messages between tcp, gateway and client carried which bytes of which connection.

Messages have no frame ids: a socket id and offsets in its stream say what they are about (docs/rpc.md). `Connected` and
`Incoming` name the connection of a socket; its SYNs, or what tcp knows (`KNOWN`), tell where the stream begins in
sequence numbers. With both, a segment's bytes are found in the messages that took them on, and those in it.

A datagram has a frame id between udp and gateway. Toward the client its socket and `upto` say which it is; from the
client datagrams of a socket keep their order, but for those that the gateway refuses.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from dataclasses import dataclass, field

from levelip.debug.facts import BRINGS, Fact
from levelip.debug.tap import FIELDS, Record
from levelip.tracing.events import Event
from levelip.wire.addr import format_address

KNOWN = "known"
"""Kind of the record by which a source tells of a connection that was open before: {"sock", "iss", "irs"}."""
_MASK = 0xFFFF_FFFF
_NEAR = 500  # messages of a socket that are looked through for one about a datagram
_REMEMBERED = 100_000  # connections whose sockets are known, beyond the records that told


def known(mono: int, conn: str, sock: int, iss: int, irs: int) -> Record:
    """The record of a connection that was open before: `iss` and `irs` are the numbers of its SYNs."""
    return [0, "e", "tcp", mono, [mono, KNOWN, "", 0, conn, {"sock": sock, "iss": iss, "irs": irs}]]


def connection_name(local: bytes | str, local_port: int, remote: bytes | str, remote_port: int) -> str:
    """As events name it; addresses packed or as text."""
    one, two = (format_address(end) if isinstance(end, bytes) else end for end in (local, remote))
    return f"{one}:{local_port}>{two}:{remote_port}"


@dataclass(slots=True)
class Life:
    """One connection from its SYN on, and its socket. `bases`: the sequence number of a stream's first byte, ours and
    theirs, None: not seen. `opened`: the message of tcp that it is open."""

    sock: int
    begin: int
    bases: tuple[int | None, int | None]
    opened: Fact | None = None

    def offset(self, seq: int, near: int, *, ours: bool) -> int | None:
        """The offset of a sequence number, near another offset."""
        base = self.bases[0 if ours else 1]
        if base is None:
            return None
        return near + ((seq - base - near + (1 << 31) & _MASK) - (1 << 31))


@dataclass(slots=True)
class Leg:
    """Messages of one kind about one socket at one side of a seam, in order; `ends`: where their bytes end."""

    facts: list[Fact] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    monos: list[int] = field(default_factory=list)

    def add(self, one: Fact) -> None:
        """One more."""
        self.facts.append(one)
        self.ends.append(one.end)
        self.monos.append(one.mono)

    def with_byte(self, offset: int) -> Fact | None:
        """The first that brings a byte of the stream, or says that it was taken."""
        place = bisect_right(self.ends, offset)
        if place == len(self.facts):
            return None
        one = self.facts[place]
        return one if one.offset <= offset or one.type not in BRINGS else None

    def since(self, mono: int) -> Fact | None:
        """The first at or after an instant."""
        place = bisect_left(self.monos, mono)
        return self.facts[place] if place < len(self.facts) else None

    def until(self, mono: int) -> Fact | None:
        """The last at or before an instant."""
        place = bisect_right(self.monos, mono)
        return self.facts[place - 1] if place else None


class Streams:
    """What the messages say, as they come. A leg is asked for by (process, direction, seam), type and socket; the type
    of a Request is its op."""

    def __init__(self) -> None:
        self.lives: dict[str, list[Life]] = defaultdict(list)
        self._legs: dict[tuple[str, str, str, str, int], Leg] = {}
        self._connects: dict[tuple[str, str], Leg] = {}  # remote end → Connects that came to tcp
        self._syns: dict[tuple[str, bool], Fact] = {}  # connection, theirs → its newest SYN
        self._high: dict[str, int] = {}  # connection → the end of what tcp has sent
        self.again: set[int] = set()  # frames of tcp that hold nothing new
        self._requests: dict[tuple[str, str], tuple[int, str]] = {}  # peer, request → socket, op
        self._offered: dict[int, deque[Fact]] = defaultdict(deque)  # socket → SendDatagrams that have not gone on yet
        self.sent: dict[int, Fact] = {}  # frame of a SendTo → the SendDatagram that it was
        self._arrived: dict[tuple[str, int, int], Leg] = {}  # type, socket, upto → what the client was told

    def forget(self) -> None:
        """All but which connection is whose."""
        lives = dict(list(self.lives.items())[-_REMEMBERED:])
        self.__init__()  # type: ignore[misc]
        self.lives.update(lives)

    def know(self, conn: str, event: Event) -> None:
        """A KNOWN record."""
        data = event.data
        bases = (int(data["iss"]) + 1) & _MASK, (int(data["irs"]) + 1) & _MASK
        if all(life.sock != data["sock"] for life in self.lives[conn]):
            self.lives[conn].insert(0, Life(int(data["sock"]), 0, bases))

    def packet(self, one: Fact) -> None:
        """A TCP segment."""
        if one.syn and (one.process, one.seam) == ("tcp", "ip-tcp"):
            self._syns[one.conn, one.up] = one
            if not one.up:
                self._high[one.conn] = one.seq
        if one.up or not one.room or one.process != "tcp" or one.direction != "out":
            return
        end = one.seq + one.room & _MASK
        high = self._high.get(one.conn)
        if high is not None and (high - end & _MASK) < 1 << 31 and (high != end or not one.syn):
            self.again.add(one.id)
        else:
            self._high[one.conn] = end

    def message(self, one: Fact) -> None:
        """One of MESSAGES."""
        fields = one.record[FIELDS]
        if one.type in ("Request", "Reply"):
            key = _text(fields.get("peer")), _text(fields.get("request"))
            if one.type == "Request":
                self._requests[key] = one.sock, str(fields.get("op", ""))
            else:  # the answer to connect has no socket in it: it is the request's
                sock, op = self._requests.pop(key, (0, ""))
                one.sock = one.sock or (sock if op == "connect" else 0)
        if not one.sock:
            return
        type_ = str(fields.get("op", "")) if one.type == "Request" else one.type
        self._leg(one.process, one.direction, one.seam, type_, one.sock).add(one)
        if one.type == "Connect" and one.process == "tcp":
            end = _text(fields.get("address")), _text(fields.get("port"))
            self._connects.setdefault(end, Leg()).add(one)
        elif one.type in ("Connected", "Incoming") and one.process == "tcp":
            self._opened(one, fields)

    def datagram(self, one: Fact) -> None:
        """One of DATAGRAMS."""
        if one.process != "gateway":
            return
        match one.type:
            case "SendDatagram":
                self._offered[one.sock].append(one)
            case "SendTo":
                offered, what = self._offered[one.sock], _datagram(one)
                while offered:
                    before = offered.popleft()  # those before it that are others were refused
                    if _datagram(before) == what:
                        self.sent[one.id] = before
                        break
            case "DatagramIn" | "DatagramError":
                self._arrived.setdefault((one.type, one.sock, one.offset), Leg()).add(one)
            case "TookDatagrams":
                self._leg(one.process, one.direction, one.seam, one.type, one.sock).add(one)

    def refused(self, event: Event) -> None:
        """The gateway dropped a datagram of a client, which came last of its socket."""
        if (offered := self._offered.get(event.data.get("sock", 0))) and not event.frame:
            offered.pop()

    def told(self, one: Fact) -> Fact | None:
        """What the client was told of a Datagram or Failed that came to the gateway."""
        type_ = "DatagramIn" if one.type == "Datagram" else "DatagramError"
        leg = self._arrived.get((type_, one.sock, one.offset))
        return leg.since(one.mono) if leg is not None else None

    def taken(self, one: Fact) -> Fact | None:
        """The client's word that the application has the datagram of a DatagramIn."""
        leg = self.leg(("gateway", "in", "gateway-client"), "TookDatagrams", one.sock)
        place = bisect_left(leg.monos, one.mono)
        return next((took for took in leg.facts[place : place + _NEAR] if took.offset >= one.offset), None)

    def _opened(self, one: Fact, fields: dict[str, object]) -> None:
        local, remote = _text(fields.get("local_address")), _text(fields.get("remote_address"))
        conn = f"{local}:{fields.get('local_port')}>{remote}:{fields.get('remote_port')}"
        syns = [self._syns.get((conn, theirs)) for theirs in (False, True)]
        bases = [(syn.seq + 1) & _MASK if syn is not None else None for syn in syns]
        begin = min([syn.mono for syn in syns if syn is not None], default=one.mono)
        lives = self.lives[conn]
        if lives and lives[-1].sock == one.sock:
            lives.pop()
        lives.append(Life(one.sock, begin, (bases[0], bases[1]), one))

    def _leg(self, process: str, direction: str, seam: str, type_: str, sock: int) -> Leg:
        key = process, direction, seam, type_, sock
        found = self._legs.get(key)
        if found is None:
            found = self._legs[key] = Leg()
        return found

    def leg(self, place: tuple[str, str, str], type_: str, sock: int) -> Leg:
        """The messages of a type about a socket at (process, direction, seam)."""
        return self._legs.get((*place, type_, sock)) or Leg()

    def life(self, conn: str, mono: int) -> Life | None:
        """The connection of this name at an instant."""
        return next((life for life in reversed(self.lives.get(conn, [])) if life.begin <= mono), None)

    def connect(self, one: Fact) -> Fact | None:
        """The Connect that a first SYN came from."""
        leg = self._connects.get((one.dst, str(one.dport)))
        return leg.until(one.mono) if leg is not None else None


def _datagram(one: Fact) -> tuple[str, object, int]:
    fields = one.record[FIELDS]
    return _text(fields.get("address", b"")), fields.get("port"), one.length


def _text(value: object) -> str:
    """An address, a number, or whatever a file has in its place."""
    return format_address(value) if isinstance(value, bytes) and len(value) in (4, 16) else str(value)

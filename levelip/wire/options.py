"""TCP options (RFC 9293 3.1; RFC 7323 window scale, timestamps; RFC 2018 SACK), laid out as Linux does.

Layouts that Linux sends (net/ipv4/tcp_output.c, tcp_options_write), all whole words:

    SYN     | MSS 4 (mss) | SACK_PERM 2, TS 10 (val, ecr) | NOP, WS 3 (shift) |     20 bytes
    data    | NOP, NOP, TS 10 (val, ecr) |                                          12 bytes
    ACK     | NOP, NOP, TS 10 (val, ecr) | NOP, NOP, SACK 2+8n (left, right)... |   up to 3 blocks
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from levelip.wire.buffer import Buffer
from levelip.wire.build import maker
from levelip.wire.errors import Malformed

KIND_EOL = 0
KIND_NOP = 1
KIND_MSS = 2
KIND_WSCALE = 3
KIND_SACK_PERMITTED = 4
KIND_SACK = 5
KIND_TIMESTAMPS = 8
KIND_MD5 = 19
KIND_AO = 29
KIND_MPTCP = 30
KIND_FAST_OPEN = 34

MAX_OPTIONS_LEN = 40
"""Bytes: what a data offset of 15 words leaves (RFC 9293 3.1)."""
TIMESTAMPS_LEN = 12
"""Bytes of the timestamps with the two NOPs before them (RFC 7323 appendix A)."""

_NAMES = {KIND_MD5: "md5", KIND_AO: "tcp-ao", KIND_MPTCP: "mptcp", KIND_FAST_OPEN: "tfo"}

_TS = struct.Struct(">III")
_TS_WORD = 0x0101080A
_PAIR = struct.Struct(">II")

SackBlock = tuple[int, int]
"""Left edge, and right edge: the sequence number after the last byte (RFC 2018 3)."""
Timestamps = tuple[int, int]
"""TSval and TSecr."""


def parse_timestamps(options: Buffer) -> Timestamps | None:
    """(TSval, TSecr) if `options` are NOP NOP TS, as nearly always; None: use `parse_options`."""
    if len(options) == 12:
        word, val, ecr = _TS.unpack(options)
        if word == 0x0101080A:
            return val, ecr
    return None


def pack_timestamps(val: int, ecr: int) -> bytes:
    """NOP NOP TS, 12 bytes."""
    return _TS.pack(0x0101080A, val, ecr)


def pack_sack(blocks: Sequence[SackBlock]) -> bytes:
    """NOP NOP SACK with one to four blocks, 4 + 8n bytes."""
    out = struct.pack(">BBBB", KIND_NOP, KIND_NOP, KIND_SACK, 2 + 8 * len(blocks))
    return out + b"".join([_PAIR.pack(left, right) for left, right in blocks])


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpOptions:
    """The options of one segment. None, False or () where there is none.

    `wscale` is as sent: that a shift above 14 counts as 14 (RFC 7323 2.3) is for the receiver to know.
    `unknown` holds (kind, data) of those without a field here, and of known ones with a wrong length when
    read tolerantly. `order` lists the kinds as they came, NOP and EOL included, and `serialize` keeps to it.
    Neither it nor `fault`, the reason why tolerant reading stopped early, takes part in comparison.
    Of an option that comes twice, the last one counts, as in Linux; the raw bytes stay in the header.
    """

    mss: int | None = None
    wscale: int | None = None
    sack_permitted: bool = False
    sack: tuple[SackBlock, ...] = ()
    timestamps: Timestamps | None = None
    unknown: tuple[tuple[int, bytes], ...] = ()
    order: tuple[int, ...] = field(default=(), compare=False)
    fault: str | None = field(default=None, compare=False)

    @classmethod
    def parse(cls, data: Buffer, *, strict: bool = True) -> TcpOptions:
        """See `parse_options`."""
        return parse_options(data, strict=strict)

    def serialize(self) -> bytes:
        """The options padded to whole words, in the order they came in, else in Linux'.

        The former only if `order` still lists just the options that are there. ValueError if they need more
        than 40 bytes or a value does not fit.
        """
        try:
            given = sorted(kind for kind in self.order if kind > KIND_NOP)
            out = self._in_order() if self.order and given == self._kinds() else self._as_linux()
        except (struct.error, ValueError, OverflowError) as error:
            raise ValueError(f"tcp options: {error}") from error
        if len(out) > MAX_OPTIONS_LEN:
            raise ValueError(f"{len(out)} bytes of TCP options, above {MAX_OPTIONS_LEN}")
        return out

    def _kinds(self) -> list[int]:
        """The kinds of the options that are there, sorted."""
        kinds = [kind for kind, _ in self.unknown]
        if self.mss is not None:
            kinds.append(KIND_MSS)
        if self.wscale is not None:
            kinds.append(KIND_WSCALE)
        if self.sack_permitted:
            kinds.append(KIND_SACK_PERMITTED)
        if self.sack:
            kinds.append(KIND_SACK)
        if self.timestamps is not None:
            kinds.append(KIND_TIMESTAMPS)
        return sorted(kinds)

    def _as_linux(self) -> bytes:
        out = b""
        sack_permitted = self.sack_permitted
        if self.mss is not None:
            out += struct.pack(">BBH", KIND_MSS, 4, self.mss)
        if self.timestamps is not None:
            if sack_permitted:  # takes the place of the two NOPs
                out += struct.pack(">BBBBII", KIND_SACK_PERMITTED, 2, KIND_TIMESTAMPS, 10, *self.timestamps)
                sack_permitted = False
            else:
                out += pack_timestamps(*self.timestamps)
        if sack_permitted:
            out += bytes((KIND_NOP, KIND_NOP, KIND_SACK_PERMITTED, 2))
        if self.wscale is not None:
            out += bytes((KIND_NOP, KIND_WSCALE, 3, self.wscale))
        if self.sack:
            out += pack_sack(self.sack)
        for kind, data in self.unknown:
            out += bytes((kind, len(data) + 2)) + data
        return out + b"\x01" * (-len(out) & 3)

    def _in_order(self) -> bytes:
        known: dict[int, bytes] = {}
        if self.mss is not None:
            known[KIND_MSS] = struct.pack(">BBH", KIND_MSS, 4, self.mss)
        if self.wscale is not None:
            known[KIND_WSCALE] = bytes((KIND_WSCALE, 3, self.wscale))
        if self.sack_permitted:
            known[KIND_SACK_PERMITTED] = bytes((KIND_SACK_PERMITTED, 2))
        if self.sack:
            known[KIND_SACK] = pack_sack(self.sack)[2:]
        if self.timestamps is not None:
            known[KIND_TIMESTAMPS] = pack_timestamps(*self.timestamps)[2:]
        unknown = list(self.unknown)
        out = b""
        for kind in self.order:
            if kind <= KIND_NOP:
                out += bytes((kind,))
            elif kind in known:
                out += known.pop(kind)
            else:
                index = next(i for i, (other, _) in enumerate(unknown) if other == kind)
                _, data = unknown.pop(index)
                out += bytes((kind, len(data) + 2)) + data
        pad = KIND_EOL if KIND_EOL in self.order else KIND_NOP  # nothing may follow EOL but zeros
        return out + bytes((pad,)) * (-len(out) & 3)

    def __str__(self) -> str:
        """As tcpdump prints them: "mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7"."""
        texts = {KIND_EOL: "eol", KIND_NOP: "nop"}
        if self.mss is not None:
            texts[KIND_MSS] = f"mss {self.mss}"
        if self.wscale is not None:
            texts[KIND_WSCALE] = f"wscale {self.wscale}"
        if self.sack_permitted:
            texts[KIND_SACK_PERMITTED] = "sackOK"
        if self.sack:
            blocks = "".join(f"{{{left}:{right}}}" for left, right in self.sack)
            texts[KIND_SACK] = f"sack {len(self.sack)} {blocks}"
        if self.timestamps is not None:
            texts[KIND_TIMESTAMPS] = f"TS val {self.timestamps[0]} ecr {self.timestamps[1]}"
        for kind, data in self.unknown:
            value = f" 0x{data.hex()}" if data else ""
            texts.setdefault(kind, f"{_NAMES.get(kind, f'unknown-{kind}')}{value}")
        parts = [texts.get(kind, f"unknown-{kind}") for kind in self.order or self._kinds()]
        if self.fault:
            parts.append(f"[{self.fault}]")
        return ",".join(parts)


_make = maker(TcpOptions)
_TS_ORDER = (KIND_NOP, KIND_NOP, KIND_TIMESTAMPS)
_NO_OPTIONS = TcpOptions()

_LENGTHS = {KIND_MSS: 4, KIND_WSCALE: 3, KIND_SACK_PERMITTED: 2, KIND_TIMESTAMPS: 10}


def parse_options(data: Buffer, *, strict: bool = True) -> TcpOptions:
    """The options in `data`, the bytes between the header's first 20 and its data offset.

    Unknown kinds are skipped by their length and kept raw (RFC 9293 MUST-6). An illegal length (MUST-7)
    raises Malformed, at its place in `data`: `option_truncated` (length byte or data missing),
    `option_bad_length` (below 2, or not what a known kind has). With `strict=False` we do as Linux does
    (net/ipv4/tcp_input.c, tcp_parse_options): a known kind of a wrong length is passed over (here: kept in
    `unknown`), and at an option that is torn or shorter than 2 reading ends with what was found so far, the
    reason in `fault`.
    """
    size = len(data)
    if size == 0:
        return _NO_OPTIONS
    if size == 12:
        word, val, ecr = _TS.unpack(data)
        if word == _TS_WORD:
            return _make(None, None, False, (), (val, ecr), (), _TS_ORDER, None)
    mss: int | None = None
    wscale: int | None = None
    sack_permitted = False
    sack: tuple[SackBlock, ...] = ()
    timestamps: Timestamps | None = None
    unknown: list[tuple[int, bytes]] = []
    order: list[int] = []
    fault: str | None = None
    at = 0
    while at < size:
        kind = data[at]
        if kind == KIND_NOP:
            order.append(kind)
            at += 1
            continue
        if kind == KIND_EOL:
            order.append(kind)
            break
        length = data[at + 1] if at + 1 < size else None
        if length is None or at + length > size:
            fault = "option_truncated"
        elif length < 2:
            fault = "option_bad_length"
        if fault or length is None:
            if strict:
                raise Malformed("tcp", fault or "option_truncated", at)
            break
        order.append(kind)
        known = length >= 10 and length % 8 == 2 if kind == KIND_SACK else _LENGTHS.get(kind) == length
        body = bytes(data[at + 2 : at + length])
        if not known:
            if strict and (kind == KIND_SACK or kind in _LENGTHS):
                raise Malformed("tcp", "option_bad_length", at)
            unknown.append((kind, body))
        elif kind == KIND_TIMESTAMPS:
            timestamps = _PAIR.unpack(body)
        elif kind == KIND_SACK:
            sack = tuple(_PAIR.iter_unpack(body))
        elif kind == KIND_MSS:
            mss = body[0] << 8 | body[1]
        elif kind == KIND_WSCALE:
            wscale = body[0]
        else:
            sack_permitted = True
        at += length
    return _make(mss, wscale, sack_permitted, sack, timestamps, tuple(unknown), tuple(order), fault)

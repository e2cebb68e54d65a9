"""Change fields of a frame by their names: lengths and checksums follow, or stay wrong on purpose.

    edit(frame, {"tcp.window_size_value": 0, "ip.ttl": "1"})
    edit(frame, {"-tcp.options.sack_perm": "", "tcp.options.mss_val": 536})
    edit(frame, {"data": '"hello"', "tcp.checksum": 0xDEAD}, checksums="keep")

What is not there yet of the transport's checksum (PARTIAL, or vouched for by a device) is completed first; the frame
says UNVERIFIED after, and has all its bytes inline (docs/frames.md). A super-segment stays one: its pieces get their
checksums when it is cut, so that none of them can be wrong on purpose before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, cast

import msgspec

from levelip.frames.packet import Checksum, DeviceFrame, IcmpError, Packet, Segment
from levelip.rpc.place import Place as Memory
from levelip.tracing.editoptions import OPTION_FIELDS, edit_options
from levelip.tracing.expressionparser import ExpressionError
from levelip.tracing.fields import FIELDS, near
from levelip.tracing.fieldtypes import Field
from levelip.tracing.fieldvalues import EditError, is_removal, parse_value
from levelip.tracing.layers import Layers
from levelip.tracing.view import Read, checksum_state, gso_size
from levelip.wire.vnet import COMPLETE, VnetHeader

__all__ = ["EDITABLE", "EditError", "change_text", "edit", "editable", "parse_changes", "pointed", "resolve"]

Changes = Mapping[str, Any]
F = TypeVar("F")

PAYLOADS = {"data": "", "tcp.payload": "tcp", "udp.payload": "udp"}
"""Names of the payload, and the protocol that it has to be of."""
_CHECKSUMS = ("ip.checksum", "tcp.checksum", "udp.checksum", "icmp.checksum", "igmp.checksum")
_LENGTHS = ("ip.hdr_len", "ip.len", "tcp.hdr_len", "udp.length")
_SHOWN = 40  # characters of a value that an event holds
_FRAME = ("frame.gso_size", "frame.next_hop")

_SEGMENT: dict[str, Callable[[Segment, Any], dict[str, Any]]] = {
    "ip.src": lambda frame, value: {"src": value},
    "ip.dst": lambda frame, value: {"dst": value},
    "ip.proto": lambda frame, value: {"proto": value},
    "ip.ttl": lambda frame, value: {"ttl": value},
    "ip.dsfield": lambda frame, value: {"tos": value},
    "ip.dsfield.dscp": lambda frame, value: {"tos": value << 2 | frame.tos & 3},
    "ip.dsfield.ecn": lambda frame, value: {"tos": frame.tos & 0xFC | value},
    "ip.flags.df": lambda frame, value: {"dont_fragment": value},
}
_ICMP_ERROR = {"ip.src": "reporter", "ip.dst": "src", "icmp.type": "icmp_type", "icmp.code": "icmp_code",
               "icmp.mtu": "mtu"}  # fmt: skip

EDITABLE: tuple[str, ...] = tuple(
    name
    for name, field in FIELDS.items()
    if field.place is not None or name in OPTION_FIELDS or name in PAYLOADS or name in _FRAME or name == "ip.options"
)
"""Every field that can be changed, in packet order; which of them a frame has, `editable` tells."""


def parse_changes(words: Iterable[str]) -> dict[str, str]:
    """Changes as people type them: "tcp.seq=1", and "-tcp.options.sack_perm" for what is to go."""
    changes: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and not word.startswith("-"):
            raise EditError(f"{word!r} changes nothing: write FIELD=VALUE, or -FIELD to remove an option", word)
        if name in changes:
            raise EditError(f"{name} is changed twice", name)
        changes[name.strip()] = value
    return changes


def pointed(error: EditError, words: Sequence[str]) -> str:
    """What is wrong with changes as people typed them, with the spot in them, as it is shown in an expression."""
    at = 0
    spots: list[tuple[int, int]] = []
    for word in words:
        name, equals, value = word.partition("=")
        field = FIELDS.get(name.strip().removeprefix("-"))
        if error.field and error.field in (name.strip().removeprefix("-"), word, *(field.alias if field else ())):
            start = at + len(name) + len(equals) if error.of_value else at
            spots.append((start, len(value) if error.of_value else len(name)))
        at += len(word) + 1
    return str(ExpressionError(str(error), " ".join(words), *spots[-1])) if spots else str(error)


def change_text(name: str, value: Any) -> str:
    """ "tcp.seq=5", or "without tcp.options.sack_perm"."""
    if name.startswith("-"):
        return f"without {name[1:]}"
    text = bytes(value[:_SHOWN]).hex() if isinstance(value, (bytes, bytearray)) else str(value)
    return f"{name}={text if len(text) <= _SHOWN else text[:_SHOWN] + '...'}"


def editable(frame: Any, *, read: Read | None = None) -> list[str]:
    """The names of the fields of this frame that can be changed, options that could be inserted among them."""
    if isinstance(frame, IcmpError):
        return list(_ICMP_ERROR)
    if not isinstance(frame, Packet | Segment | DeviceFrame):
        return []
    layers = Layers(frame, _inline(frame, read))
    names = []
    for name in EDITABLE:
        field = FIELDS[name]
        if name in _FRAME:
            there = name == "frame.gso_size" or isinstance(frame, Packet)
        elif name in PAYLOADS:
            there = layers.view.body >= 0 and (not PAYLOADS[name] or getattr(layers.view, PAYLOADS[name]) >= 0)
        elif name in OPTION_FIELDS:
            there = layers.view.tcp >= 0 and len(layers.transport) >= 20
        elif name == "ip.options":
            there = layers.view.ip >= 0 and len(layers.ip) >= 20
        else:
            there = field.get(layers.view) is not None or (isinstance(frame, Segment) and name in _SEGMENT)
        if there:
            names.append(name)
    return names


def edit(frame: F, changes: Changes, *, checksums: Literal["mend", "keep"] = "mend", read: Read | None = None) -> F:
    """A frame with these fields changed; the one given stays as it is. EditError says what cannot be.

    Values are numbers, bools, bytes, or text that says them. `checksums`: "mend" makes them right, but those that
    `changes` set; "keep" leaves them as they were. `read` gives the bytes of a payload in shared memory, which stays
    the caller's to free.
    """
    wanted = resolve(changes)
    if isinstance(frame, IcmpError):
        return cast(F, _edit_error(frame, wanted))
    if not isinstance(frame, Packet | Segment | DeviceFrame):
        raise EditError(f"a {type(frame).__name__} is no packet: there is nothing in it to edit")
    layers = Layers(frame, _inline(frame, read))
    size = gso_size(frame)
    explicit = [name for name in wanted if name in _CHECKSUMS]
    if size and (checksums == "keep" or any(name != "ip.checksum" for name in explicit)):
        raise EditError("the pieces of a super-segment get their checksums when it is cut: split it first")
    if checksum_state(frame) in (Checksum.PARTIAL, Checksum.VERIFIED):
        layers.mend_transport()
    _change_sizes(layers, wanted)
    layers.follow_lengths()
    for name in sorted((one for one in wanted if one not in explicit), key=_order):
        _change_fixed(layers, name, wanted[name])
    if checksums == "mend":
        if "ip.checksum" not in explicit:
            layers.mend_ip()
        if not any(name != "ip.checksum" for name in explicit):
            layers.mend_transport(keep_none=True)
    for name in explicit:
        _change_fixed(layers, name, wanted[name])
    size = wanted["frame.gso_size"][1] if "frame.gso_size" in wanted else size
    return cast(F, _finish(frame, layers, size if len(layers.body) > size else 0, wanted))


def _inline(frame: Any, read: Read | None) -> bytes:
    payload = frame.payload
    if isinstance(payload, Memory):
        if read is None:
            raise EditError("its payload lies in shared memory, and there is nobody to read it")
        payload = read(payload)
    return bytes(frame.head + payload)


def resolve(changes: Changes) -> dict[str, tuple[Field, Any]]:
    """Names to fields, text to values; a value None: remove. EditError names the one that is wrong."""
    wanted: dict[str, tuple[Field, Any]] = {}
    for written, value in changes.items():
        name = written.removeprefix("-")
        field = FIELDS.get(name)
        if field is None:
            close = near(name, EDITABLE)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise EditError(f"there is no field {name!r}{hint}", name)
        if field.alias:
            if len(field.alias) > 1:
                raise EditError(f"{name} is two fields: say {' or '.join(field.alias)}", name)
            name, field = field.alias[0], FIELDS[field.alias[0]]
        if name not in EDITABLE:
            raise EditError(f"{name} follows from other fields and cannot be set", name)
        if name in wanted:
            raise EditError(f"{name} is changed twice", name)
        if written.startswith("-") or is_removal(field, value):
            if name not in OPTION_FIELDS and name not in ("ip.options", *PAYLOADS):
                raise EditError(f"{name} can be changed, but not removed", name)
            wanted[name] = (field, None)
        else:
            try:
                wanted[name] = (field, parse_value(field, value))
            except EditError as error:
                raise EditError(str(error), name, of_value=True) from None
    return wanted


def _order(name: str) -> int:
    """Types before what depends on them, whole bytes before their bits."""
    return 0 if name.endswith(".type") else 1 if name in ("ip.dsfield", "ip.flags", "tcp.flags") else 2


def _change_sizes(layers: Layers, wanted: Mapping[str, tuple[Field, Any]]) -> None:
    """Options and payload."""
    options = {name: value for name, (_, value) in wanted.items() if name in OPTION_FIELDS}
    if options:
        if layers.view.tcp < 0 or len(layers.transport) < 20:
            raise EditError(f"there is no TCP header that could have {next(iter(options))}", next(iter(options)))
        layers.set_tcp_options(edit_options(bytes(layers.transport[20:]), options))
    if "ip.options" in wanted:
        layers.set_ip_options(wanted["ip.options"][1] or b"")
    payloads = [name for name in wanted if name in PAYLOADS]
    if len(payloads) > 1:
        raise EditError(f"{' and '.join(payloads)} are the same bytes: change one", payloads[0])
    for name in payloads:
        layer = PAYLOADS[name]
        if layers.view.body < 0 or (layer and getattr(layers.view, layer) < 0):
            raise EditError(f"this packet has no {name}", name)
        layers.body = wanted[name][1] or b""


def _change_fixed(layers: Layers, name: str, what: tuple[Field, Any]) -> None:
    field, value = what
    if name in OPTION_FIELDS or name in PAYLOADS or name in _FRAME or name == "ip.options":
        return
    frame = layers.frame
    if isinstance(frame, Segment) and name.startswith("ip."):
        change = _SEGMENT.get(name)
        if change is None:
            raise EditError(f"a segment between ip and tcp has no {name}: ip takes off that header, and makes it", name)
        layers.frame = msgspec.structs.replace(frame, **change(frame, value))
        return
    layers.set_fixed(field, value)


def _finish(frame: Any, layers: Layers, size: int, wanted: Mapping[str, tuple[Field, Any]]) -> Any:
    head, payload = layers.joined()
    if len(head) + len(payload) > 65_535 + 14 + 8:
        raise EditError(f"{len(head) + len(payload)} bytes are more than a packet holds")
    changed: dict[str, Any] = {"head": head, "payload": payload}
    if isinstance(frame, DeviceFrame):
        vnet = bytes(len(frame.vnet))
        if size:
            if layers.view.tcp < 0 or layers.is_fragment:
                raise EditError("only TCP packets are super-segments", "frame.gso_size")
            link, ip = len(layers.link), len(layers.ip)
            changed["head"] = layers.partial_head()
            vnet = VnetHeader.for_tcp(
                link_len=link, ip_len=ip, head_len=ip + len(layers.transport), gso_size=size,
                cwr=bool(layers.transport[13] & 0x80),
            ).serialize()  # fmt: skip
            vnet += bytes(max(0, len(frame.vnet) - len(COMPLETE)))
        return msgspec.structs.replace(layers.frame, vnet=vnet, **changed)
    if size and layers.view.tcp < 0:
        raise EditError("only TCP packets are super-segments", "frame.gso_size")
    if "frame.next_hop" in wanted:
        if not isinstance(frame, Packet):
            raise EditError("only packets between link and ip have a next hop", "frame.next_hop")
        changed["next_hop"] = wanted["frame.next_hop"][1]
    return msgspec.structs.replace(layers.frame, checksum=int(Checksum.UNVERIFIED), gso_size=size, **changed)


def _edit_error(frame: IcmpError, wanted: Mapping[str, tuple[Field, Any]]) -> IcmpError:
    changed: dict[str, Any] = {}
    for name, (_, value) in wanted.items():
        if name not in _ICMP_ERROR:
            raise EditError(f"an ICMP error as ip tells it has no {name}; it has {', '.join(_ICMP_ERROR)}", name)
        changed[_ICMP_ERROR[name]] = value
    return msgspec.structs.replace(frame, **changed)

"""Fields of messages that are no packets: `message.NAME`, by the names that their structs have (docs/frames.md)."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import msgspec

from levelip.frames import packet, seam
from levelip.rpc import messages, stream
from levelip.tracing.fieldtypes import Field, Kind
from levelip.tracing.view import RecordFrame, View
from levelip.wire.addr import format_address

_PACKETS = ("Packet", "Segment", "DeviceFrame", "IcmpError")
"""They have fields of their own."""
_SHELL = ("FromClient", "ForClient")
"""They wrap a message."""
_ADDRESSES = frozenset({"address", "local_address", "remote_address", "src", "dst", "next_hop", "reporter"})
_HIDDEN = frozenset({
    "id", "causes", "traced", "head", "payload", "message", "options", "rings", "data", "place", "addresses", "args",
    "broadcasts", "groups", "routes", "token",
})  # fmt: skip
"""Other fields show them, they are no single value, or (a session's token) nobody's business."""


def _structs(module: ModuleType) -> dict[str, type[msgspec.Struct]]:
    return {
        name: one
        for name, one in vars(module).items()
        if isinstance(one, type) and issubclass(one, msgspec.Struct) and one.__module__ == module.__name__
        and one.__struct_config__.tag is not None
    }  # fmt: skip


MESSAGES: dict[str, type[msgspec.Struct]] = {
    name: one for module in (packet, seam, stream, messages) for name, one in _structs(module).items()
}
"""Every message that crosses a seam, by its name."""


def message_type(found: View) -> str:
    """The name of a frame's struct; of what wraps a message, that of the message."""
    if isinstance(found.frame, RecordFrame):
        return str(found.frame.type_name)
    return type(getattr(found.frame, "message", found.frame)).__name__


def _get(name: str) -> Callable[[View], Any]:
    def get(found: View) -> Any:
        kind = message_type(found)
        if kind in _PACKETS or found.frame is None:
            return None
        value = getattr(getattr(found.frame, "message", found.frame), name, None)
        if isinstance(value, bytes) and name in _ADDRESSES and len(value) in (4, 16):
            return format_address(value)
        return value if isinstance(value, int | str | bytes) and value != b"" else None

    return get


def _names() -> list[str]:
    names = {name for kind, one in MESSAGES.items() if kind not in (*_PACKETS, *_SHELL)
             for name in one.__struct_fields__}  # fmt: skip
    return sorted(names - _HIDDEN)


MESSAGE_FIELDS = [
    Field(f"message.{name}", Kind.ANY, "of a message that is no packet", _get(name)) for name in _names()
]

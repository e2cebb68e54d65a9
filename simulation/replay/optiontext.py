"""Socket options as tcp hears of them, written as the calls of a program that set them."""

from __future__ import annotations

from typing import Final

from gateway.config import GatewayCoreConfig
from gateway.options import OPTIONS, Kind, Option, for_tcp, show
from levelip.config import CONGESTIONS

_LEVELS: Final = {0: "SOL_IP", 1: "SOL_SOCKET", 6: "SOL_TCP"}
_BY_TCP: Final = {option.tcp: (level, option) for (level, _), option in OPTIONS.items() if option.tcp}
_ELSEWHERE: Final = ("reuse_address", "reuse_port", "port_range")
"""What counts when a port is chosen, which a script does by itself."""
_DEFAULTS: Final = GatewayCoreConfig(epoch=0)


def option_call(fd: int, name: str, value: int) -> str | None:
    """setsockopt() on `fd` for which tcp hears of this value; "" if none is needed, None if no call says it."""
    if name in _ELSEWHERE:
        return ""
    if name not in _BY_TCP:
        return None
    level, option = _BY_TCP[name]
    given = _given(option, value)
    if given is None:
        return None
    size = len(given) - 2 if option.kind is Kind.NAME else 4
    return f"setsockopt({fd}, {_LEVELS[level]}, {option.name}, {given}, {size}) = 0"


def _given(option: Option, value: int) -> str | None:
    """What the program gave, as a script writes it."""
    match option.kind:
        case Kind.NAME:
            return f'"{CONGESTIONS[value - 1]}"' if 0 < value <= len(CONGESTIONS) else None
        case Kind.DEFER:
            return f"[{int.from_bytes(show(option, {option.name: value}, _DEFAULTS), 'little')}]"
        case Kind.BUFFER:
            return f"[{value}]"
    number = value if value < 0 else value // option.scale
    return f"[{number}]" if for_tcp(option, number) == value else None

"""Small values of lark's trees, and errors at their place."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from lark import Token

from levelip.tracing.packetline.values import ScriptError


def script_error(node: Any, message: str) -> ScriptError:
    """An error at a tree or token."""
    if isinstance(node, Token):
        return ScriptError(message, node.line or 0, node.column or 0)
    meta = node.meta
    return ScriptError(message, getattr(meta, "line", 0), getattr(meta, "column", 0))


def fits(tree: Any, value: int, bits: int) -> int:
    """`value`, if it has no more than so many bits."""
    if not 0 <= value < 1 << bits:
        raise script_error(tree, f"{value} does not fit into {bits} bits")
    return value


def hex_bytes(tree: Any, text: str) -> bytes:
    """The bytes that hex digits are."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise script_error(tree, f"{text} is no even number of hex digits") from None


def address(token: Any) -> bytes:
    """An IPv4 address, packed."""
    try:
        return IPv4Address(str(token)).packed
    except ValueError:
        raise script_error(token, f"{token} is no IPv4 address") from None

"""What the groups of commands of a page have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

MAX_TEXT = 2000
Command = Callable[[dict[str, Any]], Awaitable[Any]]


class Refused(Exception):
    """A request that cannot be carried out; the text says why. `where`: position of the mistake in a text, or None."""

    def __init__(self, text: str, where: int | None = None) -> None:
        super().__init__(text)
        self.where = where


def text_of(request: dict[str, Any], name: str) -> str:
    """An argument that is a text; empty if it is not there."""
    return str(request.get(name) or "")[:MAX_TEXT]

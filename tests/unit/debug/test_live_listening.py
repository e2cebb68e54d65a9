"""What an open reader hears, and that a listener has its say also while nothing comes."""

from __future__ import annotations

from typing import Any, cast

from levelip.debug.tap import TapReader
from levelip.debug.traces import live


class Reader:
    """Hears what it was given, a list a read, then nothing; `rest` comes with the end."""

    def __init__(self, *heard: list[Any], rest: list[Any]) -> None:
        self.heard = list(heard)
        self.rest = rest

    def read(self, _timeout: float) -> list[Any]:
        return self.heard.pop(0) if self.heard else []

    def drain(self) -> list[Any]:
        return self.rest


def test_silence_is_told() -> None:
    """`quiet` is called when a read brings nothing, so that what is due is not held until the next packet."""
    found: list[Any] = []
    over = False

    def quiet() -> None:
        nonlocal over
        found.append("quiet")
        over = len(found) > 4

    reader = Reader(["a", "b"], [], ["c"], rest=["d"])
    for record in live(cast(TapReader, reader), None, lambda: over, quiet):
        found.append(record)
    assert found == ["a", "b", "quiet", "c", "quiet", "d"]

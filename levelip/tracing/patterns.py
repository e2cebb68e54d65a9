"""Regular expressions that take time in proportion to what they look at, whatever they are and whatever comes.

An expression of a breakpoint or an addon is looked for in packets by the layer itself, which answers to nobody while it
looks. A backtracking engine (Python's `re`) needs for `(a+)+$` and forty times the letter a more time than anybody has;
RE2 (google-re2) runs all ways at once, and refuses what cannot be done so: look-around and references to groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import re2

MOST: Final = 400
"""Instructions of all programs of an expression. The slowest there are need some 4 ns for each and each byte: 0.1 s for
64 KiB."""
_WORDS: Final = {
    "invalid perl operator": "there is no look-around, and no condition or atomic group",
    "invalid escape sequence": "there is no such escape, and no reference to a group",
    "invalid repetition size": "1000 repetitions at most, those within each other multiplied",
    "bad repetition operator": "a repetition of a repetition; there are no possessive ones",
    "pattern too large - compile failed": "too large",
}


class PatternError(ValueError):
    """No regular expression, or none that can be looked for in bounded time. `spot`: the part that it is about."""

    def __init__(self, text: str, spot: str = "") -> None:
        super().__init__(text)
        self.spot = spot


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression, looked for without regard to case. `size`: how many instructions it is."""

    size: int
    _text: Any
    _raw: Any

    def found_in(self, value: Any) -> bool:
        """Whether a text, or bytes, has it in it; false of anything else."""
        if isinstance(value, bytes):
            return self._raw.search(value) is not None
        return isinstance(value, str) and self._text.search(value) is not None


def compile_pattern(pattern: str) -> Pattern:
    """PatternError if it is none, or is too large by itself."""
    text, raw = _compile(pattern, re2.Options.Encoding.UTF8), _compile(pattern.encode(), re2.Options.Encoding.LATIN1)
    return Pattern(raw.programsize, text, raw)


def _compile(pattern: str | bytes, encoding: Any) -> Any:
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.encoding = encoding
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        what, _, spot = error.args[0].decode(errors="replace").partition(": ")
        raise PatternError(_WORDS.get(what, what), spot) from None

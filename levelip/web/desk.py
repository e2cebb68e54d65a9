"""Everything that the pages of one server share: the running stack, and the files that were opened."""

from __future__ import annotations

from levelip.tracing.reasons import all_reasons
from levelip.web.live import Live
from levelip.web.source import Source

MAX_FILES = 4


class Desk:
    """`sources` by name; the running stack is "live" and always there."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.sources: dict[str, Source] = {live.name: live}
        self.reasons = {
            reason.name: [reason.layer, reason.severity.value, str(reason)] for reason in all_reasons()
        }
        self._opened = 0

    def add(self, source: Source) -> None:
        """One more file. ValueError if there are too many."""
        if len(self.sources) > MAX_FILES:
            raise ValueError(f"{MAX_FILES} files are open; close one first")
        self.sources[source.name] = source

    def next_name(self) -> str:
        """A name that no source has had."""
        self._opened += 1
        return f"file{self._opened}"

    def close(self, name: str) -> None:
        """Forget a file and its rows."""
        self.sources.pop(name, None)

"""Everything that the pages of one server share: the running stack, and the files that were opened."""

from __future__ import annotations

import io
from pathlib import Path

from levelip.tracing.reasons import all_reasons
from levelip.web.capture import Capture
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

    async def open(self, title: str, content: bytes | Path) -> Capture:
        """Open a capture. CaptureError or OSError for what cannot be read, ValueError if too many are open."""
        if len(self.sources) > MAX_FILES:
            raise ValueError(f"{MAX_FILES} files are open; close one first")
        self._opened += 1
        capture = Capture(f"file{self._opened}", title, keep=self.live.packets.keep)
        if isinstance(content, Path):
            with content.open("rb") as stream:
                await capture.read(stream)
        else:
            await capture.read(io.BytesIO(content))
        self.sources[capture.name] = capture
        return capture

    def close(self, name: str) -> None:
        """Forget a file and its rows."""
        self.sources.pop(name, None)

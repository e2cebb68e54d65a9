"""A capture file as a source: its packets as rows, its comments as events (levelip.debug.captured).

Read in slices, so that the server goes on serving. The file stays where a process of its own can read it again, which
tells stories of it and by which ways its packets went (stories.py).
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from levelip.debug.captured import Captured
from levelip.debug.programs import python
from levelip.debug.tap import Notice, Record
from levelip.tracing.capturefile import CaptureError
from levelip.web.packets import KEEP
from levelip.web.replay import Asked
from levelip.web.source import Source

MAX_BYTES = 512 << 20
SLICE_S = 0.02
_MODULE = "levelip.web.stories"


class Capture(Source):
    """A file that was read whole, up to `keep` packets and comments (the newest). `seams`: of a capture of ours."""

    def __init__(
        self, name: str, title: str, path: Path, directory: tempfile.TemporaryDirectory[str] | None = None, *,
        keep: int = KEEP,
    ) -> None:  # fmt: skip
        """`directory`: where the file lies if it is ours alone; gone with `close`."""
        super().__init__(name, "capture", title, keep=keep)
        self.path = path
        self.asked = Asked(python(_MODULE), [path], directory)
        self.seams: list[str] = []

    async def read(self) -> None:
        """Read it all. CaptureError for what is no capture."""
        with self.path.open("rb") as stream:
            file = Captured(stream, self.flows)
            records: list[Record | Notice] = []
            begun = time.perf_counter()
            for record in file:
                records.append(record)
                if time.perf_counter() - begun > SLICE_S:
                    self.packets.extend(records)
                    records.clear()
                    await asyncio.sleep(0)
                    begun = time.perf_counter()
        self.packets.extend(records)
        self.origin, self.seams, self.damage = file.origin, file.seams, file.damage
        if self.damage:
            self.packets.extend([Notice(0, f"reading ended early: {self.damage}")])
        if not self.packets.frames:
            raise CaptureError(f"no packets in it{f': {file.damage}' if file.damage else ''}")

    def about(self) -> dict[str, Any]:
        return {**super().about(), "seams": self.seams}

    async def close(self) -> None:
        await self.asked.close()

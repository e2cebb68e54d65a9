"""A recording as a source: what entered and left each core, and what it decided, as rows; and its replay.

Of the files of one stack each seam is taken from one side, as on the tap bus; of one file all that its process saw.
Messages that are no packets are left out of the rows. Rows come without a replay; what the page asks of the calls and
states between them, the replay answers (replay.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from levelip.debug.recorded import open_all, records
from levelip.debug.tap import Notice, Record
from levelip.tracing.flow import FlowModel
from levelip.tracing.recording import RecordingError
from levelip.web.packets import KEEP
from levelip.web.replay import Replay
from levelip.web.source import FLOW_ROWS, FLOW_TOTAL, Source

SLICE_S = 0.02


class Recorded(Source):
    """Recordings of one stack that were read whole, up to `keep` rows (the newest)."""

    def __init__(self, name: str, title: str, replay: Replay, *, keep: int = KEEP) -> None:
        super().__init__(name, "recording", title, keep=keep)
        self.replay = replay
        self.layers: list[dict[str, Any]] = []

    async def read(self) -> None:
        """Read them all. RecordingError for what is none, OSError for what cannot be read."""
        recordings = open_all(self.replay.paths)
        try:
            self.origin = min(one.span[0] for one in recordings)
            self.wall = recordings[0].wall_offset(self.origin)
            told = any(one.head.events for one in recordings)
            self.flows = FlowModel(infer=not told, rows=FLOW_ROWS, total=FLOW_TOTAL)
            self.damage = "; ".join(one.torn for one in recordings if one.torn)
            self.layers = [
                {"layer": one.head.process, "first": one.first, "stop": one.stop, "version": one.head.version}
                for one in recordings
            ]
            await self._store(records(recordings))
        finally:
            for one in recordings:
                one.close()
        if not self.packets.end:
            raise RecordingError("nothing was recorded in it")

    def about(self) -> dict[str, Any]:
        return {**super().about(), "layers": self.layers, "damage": self.damage}

    async def close(self) -> None:
        await self.replay.close()

    async def _store(self, rows: Iterator[Record | Notice]) -> None:
        batch: list[Record | Notice] = []
        begun = time.perf_counter()
        for record in rows:
            batch.append(record)
            if not isinstance(record, Notice):
                self.flows.add(record)
            if time.perf_counter() - begun > SLICE_S:
                self.packets.extend(batch)
                batch = []
                await asyncio.sleep(0)
                begun = time.perf_counter()
        self.packets.extend(batch)

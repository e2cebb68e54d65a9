"""What a capture tells of its connections and packets: `python -m levelip.web.stories FILE` answers, line by line.

A process of its own, as for replays: it may be given anything to chew on, and takes some 50 µs a record. Requests and
answers are those of levelip.debug.lines; "do" is "why" or "paths".
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, BinaryIO

from levelip.debug.captured import read_capture
from levelip.debug.collection import Collection
from levelip.debug.lines import answer_line, serve_lines
from levelip.debug.tap import PACKET_SEAMS
from levelip.debug.why import why
from levelip.debug.whydata import paths_data, with_journey


class Stories:
    """One file, read at the first question."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._collection: Collection | None = None

    def answer(self, line: bytes) -> dict[str, Any]:
        """What comes of a request."""
        return answer_line(line, self._do, trouble=(ValueError, OSError))  # Unknown and CaptureError are ValueErrors

    def run(self, source: BinaryIO, sink: BinaryIO) -> None:
        """Until the input ends."""
        serve_lines(self.answer, source, sink)

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        collection = self._collected()
        if request["do"] == "paths":
            return self._paths(collection)
        stories = [with_journey(collection, one) for one in why(collection, str(request["subject"]))]
        return {"stories": stories, "notes": [one.text for one in collection.notices]}

    def _collected(self) -> Collection:
        if self._collection is None:
            collection = Collection(read_capture(self._path))
            self._collection = collection
        return self._collection

    def _paths(self, collection: Collection) -> dict[str, Any]:
        if len({fact.seam for fact in collection.facts}) < 2:
            raise ValueError(
                "this capture has one place alone, and so no ways between: lvlip capture takes all seams "
                f"({', '.join(PACKET_SEAMS)}) unless --at says otherwise"
            )
        return {"paths": paths_data(collection), "notes": [one.text for one in collection.notices]}


if __name__ == "__main__":
    Stories(Path(sys.argv[1])).run(sys.stdin.buffer, sys.stdout.buffer)

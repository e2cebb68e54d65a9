"""What a capture tells of its connections and packets: `python -m levelip.web.stories FILE` answers, line by line.

A process of its own, as for replays: it may be given anything to chew on, and takes some 50 µs a record.
request  {"id": n, "do": "why" | "paths", ...}      answer  {"id": n, "ok": data} or {"id": n, "error": text}
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from levelip.debug.captured import read_capture
from levelip.debug.collection import Collection
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
        number: Any = None
        try:
            request = msgspec.json.decode(line, type=dict[str, Any])
            number = request.get("id")
            collection = self._collected()
            if request["do"] == "paths":
                return {"id": number, "ok": self._paths(collection)}
            stories = [with_journey(collection, one) for one in why(collection, str(request["subject"]))]
            return {"id": number, "ok": {"stories": stories, "notes": [one.text for one in collection.notices]}}
        except (ValueError, OSError) as error:  # Unknown and CaptureError are ValueErrors
            return {"id": number, "error": str(error)}
        except Exception as error:
            return {"id": number, "error": f"{type(error).__name__}: {error}"}

    def run(self, source: BinaryIO, sink: BinaryIO) -> None:
        """Until the input ends."""
        for line in source:
            sink.write(msgspec.json.encode(self.answer(line)) + b"\n")
            sink.flush()

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

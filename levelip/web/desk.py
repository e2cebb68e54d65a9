"""Everything that the pages of one server share: the running stack, and the files that were opened."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from levelip.debug.recorded import SUFFIX, files_of, is_recording
from levelip.tracing.reasons import all_reasons
from levelip.web.capture import Capture
from levelip.web.live import Live
from levelip.web.recorded import Recorded
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

    async def open(self, title: str, content: bytes | Path) -> Source:
        """Open a capture or a recording: a file's bytes, or a path (of recordings a directory, too). CaptureError,
        RecordingError or OSError for what cannot be read, ValueError if too many are open."""
        if len(self.sources) > MAX_FILES:
            raise ValueError(f"{MAX_FILES} files are open; close one first")
        self._opened += 1
        name, keep = f"file{self._opened}", self.live.packets.keep
        made: Source
        if isinstance(content, bytes) and is_recording(content[:16]):
            made = recorded = Recorded(name, title, keep=keep)
            with tempfile.NamedTemporaryFile(suffix=SUFFIX) as file:  # 0600: recordings hold secrets
                file.write(content)
                file.flush()
                await recorded.read([Path(file.name)])
        elif isinstance(content, Path) and (content.is_dir() or is_recording(_start(content))):
            made = recorded = Recorded(name, title, keep=keep)
            await recorded.read(files_of(content))
        else:
            made = capture = Capture(name, title, keep=keep)
            with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as stream:
                await capture.read(stream)
        self.sources[name] = made
        return made

    def close(self, name: str) -> None:
        """Forget a file and its rows."""
        self.sources.pop(name, None)


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(16)

"""Everything that the pages of one server share: the running stack, and the files that were opened."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from levelip.debug.flight import write_flight
from levelip.debug.recorded import files_of, means_recordings
from levelip.debug.tap import PROCESSES
from levelip.frames.core import ControlError
from levelip.tracing.reasons import all_reasons
from levelip.web.capture import Capture
from levelip.web.live import Live
from levelip.web.recorded import Recorded
from levelip.web.replay import Replay
from levelip.web.source import Source
from levelip.web.upload import Upload
from levelip.web.worker import in_thread

MAX_FILES = 4


class Desk:
    """`sources` by name; the running stack is "live" and always there. `may_load`: whether a page may have code run,
    which addons are; not where others can reach us."""

    def __init__(self, live: Live, *, may_load: bool = True) -> None:
        self.live = live
        self.may_load = may_load
        self.sources: dict[str, Source] = {live.name: live}
        self.reasons = {reason.name: [reason.layer, reason.severity.value, str(reason)] for reason in all_reasons()}
        self.measuring = asyncio.Lock()
        """Held while packets are measured (measure.py): one at a time, whichever page asks."""
        self.changed = 0
        """How often the sources changed: which of two lists of them is the newer."""
        self._opened = 0
        self._flight: Replay | None = None
        self._flight_turn = asyncio.Lock()

    async def open(self, title: str, path: Path) -> Source:
        """Open a capture or a recording, or a directory of recordings. CaptureError, RecordingError or OSError for what
        cannot be read, ValueError if too many are open."""
        self._room()
        if means_recordings(path):
            return await self._recorded(title, Replay(files_of(path)))
        return await self._capture(title, path)

    async def open_upload(self, title: str, upload: Upload) -> Source:
        """The same of what a page sent, which is gone once it is closed, or if it cannot be opened: a capture, or the
        recordings of one stack."""
        try:
            self._room()
            if all(means_recordings(path) for path in upload.paths):
                return await self._recorded(title, Replay(upload.paths, upload.directory))
            if len(upload.paths) > 1:
                raise ValueError("of several files together each must be a recording, of one stack (lvlip record)")
            return await self._capture(title, upload.paths[0], upload.directory)
        except BaseException:
            upload.discard()
            raise

    def _room(self) -> None:
        if len(self.sources) > MAX_FILES:
            raise ValueError(f"{MAX_FILES} files are open; close one first")

    def _name(self) -> str:
        self._opened += 1
        return f"file{self._opened}"

    async def _capture(
        self, title: str, path: Path, directory: tempfile.TemporaryDirectory[str] | None = None
    ) -> Source:
        made = Capture(self._name(), title, path, directory, keep=self.live.packets.keep)
        return await self._read(made)

    async def _recorded(self, title: str, replay: Replay) -> Source:
        return await self._read(Recorded(self._name(), title, replay, keep=self.live.packets.keep))

    async def _read(self, made: Capture | Recorded) -> Source:
        """A file of which nothing stays where it cannot be read."""
        try:
            await made.read()
        except BaseException:
            await made.close()
            raise
        self.sources[made.name] = made
        self.changed += 1
        return made

    # what just happened

    async def open_flight(self) -> Source:
        """What the flight recorders of the running stack hold, as a recording. ControlError."""
        if len(self.sources) > MAX_FILES:
            raise ControlError(f"{MAX_FILES} files are open; close one first")
        return await self._recorded(f"until {time.strftime('%H:%M:%S')}", await self._written())

    async def flight(self, *, anew: bool) -> Replay:
        """The same, kept for questions about it; `anew`: what happened since belongs to it, too."""
        async with self._flight_turn:
            if self._flight is None or anew:
                written = await self._written()
                if self._flight is not None:
                    await self._flight.close()
                self._flight = written
            return self._flight

    async def _written(self) -> Replay:
        live = self.live
        directory = tempfile.TemporaryDirectory(prefix="lvlip-flight-")  # 0700: recordings hold secrets
        path = Path(directory.name)
        try:
            running = [name for name in PROCESSES if live.run.holder(name) is not None]
            if not running:
                raise ControlError(f"stack {live.run.name!r} is not running")
            await live.unless_ended(in_thread(write_flight, live.layers.ask_patiently, running, path))
        except BaseException:
            directory.cleanup()
            raise
        return Replay(files_of(path), directory)

    async def close(self, name: str) -> None:
        """Forget a file and its rows."""
        source = self.sources.pop(name, None)
        if source is not None:
            self.changed += 1
            await source.close()

    async def end(self) -> None:
        """The server ends: nobody waits any longer, neither for the stack nor for what is asked of files."""
        self.live.end()
        for name in [name for name in self.sources if name != self.live.name]:
            await self.close(name)
        if self._flight is not None:
            await self._flight.close()

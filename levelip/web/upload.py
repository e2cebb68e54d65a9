"""What a page sends: files that are put on disk as they come, in a directory of ours, and never whole in memory.

One body is one file; or several, which follow each other, and whose sizes were told before. The directory (0700, its
files 0600; where `TMPDIR` says) belongs to whoever was given the Upload, and is gone with `discard`.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from io import FileIO
from pathlib import Path

from levelip.debug.tap import PROCESSES
from levelip.web.worker import Worker

_GATHERED = 1 << 20
"""Bytes that are written at once: a body comes in parts of 64 KiB."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


class UploadError(Exception):
    """It was not stored: `status` says why to HTTP (RFC 9110 15, RFC 4918 11.5), the text to people."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Upload:
    """`paths`: the files in the order of the body."""

    def __init__(self, count: int = 1) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="lvlip-web-")
        self.paths = [Path(self.directory.name) / str(number) for number in range(count)]

    def discard(self) -> None:
        """Remove them; again, nothing."""
        self.directory.cleanup()


async def stored(
    body: AsyncIterator[bytes], *, most: int, length: int | None = None, sizes: Sequence[str] = ()
) -> Upload:
    """The files of a body of at most `most` bytes. `length`: how many it has, where that was said before; `sizes`: of
    several files, how many bytes each has, in decimal digits.

    UploadError for what is too large or cannot be stored, ValueError where the sizes are not the body's, and what
    `body` raises where it ends early. Nothing stays then.
    """
    files = [int(size) for size in sizes]
    if len(files) > len(PROCESSES) or min(files, default=0) < 0:
        raise _wrong_sizes()
    if max(length or 0, sum(files)) > most:
        raise _too_large(most)
    try:
        upload = Upload(len(files) or 1)
        try:
            await _store(body, _Files(upload.paths, files or [most], exact=bool(files)), most)
        except BaseException:
            upload.discard()
            raise
    except OSError as error:
        full = error.errno in _FULL
        text = "no room is left" if full else error.strerror or str(error)
        raise UploadError(
            507 if full else 500, f"{tempfile.gettempdir()}: {text} (TMPDIR names another place)"
        ) from None
    return upload


async def _store(body: AsyncIterator[bytes], files: _Files, most: int) -> None:
    """In a thread: a disk may be slow, and the server goes on."""
    worker = Worker("upload")
    gathered, came = bytearray(), 0
    try:
        async for part in body:
            came += len(part)
            if came > most:
                raise _too_large(most)
            gathered += part
            if len(gathered) >= _GATHERED:
                await worker.call(files.write, gathered)
                gathered = bytearray()
        await worker.call(files.write, gathered)
        await worker.call(files.end)
    finally:
        await worker.call(files.close)
        worker.close()


class _Files:
    """One after the other; each takes as many bytes as its size. `exact`: nothing may be missing in the end."""

    def __init__(self, paths: Sequence[Path], sizes: Sequence[int], *, exact: bool) -> None:
        self._coming = list(zip(paths, sizes, strict=True))
        self._exact = exact
        self._file: FileIO | None = None
        self._room = 0
        self._next()

    def _next(self) -> None:
        self.close()
        path, self._room = self._coming.pop(0)
        self._file = FileIO(path, "xb", opener=_private)

    def write(self, data: bytes | bytearray) -> None:
        """ValueError for more than there are sizes; OSError."""
        view = memoryview(data)
        while view:
            if self._room:
                assert self._file is not None
                written = self._file.write(view[: self._room])
                self._room -= written
                view = view[written:]
            elif self._coming:
                self._next()
            else:
                raise _wrong_sizes()

    def end(self) -> None:
        """All has come: ValueError if it has not."""
        while self._exact and not self._room and self._coming:
            self._next()
        if self._exact and self._room:
            raise _wrong_sizes()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _wrong_sizes() -> ValueError:
    return ValueError("the sizes of the files are not right")


def _too_large(most: int) -> UploadError:
    return UploadError(413, f"larger than {most >> 20} MiB")

"""Files that a page sends: on disk as they come, private, bounded, and gone when they are not needed."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect

from levelip.ipc.rundir import RunDirectory
from levelip.web import app as web_app
from levelip.web import upload as web_upload
from levelip.web.desk import Desk
from levelip.web.live import Live
from levelip.web.upload import UploadError, stored
from tests.unit.web.test_web_capture import TRANSFER
from tests.unit.web.test_web_paths import plain
from tests.unit.web.webposts import parts, post

CHUNK = bytes(range(256)) * 256
MOST = 8 << 20


@pytest.fixture(autouse=True)
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where uploads lie; nothing may be left in it."""
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield place
    assert list(place.iterdir()) == []


def test_many_chunks_are_one_file_that_nobody_else_may_read() -> None:
    """In their order, whatever their sizes; the directory is ours alone."""
    pieces = [CHUNK[: 1 + i * 7919 % len(CHUNK)] for i in range(300)]

    async def main() -> None:
        upload = await stored(parts(*pieces), most=16 << 20)
        (path,) = upload.paths
        assert path.read_bytes() == b"".join(pieces)
        assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
        upload.discard()
        upload.discard()

    asyncio.run(main())


def test_a_large_file_takes_no_memory() -> None:
    """64 MiB come; what is held at once are some MiB."""

    async def main() -> None:
        upload = await stored(parts(*[CHUNK] * 1024), most=64 << 20)
        assert upload.paths[0].stat().st_size == 64 << 20
        upload.discard()

    tracemalloc.start()
    try:
        asyncio.run(main())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_several_files_in_one_body() -> None:
    """Their sizes say where each ends, wherever the chunks do; empty ones are files, too."""

    async def main() -> None:
        upload = await stored(parts(b"ab", b"cd", b"ef"), most=MOST, sizes=["1", "0", "3", "2", "0"])
        assert [path.read_bytes() for path in upload.paths] == [b"a", b"", b"bcd", b"ef", b""]
        upload.discard()

    asyncio.run(main())


@pytest.mark.parametrize("sizes", [["1", "2"], ["7"], ["7", "-1"], ["-1", "7"], ["x"], ["6"] + ["0"] * 9, ["1e0", "5"]])
def test_sizes_that_are_not_the_bodys(sizes: list[str]) -> None:
    """They are refused, and nothing stays."""
    with pytest.raises(ValueError):
        asyncio.run(stored(parts(b"abcdef"), most=MOST, sizes=sizes))


def test_a_body_that_ends_early() -> None:
    """The browser went away: what came is gone, too."""

    async def torn() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield CHUNK
        raise ClientDisconnect

    with pytest.raises(ClientDisconnect):
        asyncio.run(stored(torn(), most=MOST))


def test_what_is_too_large_is_refused_before_it_comes_or_while_it_does() -> None:
    """By what was said of its length; else as soon as it is more."""

    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("it is not read")
        yield b""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield CHUNK

    for body, said in ((never(), MOST + 1), (endless(), None)):
        with pytest.raises(UploadError, match="larger than 8 MiB") as caught:
            asyncio.run(stored(body, most=MOST, length=said))
        assert caught.value.status == 413
    with pytest.raises(UploadError, match="larger"):
        asyncio.run(stored(never(), most=MOST, sizes=[str(MOST), "1"]))
    asyncio.run(stored(parts(*[CHUNK] * 128), most=MOST, length=MOST)).discard()  # exactly so much


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where, and what can be done; nothing stays there."""

    def full(_file: object, _data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(web_upload, "FileIO", type("Full", (web_upload.FileIO,), {"write": full}))
    with pytest.raises(UploadError, match=r"no room is left.*TMPDIR") as caught:
        asyncio.run(stored(parts(CHUNK), most=MOST))
    assert caught.value.status == 507


def test_a_disk_that_takes_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write may take less than it was given, as where a limit is near (write(2))."""
    took: list[int] = []
    write = web_upload.FileIO.write

    class Slow(web_upload.FileIO):
        def write(self, data: memoryview) -> int:  # type: ignore[override]
            took.append(write(self, data[:1000]))
            return took[-1]

    monkeypatch.setattr(web_upload, "FileIO", Slow)

    async def main() -> None:
        upload = await stored(parts(CHUNK), most=MOST)
        assert upload.paths[0].read_bytes() == CHUNK and len(took) == 66
        upload.discard()

    asyncio.run(main())


def test_by_http(run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture in many parts is opened; one of which the rest never comes leaves nothing; one that is too large is
    refused in words, and no place that cannot be written."""
    content = plain(tmp_path, TRANSFER * 2000).read_bytes()
    pieces = [content[at : at + 1000] for at in range(0, len(content), 1000)]

    def sent(**how: object) -> tuple[int, str]:
        status, answer = post(Desk(Live(run)), "/captures", pieces, name="x.pcapng", **how)  # type: ignore[arg-type]
        return status, str(answer["source"]["rows"] if "source" in answer else answer.get("error", ""))

    assert sent(length=len(content)) == (200, "10000")
    assert sent(length=len(content), gone=True)[0] == 400
    monkeypatch.setattr(web_app, "MAX_BYTES", 1 << 20)
    assert sent(length=2 << 20) == (413, "x.pcapng: larger than 1 MiB")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    status, text = sent()
    assert status == 500 and "No such file or directory" in text and "TMPDIR" in text

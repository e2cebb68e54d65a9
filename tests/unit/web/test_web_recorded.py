"""Recordings as a source of the web view: made by the recorder itself, read without a replay."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest

from levelip.ipc.rundir import RunDirectory
from levelip.tracing.recording import RecordingError
from levelip.web.desk import Desk
from levelip.web.live import Live
from levelip.web.source import Source
from tests.unit.replay.replay_bench import stop, transfer
from tests.unit.web.webposts import uploaded

SIZE = 100_000


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tcp's side of an upload over a link that loses."""
    path = tmp_path_factory.mktemp("rec") / "tcp.rec"
    client, _, _ = transfer(path, size=SIZE)
    stop(client, path).close()
    return path


def opened(run: RunDirectory, content: bytes | Path) -> Source:
    """By its path, or as a page sends it."""

    async def main() -> Source:
        desk = Desk(Live(run))
        if isinstance(content, Path):
            return await desk.open("x", content)
        return await desk.open_upload("x", await uploaded(content))

    return asyncio.run(main())


def test_what_tcp_saw_and_decided(run: RunDirectory, recording: Path) -> None:
    """Segments both ways, events, and a connection with states as they were told, and every byte acknowledged."""
    source = opened(run, recording)
    assert source.kind == "recording" and not source.damage
    assert source.packets.frames > 50 and source.packets.events > 20
    (row,) = source.connections()
    assert row["acked"] >= SIZE
    flow = source.flow(row["name"])
    assert flow is not None and flow.told and flow.states.rows[0].new == "SYN_SENT"
    assert max(one.seq + one.len for one in flow.segments.rows if one.way == "out" and one.len) == SIZE + 1
    first = source.packets.row(source.packets.first, source.origin)
    assert first[1] >= 0
    kinds = {source.packets.row(n, source.origin)[2] for n in range(source.packets.first, source.packets.end)}
    assert kinds == {"f", "e"}


def test_by_upload_and_as_a_directory(run: RunDirectory, recording: Path) -> None:
    """The same, from its bytes, and from the directory in which it lies."""
    by_path = opened(run, recording)
    for content in (recording.read_bytes(), recording.parent):
        assert opened(run, content).packets.frames == by_path.packets.frames


def test_a_torn_recording_shows_what_came_before(run: RunDirectory, recording: Path) -> None:
    """Half of a file is half of its rows, and the tear is told."""
    data = recording.read_bytes()
    source = opened(run, data[: len(data) - 20])
    assert source.damage and source.packets.row(source.packets.end - 1, 0)[2] == "n"


def test_what_is_no_recording_is_refused(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"no \.rec file in"):
        opened(run, tmp_path)
    with pytest.raises(RecordingError, match="torn"):
        opened(run, b"LVLIPREC")
    with pytest.raises(ValueError, match="no capture"):
        opened(run, io.BytesIO(b"LVLIPRE").read())

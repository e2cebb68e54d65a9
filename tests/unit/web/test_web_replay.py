"""A recording run again for a page, and the story of what is in it: asked by a session, answered by the replay."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from layers.tcp.congestion import cubic
from levelip.ipc.rundir import RunDirectory
from levelip.web import replay
from levelip.web.desk import Desk
from levelip.web.live import Live
from levelip.web.recorded import Recorded
from levelip.web.replay import Replay, ReplayError
from tests.netsim.net import Impairment
from tests.unit.cli.cli_layer import FakeLayer
from tests.unit.replay.replay_bench import host_upload, stop, transfer
from tests.unit.web.test_web_session import Page, with_page
from tests.unit.web.webposts import uploaded
from tests.unit.web.webrecords import transfer as records


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tcp's side of an upload over a link that loses."""
    path = tmp_path_factory.mktemp("rec") / "tcp.rec"
    core, _, _ = transfer(path, size=200_000, how=Impairment(loss=0.03), seed=5)
    stop(core, path)
    return path


def test_a_page_goes_through_a_recording(run: RunDirectory, recording: Path) -> None:
    """Calls with what was decided and why, the state at an instant, what changed between two, the first difference."""

    async def story(page: Page) -> None:
        desk = page.desk
        source = await desk.open_upload("up.rec", await uploaded(recording.read_bytes()))
        assert isinstance(source, Recorded)
        (about,) = [one for one in (await page.ask("hello"))["sources"] if one["name"] == source.name]
        assert [one["layer"] for one in about["layers"]] == ["tcp"]
        where = {"source": source.name, "layer": "tcp"}
        found = await page.ask("replay.find", **where, at=0, place="event retransmit")
        (row,) = (await page.ask("replay.steps", **where, at=found["position"], count=1))["rows"]
        again = next(one for one in row["events"] if one["kind"] == "retransmit")
        assert "RFC" in again["text"] and row["call"] + 1 == found["at"]
        name = source.connections()[0]["name"].partition("#")[0]
        state = await page.ask("replay.state", **where, at=found["at"], since=found["at"] - 1, conn=name)
        assert state["t"] == row["t"] and "tx.retransmitted" in [name for name, _, _ in state["changes"]]
        back = await page.ask("replay.time", **where, time=row["t"])
        assert 0 < back["at"] <= row["call"]
        (checked,) = (await page.ask("replay.check", source=source.name))["layers"]
        assert checked["same"] and checked["calls"] == about["layers"][0]["stop"] and "file" not in checked
        at = (
            await page.ask("replay.find", **where, at=0, place="tcp.len == 0 and direction == up and tcp.ack > 2000")
        )["at"]
        assert (await page.ask("replay.whatif", **where, at=at - 1, change="drop alone"))["lines"]
        (told,) = (await page.ask("why", source=source.name, subject="80"))["stories"]
        assert told["findings"][0]["finding"] == "segment_lost" and "RFC" in told["findings"][0]["rule"]
        frame = told["findings"][0]["first_wrong"]["frame"]
        (told,) = (await page.ask("why", source=source.name, subject=frame))["stories"]
        assert told["journey"]["path"] == "tcp" and told["journey"]["t"] >= 0
        directory = source.replay.paths[0].parent
        assert directory.stat().st_mode & 0o777 == 0o700 and source.replay.paths[0].stat().st_mode & 0o777 == 0o600
        await page.ask("close_source", source=source.name)
        assert not directory.exists()
        assert "closed" in (await page.ask("replay.check", source=source.name))["error"]

    with_page(run, story)


def test_the_first_difference_is_shown(run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a recording that another code made: which call, what was recorded and what is done now; so too at the call."""
    path = tmp_path / "tcp.rec"
    with monkeypatch.context() as other:
        other.setattr(cubic, "BETA", (3, 10))
        core, _, _ = transfer(path, size=200_000, how=Impairment(loss=0.03), seed=5)
        stop(core, path)

    async def story(page: Page) -> None:
        source = await page.desk.open("other", path)
        (checked,) = (await page.ask("replay.check", source=source.name))["layers"]
        found = checked["divergence"]
        assert not checked["same"] and found["what"] == "event" and found["recorded"] != found["replayed"]
        where = {"source": source.name, "layer": "tcp", "idle": True}
        place = await page.ask("replay.find", **where, at=0, place=f"#{found['call'] + 1}")
        (row,) = (await page.ask("replay.steps", **where, at=place["position"], count=1))["rows"]
        assert row["call"] == found["call"] and row["divergence"]["differs"] == found["differs"]

    with_page(run, story)


def test_mistakes_are_told(run: RunDirectory, recording: Path) -> None:
    """Of the stack, a capture, and a recording; the next question is answered."""

    async def story(page: Page) -> None:
        source = await page.desk.open("up", recording)
        page.live.take(records(3))
        assert "recording" in (await page.ask("replay.state", source="live", layer="tcp", at=1, since=0))["error"]
        assert "not running" in (await page.ask("why", source="live", subject="80"))["error"]
        assert "not running" in (await page.ask("flight.open"))["error"]
        assert "why what" in (await page.ask("why", source=source.name, subject=" "))["error"]
        assert "4711" in (await page.ask("why", source=source.name, subject="4711"))["error"]
        where = {"source": source.name, "layer": "tcp"}
        wrong = await page.ask("replay.find", **where, at=0, place="tcp.flags.sin")
        assert "did you mean tcp.flags.syn" in wrong["error"]
        for args in ({"layer": "ip", "at": 0, "since": 0}, {**where, "at": "x", "since": 0}):
            assert "error" in await page.ask("replay.state", **{"source": source.name, **args})
        assert (await page.ask("replay.steps", **where, at=0, count=3))["rows"]

    with_page(run, story)


def test_a_replay_that_hangs_or_dies_is_started_again(
    run: RunDirectory, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told, and the next question is answered; so is one whose page went away in the midst."""

    async def main() -> None:
        one = Replay([recording])
        assert await one.ask("about")
        process = one._process
        assert process is not None
        process.kill()
        await process.wait()
        assert await one.ask("about"), "the one that died was noticed"
        monkeypatch.setattr(replay, "ANSWER_S", 0.0)
        with pytest.raises(ReplayError, match="not answered"):
            await one.ask("about")
        monkeypatch.undo()
        asked = asyncio.create_task(one.ask("about"))
        while one._process in (None, process):
            await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert (await one.ask("about"))[0]["layer"] == "tcp"
        await one.close()
        with pytest.raises(ReplayError, match="closed"):
            await one.ask("about")

    asyncio.run(main())


def test_several_files_are_one_stack(run: RunDirectory, recording: Path, tmp_path: Path) -> None:
    """Uploaded together they have one replay, in which a packet's way goes through all of them."""
    parts = [one.path.read_bytes() for one in host_upload(tmp_path, 50_000).values()]

    async def main() -> None:
        desk = Desk(Live(run))
        source = await desk.open_upload("three", await uploaded(*parts))
        assert isinstance(source, Recorded)
        assert [one["layer"] for one in source.layers] == ["ip", "tcp", "gateway"]
        rows = (await source.replay.ask("steps", layer="ip", at=0, count=50))["rows"]
        frame = next(one["id"] for row in rows for one in row["out"] if one["id"])
        (told,) = (await source.replay.ask("why", subject=frame))["stories"]
        assert told["journey"]["path"].endswith("gateway ↓ tcp ↓ ip")
        with pytest.raises(ValueError, match="each must be a recording"):
            await desk.open_upload("mixed", await uploaded(parts[0], b"\x0a\x0d\x0d\x0a"))
        await desk.end()

    asyncio.run(main())


def test_what_the_flight_recorders_hold(run: RunDirectory, recording: Path) -> None:
    """Of a running stack it is written out, opened as a recording, and asked for stories; files go with the server."""

    def dumped(args: dict[str, Any]) -> dict[str, Any]:
        shutil.copyfile(recording, args["file"])
        return {}

    on = {"flight": {"on": True}, "writing": {"busy": False, "path": "", "error": "", "bytes": 1}}
    layer = FakeLayer(run, "tcp", {"record.status": on, "record.dump": dumped}).start()

    async def story(page: Page) -> None:
        (told,) = (await page.ask("why", source="live", subject="80"))["stories"]
        assert told["findings"]
        asked = [name for name, _ in layer.asked].count("record.dump")
        again = await page.ask("why", source="live", subject=told["findings"][0]["first_wrong"]["frame"], anew=False)
        assert again["stories"][0]["journey"]["t"] is None
        assert [name for name, _ in layer.asked].count("record.dump") == asked == 1
        source = (await page.ask("flight.open"))["source"]
        assert source["kind"] == "recording" and source["title"].startswith("until ")
        rows = (await page.ask("replay.steps", source=source["name"], layer="tcp", at=0, count=5))["rows"]
        assert len(rows) == 5
        kept = [one for one in page.desk.sources.values() if isinstance(one, Recorded)]
        await page.desk.end()
        assert not any(path.exists() for one in kept for path in one.replay.paths)

    try:
        with_page(run, story)
        layer._answers["record.status"] = {"flight": {"on": False}}

        async def off(page: Page) -> None:
            assert "are off" in (await page.ask("why", source="live", subject="80"))["error"]

        with_page(run, off)
    finally:
        layer.stop()

"""What a page is told of captures and of ways: stories, journeys, packets grouped; and captures put into the stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from levelip.debug.tap import PACKET_SEAMS
from levelip.ipc.rundir import RunDirectory
from levelip.tracing.pcapng import LINKTYPE_RAW, Interface, PcapngWriter
from levelip.web import app as web_app
from levelip.web.acting import _numbers
from levelip.web.capture import Capture
from levelip.web.commands import Refused
from levelip.web.debugging import MAX_INJECTED
from levelip.web.desk import Desk
from levelip.web.live import Live
from levelip.web.measure import arguments
from levelip.web.stories import Stories
from tests.unit.debug.planted import Planted, captured
from tests.unit.replay.replay_bench import host_upload
from tests.unit.web.test_web_capture import TRANSFER
from tests.unit.web.test_web_session import Page, with_page
from tests.unit.web.webposts import post, uploaded

LOST = """
@addon.frame("tcp.len > 0", way="down")
def hook(packet, context):
    context.state.n = getattr(context.state, "n", 0) + 1
    if context.state.n == 4:
        packet.drop()
"""


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `lvlip capture`, all seams: a segment of ours is lost on its way."""
    directory = tmp_path_factory.mktemp("cap")
    planted = Planted(directory, LOST)
    planted.connect(b"0123456789" * 3000, eof=True)
    return captured(planted.a.records, directory / "lost.pcapng")


def test_a_capture_of_ours_has_stories_journeys_and_ways(run: RunDirectory, capture: Path) -> None:
    """Uploaded or by its path; the file that a page sent lies in a directory of its own until it is closed."""

    async def story(page: Page) -> None:
        desk = page.desk
        for source in (
            await desk.open_upload("lost.pcapng", await uploaded(capture.read_bytes())),
            await desk.open("lost.pcapng", capture),
        ):
            assert isinstance(source, Capture)
            assert source.about()["seams"] == list(PACKET_SEAMS)
            answer = await page.ask("why", source=source.name, subject="80")
            (told,) = answer["stories"]
            assert told["findings"][0]["finding"] == "segment_lost" and "capture of the seams" in answer["notes"][-1]
            frame = told["findings"][0]["first_wrong"]["frame"]
            (packet,) = (await page.ask("why", source=source.name, subject=frame))["stories"]
            assert packet["journey"]["path"] == "ip ↓ link" and packet["journey"]["name"].startswith("tcp-00000-")
            view = await page.ask("view", source=source.name, filter=f'frame.id == "{frame}"')
            assert view["count"] == 1, "the row of that name is the packet"
            found = await page.ask("paths", source=source.name)
            ways = {(one["what"], one["path"]) for one in found["paths"]}
            assert ("TCP ACK", "link ↑ ip ↑ tcp") in ways and ("TCP data", "ip ↓ link") in ways
            assert found["all"] == len(found["paths"]) and all(one["p50_ns"] <= one["p99_ns"] for one in found["paths"])
            assert (
                "nothing of 4711 was recorded" in (await page.ask("why", source=source.name, subject="4711"))["error"]
            )
            assert source.path.exists()
            await page.desk.close(source.name)
            assert source.path.exists() == (source.path == capture)

    with_page(run, story)


def test_a_capture_of_one_place_has_no_ways(run: RunDirectory, tmp_path: Path) -> None:
    """That is said, and what would have them; its stories are inferred from packets, and say so."""
    path = plain(tmp_path, TRANSFER)

    async def story(page: Page) -> None:
        source = await page.desk.open("x", path)
        assert "one place alone" in (await page.ask("paths", source=source.name))["error"]
        answer = await page.ask("why", source=source.name, subject="80")
        assert not answer["stories"][0]["findings"] and "not a capture of lvlip's" in answer["notes"][0]

    with_page(run, story)


def test_the_ways_of_a_recording(run: RunDirectory, tmp_path: Path) -> None:
    """Its replay tells them: up to the client, and from there down."""
    parts = [one.path.read_bytes() for one in host_upload(tmp_path, 50_000).values()]

    async def story(page: Page) -> None:
        source = await page.desk.open_upload("three", await uploaded(*parts))
        found = await page.ask("paths", source=source.name)
        ways = {one["path"] for one in found["paths"] if one["what"] == "TCP data"}
        assert any(way.startswith("client ↓ gateway ↓ tcp ↓ ip") for way in ways), ways
        assert sum(one["count"] for one in found["paths"]) > 5

    with_page(run, story)


def test_what_is_measured_live(run: RunDirectory) -> None:
    """As `lvlip paths` takes it, for a while that ends; a stack that does not run is told in its words."""
    made = arguments(run, 2.5, "port=80 proto=tcp")
    assert made[1:3] == ["--name", "t"] and made[-3:] == ["--seconds=2.5", "--port=80", "--proto=tcp"]
    for seconds, words in ((0.0, ""), (3600.0, ""), (float("nan"), ""), (1.0, "--file=x"), (1.0, "from=/etc/passwd"),
                           (1.0, "port=")):  # fmt: skip
        with pytest.raises(Refused):
            arguments(run, seconds, words)

    async def story(page: Page) -> None:
        assert "is not running" in (await page.ask("paths", seconds=1))["error"]
        assert "is not running" in (await page.ask("paths"))["error"]
        assert "x" in (await page.ask("paths", seconds=1, words="port=x"))["error"]

    with_page(run, story)


def test_whatever_is_asked_is_answered(tmp_path: Path) -> None:
    """Broken lines, and files that are none."""
    path = plain(tmp_path, TRANSFER)
    stories = Stories(path)
    for line in (b"", b"[]", b"{}", b'{"id": 3}', b'{"id": 3, "do": "why"}', b'{"id": 3, "do": "why", "subject": ""}'):
        assert "error" in stories.answer(line)
    assert "error" in Stories(tmp_path / "none").answer(b'{"id": 1, "do": "paths"}')
    path.write_bytes(b"GIF89a")
    assert "no capture" in Stories(path).answer(b'{"id": 1, "do": "paths"}')["error"]


def plain(directory: Path, packets: list[bytes]) -> Path:
    """Anybody's capture."""
    path = directory / "x.pcapng"
    with path.open("wb") as stream:
        writer = PcapngWriter(stream, [Interface("eth0", LINKTYPE_RAW)])
        for i, data in enumerate(packets):
            writer.packet(0, i, data, len(data))
    return path


# captures into the stack


def test_a_capture_to_inject_is_checked(run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only from our own page, of bounded size, a capture, with packets that it has; mistakes in words."""
    good = plain(tmp_path, TRANSFER).read_bytes()

    def error(body: bytes, status: int = 422, **query: str) -> str:
        got, answer = post(Desk(Live(run)), "/inject", [body], name="x.pcapng", **{"where": "link-ip:up", **query})
        assert got == status, answer
        return str(answer.get("error") or answer["text"])

    assert "only the page itself" in error(good, 403, origin="http://evil.example")
    assert "is not running" in error(good)
    assert "no capture" in error(b"GIF89a")
    assert "numbers and ranges" in error(good, numbers="one")
    assert "count from 1" in error(good, numbers="5-3") and "count from 1" in error(good, numbers="0")
    assert f"{MAX_INJECTED}" in error(good, numbers="1-999999999")
    many = plain(tmp_path, TRANSFER * (MAX_INJECTED // 5 + 1)).read_bytes()
    assert f"it has {MAX_INJECTED + 5} packets" in error(many)
    monkeypatch.setattr(web_app, "MAX_INJECT_BYTES", 100)
    assert "larger than" in error(good, 413)


def test_numbers_of_packets() -> None:
    assert _numbers("") == [] and _numbers("3, 7-9 12") == [3, 7, 8, 9, 12]

"""What an open page asks and is told, without a browser: the session over a socket made of two queues."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.websockets import WebSocketDisconnect, WebSocketState

from levelip.ipc.rundir import RunDirectory
from levelip.web.desk import Desk
from levelip.web.live import HISTORY, Live
from levelip.web.session import MAX_ORDERED, MAX_ROWS, MAX_VIEWS, Session
from tests.unit.web.webrecords import MS, NAME, event, transfer


class Socket:
    """A WebSocket's two ends: what the page sends, and what it was sent."""

    application_state = WebSocketState.CONNECTED

    def __init__(self) -> None:
        self.coming: asyncio.Queue[str | None] = asyncio.Queue()
        self.gone: list[dict[str, Any]] = []

    async def accept(self) -> None:
        return None

    async def receive_text(self) -> str:
        text = await self.coming.get()
        if text is None:
            raise WebSocketDisconnect(1001)
        return text

    async def send_text(self, text: str) -> None:
        self.gone.append(json.loads(text))


class Page:
    """The page's side."""

    def __init__(self, socket: Socket, desk: Desk) -> None:
        self.socket = socket
        self.desk = desk
        self.live = desk.live
        self._number = 0

    async def send(self, text: str) -> dict[str, Any]:
        """The answer to a text."""
        before = len(self.socket.gone)
        await self.socket.coming.put(text)
        for _ in range(12_000):
            for message in self.socket.gone[before:]:
                if "push" not in message:
                    return message
            await asyncio.sleep(0.005)
        raise AssertionError(f"no answer to {text[:100]}")

    async def ask(self, do: str, **args: Any) -> Any:
        self._number += 1
        answer = await self.send(json.dumps({"id": self._number, "do": do, **args}))
        assert answer["id"] == self._number
        return answer.get("ok", answer)

    async def pushed(self, name: str) -> Any:
        """The next tick's value of this name."""
        before = len(self.socket.gone)
        for _ in range(12_000):
            for message in self.socket.gone[before:]:
                if name in message:
                    return message[name]
            await asyncio.sleep(0.005)
        raise AssertionError(f"nothing was told of {name}")


def with_page(run: RunDirectory, story: Callable[[Page], Awaitable[None]]) -> None:
    """Run a story against a session whose stack does not run; records are handed to it by hand."""

    async def main() -> None:
        live = Live(run)
        live.origin = 1000 * MS
        socket = Socket()
        desk = Desk(live)
        session = asyncio.create_task(Session(socket, desk).run())  # type: ignore[arg-type]
        try:
            await story(Page(socket, desk))
        finally:
            await socket.coming.put(None)
            await asyncio.wait_for(session, 60)
            await desk.end()
            await live.stop()

    asyncio.run(main())


def test_rows_come_by_position(run: RunDirectory) -> None:
    """A view is opened, counted, and read in parts; what comes later is told by its count, not sent."""

    async def story(page: Page) -> None:
        page.live.take(transfer(10))
        opened = await page.ask("view", filter="")
        assert (opened["start"], opened["count"], opened["scanned"]) == (0, 23, 1.0)
        rows = (await page.ask("rows", view=opened["view"], at=20, count=100))["rows"]
        assert [row[0] for row in rows] == [20, 21, 22]
        page.live.take(transfer(5, start=2000 * MS))
        assert (await page.pushed("views"))[str(opened["view"])] == [0, 36, 1.0]
        assert not any("rows" in message for message in page.socket.gone if "push" in message)
        at = (await page.ask("seek", view=opened["view"], time=1.0))["position"]
        assert (await page.ask("rows", view=opened["view"], at=at, count=1))["rows"][0][1] == 1.0

    with_page(run, story)


def test_an_answer_is_bounded(run: RunDirectory) -> None:
    """However much is asked for, so many rows come, and so many views are open."""

    async def story(page: Page) -> None:
        page.live.take(transfer(1000))
        first = await page.ask("view")
        assert len((await page.ask("rows", view=first["view"], at=0, count=10**9))["rows"]) == MAX_ROWS
        for _ in range(MAX_VIEWS):
            last = await page.ask("view")
        assert "closed" in (await page.ask("rows", view=first["view"], at=0, count=1))["error"]
        assert (await page.ask("rows", view=last["view"], at=0, count=1))["rows"]

    with_page(run, story)


def test_a_filter_and_its_mistakes(run: RunDirectory) -> None:
    """Expressions filter frames and events; a mistake is told with its place, under which stands a caret."""

    async def story(page: Page) -> None:
        page.live.take([*transfer(10), event(1020 * MS, "retransmit", why="rto", offset=0, length=5)])
        expected = {"tcp.len > 0": 10, "tcp.flags.syn": 2, "event retransmit": 1, "tcp.dstport == 80": 12}
        for text, count in expected.items():
            view = await page.ask("view", filter=text)
            rows = (await page.ask("rows", view=view["view"], at=0, count=100))["rows"]
            assert view["count"] == len(rows) == count, text
        wrong = await page.ask("view", filter="tcp.len > 0 and tcp.flags.sin")
        assert wrong["where"] == 16 and wrong["error"].splitlines()[-1].strip() == "^" * 13

    with_page(run, story)


def test_a_packet_and_its_bytes(run: RunDirectory) -> None:
    """Fields by name, each with the bytes that say it."""

    async def story(page: Page) -> None:
        page.live.take(transfer(1))
        packet = await page.ask("packet", n=3)
        fields = {field["name"]: field for layer in packet["layers"] for field in layer["fields"]}
        assert fields["tcp.seq"]["text"] == "5000" and fields["tcp.seq"]["at"] == [4, 8]
        assert packet["bytes"][8:16] == f"{5000:08x}" and packet["length"] == 120
        assert fields["ip.src"]["text"] == "10.0.0.2" and fields["ip.src"]["at"] is None
        (tcp,) = [layer for layer in packet["layers"] if layer["title"].startswith("Transmission")]
        assert tcp["at"] == [0, 20]
        assert "not kept" in (await page.ask("packet", n=10**6))["error"]
        decision = event(1020 * MS, "drop", reason="tcp_checksum")
        decision[4][3] = 3 << 60 | 0x3FA21 << 40 | 77
        page.live.take([decision, event(1021 * MS, "rto")])
        end = page.live.packets.end
        assert (await page.ask("packet", n=end - 2))["frame_id"] == "tcp-3fa21-77", "the frame that a decision is about"
        assert (await page.ask("packet", n=end - 1))["frame_id"] == ""

    with_page(run, story)


def test_a_graph_is_sent_again_when_there_is_more(run: RunDirectory) -> None:
    """Once asked for, and then by itself, no more often than is useful; with its times from the source's origin."""

    async def story(page: Page) -> None:
        page.live.take(transfer(3))
        graph = await page.ask("graph", conn=NAME, way="out", width=500)
        assert len(graph["data"]) == 4 and graph["shift"] == 0
        page.live.take(transfer(4, start=1010 * MS)[3:])
        assert len((await page.pushed("graph"))["data"]) > 4
        unknown = await page.ask("graph", conn="10.9.9.9:1>10.9.9.8:2", way="out", width=9)
        assert "nothing was seen" in unknown["error"]
        states = await page.ask("states", conn=NAME)
        assert states["rows"] == [] and not states["told"]
        ladder = await page.ask("ladder", conn=NAME)
        assert (await page.ask("rows", view=ladder["view"], at=0, count=5))["rows"][0][1] == "seg"

    with_page(run, story)


def test_connections_that_were_seen(run: RunDirectory) -> None:
    """Found by any word of them, in order, counted."""

    async def story(page: Page) -> None:
        page.live.take(transfer(3))
        found = await page.ask("connections", search="4711", sort="local")
        assert [row["name"] for row in found["rows"]] == [NAME] and found["all"] == 1
        assert (await page.ask("connections", search="4711 nowhere"))["found"] == 0

    with_page(run, story)


def test_whatever_a_page_sends_is_answered(run: RunDirectory) -> None:
    """Garbage, unknown commands, wrong types and numbers out of bounds are refused in words; the session goes on."""

    async def story(page: Page) -> None:
        texts = ["", "[]", "{", '"x"', "null", '{"do": 1}', "[" * 5000, "x" * 100_000, '{"do": "no such", "id": 3}']
        for text in [*texts, '{"do": "seek", "view": 1, "time": 1e400}']:
            assert "error" in await page.send(text), text[:50]
        view = (await page.ask("view"))["view"]
        wrong: list[tuple[str, dict[str, Any]]] = [
            ("rows", {}), ("rows", {"view": "x", "at": 0, "count": 1}), ("rows", {"view": view, "at": -1, "count": 1}),
            ("rows", {"view": 10**6, "at": 0, "count": 1}),
            ("view", {"seams": ["nowhere"]}), ("view", {"source": "file9"}), ("packet", {"n": None}),
            ("seek", {"view": view, "time": "soon"}),
            ("graph", {"conn": NAME, "way": "up", "width": 1}), ("ladder", {"conn": NAME, "decisions": "few"}),
            ("settings", {"seams": ["x"], "events": True, "detail": "full", "listening": True}),
            ("settings", {"seams": [], "events": True, "detail": "some", "listening": True}),
            ("density", {"bins": []}), ("held.edit", {"frame": "t1", "changes": 5}), ("break.change", {}),
            ("held.change", {"what": "x", "frame": "t1"}), ("close_source", {"source": "live"}),
            ("fault.set", {"seam": "x", "words": "loss=1%"}),
        ]  # fmt: skip
        for do, args in wrong:
            assert "error" in await page.ask(do, **args), do
        assert (await page.ask("hello"))["stack"] == "t"

    with_page(run, story)


def test_a_stack_that_does_not_run_is_told(run: RunDirectory) -> None:
    """Commands that need it say so."""

    async def story(page: Page) -> None:
        for do, args in (("hold", {}), ("step", {}), ("break.add", {"expression": "tcp"}),
                         ("fault.set", {"seam": "link", "words": "loss=1%"})):  # fmt: skip
            assert "run" in (await page.ask(do, **args))["error"], do

    with_page(run, story)


def commanded(page: Page) -> list[int]:
    """The commands that were answered, of those numbered from 1001."""
    return [one["id"] for one in page.socket.gone if (one.get("id") or 0) > 1000]


def test_a_command_that_waits_keeps_nobody_from_scrolling(run: RunDirectory) -> None:
    """While the stack takes its time, rows come; the commands to it are answered in their order."""

    async def story(page: Page) -> None:
        page.live.take(transfer(10))
        go = threading.Event()
        page.live.layers.addons = lambda: [{"went": go.wait(60)}]  # type: ignore[method-assign]
        for number, do in ((1001, "addon.list"), (1002, "hold"), (1003, "addon.list")):
            await page.socket.coming.put(json.dumps({"id": number, "do": do}))
        view = await page.ask("view")
        assert len((await page.ask("rows", view=view["view"], at=0, count=5))["rows"]) == 5
        assert commanded(page) == []
        go.set()
        while len(commanded(page)) < 3:
            await asyncio.sleep(0.005)
        assert commanded(page) == [1001, 1002, 1003]

    with_page(run, story)


def test_more_commands_than_can_wait_are_refused(run: RunDirectory) -> None:
    """In words; those before them are carried out."""

    async def story(page: Page) -> None:
        go = threading.Event()
        page.live.layers.addons = lambda: [{"went": go.wait(60)}]  # type: ignore[method-assign]
        for number in range(1001, 1001 + MAX_ORDERED + 4):
            await page.socket.coming.put(json.dumps({"id": number, "do": "addon.list"}))
        while len(commanded(page)) < 3:
            await asyncio.sleep(0.005)
        refused = [one["error"] for one in page.socket.gone if "push" not in one]
        assert all("wait for the answers" in text for text in refused)
        go.set()
        while len(commanded(page)) < MAX_ORDERED + 4:
            await asyncio.sleep(0.005)
        answers = [one for one in page.socket.gone if "push" not in one]
        assert answers[-1]["ok"]["addons"] == [{"went": True}]

    with_page(run, story)


def test_a_fault_of_ours_ends_no_page(run: RunDirectory, caplog: pytest.LogCaptureFixture) -> None:
    """It is told and logged; what is asked next is carried out."""

    async def story(page: Page) -> None:
        def hold(where: str) -> dict[str, Any]:
            raise AssertionError(where)

        page.live.stopping.hold = hold  # type: ignore[method-assign]
        assert "fault of the web view's own" in (await page.ask("hold", where="ip"))["error"]
        page.live.layers.addons = lambda: [{"name": "one"}]  # type: ignore[method-assign]
        assert (await page.ask("addon.list"))["addons"] == [{"name": "one"}]

    with_page(run, story)
    assert "AssertionError: ip" in caplog.text


def test_what_was_asked_before_the_page_went_is_done(run: RunDirectory) -> None:
    """Who closes the page after "hold" has said so: each command is carried out, and nobody is answered."""
    done: list[str] = []

    async def story(page: Page) -> None:
        def hold(where: str) -> dict[str, Any]:
            time.sleep(0.1)
            done.append(where)
            return {}

        page.live.stopping.hold = hold  # type: ignore[method-assign]
        for where in ("ip", "tcp"):
            await page.socket.coming.put(json.dumps({"id": 1, "do": "hold", "where": where}))

    with_page(run, story)
    assert done == ["ip", "tcp"]


def test_a_page_that_comes_late_knows_what_crossed_the_seams(run: RunDirectory) -> None:
    """The rates of the last polls, the newest last; so many and no more."""

    async def story(page: Page) -> None:
        page.live.history.clear()
        page.live.history.extend({"time": n, "seams": {"link": {"up_bytes": n}}} for n in range(2 * HISTORY))
        history = (await page.ask("hello"))["history"]
        assert [one["time"] for one in history] == list(range(HISTORY, 2 * HISTORY))

    with_page(run, story)

"""What a page changes in a running stack beside stopping it: addons; and which sockets it is shown."""

from __future__ import annotations

from typing import Any

from levelip.frames.core import ControlError
from levelip.ipc.rundir import RunDirectory
from levelip.web.layers import Layers
from tests.unit.cli.cli_layer import FakeLayer
from tests.unit.web.test_web_session import Page, with_page
from tests.unit.web.webrecords import anew

UDP = {"sock": 5, "netid": "udp", "state": "UNCONN", "local": "0.0.0.0", "local_port": 5353, "remote": "0.0.0.0",
       "remote_port": 0, "recv_q": 700, "drops": 3, "groups": ["224.0.0.251"]}  # fmt: skip


def test_udp_sockets_stand_beside_tcps(run: RunDirectory) -> None:
    """Found by protocol, port and group, sorted with the others; filters know nothing of their figures."""
    layer = FakeLayer(run, "udp", {"ss": {"sockets": [UDP]}}).start()
    tcp = FakeLayer(run, "tcp", {"ss": {"sockets": [{
        "sock": 1, "state": "LISTEN", "local": "0.0.0.0", "local_port": 80, "remote": "0.0.0.0", "remote_port": 0,
    }]}}).start()  # fmt: skip
    layers = Layers(run)

    async def story(page: Page) -> None:
        page.live.sockets = rows
        for search, names in (
            ("udp", ["udp#5"]),
            ("5353", ["udp#5"]),
            ("224.0.0", ["udp#5"]),
            ("listen", [rows[0]["name"]]),
        ):
            found = await page.ask("connections", search=search, sort="recv_q", descending=True)
            assert [row["name"] for row in found["rows"]] == names
        for sort in ("drops", "received", "rtt", "state"):
            assert (await page.ask("connections", search="", sort=sort))["all"] == 2

    try:
        rows = layers.sockets()
        assert [row["proto"] for row in rows] == ["tcp", "udp"]
        assert (rows[1]["local"], rows[1]["remote"], rows[1]["recv_q"], rows[1]["drops"]) == ("*:5353", "*:*", 700, 3)
        assert list(layers.rows) == ["0.0.0.0:80>0.0.0.0:0"]
        with_page(run, story)
        layer.stop()
        assert [row["proto"] for row in anew(layers)] == ["tcp"], "udp is gone, tcp's are shown"
    finally:
        layers.close()
        layer.stop()
        tcp.stop()


def test_addons_come_and_go(run: RunDirectory) -> None:
    """Into every process where they have a hook, with options; mistakes in the layer's words; out by name."""
    loaded: list[dict[str, Any]] = []

    def load(args: dict[str, Any]) -> dict[str, Any]:
        if "bad" in args["path"]:
            raise ControlError("SyntaxError: <img src=x>")
        loaded.append({"addon": "one", "path": args["path"], "options": args["options"]})
        return {"loaded": True, "hooks": []}

    def unload(args: dict[str, Any]) -> dict[str, Any]:
        loaded.clear()
        return {"log": {args["addon"]: []}}

    answers = {"addon.load": load, "addon.unload": unload, "addon.list": lambda _: {"addons": list(loaded)}}
    tcp = FakeLayer(run, "tcp", answers).start()
    ip = FakeLayer(run, "ip", {"addon.load": {"loaded": False, "hooks": []}, "addon.list": {"addons": []}}).start()

    async def story(page: Page) -> None:
        assert (await page.ask("addon.load", path="/x/one.py", options="every=3 word=a=b"))["said"] == "loaded into tcp"
        assert loaded == [{"addon": "one", "path": "/x/one.py", "options": {"every": "3", "word": "a=b"}}]
        listed = await page.ask("addon.list")
        assert [(one["process"], one["addon"]) for one in listed["addons"]] == [("tcp", "one")] and listed["may_load"]
        for path, options, words in (
            ("", "", "which file"),
            ("/x/one.py", "x", "KEY=VALUE"),
            ("/bad.py", "", "SyntaxError"),
        ):
            assert words in (await page.ask("addon.load", path=path, options=options))["error"]
        assert "from tcp" in (await page.ask("addon.unload", name="one"))["said"]
        assert "no addon one" in (await page.ask("addon.unload", name="one"))["error"]
        page.desk.may_load = False
        assert "others can reach" in (await page.ask("addon.load", path="/x/one.py"))["error"]
        assert loaded == [] and not (await page.ask("addon.list"))["may_load"]

    try:
        with_page(run, story)
    finally:
        tcp.stop()
        ip.stop()


def test_without_a_stack_it_is_told(run: RunDirectory) -> None:
    """What would be changed in it, and what is missing."""

    async def nobody(page: Page) -> None:
        assert "not running" in (await page.ask("addon.load", path="/x/one.py"))["error"]
        line = {"where": "ip-tcp:up", "line": ". 1:2(1) ack 1 win 5"}
        assert "Name the connection" in (await page.ask("inject", **line))["error"]
        assert "run" in (await page.ask("inject", **line, conn="10.0.0.2:80>10.0.0.1:4711"))["error"]
        assert "what to inject" in (await page.ask("inject", where="ip-tcp:up"))["error"]

    with_page(run, nobody)

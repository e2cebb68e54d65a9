"""Addons, journeys and `why` with a stack that carries traffic: loaded live, reported when they fail, loaded again."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from levelip.ipc.control import ControlError
from tests.system import streams
from tests.system.harness import Stack
from tests.system.listening import Listening
from tests.system.namespace import Namespace
from tests.system.streams import KernelServer, digest, stream

pytestmark = pytest.mark.timeout(400)
LIMIT_S = 60.0
EXAMPLES = Path(__file__).parents[2] / "examples" / "addons"
HEAD = "from levelip import addon\n"
GOOD = "def frame(packet, context):\n    context.state.seen = getattr(context.state, 'seen', 0) + 1\n"
BAD = "def frame(packet, context):\n    if packet.get('tcp.len'):\n        raise RuntimeError('as planned')\n"


@pytest.fixture
def stack(shared_stack: Stack) -> Iterator[Stack]:
    """The module's stack; without addons after each test."""
    yield shared_stack
    for layer in shared_stack.layers:
        shared_stack.ask(layer, "addon.unload")


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def transfer(stack: Stack, host: Namespace, size: int = 300_000) -> int:
    """Our client downloads from the kernel; the server's port."""
    with KernelServer(host, stack.host, streams.sends(1, size)) as server:
        got = stack.submit(streams.app_download, stack.host, server.port)
        assert got.result(LIMIT_S) == digest(stream(1, size))
        return int(server.port)


def own(directory: Path, name: str, text: str) -> str:
    """A file that its owner alone may write."""
    path = directory / name
    new = directory / f"{name}.new"  # put in place whole: the stack looks at it at any time
    new.write_text(text)
    new.chmod(0o644)
    new.replace(path)
    return str(path)


def listed(stack: Stack) -> dict[str, dict[str, Any]]:
    return {row["addon"]: row for row in rows(stack.lvlip("addon", "list", "--json").stdout)}


def meanwhile(stack: Stack, host: Namespace, *argv: str) -> str:
    """What a command that listens for a while prints; transfers go on beside it."""
    over = threading.Event()

    def transfers() -> None:
        while not over.is_set():
            transfer(stack, host, 100_000)

    beside = threading.Thread(target=transfers, daemon=True)
    beside.start()
    try:
        return stack.lvlip(*argv, check=False, timeout=LIMIT_S).stdout
    finally:
        over.set()
        beside.join(LIMIT_S)


def test_an_addon_comes_fails_comes_back_and_goes(stack: Stack, host: Namespace, tmp_path: Path) -> None:
    """Loaded into link, it sees both ways; changed to raise, it is taken out with its traceback, and the stream arrives
    whole; changed again, it runs again with the state that it had."""
    path = own(tmp_path, "counts.py", GOOD)
    said = stack.lvlip("addon", "load", path).stdout
    assert said == "counts in link: frame, link\n"
    transfer(stack, host)
    before = listed(stack)["counts"]["hooks"][0]["calls"]
    assert before > 10

    own(tmp_path, "counts.py", BAD)
    stack.wait_until(lambda: listed(stack)["counts"]["loads"] > 1, "the changed file to be loaded")
    transfer(stack, host)
    row = listed(stack)["counts"]
    assert not row["running"]
    assert "RuntimeError: as planned" in row["error"]
    assert "line 3, in frame" in row["error"]
    text = stack.lvlip("addon", "list").stdout
    assert "was taken out" in text and "raise RuntimeError('as planned')" in text
    assert "as planned" in stack.log("link")

    own(tmp_path, "counts.py", GOOD + "    context.log(context.state.seen) if context.state.seen % 5 == 0 else None\n")
    stack.wait_until(lambda: listed(stack)["counts"]["running"], "the mended file to be loaded")
    transfer(stack, host)
    row = listed(stack)["counts"]
    assert any(line.isdigit() and int(line) > before for line in row["log"]), row["log"]

    own(tmp_path, "counts.py", "def frame(packet, context:\n")
    stack.wait_until(lambda: "SyntaxError" in listed(stack)["counts"]["error"], "the torn file to be told of")
    assert listed(stack)["counts"]["running"]
    assert stack.lvlip("addon", "unload", "counts").stdout == "counts unloaded from link\n"
    assert stack.lvlip("addon", "list").stdout == "no addons are loaded\n"


def test_what_cannot_be_an_addon_is_refused_with_the_reason(stack: Stack, tmp_path: Path) -> None:
    """A file that others may write, one without hooks, a wrong expression, none at all: one clear line each."""
    path = Path(own(tmp_path, "open.py", GOOD))
    path.chmod(0o666)
    cases: list[tuple[str, str]] = [
        (str(path), "others may write"),
        (own(tmp_path, "empty.py", "x = 1\n"), "has no hooks"),
        (own(tmp_path, "wrong.py", f"{HEAD}@addon.frame('tcp.sport == 1')\ndef f(p, c): ...\n"), "^"),
        (own(tmp_path, "seam.py", f"{HEAD}@addon.frame(seam='tcp-gateway')\ndef f(p, c): ...\n"), "lose nothing"),
        (str(tmp_path / "none.py"), "No such file"),
    ]  # fmt: skip
    for file, reason in cases:
        done = stack.lvlip("addon", "load", file, check=False)
        assert done.returncode == 1, file
        assert reason in done.stderr, done.stderr
    assert listed(stack) == {}


@pytest.mark.parametrize(
    ("name", "words", "check"),
    [
        ("drop_acks", ["every=2"], lambda stack: stack.counters("link").get("drop.addon_drop", 0) > 0),
        ("rewrite_mss", ["mss=700"], lambda stack: "1460 -> 700" in " ".join(listed(stack)["rewrite_mss"]["log"])),
        ("strip_options", ["options=wscale"], lambda stack: listed(stack)["strip_options"]["hooks"][0]["calls"]),
        ("nat", ["inside=10.0.0.2", "outside=10.0.0.77"], lambda stack: ":61000" in listed(stack)["nat"]["log"][0]),
        ("latency", ["every=2"], lambda stack: any("#" in line for line in listed(stack)["latency"]["log"])),
    ],
)  # fmt: skip
def test_the_examples_do_what_they_say(
    stack: Stack, host: Namespace, tmp_path: Path, name: str, words: list[str], check: Callable[[Stack], Any]
) -> None:
    """Each of examples/addons stands in the way of a stream of both directions, which arrives whole."""
    stack.lvlip("addon", "load", own(tmp_path, f"{name}.py", (EXAMPLES / f"{name}.py").read_text()), *words)
    size = 200_000
    with KernelServer(host, stack.host, lambda sock: streams.both_ways(sock, 1, size)) as server:
        ours = stack.submit(streams.app_both_ways, stack.host, server.port, 2, size)
        assert ours.result(LIMIT_S) == digest(stream(1, size))
    row = listed(stack)[name]
    assert row["running"], row["error"]
    assert check(stack), row


def test_a_layer_that_is_started_again_has_its_addons(stack: Stack, host: Namespace, tmp_path: Path) -> None:
    """Killed from outside, all are there again, and see frames; killed by what one of them did, that one is out."""
    stack.lvlip("addon", "load", own(tmp_path, "counts.py", GOOD), "key=value")
    dies = HEAD + "import os\n@addon.frame('icmp')\ndef hook(packet, context):\n    os.kill(os.getpid(), 9)\n"
    stack.lvlip("addon", "load", own(tmp_path, "dies.py", dies))
    stack.restart("link")
    after = listed(stack)
    assert [(name, row["running"]) for name, row in after.items()] == [("counts", True), ("dies", True)]
    assert after["counts"]["options"] == {"key": "value"}
    transfer(stack, host)
    assert listed(stack)["counts"]["hooks"][0]["calls"] > 10

    pid = stack.pid("link")
    with contextlib.suppress(ControlError):
        stack.ask("ip", "ping", dst=stack.host, timeout_ms=200)
    stack.wait_until(lambda: stack.run_directory.holder("link") != pid, "the addon to kill link")
    stack._forget("link")
    stack._processes["link"].wait(60)
    stack.start_layer("link")
    stack.wait_ready("link")
    rows_ = listed(stack)
    assert [(name, row["running"]) for name, row in rows_.items()] == [("counts", True), ("dies", False)]
    assert "link ended while code of it ran" in rows_["dies"]["error"]
    assert "rtt_ns" in stack.ask("ip", "ping", dst=stack.host, timeout_ms=25_000)


def test_journeys_paths_and_why_of_a_live_stack(stack: Stack, host: Namespace, tmp_path: Path) -> None:
    """A data segment's journey passes link, ip, tcp and gateway to the client, with times; paths counts it; why tells
    of what an addon did, live and of what the flight recorders hold, and that it did no harm."""
    text = meanwhile(stack, host, "trace", "--journey", "--json", "--count", "150", "--proto", "tcp")
    found = rows(text)
    assert len(found) == 150
    up = next(one for one in found if one["path"] == "link ↑ ip ↑ tcp ↑ gateway ↑ client")
    assert all(0 <= hop["stay_ns"] < 10**10 for hop in up["hops"][:4])
    assert [pipe["seam"] for pipe in up["pipes"]] == ["link-ip", "ip-tcp", "tcp-gateway", "gateway-client"]
    assert all(pipe["ns"] > 0 for pipe in up["pipes"][:3])
    assert any(one["path"] == "client ↓ gateway ↓ tcp ↓ ip ↓ link" for one in found), {one["path"] for one in found}
    assert any(one["led_to"] for one in found)
    decided = [line for one in found for hop in one["hops"] for line in hop["decisions"]]
    assert any("RTT" in line or "ESTABLISHED" in line for line in decided), decided

    groups = rows(meanwhile(stack, host, "paths", "--json", "--seconds", "6", "--proto", "tcp"))
    way = "link ↑ ip ↑ tcp ↑ gateway ↑ client"
    data = next(group for group in groups if group["what"] == "TCP data" and group["path"] == way)
    assert data["count"] > 1
    assert 0 < data["p50_ns"] <= data["p99_ns"]
    assert {"link", "ip", "tcp", "gateway", "link-ip", "ip-tcp", "tcp-gateway"} <= set(data["parts"])

    stack.lvlip("addon", "load", own(tmp_path, "mss.py", (EXAMPLES / "rewrite_mss.py").read_text()), "mss=536")
    with KernelServer(host, stack.host, streams.sends(1, 100_000)) as server:
        listening = Listening(stack, "why", str(server.port), "--json")
        got = stack.submit(streams.app_download, stack.host, server.port)
        assert got.result(LIMIT_S) == digest(stream(1, 100_000))
        (story,) = rows(listening.stop(status=(0,)))
    assert not story["findings"], story  # it did no harm: what an addon did is told, and is a fault only where it did
    assert any("Addons had a hand in it" in line and "mss changed" in line for line in story["story"]), story
    after = stack.lvlip("why", str(server.port), "--flight", "--json", timeout=LIMIT_S)
    (story,) = rows(after.stdout)
    assert not story["findings"], story
    assert any("FIN_WAIT" in line or "CLOSE_WAIT" in line for line in story["story"]), "decisions were made again"
    assert any("Addons had a hand in it" in line and "mss changed 1" in line for line in story["story"]), story

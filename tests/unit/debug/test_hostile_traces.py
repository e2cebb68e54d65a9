"""A file that is almost what `lvlip trace --json` writes: an error that names the line, or a story; never a crash."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from levelip.debug.collection import Collection
from levelip.debug.filtering import RecordFilter
from levelip.debug.journeys import journey_lines, journeys, paths
from levelip.debug.traces import TraceError, read_trace
from levelip.debug.why import connection_story, story_lines
from levelip.tracing.capturefile import CaptureError
from levelip.tracing.flowfile import open_flows
from levelip.tracing.tracefile import read_line
from tests.unit.debug.test_journeys import write
from tests.unit.debug.test_journeys_of_datagrams import Watched
from tests.unit.debug.test_own_faults import Faulty

VALUES: list[Any] = [
    None, 0, -1, 1 << 40, 1 << 70, "", "x", [], {}, True, 1.5, "ff", "zz", [1], {"a": 1}, "10.0.0.1", "ééé", "000000",
    [[1]], [None], "link", "tcp-00001-1",
]  # fmt: skip


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of a lossy connection, and of a datagram."""
    faulty, watched = Faulty(), Watched()
    faulty.a.fault("link", "down", loss=0.05, seed=5)
    faulty.transfer(data=b"x" * 8000)
    watched.socket()
    watched.arrive(b"one")
    path = tmp_path_factory.mktemp("trace") / "t.jsonl"
    return write(path, [*faulty.a.records, *watched.records]).read_text().splitlines()


def changed(value: Any, rng: random.Random) -> Any:
    """Something within it is missing, or of another kind."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(list(value))
        if rng.random() < 0.15:
            return {key: one for key, one in value.items() if key != name}
        return {**value, name: changed(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], changed(value[place], rng), *value[place + 1 :]]
    return rng.choice(VALUES)


def tell_all(path: Path) -> None:
    """Whatever the tools make of a trace."""
    collection = Collection(read_trace(path))
    for talk in list(collection.conversations.values()):
        story_lines(connection_story(collection, talk))
    for one in journeys(read_trace(path)):
        journey_lines(collection, one)
    paths(journeys(read_trace(path)))
    wanted = RecordFilter("tcp.len > 0 or udp or event drop")
    for fact in collection.facts:
        wanted.frame(fact.record)


@pytest.mark.parametrize("seed", range(12))
def test_a_line_of_another_kind(lines: list[str], tmp_path: Path, seed: int) -> None:
    """Three lines of each file are changed somewhere."""
    rng = random.Random(seed)
    path = tmp_path / "t.jsonl"
    for _ in range(2):
        some = list(lines)
        for _ in range(3):
            place = rng.randrange(len(some))
            some[place] = json.dumps(changed(json.loads(lines[place]), rng))
        path.write_text("\n".join(some) + "\n")
        for read in (tell_all, open_flows):
            try:
                read(path)
            except (TraceError, CaptureError) as error:
                assert str(error)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"process": "nobody"}, "process"),
        ({"seam": "gateway-client", "process": "link"}, "link is at no seam gateway-client"),
        ({"mono_ns": 1 << 65}, "mono_ns"),
        ({"mono_ns": "1"}, "mono_ns"),
        ({"causes": ["tcp"]}, "'tcp' is no frame id"),
        ({"head": "f"}, "hexadecimal"),
        ({"length": 1}, "a length of 1 with a head of"),
        ({"length": -1}, "length"),
        ({"direction": "up"}, "direction"),
        ({"fields": {"src": "0a0000"}}, "no address"),
        ({"fields": {"src": 5}}, "src is bytes, not 5"),
        ({"fields": {"proto": "6"}}, "proto is a number, not '6'"),
    ],
)
def test_what_is_wrong_is_named(lines: list[str], change: dict[str, Any], said: str) -> None:
    line = next(json.loads(text) for text in lines if '"Packet"' in text)
    assert read_line(json.dumps(line).encode()).record is not None
    with pytest.raises(ValueError, match=said):
        read_line(json.dumps({**line, **change}).encode())
    with pytest.raises(ValueError, match="nested too deeply"):
        read_line(b'{"a":' * 100_000)

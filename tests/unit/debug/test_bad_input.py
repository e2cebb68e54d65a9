"""What `why`, `paths` and `trace --journey` are given that is none of theirs, and records that have gaps."""

from __future__ import annotations

from pathlib import Path

import pytest

from levelip.debug.collection import Collection
from levelip.debug.tap import Notice
from levelip.debug.traces import TraceError, read_trace
from levelip.debug.why import is_subject, matches, story_lines
from tests.unit.debug.test_own_faults import Faulty, story


@pytest.mark.parametrize("data", [b"\n\x93\xff junk", b"junk", b"\n\n{", b"\xff" * 100])
def test_junk_is_no_torn_trace(tmp_path: Path, data: bytes) -> None:
    """A last line that is none is torn only if there was a good one before; else the file is another one."""
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(TraceError, match="not a line of lvlip trace --json"):
        list(read_trace(path))


@pytest.mark.parametrize("start", ["0a0d0d0a", "d4c3b2a1", "a1b2c3d4", "4d3cb2a1"])
def test_a_capture_is_told_from_a_trace(tmp_path: Path, start: str) -> None:
    """pcapng, and pcap in either order: the message names the commands that read it."""
    path = tmp_path / "x.pcapng"
    path.write_bytes(bytes.fromhex(start) + bytes(60))
    with pytest.raises(
        TraceError, match=r"is a capture, no trace .*: lvlip why, paths, graph and qlog read those, .*read_capture"
    ):
        list(read_trace(path))


@pytest.mark.parametrize("text", ["link: no further: x.rec: damaged at byte 5", "ip: torn: at byte 7", "3 left out"])
def test_a_story_says_that_its_records_have_gaps(text: str) -> None:
    """Else "nothing is wrong" would be said of what a damaged recording does not hold."""
    faulty = Faulty()
    collection = faulty.transfer()
    assert "Beware" not in "\n".join(story_lines(story(collection)))
    gaps = Collection([Notice(0, text), *faulty.a.records])
    assert f"Beware: the records have gaps ({text})" in "\n".join(story_lines(story(gaps)))


@pytest.mark.parametrize(
    ("text", "so"),
    [
        ("80", True), ("10.0.0.1", True), ("10.0.0.1:80", True), ("10.0.0.2:80>10.0.0.1:4711", True),
        ("10.0.0.2:80 > 10.0.0.1:4711", True), ("tcp-3fa21-77", True), ("foo", False), ("x.pcapng", False), ("", False),
        (":80", True), ("::1", True), ("65536", False), ("10.0.0.300", False), ("10.0.0.1:80:90", False), (">", False),
        ("10.0.0.2:80>10.0.0.1", False), ("10.0.0.2:80>10.0.0.1:4711>10.0.0.3:7", False), (":", False), ("²", False),
    ],
)  # fmt: skip
def test_what_can_be_asked_about(text: str, so: bool) -> None:
    """Anything else would be listened for until Ctrl-C, in vain."""
    assert is_subject(text) is so


def test_a_port_may_have_a_colon_before_it() -> None:
    """As in ss."""
    name = "10.0.0.2:80>10.0.0.1:4711"
    assert matches(name, ":80") and matches(name, "4711") and not matches(name, ":471")

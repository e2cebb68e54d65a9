"""The bench believes a figure only if each layer counted the payload, and bytes only if they are the right ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.pattern import MAX_CHUNK, PERIOD, Pattern
from benchmarks.proof import NoProof, check, growth

SIZE = 100 << 20  # 104,857,600 bytes: 1,646 super-segments of 44 × 1,448 bytes
FRAMES = 1646
HEADERS = 52  # IP, TCP and timestamps


def received() -> dict[str, dict[str, int]]:
    """What the layers count for one received run."""
    packets = {"bytes": SIZE + FRAMES * HEADERS, "number": FRAMES}
    return {
        "link": {"rx_bytes": packets["bytes"], "rx_frames": packets["number"]},
        "ip": {"in.bytes": packets["bytes"], "in.packets": packets["number"]},
        "tcp": {"bytes_in": SIZE},
        "gateway": {"stream_bytes_in": SIZE},
    }


def sent() -> dict[str, dict[str, int]]:
    """What they count for one sent run: the payload follows a request of 16 bytes."""
    packets = {"bytes": SIZE + 16 + FRAMES * HEADERS, "number": FRAMES}
    return {
        "link": {"tx_bytes": packets["bytes"], "tx_frames": packets["number"]},
        "ip": {"out.bytes": packets["bytes"], "out.packets": packets["number"]},
        "tcp": {"bytes_out": SIZE + 16, "retransmissions": 0},
        "gateway": {"stream_bytes_out": SIZE + 16},
    }


def test_counters_that_add_up_are_believed() -> None:
    """Both directions; tcp and gateway vouch for the stream to the byte."""
    assert check("receive", SIZE, received())["tcp"] == SIZE
    assert check("send", SIZE, sent())["gateway"] == SIZE + 16


@pytest.mark.parametrize("layer", ["link", "ip", "tcp", "gateway"])
@pytest.mark.parametrize(("direction", "counters"), [("receive", received), ("send", sent)])
def test_a_layer_that_was_passed_by_is_found(
    layer: str, direction: str, counters: Callable[[], dict[str, dict[str, int]]]
) -> None:
    """Half of the bytes went elsewhere, or all of them."""
    for share in (0.5, 0.0):
        grown = counters()
        name = next(iter(grown[layer]))
        grown[layer][name] = int(grown[layer][name] * share)
        with pytest.raises(NoProof, match=layer):
            check(direction, SIZE, grown)


def test_one_byte_that_tcp_did_not_count_is_found() -> None:
    """Streams are counted exactly."""
    grown = received()
    grown["tcp"]["bytes_in"] -= 1
    with pytest.raises(NoProof, match="tcp"):
        check("receive", SIZE, grown)


def test_what_tcp_sent_again_is_allowed_for_as_far_as_it_says_so() -> None:
    """Bytes beyond the payload need as many retransmissions."""
    grown = sent()
    grown["tcp"]["bytes_out"] += 2896
    with pytest.raises(NoProof, match="tcp"):
        check("send", SIZE, grown)
    grown["tcp"]["retransmissions"] = 1
    check("send", SIZE, grown)


def test_a_counter_that_does_not_exist_proves_nothing() -> None:
    """A layer that never counted is named."""
    grown = received()
    del grown["gateway"]["stream_bytes_in"]
    with pytest.raises(NoProof, match="gateway has not counted stream_bytes_in"):
        check("receive", SIZE, grown)


def test_growth_is_what_came_since() -> None:
    """A counter that did not exist before started at 0."""
    before = {"tcp": {"bytes_in": 5}}
    after: dict[str, Any] = {"tcp": {"bytes_in": 7, "bytes_out": 3}, "ip": {"in.bytes": 4}}
    assert growth(before, after) == {"tcp": {"bytes_in": 2, "bytes_out": 3}, "ip": {"in.bytes": 4}}


def test_the_pattern_depends_on_seed_and_position() -> None:
    """A chunk is right at its own offset and nowhere that a stack's arithmetic could put it."""
    pattern = Pattern(1)
    chunk = memoryview(bytes(pattern.chunk(12_345, 65_536)))
    assert Pattern(1).matches(12_345, chunk)
    assert not Pattern(2).matches(12_345, chunk)
    for wrong in (1, 1448, 63_712, 65_536, 69_632, 4 << 20, 1 << 24):
        assert not pattern.matches(12_345 + wrong, chunk), wrong
    altered = bytearray(chunk)
    altered[-1] ^= 1
    assert not pattern.matches(12_345, memoryview(altered))


def test_the_pattern_wraps_around_without_a_seam() -> None:
    """A chunk across the end of the period is its end and its start."""
    pattern = Pattern(3)
    offset = PERIOD - 100
    chunk = pattern.chunk(offset, MAX_CHUNK)
    assert len(chunk) == MAX_CHUNK
    assert bytes(chunk[:100]) == bytes(pattern.chunk(offset, 100))
    assert bytes(chunk[100:200]) == bytes(pattern.chunk(0, 100))
    assert pattern.matches(offset, chunk)

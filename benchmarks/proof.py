"""That the bytes went the way they are said to have gone: every layer's counters must add up to the payload."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.peer import REQUEST

Counters = Mapping[str, Mapping[str, int]]

HEADERS = (40, 80)  # bytes of IP and TCP headers of one packet: without options, and with as many as TCP has room for
_SLACK = 1 << 20  # bytes of duplicates below tcp that prove nothing wrong
_LONGEST = 65_535  # bytes: what one retransmission repeats at most

# layer → (counter of bytes, counter of packets that it counts the headers of)
RECEIVE = {"link": ("rx_bytes", "rx_frames"), "ip": ("in.bytes", "in.packets")}
SEND = {"link": ("tx_bytes", "tx_frames"), "ip": ("out.bytes", "out.packets")}
# layer → counter of the stream's bytes
STREAM = {
    "receive": {"tcp": "bytes_in", "gateway": "stream_bytes_in"},
    "send": {"tcp": "bytes_out", "gateway": "stream_bytes_out"},
}


class NoProof(AssertionError):
    """The counters do not add up."""


def growth(before: Counters, after: Counters) -> dict[str, dict[str, int]]:
    """What each counter has grown by."""
    return {
        layer: {name: value - before.get(layer, {}).get(name, 0) for name, value in counters.items()}
        for layer, counters in after.items()
    }


def check(direction: str, size: int, grown: Counters, runs: int = 1) -> dict[str, int]:
    """Payload bytes that each layer's counters vouch for, over `runs` bulk runs of `size` bytes in all. Raises NoProof.

    gateway and tcp count the stream to the byte: the payload and the request before each run; what tcp sent again is
    allowed for. link and ip count packets whole, so each must hold the payload and between the least and the most
    headers that its packets can have.
    """
    if direction == "send":
        size += REQUEST.size * runs
    vouched = {}
    for layer, name in STREAM[direction].items():
        count = _counter(grown, layer, name)
        again = grown[layer].get("retransmissions", 0) * _LONGEST if direction == "send" else 0
        if not size <= count <= size + again:
            raise NoProof(f"{direction}: {layer} {name} grew by {count:,}, the payload is {size:,}")
        vouched[layer] = count
    for layer, (name, packets) in (RECEIVE if direction == "receive" else SEND).items():
        count, number = _counter(grown, layer, name), _counter(grown, layer, packets)
        least, most = HEADERS
        if count - number * least < size - _SLACK or count - number * most > size + max(_SLACK, size // 50):
            raise NoProof(
                f"{direction}: {layer} {name} grew by {count:,} in {number:,} packets, the payload is {size:,}"
            )
        vouched[layer] = count - number * least
    return vouched


def _counter(grown: Counters, layer: str, name: str) -> int:
    try:
        return grown[layer][name]
    except KeyError:
        raise NoProof(f"{layer} has not counted {name}") from None

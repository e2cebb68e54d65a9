"""The envelope: what goes in comes out, wherever its payload lies; anything else is refused with a reason."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.frames.packet import Checksum, IpToTransport, Segment
from levelip.rpc.codec import MAX_PARTS, Codec, RefusedMessage
from levelip.rpc.messages import Pending, Reply, ToClient, ToGateway
from levelip.rpc.place import INLINE_LIMIT, PART, Place
from levelip.rpc.stream import Accepted, Data, Eof, Reset, Send
from levelip.tracing.reasons import lookup

offsets = st.integers(0, 1 << 62)
socks = st.integers(0, (1 << 63) - 1)
payloads = st.one_of(st.binary(max_size=64), st.binary(min_size=INLINE_LIMIT - 1, max_size=INLINE_LIMIT + 2))
messages = st.one_of(
    st.builds(Accepted, socks, offsets, offsets),
    st.builds(Data, socks, offsets, payloads),
    st.builds(Eof, socks, offsets),
    st.builds(Reset, socks, st.integers(0, 4095)),
    st.builds(Pending, socks, st.integers(0, 5000)),
    st.builds(Reply, st.integers(0, 1 << 40), st.integers(0, 4095), st.dictionaries(st.text(), st.integers(0, 9))),
)


@given(sent=st.lists(messages, max_size=20), epoch=st.integers(1, 1 << 62), to_epoch=st.integers(0, 1 << 62))
def test_a_batch_comes_out_as_it_went_in(sent: list[ToClient], epoch: int, to_epoch: int) -> None:
    """Order, fields and payloads, inline or in parts of their own, survive; the sender's list is not changed."""
    codec: Codec[ToClient] = Codec(ToClient)
    before = [msgspec.msgpack.encode(message) for message in sent]
    parts = codec.encode(sent, epoch, to_epoch)
    assert [msgspec.msgpack.encode(message) for message in sent] == before
    assert codec.decode(parts) == (epoch, to_epoch, sent)
    long = sum(1 for message in sent if isinstance(message, Data) and len(message.payload) > INLINE_LIMIT)
    assert len(parts) == 1 + long


@given(parts=st.lists(st.binary(max_size=80), max_size=4))
def test_arbitrary_parts_are_refused_and_never_raise_anything_else(parts: list[bytes]) -> None:
    """Every refusal's reason is a row of the one list."""
    with pytest.raises(RefusedMessage) as refusal:
        Codec(ToGateway).decode(parts)
    assert lookup(refusal.value.reason) is not None


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 40), 1 << 63) | st.binary(max_size=9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=20,
)


@given(items=st.lists(st.tuples(st.integers(0, 100), st.lists(json_like, max_size=6)), max_size=3))
def test_msgpack_of_the_wrong_shape_is_refused_or_is_a_message(items: list[tuple[int, list[object]]]) -> None:
    """Any kind number with any fields: a valid message or RefusedMessage, nothing else."""
    body = msgspec.msgpack.encode([1, 5, 0, [[kind, *fields] for kind, fields in items]])
    for kinds in (ToGateway, ToClient, IpToTransport):
        try:
            Codec(kinds).decode([body])
        except RefusedMessage as refusal:
            assert lookup(refusal.reason) is not None


def test_a_version_of_the_future_is_refused_by_its_number() -> None:
    """Messages of a version that we do not know are not even looked into."""
    with pytest.raises(RefusedMessage, match="unknown_version: 2"):
        Codec(ToGateway).decode([msgspec.msgpack.encode([2, 1, 0, "whatever comes then"])])


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (Place(PART, 1, 5000, 0, 5000), "bad_part"),
        (Place(PART, 0, 5, 0, 5), "bad_part"),
        (Place("x", 0, 0, 0, 0), "bad_place"),
        (Place("x", 0, 10, 0, 11), "bad_place"),
        (Place("x", -1, 10, 0, 5), "bad_place"),
        (Place("x", 0, 10, -1, 5), "bad_place"),
        (Place("x", 0, 10, 0, -5), "bad_place"),
        (Place("x", 0, (1 << 64) - 1, 0, (1 << 64) - 1), "bad_place"),
        (Place("x", (1 << 62) - 9, 10, 0, 5), "bad_place"),
        (Place("x", (1 << 64) - 1, 10, 0, 5), "bad_place"),
        (Place("x", 0, 10, (1 << 62) + 1, 5), "bad_place"),
        (Place("x", 0, 10, 0, 5, -1), "bad_place"),
        (Place("x", 0, 10, 0, 5, 1 << 32), "bad_place"),
    ],
)
def test_a_payload_that_lies_nowhere_is_refused(place: Place, reason: str) -> None:
    """A part that is not there, or a place that no ring can have."""
    body = msgspec.msgpack.encode((1, 1, 0, [Data(1, 0, place)]))
    with pytest.raises(RefusedMessage) as refusal:
        Codec(ToClient).decode([body])
    assert refusal.value.reason == reason


def test_the_last_place_that_there_can_be() -> None:
    """The bounds are those of files and of stream offsets: what lies just within is no fault."""
    place = Place("x", (1 << 62) - 10, 10, 1 << 62, 10, (1 << 32) - 1)
    body = msgspec.msgpack.encode((1, 1, 0, [Data(1, 0, place)]))
    assert Codec(ToClient).decode([body])[2] == [Data(1, 0, place)]


def test_who_shares_no_memory_names_none() -> None:
    """Another host's process, or a client, could name any file here: other clients' bytes. Parts are its own."""
    apart: Codec[ToClient] = Codec(ToClient, share=False)
    body = msgspec.msgpack.encode((1, 1, 0, [Data(1, 0, Place("0" * 32, 0, 10, 0, 10))]))
    with pytest.raises(RefusedMessage) as refusal:
        apart.decode([body])
    assert refusal.value.reason == "bad_place"
    whole = Data(1, 0, bytes(range(256)) * 20)
    assert apart.decode(apart.encode([whole], 1)) == (1, 0, [whole])


def test_too_many_parts_are_refused() -> None:
    """A message of endless parts costs no decoding."""
    with pytest.raises(RefusedMessage, match="bad_parts"):
        Codec(ToGateway).decode([b""] * (MAX_PARTS + 1))


def segment(payload: bytes | Place) -> Segment:
    return Segment(1, [2], False, 3, 1, b"\x0a\0\0\1", b"\x0a\0\0\2", 6, 64, 0, b"h", payload, Checksum.PARTIAL, 0)


def test_a_short_place_travels_as_its_bytes_and_a_long_one_stays_where_it_lies() -> None:
    """Below the limit copying is cheaper than sharing; between hosts everything is copied."""
    memory = bytes(range(256)) * 40

    def read(place: Place) -> bytes:
        return memory[place.start : place.start + place.length]

    short, long = Place("ring", 0, 10240, 5, 2000), Place("ring", 0, 10240, 7, 3000)
    here: Codec[Segment] = Codec(IpToTransport, read=read)
    _, _, (one, other) = here.decode(here.encode([segment(short), segment(long)], 1))
    assert one.payload == memory[5:2005]
    assert other.payload == long
    away: Codec[Segment] = Codec(IpToTransport, read=read, share=False)
    _, _, (one, other) = away.decode(away.encode([segment(short), segment(long)], 1))
    assert (one.payload, other.payload) == (memory[5:2005], memory[7:3007])


def test_a_codec_without_memory_cannot_send_a_place() -> None:
    """That would be our own mistake, so it raises."""
    with pytest.raises(TypeError, match="without memory"):
        Codec(ToGateway).encode([Send(1, 0, 10, Place("ring", 0, 100, 0, 10))], 1)

"""Options of the IPv4 header as hosts fill them in and judge them (RFC 791 3.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.wire.ipoptions import MAX_OPTIONS, bad_byte, echoed, to_send, visited
from levelip.wire.ipv4 import iter_options

OWN = b"\x0a\0\0\2"
PLACES = st.integers(1, 9)
ROUTES = st.builds(
    lambda n, full: bytes((7, 3 + 4 * n, 4 + 4 * min(full, n))) + bytes(4 * n), PLACES, st.integers(0, 9)
)
STAMPS = st.builds(
    lambda n, flag: bytes((68, 4 + 8 * n, 5, flag)) + (OWN + bytes(4)) * n,
    st.integers(1, 4),
    st.sampled_from([0, 1, 3]),
)
OPTIONS = st.lists(st.one_of(ROUTES, STAMPS, st.sampled_from([b"\1", bytes.fromhex("94040000")])), max_size=3).map(
    b"".join
)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("070b040000000000000000", "070b080a000002000000000" + "0" * 1),  # its first place
        ("070b080101010100000000", "070b0c010101010a00000200"),  # the next one
        ("070b0c0101010102020202", "070b0c010101010202020200"),  # full: as it was
        ("440c0500" + "00" * 8, "440c0900" + "80000001" + "00" * 4),  # times alone
        ("440c0501" + "00" * 8, "440c0d01" + "0a00000280000001"),  # address and time
        ("440c05030a000002" + "00" * 4, "440c0d030a00000280000001"),  # asked of us
        ("440c05030a000009" + "00" * 4, "440c05030a000009" + "00" * 4),  # asked of another
        ("440c0d01" + "11" * 8, "440c0d11" + "11" * 8),  # no room: counted
        ("440c0df1" + "11" * 8, "440c0df1" + "11" * 8),  # counted to the end
        ("01940400000000", "0194040000000000"),  # others stay
    ],
)
def test_a_host_on_the_way(before: str, after: str) -> None:
    """It puts itself where the pointer says, and moves that (RFC 791 3.1)."""
    assert visited(bytes.fromhex(before), OWN, 0x80000001).hex() == after


@given(OPTIONS)
def test_they_stay_well_formed(options: bytes) -> None:
    """Whatever was filled in: whole words, the same options, none malformed, and what goes back is among them."""
    after = visited(options, OWN, 1)
    assert len(after) == (len(options) + 3) // 4 * 4
    kinds = [one.kind for one in iter_options(options)]
    assert [one.kind for one in iter_options(after)][: len(kinds)] == kinds
    assert all(bad_byte(one.kind, one.data) is None for one in iter_options(after))
    back = [one for one in iter_options(echoed(after)) if one.kind > 1]
    assert back == [one for one in iter_options(after) if one.kind in (7, 68)]


@given(OPTIONS)
def test_what_is_sent_can_be_filled_in(options: bytes) -> None:
    """What a socket keeps is what it was given, the place of our own entry empty; once more changes nothing."""
    kept = to_send(options, privileged=False)
    twice = any(sum(one.kind == kind for one in iter_options(options)) > 1 for kind in (7, 68))
    if len(options) > MAX_OPTIONS or twice:
        assert kept is None
        return
    assert kept is not None and to_send(kept, privileged=False) == kept
    assert visited(kept, OWN, 1) == visited(options, OWN, 1)


@given(st.binary(max_size=44), st.booleans())
def test_any_bytes(data: bytes, privileged: bool) -> None:
    """Are refused, or well formed."""
    kept = to_send(data, privileged=privileged)
    if kept is not None:
        assert len(kept) % 4 == 0 and all(bad_byte(one.kind, one.data) is None for one in iter_options(kept))


@pytest.mark.parametrize("kind", [131, 137])
def test_source_routes_are_not_sent(kind: int) -> None:
    """Nor by root: RFC 7126 4.3, 4.4."""
    assert to_send(bytes((kind, 7, 4, 10, 0, 0, 1)), privileged=True) is None

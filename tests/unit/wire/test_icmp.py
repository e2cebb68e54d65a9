"""levelip.wire.icmp"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.wire import icmp
from levelip.wire.icmp import IcmpMessage, icmp_name

from .strategies import assert_truncations, naive_checksum, only_malformed, u8, u16

messages = st.builds(
    IcmpMessage,
    type=u8,
    code=u8,
    rest=st.binary(min_size=4, max_size=4),
    payload=st.binary(max_size=64),
    checksum=u16,
)


@given(messages)
def test_round_trip(message: IcmpMessage) -> None:
    """parse(serialize(x)) == x, whatever type and code; every message has a text."""
    data = message.serialize()
    assert IcmpMessage.parse(data) == message
    assert IcmpMessage.parse(memoryview(b"ip" + data), 2) == message
    assert str(message).endswith(f"length {len(data)}")


@given(messages)
def test_truncation(message: IcmpMessage) -> None:
    """A message without its 8 bytes is Malformed."""
    assert_truncations(IcmpMessage.parse, message.serialize()[:8])


@given(st.binary(max_size=40))
def test_garbage(data: bytes) -> None:
    """Any bytes give a message that serializes to them, or Malformed."""
    message = only_malformed(IcmpMessage.parse, data)
    if message is not None:
        assert message.serialize() == data


@pytest.mark.rfc("RFC 792 formats", "RFC 792 2-1")
@given(messages)
def test_checksum(message: IcmpMessage) -> None:
    """RFC 792: the checksum covers header and payload; it is filled in on request and can be asked about."""
    data = message.serialize(fill_checksum=True)
    assert data[2:4] == naive_checksum(data[:2] + b"\0\0" + data[4:]).to_bytes(2, "big")
    assert IcmpMessage.parse(data).checksum_ok
    wrong = bytes((data[0] ^ 1,)) + data[1:]
    assert not IcmpMessage.parse(wrong).checksum_ok


@pytest.mark.rfc("RFC 792 formats", "RFC 1122 3.2.2.6", "RFC 792 6-1")
def test_echo() -> None:
    """RFC 792: an echo request's bytes; the reply returns ident, sequence and data (RFC 1122 3.2.2.6)."""
    request = IcmpMessage.echo_request(ident=0x1234, sequence=7, payload=b"abcd")
    # 0800 + 1234 + 0007 + 6162 + 6364 = deff + ... worked out: 0800+1234=1a34, +0007=1a3b, +6162=7b9d, +6364=df01
    assert request.serialize(fill_checksum=True).hex() == "080020fe1234000761626364"
    assert (request.ident, request.sequence) == (0x1234, 7)
    reply = IcmpMessage.echo_reply(request)
    assert (reply.type, reply.code, reply.rest, reply.payload) == (0, 0, request.rest, b"abcd")
    assert str(request) == "ICMP echo request, id 4660, seq 7, length 12"
    assert not request.is_error and not reply.is_error


@pytest.mark.rfc("RFC 792 formats", "RFC 1191 4")
def test_errors_carry_the_datagram() -> None:
    """RFC 792, RFC 1191 4: each error has its four bytes and the head of the datagram it is about."""
    head = bytes(range(28))
    cases = [
        (IcmpMessage.dest_unreachable(icmp.PORT_UNREACH, head), 3, 3, "00000000", "port unreachable"),
        (
            IcmpMessage.dest_unreachable(icmp.FRAG_NEEDED, head, mtu=1400),
            3,
            4,
            "00000578",
            "fragmentation needed (mtu 1400)",
        ),
        (IcmpMessage.time_exceeded(icmp.EXC_TTL, head), 11, 0, "00000000", "time to live exceeded"),
        (IcmpMessage.parameter_problem(20, head), 12, 0, "14000000", "parameter problem at byte 20"),
        (
            IcmpMessage.redirect(icmp.REDIR_HOST, head, gateway=bytes((10, 0, 0, 9))),
            5,
            1,
            "0a000009",
            "redirect for host to 10.0.0.9",
        ),
    ]
    for message, type_, code, rest, text in cases:
        assert (message.type, message.code, message.rest.hex(), message.payload) == (type_, code, rest, head)
        assert message.is_error
        assert str(message) == f"ICMP {text}, length 36"
        assert IcmpMessage.parse(message.serialize()) == message
    assert cases[1][0].mtu == 1400
    assert cases[3][0].pointer == 20
    assert cases[4][0].gateway == bytes((10, 0, 0, 9))


@pytest.mark.rfc("RFC 792 formats", "RFC 1812 5.2.7.1")
@pytest.mark.parametrize(
    ("type_", "code", "name"),
    [
        (3, 1, "host unreachable"),
        (3, 77, "destination unreachable, code 77"),
        (11, 1, "fragment reassembly time exceeded"),
        (8, 0, "echo request"),
        (8, 3, "echo request, code 3"),
        (99, 0, "type 99, code 0"),
    ],
)
def test_names(type_: int, code: int, name: str) -> None:
    """Names of RFC 792 and RFC 1812, numbers for what we do not know."""
    assert icmp_name(type_, code) == name
    assert IcmpMessage(type_, code).name == name


@pytest.mark.parametrize("change", [{"type": 256}, {"code": -1}, {"rest": b"abc"}, {"checksum": 65536}])
def test_what_does_not_fit_is_refused(change: dict[str, object]) -> None:
    """A value too large for its field is our caller's mistake: ValueError."""
    with pytest.raises(ValueError):
        dataclasses.replace(IcmpMessage(8), **change).serialize()  # type: ignore[arg-type]

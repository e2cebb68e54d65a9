"""What programs hand to socket methods is read as the standard library reads it. Nothing here needs a stack."""

from __future__ import annotations

import errno
import socket as std
from typing import Any

import pytest

from levelip.client.arguments import address_of, c_int, option_value


class Index:
    """A number that is no int."""

    def __index__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        return other == 7

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("address", "packed"),
    [
        (("10.0.0.1", 80), (b"\x0a\0\0\x01", 80)),
        (("", 0), (b"\0\0\0\0", 0)),
        (("<broadcast>", 9), (b"\xff\xff\xff\xff", 9)),
        (("localhost", 65_535), (b"\x7f\0\0\x01", 65_535)),
        ((b"127.0.0.1", 1), (b"\x7f\0\0\x01", 1)),
        ((bytearray(b"127.0.0.1"), True), (b"\x7f\0\0\x01", 1)),
        (("127.1", 1), (b"\x7f\0\0\x01", 1)),
        (("0x7f.0.0.010", 1), (b"\x7f\0\0\x08", 1)),
    ],
)
def test_addresses(address: Any, packed: tuple[bytes, int]) -> None:
    """As the standard library reads them, without a lookup."""
    assert address_of(address) == packed


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("10.0.0.1", TypeError),
        (("10.0.0.1",), TypeError),
        (("10.0.0.1", "80"), TypeError),
        (("10.0.0.1", 65_536), OverflowError),
        (("10.0.0.1", -1), OverflowError),
        (("10.0.0.1", 80, 0), TypeError),
        (("10.0.0.1", 80.0), TypeError),
        ((None, 80), TypeError),
        (("10.0\0.1", 80), TypeError),
        (("\u00fc" * 80, 80), TypeError),
    ],
)
def test_wrong_addresses(address: Any, error: type[Exception]) -> None:
    """Raise what the standard library raises."""
    with pytest.raises(error):
        address_of(address)
    with std.socket() as sock, pytest.raises(error):
        sock.bind(address)


@pytest.mark.parametrize("name", ["127.0.0.1 x", "127.0.0.1\n", "1.2.3.256"])
def test_an_address_and_more_is_none(name: str) -> None:
    """inet_aton(3) would stop at the blank; the standard library takes it for a name, which nobody can have."""
    with pytest.raises(std.gaierror) as caught:
        address_of((name, 80))
    assert caught.value.errno == std.EAI_NONAME
    with std.socket() as sock, pytest.raises(std.gaierror):
        sock.bind((name, 0))


@pytest.mark.parametrize(
    "arguments",
    [
        (1,),
        (Index(),),
        (1 << 40,),
        (b"ab",),
        (bytearray(4),),
        (-1,),
        (1 << 31,),
        ("1",),
        (1.0,),
        (None,),
        (1, 4),
        (None, 0),
        (None, 4),
    ],
)
def test_values_of_options(arguments: tuple[Any, ...]) -> None:
    """What the standard library refuses is refused by the same exception; what it hands to the kernel is handed on."""
    with std.socket() as sock:
        try:
            sock.setsockopt(std.SOL_SOCKET, std.SO_KEEPALIVE, *arguments)
        except TypeError:
            expected: Any = TypeError
        except OSError as error:
            expected = error.errno
        else:
            expected = 0
    try:
        value = option_value(*arguments, *[None][: 2 - len(arguments)])
    except TypeError:
        assert expected is TypeError
    except OSError as error:
        assert expected == error.errno == errno.EFAULT
    else:
        assert expected in (0, errno.EINVAL)  # too short for an int, which the gateway says
        assert value in (arguments[0], b"")


@pytest.mark.parametrize(
    ("value", "error"), [(1 << 31, OverflowError), (-(1 << 31) - 1, OverflowError), (1.0, TypeError), ("1", TypeError)]
)
def test_ints_of_c(value: Any, error: type[Exception]) -> None:
    """Numbers that an int of C holds, and nothing else."""
    with pytest.raises(error):
        c_int(value)
    with std.socket() as sock, pytest.raises(error):
        sock.listen(value)
    assert [c_int(number) for number in (-(1 << 31), (1 << 31) - 1, True)] == [-(1 << 31), (1 << 31) - 1, 1]

"""levelip.wire.build"""

from __future__ import annotations

import copy
import dataclasses
import pickle
import timeit

import pytest

from levelip.wire.build import maker
from levelip.wire.ipv4 import Ipv4Header

ORDINARY = Ipv4Header(total_length=40, proto=6, src=b"\x0a\0\0\1", dst=b"\x0a\0\0\2")


def test_made_value_is_one_of_the_frozen_class() -> None:
    """What the fast maker gives cannot be told from what the class itself makes, and is as immutable."""
    ordinary = ORDINARY
    values = [getattr(ordinary, field.name) for field in dataclasses.fields(ordinary)]
    made = maker(Ipv4Header)(*values)
    assert type(made) is Ipv4Header
    assert made == ordinary
    assert hash(made) == hash(ordinary)
    assert repr(made) == repr(ordinary)
    assert dataclasses.replace(made, ttl=3).ttl == 3
    assert pickle.loads(pickle.dumps(made)) == copy.copy(made) == ordinary
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.ttl = 1  # type: ignore[misc]


def test_maker_is_worth_its_trick() -> None:
    """Making through it is faster than through the frozen class; else the trick should go."""
    fields = dataclasses.asdict(ORDINARY)
    values = list(fields.values())
    make = maker(Ipv4Header)
    slow = min(timeit.repeat(lambda: Ipv4Header(**fields), number=1000, repeat=5))
    fast = min(timeit.repeat(lambda: make(*values), number=1000, repeat=5))
    assert fast < slow

"""What the fuzzer found once, and what hypothesis thinks of: no bytes make a core raise, its state stays bounded."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.run import names, read
from tests.fuzz.targets import TARGETS


def test_every_target_has_a_corpus() -> None:
    """So that the runner knows it."""
    assert names() == sorted(TARGETS)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_corpus(name: str) -> None:
    """Every input of the corpus, those that once broke something among them."""
    corpus = read(name)
    assert corpus
    for data in corpus:
        TARGETS[name](data)


@pytest.mark.parametrize("name", sorted(TARGETS))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=400))
def test_any_bytes(name: str, data: bytes) -> None:
    """As operations of the world."""
    TARGETS[name](data)

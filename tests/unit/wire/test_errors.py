"""levelip.wire.errors"""

from __future__ import annotations

import pickle

from levelip.wire.errors import Malformed


def test_malformed_tells_what_why_and_where() -> None:
    """Malformed is a ValueError that names the format, a counter's slug and the byte."""
    malformed = Malformed("ipv4", "truncated", 7)
    assert isinstance(malformed, ValueError)
    assert (malformed.proto, malformed.reason, malformed.offset) == ("ipv4", "truncated", 7)
    assert str(malformed) == "ipv4: truncated at byte 7"


def test_malformed_survives_pickling() -> None:
    """A worker process (pytest-xdist, multiprocessing) can hand it on whole."""
    malformed = pickle.loads(pickle.dumps(Malformed("tcp", "options_truncated", 20)))
    assert (malformed.proto, malformed.reason, malformed.offset) == ("tcp", "options_truncated", 20)

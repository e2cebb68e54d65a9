"""Keep-alives: RFC 9293 3.8.4, with Linux's options."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from tcp_host import Host, connected, established

from levelip.frames.seam import SetOption
from levelip.rpc.stream import Reset

ISN = dict[str, Any]
QUICK = {"keepalive": 1, "keepidle_ms": 10_000, "keepintvl_ms": 1000, "keepcnt": 3}


@pytest.mark.rfc("RFC 9293 MUST-25")
def test_off_by_default() -> None:
    """MUST-24: three days of silence bring no segment."""
    c = established()
    c.advance(3 * 86_400_000)
    c.expect_nothing()
    assert c.state == "ESTABLISHED"


@pytest.mark.rfc("RFC 9293 MUST-28")
def test_two_hours_by_default(isn: ISN) -> None:
    """Nothing before, a probe then."""
    c = connected(connect={"keepalive": 1}, **isn)
    c.advance(7_199_999)
    c.expect_nothing()
    c.advance(2)
    c.expect("A", seq=0)


@pytest.mark.rfc("RFC 9293 MUST-26", "RFC 9293 MUST-27", "RFC 9293 SHLD-12", "RFC 9293 MAY-5")
def test_probe_after_idle(isn: ISN) -> None:
    """An empty segment just below SND.UNA after keepidle; the answer starts the idle time anew."""
    c = connected(connect=QUICK, **isn)
    c.advance(9_999)
    c.expect_nothing()
    c.advance(2)
    c.expect("A", seq=0, ack=1, len=0)
    c.inject("A", seq=1, ack=1)
    c.advance(9_990)
    c.expect_nothing()
    c.advance(20)
    c.expect("A", seq=0)


@pytest.mark.rfc("RFC 9293 MUST-29")
def test_unanswered_probes_end_it(isn: ISN) -> None:
    """keepcnt probes keepintvl apart, then RST and ETIMEDOUT. Linux tcp_keepalive_timer."""
    c = connected(connect=QUICK, **isn)
    c.advance(10_000 + 3 * 1000 + 1)
    for _ in range(3):
        c.expect("A", seq=0)
    c.expect("RA", seq=1)
    assert c.find_message(Reset).errno == errno.ETIMEDOUT
    assert c.row() is None


@pytest.mark.rfc("RFC 9293 MUST-26")
def test_traffic_keeps_it_quiet(isn: ISN) -> None:
    """No probe while segments come."""
    c = connected(connect=QUICK, **isn)
    for number in range(10):
        c.advance(5000)
        c.inject("PA", seq=1 + number, ack=1, data=b"x")
        c.advance(50)
        c.expect("A")
    c.expect_nothing()


def test_no_probe_while_text_is_under_way(isn: ISN) -> None:
    """Its own timer watches the peer then."""
    c = connected(connect={**QUICK, "keepidle_ms": 1000}, **isn)
    c.inject("A", seq=1, ack=1, win=0)
    c.write(b"stuck")
    c.advance(900)
    seen = len(c.segments)
    c.advance(200)
    assert len(c.segments) == seen


@pytest.mark.rfc("RFC 9293 MUST-24")
def test_switched_on_later() -> None:
    """SO_KEEPALIVE on an open connection, and off again."""
    c = established()
    c.call(SetOption(c.sock, "keepidle_ms", 1000))
    c.call(SetOption(c.sock, "keepalive", 1))
    c.advance(1001)
    c.expect("A", seq=0)
    c.inject("A", seq=1, ack=1)
    c.call(SetOption(c.sock, "keepalive", 0))
    c.advance(100_000)
    c.expect_nothing()


@pytest.mark.rfc("RFC 9293 3.8.4")
def test_children_inherit_it() -> None:
    """A listener's options are its children's."""
    c = Host()
    c.listen(options=QUICK)
    c.inject("S", seq=0)
    c.expect("SA")
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1)
    c.advance(10_001)
    c.expect("A", seq=0)


@pytest.mark.rfc("RFC 9293 3.8.4")
def test_a_probe_of_the_peer_is_answered(isn: ISN) -> None:
    """An empty segment below RCV.NXT, and one with an octet of garbage: an ACK each. RFC 9293 3.8.4."""
    c = established(**isn)
    c.inject("PA", seq=1, ack=1, data=b"x")
    c.quiet()
    c.inject("A", seq=1, ack=1)
    c.expect("A", seq=1, ack=2)
    c.inject("A", seq=1, ack=1, data=b"g")
    c.expect("A", seq=1, ack=2)

"""The states of a socket, which call is allowed in which, and how one leads to the next: as data.

    new ──bind──▶ bound ──listen──▶ listening
     │              │ ▲ shutdown(SHUT_RD)  │
     └───connect────┤ └────────────────────┘
                    ▼
               connecting ──▶ connected ──▶ closed          (EISCONN for ever, as on Linux; but where connect() had not
                    │                                        yet said that it was connected, it tells the end instead,
                    │                                        and the socket goes back to new or bound)
                    └──▶ failed ──▶ new or bound            (its error is still to be told by connect())

A connect() with no address (AF_UNSPEC) leads from everywhere to new or bound.

A state stands for the pair that Linux keeps: sock->state and sk->sk_state. `closed` is SS_CONNECTED with TCP_CLOSE,
`failed` is SS_CONNECTING with TCP_CLOSE. The errnos were compared with Linux 6.18 (test_gateway_linux.py).
"""

from __future__ import annotations

import errno
from enum import Enum
from typing import Final


class State(Enum):
    """Where a socket is in its life."""

    NEW = "new"
    BOUND = "bound"
    LISTENING = "listening"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    CLOSED = "closed"  # was connected: reset, or both directions ended and acknowledged
    FAILED = "failed"  # a non-blocking connect failed and connect() has not told so yet


class Input(Enum):
    """What moves a socket from state to state."""

    BOUND = "bound"
    LISTENING = "listening"
    CONNECT = "connect"
    CONNECTED = "connected"
    GONE = "gone"  # reset, or ended in both directions
    FAILED = "failed"  # connect failed; the application has yet to ask
    UNCONNECT = "unconnect"  # back to the start, the local port was given up
    UNCONNECT_BOUND = "unconnect, bound"  # back to the start, but the port that the application chose stays


class Impossible(Exception):
    """An input that the table does not have: our fault."""


_N, _B, _L = State.NEW, State.BOUND, State.LISTENING
_I, _C, _X, _F = State.CONNECTING, State.CONNECTED, State.CLOSED, State.FAILED

TRANSITIONS: Final[dict[tuple[State, Input], State]] = {
    (_N, Input.BOUND): _B,
    (_N, Input.LISTENING): _L,
    (_B, Input.LISTENING): _L,
    (_L, Input.LISTENING): _L,
    (_N, Input.CONNECT): _I,
    (_B, Input.CONNECT): _I,
    (_I, Input.CONNECTED): _C,
    (_I, Input.FAILED): _F,
    (_F, Input.BOUND): _F,
    (_I, Input.UNCONNECT): _N,
    (_I, Input.UNCONNECT_BOUND): _B,
    (_F, Input.UNCONNECT): _N,
    (_F, Input.UNCONNECT_BOUND): _B,
    (_L, Input.UNCONNECT): _N,
    (_L, Input.UNCONNECT_BOUND): _B,
    (_C, Input.GONE): _X,
    (_C, Input.UNCONNECT): _N,
    (_C, Input.UNCONNECT_BOUND): _B,
    (_X, Input.UNCONNECT): _N,
    (_X, Input.UNCONNECT_BOUND): _B,
}  # fmt: skip

EINVAL, ENOTCONN, EISCONN, EALREADY = errno.EINVAL, errno.ENOTCONN, errno.EISCONN, errno.EALREADY
_COLUMNS = (_N, _B, _L, _I, _C, _X, _F)
_ROWS: Final[dict[str, tuple[int, ...]]] = {
    # op:         new       bound     listening connecting connected closed   failed
    "bind":        (0,        EINVAL,   EINVAL,   EINVAL,   EINVAL,   EINVAL,   0),
    "listen":      (0,        0,        0,        EINVAL,   EINVAL,   EINVAL,   EINVAL),
    "accept":      (EINVAL,   EINVAL,   0,        EINVAL,   EINVAL,   EINVAL,   EINVAL),
    "connect":     (0,        0,        EISCONN,  EALREADY, EISCONN,  EISCONN,  0),
    "shutdown":    (ENOTCONN, ENOTCONN, 0,        0,        0,        ENOTCONN, ENOTCONN),
    "getsockname": (0,        0,        0,        0,        0,        0,        0),
    "getpeername": (ENOTCONN, ENOTCONN, ENOTCONN, ENOTCONN, 0,        ENOTCONN, ENOTCONN),
    "getsockopt":  (0,        0,        0,        0,        0,        0,        0),
    "setsockopt":  (0,        0,        0,        0,        0,        0,        0),
    "close":       (0,        0,        0,        0,        0,        0,        0),
}  # fmt: skip

VERDICTS: Final[dict[tuple[str, State], int]] = {
    (op, state): verdict for op, row in _ROWS.items() for state, verdict in zip(_COLUMNS, row, strict=True)
}


def follow(state: State, event: Input) -> State:
    """The next state; raises Impossible for what cannot happen."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise Impossible(f"{event.name} in state {state.name}") from None

"""The state machine of RFC 9293 3.3.2 as data: (state, input) → state; anything else is our own mistake and raises.

                             +---------+ ---------\\      active OPEN
                             |  CLOSED |            \\    -----------
                             +---------+<---------\\   \\   create TCB
                               |     ^              \\   \\  snd SYN
                  passive OPEN |     |   CLOSE        \\   \\
                               V     |                  \\   \\
                             +---------+            CLOSE |    \\
                             |  LISTEN |          ------- |     |
                             +---------+                  |     |
                  rcv SYN      |     |                    |     V
    +--------+  snd SYN,ACK   /       \\                    +--------+
    |        |<---------------         ------------------>|        |
    |  SYN   |                    rcv SYN                 |  SYN   |
    |  RCVD  |<-------------------------------------------|  SENT  |
    |        |                  snd SYN,ACK               |        |
    |        |------------------           ---------------|        |
    +--------+   rcv ACK of SYN  \\       /  rcv SYN,ACK   +--------+
       |                          V     V
       |  CLOSE                +---------+
       |                       |  ESTAB  |
       |               CLOSE   +---------+  rcv FIN
       V               -------  |       |   -------
    +---------+       snd FIN  /         \\  snd ACK      +---------+
    |  FIN    |<--------------             ------------->|  CLOSE  |
    | WAIT-1  |------------------                        |  WAIT   |
    +---------+  rcv FIN         \\                       +---------+
       | rcv ACK of FIN           V  snd ACK    CLOSE, snd FIN |
       V                       +---------+                     V
    +---------+                | CLOSING |               +---------+
    |FINWAIT-2|                +---------+               | LAST-ACK|
    +---------+       rcv ACK of FIN |      rcv ACK of FIN +---------+
       |  rcv FIN                    V                     V
       |  snd ACK              +---------+  2 MSL    +---------+
        ---------------------->|TIME WAIT|---------->| CLOSED  |
                               +---------+           +---------+
"""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """The eleven states, numbered as in Linux (include/net/tcp_states.h), so that TCP_INFO shows them as they are."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECEIVED = 3
    FIN_WAIT_1 = 4
    FIN_WAIT_2 = 5
    TIME_WAIT = 6
    CLOSED = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11


class Input(IntEnum):
    """What makes a connection change its state."""

    ACTIVE_OPEN = 1  # the application connects
    PASSIVE_OPEN = 2  # the application listens
    SYN = 3  # a SYN without ACK came
    SYN_ACK = 4  # a SYN that acknowledges ours
    SYN_ACKED = 5  # our SYN was acknowledged
    CLOSE = 6  # the application has closed its direction
    FIN = 7  # the peer has closed its direction, and all before it has come
    FIN_ACKED = 8  # our FIN was acknowledged
    TIMEOUT = 9  # 2 MSL, or the orphan's FIN-WAIT-2, is over
    ABORT = 10  # RST either way, or given up


class ImpossibleInput(RuntimeError):
    """An input that the state cannot get: our mistake, never the peer's."""


_S, _I = State, Input

TRANSITIONS: dict[tuple[State, Input], State] = {
    (_S.CLOSED, _I.ACTIVE_OPEN): _S.SYN_SENT,
    (_S.CLOSED, _I.PASSIVE_OPEN): _S.LISTEN,
    (_S.CLOSED, _I.SYN): _S.SYN_RECEIVED,  # a listener's child; the listener itself stays in LISTEN
    (_S.LISTEN, _I.CLOSE): _S.CLOSED,
    (_S.SYN_SENT, _I.SYN_ACK): _S.ESTABLISHED,
    (_S.SYN_SENT, _I.SYN): _S.SYN_RECEIVED,  # simultaneous open, RFC 9293 3.5
    (_S.SYN_SENT, _I.CLOSE): _S.CLOSED,
    (_S.SYN_RECEIVED, _I.SYN_ACKED): _S.ESTABLISHED,
    (_S.ESTABLISHED, _I.CLOSE): _S.FIN_WAIT_1,
    (_S.ESTABLISHED, _I.FIN): _S.CLOSE_WAIT,
    (_S.FIN_WAIT_1, _I.FIN_ACKED): _S.FIN_WAIT_2,
    (_S.FIN_WAIT_1, _I.FIN): _S.CLOSING,  # simultaneous close, RFC 9293 3.6
    (_S.FIN_WAIT_2, _I.FIN): _S.TIME_WAIT,
    (_S.FIN_WAIT_2, _I.TIMEOUT): _S.CLOSED,  # Linux tcp_fin_timeout; RFC 9293 3.10.4 allows it
    (_S.CLOSING, _I.FIN_ACKED): _S.TIME_WAIT,
    (_S.CLOSE_WAIT, _I.CLOSE): _S.LAST_ACK,
    (_S.LAST_ACK, _I.FIN_ACKED): _S.CLOSED,
    (_S.TIME_WAIT, _I.TIMEOUT): _S.CLOSED,
    **{
        (state, _I.ABORT): _S.CLOSED
        for state in (
            _S.SYN_SENT,
            _S.SYN_RECEIVED,
            _S.ESTABLISHED,
            _S.FIN_WAIT_1,
            _S.FIN_WAIT_2,
            _S.CLOSE_WAIT,
            _S.CLOSING,
            _S.LAST_ACK,
        )
    },
}

SYNCHRONIZED = frozenset(
    (
        _S.ESTABLISHED,
        _S.FIN_WAIT_1,
        _S.FIN_WAIT_2,
        _S.CLOSE_WAIT,
        _S.CLOSING,
        _S.LAST_ACK,
        _S.TIME_WAIT,
    )
)
"""States in which both sides know each other's sequence numbers (RFC 9293 3.5.1; SYN-RECEIVED is no member)."""

RECEIVING = frozenset((_S.ESTABLISHED, _S.FIN_WAIT_1, _S.FIN_WAIT_2))
"""States in which text is taken (RFC 9293 3.10.7.4, seventh step); in the others the peer has sent its FIN."""


def transition(state: State, event: Input) -> State:
    """The state after `event`; ImpossibleInput if the table has no such row."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ImpossibleInput(f"{event.name} in {state.name}") from None

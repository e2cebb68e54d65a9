"""What scripts for packetdrill may ask for and this stack leaves out on purpose: refused by name, before anything runs.

A script that needs one of these says nothing about the stack, so `lvlip script run` counts it apart from what is wrong
in a script and from what fails.
"""

from __future__ import annotations

from collections.abc import Iterator

from simulation.script.language import (
    Array,
    Assign,
    Code,
    Either,
    Event,
    Expression,
    Function,
    ScriptError,
    Struct,
    SystemCall,
    Word,
)

FAST_OPEN = "TCP Fast Open (RFC 7413)"
CONTROL = "control messages"
ZERO_COPY = "zero copy: a program's memory is never sent from"
STAMPS = "timestamps of packets and the socket's error queue"
PIPES = "pipes: they are the kernel's"
MPTCP = "Multipath TCP (RFC 8684)"
ACCECN = "Accurate ECN (RFC 9768)"
ENCAPSULATION = "packets within packets"
MEMORY = "the kernel's own account of a socket's memory"

NAMES = {
    "TCP_FASTOPEN": FAST_OPEN, "TCP_FASTOPEN_CONNECT": FAST_OPEN, "TCP_FASTOPEN_KEY": FAST_OPEN,
    "TCP_FASTOPEN_NO_COOKIE": FAST_OPEN, "MSG_FASTOPEN": FAST_OPEN,
    "TCP_INQ": CONTROL, "msg_control": CONTROL,
    "SO_ZEROCOPY": ZERO_COPY, "MSG_ZEROCOPY": ZERO_COPY, "TCP_ZEROCOPY_RECEIVE": ZERO_COPY,
    "SO_TIMESTAMPING": STAMPS, "MSG_ERRQUEUE": STAMPS, "SO_TXTIME": STAMPS,
    "TCP_MD5SIG": "signed segments (RFC 2385)", "TCP_MD5SIG_EXT": "signed segments (RFC 2385)",
    "TCP_AO_ADD_KEY": "signed segments (RFC 5925)",
    "SO_MAX_PACING_RATE": "pacing", "SO_MEMINFO": MEMORY,
    "AF_INET6": "IPv6", "PF_INET6": "IPv6", "IPPROTO_MPTCP": MPTCP, "IPPROTO_SCTP": "SCTP",
}  # fmt: skip
"""Constants and fields of system calls."""

CALLS = {
    "pipe": PIPES, "splice": PIPES, "tee": PIPES, "vmsplice": PIPES, "psp_rx_assoc": "PSP", "psp_tx_assoc": "PSP",
    "psp_key_rotate": "PSP",
}  # fmt: skip
OPTIONS = {"psp_udp_port": "PSP", "udp_encaps": ENCAPSULATION}

WORDS = {
    "mpcapable": MPTCP, "mpjoin": MPTCP,
    "mp_capable": MPTCP, "mp_join": MPTCP, "mp_join_syn": MPTCP, "mp_join_syn_ack": MPTCP, "mp_join_ack": MPTCP,
    "dss": MPTCP, "add_address": MPTCP, "mp_prio": MPTCP, "mp_fail": MPTCP, "mp_fastclose": MPTCP, "mp_reset": MPTCP,
    "mp_capable_no_cs": MPTCP, "add_addr": MPTCP,
    "remove_address": MPTCP, "rm_addr": MPTCP, "ECN": ACCECN, "exp": "experimental options (RFC 6994)",
    "sctp": "SCTP", "udplite": "UDP-Lite",
}  # fmt: skip
"""Words of packet lines where the grammar has none."""


class Refused(ScriptError):
    """The script needs what is left out on purpose."""


class Absent(ValueError):
    """A command or a sysctl does: what it is, for the error that names it."""


def located(error: ValueError, line: int, column: int) -> ScriptError:
    """What a command was refused for, with its place."""
    kind = Refused if isinstance(error, Absent) else ScriptError
    return kind(str(error), line, column)


def sentence(name: str, what: str) -> str:
    """ "MSG_EOR: record boundaries in a stream are not implemented"."""
    return f"{name}: not implemented, {what}"


def _names(expression: Expression) -> Iterator[str]:
    """Every word and field of an argument."""
    match expression:
        case Word(name):
            yield name
        case Array(items) | Struct(items) | Either(items):
            for item in items:
                yield from _names(item)
        case Assign(left, right):
            yield from _names(left)
            yield from _names(right)
        case Function(name, arguments):
            yield name
            for argument in arguments:
                yield from _names(argument)


def refuse(event: Event) -> None:
    """Raise Refused for a call or code that needs what there is not."""
    action = event.action
    if isinstance(action, SystemCall):
        if action.name in CALLS:
            raise Refused(sentence(action.name, CALLS[action.name]), event.line, event.column)
        for argument in action.arguments:
            for name in _names(argument):
                if name in NAMES:
                    raise Refused(sentence(name, NAMES[name]), event.line, event.column)
    elif isinstance(action, Code) and "SK_MEMINFO_" in action.text:
        raise Refused(sentence("SK_MEMINFO", MEMORY), event.line, event.column)

"""Names that scripts use in system calls and code, with Linux's numbers."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import termios
from functools import lru_cache

_PREFIXES = ("AF_", "PF_", "SOCK_", "SOL_", "SO_", "IPPROTO_", "TCP_", "IP_", "MSG_", "SHUT_")

# what Python's socket module does not name (include/uapi/linux)
_MORE = {
    "PF_INET": 2, "PF_INET6": 10, "SOL_IP": 0, "SOL_TCP": 6,
    "SIOCINQ": termios.FIONREAD, "FIONREAD": termios.FIONREAD, "SIOCOUTQ": termios.TIOCOUTQ,
    "TIOCOUTQ": termios.TIOCOUTQ, "SIOCOUTQNSD": 0x894B,
    "SO_SNDBUF": 7, "SO_RCVBUF": 8, "SO_ZEROCOPY": 60, "SO_TXTIME": 61,
    "IP_MTU_DISCOVER": 10, "IP_RECVERR": 11, "IP_MTU": 14, "IP_PMTUDISC_DONT": 0, "IP_PMTUDISC_WANT": 1,
    "IP_PMTUDISC_DO": 2, "IP_PMTUDISC_PROBE": 3, "IP_BIND_ADDRESS_NO_PORT": 24,
    "IP_LOCAL_PORT_RANGE": 51,
    "TCP_NODELAY": 1, "TCP_MAXSEG": 2, "TCP_CORK": 3, "TCP_KEEPIDLE": 4, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 6,
    "TCP_SYNCNT": 7, "TCP_LINGER2": 8, "TCP_DEFER_ACCEPT": 9, "TCP_WINDOW_CLAMP": 10, "TCP_INFO": 11,
    "TCP_QUICKACK": 12, "TCP_CONGESTION": 13, "TCP_MD5SIG": 14, "TCP_THIN_LINEAR_TIMEOUTS": 16, "TCP_THIN_DUPACK": 17,
    "TCP_USER_TIMEOUT": 18, "TCP_REPAIR": 19, "TCP_FASTOPEN": 23, "TCP_TIMESTAMP": 24, "TCP_NOTSENT_LOWAT": 25,
    "TCP_CC_INFO": 26, "TCP_SAVE_SYN": 27, "TCP_SAVED_SYN": 28, "TCP_FASTOPEN_CONNECT": 30, "TCP_ULP": 31,
    "TCP_INQ": 36, "TCP_TX_DELAY": 37,
    "MSG_EOR": 0x80, "MSG_MORE": 0x8000, "MSG_NOSIGNAL": 0x4000, "MSG_FASTOPEN": 0x2000_0000,
    "MSG_ZEROCOPY": 0x400_0000, "MSG_ERRQUEUE": 0x2000, "EPOLL_CTL_ADD": 1, "EPOLL_CTL_DEL": 2, "EPOLL_CTL_MOD": 3,
    "NULL": 0,
}  # fmt: skip

CODE = {
    "TCP_CA_Open": 0, "TCP_CA_Disorder": 1, "TCP_CA_CWR": 2, "TCP_CA_Recovery": 3, "TCP_CA_Loss": 4,
    "TCP_ESTABLISHED": 1, "TCP_SYN_SENT": 2, "TCP_SYN_RECV": 3, "TCP_FIN_WAIT1": 4, "TCP_FIN_WAIT2": 5,
    "TCP_TIME_WAIT": 6, "TCP_CLOSE": 7, "TCP_CLOSE_WAIT": 8, "TCP_LAST_ACK": 9, "TCP_LISTEN": 10, "TCP_CLOSING": 11,
    "TCPI_OPT_TIMESTAMPS": 1, "TCPI_OPT_SACK": 2, "TCPI_OPT_WSCALE": 4, "TCPI_OPT_ECN": 8, "TCPI_OPT_ECN_SEEN": 16,
    "TCPI_OPT_SYN_DATA": 32, "TCP_INFINITE_SSTHRESH": 0x7FFF_FFFF,
}  # fmt: skip
"""For %{ code }%: enum tcp_ca_state, the states, TCPI_OPT_* (include/uapi/linux/tcp.h)."""


@lru_cache(maxsize=1)
def symbols() -> dict[str, int]:
    """Every name that a system call's arguments may use."""
    found: dict[str, int] = {}
    for module, prefixes in ((socket, _PREFIXES), (select, ("POLL", "EPOLL")), (os, ("O_",)), (fcntl, ("F_",))):
        for name in dir(module):
            value = getattr(module, name)
            if name.startswith(prefixes) and isinstance(value, int):
                found[name] = int(value)
    return {**found, **{name: number for number, name in errno.errorcode.items()}, **_MORE}


def errno_number(name: str) -> int | None:
    """ENOENT → 2."""
    value = getattr(errno, name, None)
    return value if isinstance(value, int) else None


def errno_name(number: int) -> str:
    """2 → ENOENT."""
    return errno.errorcode.get(number, str(number))

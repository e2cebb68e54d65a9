"""How datagrams lie in the pair between a program's socket and its helper: one message each, a header first.

    program → helper   DOWN: flags (HAS_ADDRESS), address, port, tos, ttl (-1: the socket's)
    helper → program   UP: kind (DATAGRAM, ERROR), tos, ttl, port, address, local address, interface

ERROR has no payload and only says that there is one to be asked for (the call "error").
"""

from __future__ import annotations

import struct

DOWN = struct.Struct("=Bx4sHhh")
UP = struct.Struct("=BBBxH2x4s4sI")
HAS_ADDRESS = 1
DATAGRAM, ERROR = 1, 2
MAX_PAYLOAD = 65_507  # bytes of a UDP datagram over IPv4
MAX_ECHO = 65_515  # bytes of an ICMP message over IPv4
PAIR_BUFFER = 1 << 16  # SO_SNDBUF asked for at each end, of which the kernel makes twice: the longest datagram must fit

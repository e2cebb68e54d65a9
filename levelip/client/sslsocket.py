"""TLS over the stack's sockets: `context.sslsocket_class = SSLSocket`, then `context.wrap_socket(...)` as ever.

OpenSSL reads and writes the descriptor, which carries the stack's bytes; all else is the calls of our class. Under
patch() every context has it. asyncio needs none of this: it does TLS in memory.
"""

from __future__ import annotations

import ssl

from levelip.client.streamsocket import socket

__all__ = ["SSLSocket"]


class SSLSocket(ssl.SSLSocket, socket):  # type: ignore[misc] # typeshed: it has no recvmsg, sendmsg
    """The standard library's, on a socket of ours."""

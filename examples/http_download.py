"""Download a file over Level-IP: the standard library's HTTP client, on our sockets.

    python examples/http_download.py http://10.0.0.1:8000/file -o file

Only `Connection.connect` differs from what urllib does on the kernel's sockets.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from levelip.client import socket

CHUNK = 1 << 18
"""Bytes asked for at once; a read returns what has come."""
TIMEOUT_S = 30.0


class Connection(http.client.HTTPConnection):
    """An HTTP connection over the stack that LEVELIP_RUN and LEVELIP_NAME name."""

    def connect(self) -> None:
        """Open our socket instead of the kernel's."""
        self.sock = socket.create_connection((self.host, self.port), self.timeout)


class Handler(urllib.request.HTTPHandler):
    """urllib's handler of http:// addresses, with our connection."""

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """As urllib's, over Level-IP."""
        return self.do_open(Connection, req)


def download(url: str, *, timeout: float = TIMEOUT_S) -> Iterator[memoryview]:
    """The body, piece by piece; each piece is valid until the next. OSError and urllib's errors as urllib gives them.

    `http.client.IncompleteRead` if the connection ends before Content-Length bytes have come.
    """
    opener = urllib.request.build_opener(Handler, urllib.request.ProxyHandler({}))
    buffer = memoryview(bytearray(CHUNK))
    with opener.open(url, timeout=timeout) as response:
        missing = int(response.headers.get("Content-Length", 0))
        while size := response.readinto1(buffer):
            missing -= size
            yield buffer[:size]
    if missing > 0:
        raise http.client.IncompleteRead(b"", missing)


def main(argv: list[str] | None = None) -> int:
    """Download, and say how long it took and what the sha256 is."""
    parser = argparse.ArgumentParser(description="Download a file over Level-IP.")
    parser.add_argument("url")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="where to write it (default: nowhere)")
    options = parser.parse_args(argv)
    digest, size, start = hashlib.sha256(), 0, time.perf_counter()
    output: Any = None
    try:
        if options.output:
            output = options.output.open("wb")
        for piece in download(options.url):
            size += len(piece)
            digest.update(piece)
            if output:
                output.write(piece)
    except (OSError, http.client.HTTPException) as error:
        print(f"{options.url}: {error}", file=sys.stderr)
        return 1
    finally:
        if output:
            output.close()
    seconds = time.perf_counter() - start
    said = f"{size} bytes in {seconds:.2f} s, {size * 8 / seconds / 1e6:.0f} Mbit/s, sha256 {digest.hexdigest()}"
    print(said, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

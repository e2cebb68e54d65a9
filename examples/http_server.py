"""Serve a directory over Level-IP: the standard library's HTTP server, on our sockets.

python examples/http_server.py --directory . --port 8080
curl -O http://10.0.0.2:8080/README.md         # from the host, by the kernel's TCP
"""

from __future__ import annotations

import argparse
import functools
import http.server
import socketserver
import sys
from pathlib import Path

from levelip.client import socket


class Server(http.server.ThreadingHTTPServer):
    """An HTTP server whose listening socket, and so each accepted one, is Level-IP's."""

    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler, bind_and_activate=False)
        self.socket.close()  # socketserver has made one of the kernel's
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self.server_bind()
            self.server_activate()
        except BaseException:
            self.server_close()
            raise

    def server_bind(self) -> None:
        """Bind, without asking the name service for our name as http.server does."""
        socketserver.TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)


class FileHandler(http.server.SimpleHTTPRequestHandler):
    """Files of a directory, in few large writes, without a log line each."""

    protocol_version = "HTTP/1.1"

    def copyfile(self, source: object, outputfile: object) -> None:
        """As http.server's, but 256 KB at a time."""
        while data := source.read(1 << 18):  # type: ignore[attr-defined]
            outputfile.write(data)  # type: ignore[attr-defined]

    def log_message(self, *_args: object) -> None:
        """Nothing."""


def main(argv: list[str] | None = None) -> int:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve a directory over Level-IP.")
    parser.add_argument("--address", default="0.0.0.0", help="the stack's address to listen on (default: any)")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--directory", type=Path, default=Path.cwd())
    options = parser.parse_args(argv)
    handler = functools.partial(FileHandler, directory=str(options.directory))
    try:
        server = Server((options.address, options.port), handler)  # type: ignore[arg-type]
    except OSError as error:
        print(f"cannot listen on {options.address}:{options.port}: {error}", file=sys.stderr)
        return 1
    with server:
        place = f"http://{server.server_name}:{server.server_port}/"
        try:
            print(f"serving {options.directory} at {place} over Level-IP", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())

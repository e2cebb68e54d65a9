"""Echo over Level-IP: one thread serves all connections with selectors, which our sockets work in as any other.

    python examples/echo.py serve --port 7777
    nc 10.0.0.2 7777                                       # from the host
    python examples/echo.py say 10.0.0.1 7 hello           # to an echo server anywhere
"""

from __future__ import annotations

import argparse
import selectors
import sys

from levelip.client import socket

CHUNK = 65_536


class EchoServer:
    """Sends back what comes, on any number of connections. Reads no more from one that does not take its echo."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.listener = socket.create_server(address, backlog=128)
        self.listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.listener, selectors.EVENT_READ)

    def serve_forever(self) -> None:
        """Until an exception (Ctrl-C)."""
        while True:
            for key, _ in self._selector.select():
                if isinstance(key.fileobj, socket.socket) and key.fileobj is not self.listener:
                    self._echo(key.fileobj, key.data)
                else:
                    self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self.listener.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, bytearray())

    def _echo(self, connection: socket.socket, waiting: bytearray) -> None:
        """Read, or write what waits; then wait for the one that is possible next."""
        try:
            if not waiting:
                data = connection.recv(CHUNK)
                if not data:
                    raise ConnectionResetError
                waiting += data
            del waiting[: connection.send(waiting)]
        except BlockingIOError:
            pass
        except OSError:
            self._selector.unregister(connection)
            connection.close()
            return
        self._selector.modify(connection, selectors.EVENT_WRITE if waiting else selectors.EVENT_READ, waiting)


def say(host: str, port: int, text: str) -> str:
    """What the echo server at host:port sends back for `text`. OSError."""
    data = text.encode()
    with socket.create_connection((host, port), 10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(CHUNK):
            answer += piece
    return answer.decode(errors="replace")


def main(argv: list[str] | None = None) -> int:
    """Serve until Ctrl-C, or say something and print the echo."""
    parser = argparse.ArgumentParser(description="Echo over Level-IP.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="send back what comes")
    serve.add_argument("--address", default="")
    serve.add_argument("--port", type=int, default=7777)
    client = commands.add_parser("say", help="send a text and print its echo")
    client.add_argument("host")
    client.add_argument("port", type=int)
    client.add_argument("text")
    options = parser.parse_args(argv)
    try:
        if options.command == "say":
            print(say(options.host, options.port, options.text))
        else:
            server = EchoServer((options.address, options.port))
            print("echo server over Level-IP, port", server.listener.getsockname()[1], flush=True)
            server.serve_forever()
    except OSError as error:
        print(f"echo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())

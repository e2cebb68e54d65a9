"""Prints what name resolution answers, as JSON: `names.py std` the standard library's, `names.py stack` the stack's.

Arguments after that are calls: "getaddrinfo www.example.org 80 0 1 0 2", "gethostbyaddr 198.51.100.1", ...
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any


def main() -> None:
    """See above."""
    socket = importlib.import_module("socket" if sys.argv[1] == "std" else "levelip.client.socket")
    said: dict[str, Any] = {}
    for call in sys.argv[2:]:
        function, *words = call.split(" ")
        args: list[Any] = [int(word) if word.isdigit() else word for word in words]
        if function == "getnameinfo":
            args = [(args[0], args[1]), args[2]]
        try:
            said[call] = getattr(socket, function)(*args)
        except OSError as error:
            said[call] = [type(error).__name__, error.errno, error.strerror]
    print(json.dumps(said))


main()

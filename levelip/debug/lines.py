"""Questions of another program: a line of JSON comes in, a line of JSON goes out, until the input ends.

request  {"id": n, "do": name, ...arguments}      answer  {"id": n, "ok": data} or {"id": n, "error": text}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec


def answer_line(
    line: bytes, do: Callable[[dict[str, Any]], Any], *, trouble: tuple[type[Exception], ...]
) -> dict[str, Any]:
    """What comes of a request. `trouble` is told in its own words, anything else with its type: it ends nothing."""
    number: Any = None
    try:
        request = msgspec.json.decode(line, type=dict[str, Any])
        number = request.get("id")
        return {"id": number, "ok": do(request)}
    except trouble as error:
        return {"id": number, "error": str(error)}
    except Exception as error:
        return {"id": number, "error": f"{type(error).__name__}: {error}"}


def serve_lines(answer: Callable[[bytes], dict[str, Any]], source: BinaryIO, sink: BinaryIO) -> None:
    """Until the input ends."""
    for line in source:
        sink.write(msgspec.json.encode(answer(line)) + b"\n")
        sink.flush()

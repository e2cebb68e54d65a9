"""What a page puts into the running stack: packets that nobody sent, and addons."""

from __future__ import annotations

import re
from typing import Any

from levelip.tracing.capturefile import CaptureError
from levelip.web.commands import Command, Refused, text_of
from levelip.web.debugging import MAX_INJECTED
from levelip.web.desk import Desk
from levelip.web.upload import Upload

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


class Acting:
    """`commands` by name."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.commands: dict[str, Command] = {
            "inject": self._inject,
            "addon.list": self._addons,
            "addon.load": self._load,
            "addon.unload": self._unload,
        }

    async def _inject(self, request: dict[str, Any]) -> dict[str, Any]:
        """A packet: `line` as in a packet script, or `fields` ("NAME=VALUE ...")."""
        live = self._desk.live
        line, fields = text_of(request, "line").strip(), text_of(request, "fields").split()
        if bool(line) == bool(fields):
            raise Refused("say what to inject: a line as in a packet script, or fields")
        try:
            answer: dict[str, Any] = await live.ask(
                live.stopping.inject, text_of(request, "where"), line, fields, text_of(request, "conn"),
                bool(request.get("absolute")), bool(request.get("keep")),
            )  # fmt: skip
        finally:
            await live.refresh()
        return answer

    async def inject_upload(self, where: str, upload: Upload, numbers: str) -> dict[str, Any]:
        """Packets of a capture that the browser sent, which is gone afterwards; `numbers`: "3, 7-9", or empty for all.
        Refused, and what inject raises."""
        live, (path, *more) = self._desk.live, upload.paths
        try:
            if more:
                raise Refused("one file at a time")
            answer: dict[str, Any] = await live.ask(live.stopping.inject_file, where, path, _numbers(numbers))
        except CaptureError as error:
            raise Refused(str(error).replace(str(path), "it")) from None
        finally:
            upload.discard()
            await live.refresh()
        return answer

    async def _addons(self, _request: dict[str, Any]) -> dict[str, Any]:
        live = self._desk.live
        return {"addons": await live.ask(live.layers.addons), "may_load": self._desk.may_load}

    async def _load(self, request: dict[str, Any]) -> dict[str, Any]:
        """A file of the server's, and its options ("KEY=VALUE ..."); the stack runs what is in it."""
        if not self._desk.may_load:
            raise Refused("addons are code, and others can reach this page: load them with lvlip addon load")
        path, live = text_of(request, "path").strip(), self._desk.live
        if not path:
            raise Refused("which file?")
        options = {}
        for word in text_of(request, "options").split():
            key, equals, value = word.partition("=")
            if not equals or not key:
                raise Refused(f"{word}: options are written KEY=VALUE")
            options[key] = value
        loaded: list[str] = await live.ask(live.layers.load_addon, path, options)
        return {"said": f"loaded into {', '.join(loaded)}"}

    async def _unload(self, request: dict[str, Any]) -> dict[str, Any]:
        live, name = self._desk.live, text_of(request, "name")
        gone: list[str] = await live.ask(live.layers.unload_addon, name)
        if not gone:
            raise Refused(f"no addon {name} is loaded")
        return {"said": f"{name} unloaded from {', '.join(gone)}"}


def _numbers(text: str) -> list[int]:
    """Numbers and ranges of packets, from 1."""
    chosen: list[int] = []
    for word in text.replace(",", " ").split():
        found = _RANGE.fullmatch(word)
        if found is None:
            raise Refused(f"{word}: packets are numbers and ranges, as in 3, 7-9")
        first, last = int(found[1]), int(found[2] or found[1])
        if not 0 < first <= last or len(chosen) + last - first >= MAX_INJECTED:
            raise Refused(f"{word}: packets count from 1, and {MAX_INJECTED} are injected at once")
        chosen += range(first, last + 1)
    return chosen

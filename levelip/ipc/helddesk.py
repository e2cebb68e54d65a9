"""The control commands about held frames ("debug.held", "debug.drop" ...): to list, show, change and inject them.

Packets alone are changed; between tcp, udp, gateway and client are streams, which lose nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from levelip.frames.core import LONGEST_DELAY_NS, ControlError
from levelip.frames.packet import DeviceFrame, FrameIds, IcmpError, Packet, Process, Segment
from levelip.ipc.breakpoints import PACKETS
from levelip.ipc.debugside import Host, Side
from levelip.ipc.debugstage import DebugStage, Held
from levelip.ipc.faults import lost_as, packet_place
from levelip.ipc.memory import MemoryLost
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.tracing.events import Event
from levelip.tracing.view import view

_KINDS: Final[dict[str, Any]] = {
    "link": DeviceFrame, "link-ip": Packet, "ip-tcp": Segment | IcmpError, "ip-udp": Segment | IcmpError,
}  # fmt: skip
"""What may be changed and injected, by seam."""
_STREAMS = "only packets can be changed; other frames can be held, shown and stepped (streams lose nothing)"
_ROW_BYTES = 128  # of payload, in a list
_ALL_BYTES = 1 << 17


class HeldDesk:
    """Of one process. `sides`: where frames are held, by name; `quiet`: whether its core has nothing to do now."""

    def __init__(self, host: Host, sides: Mapping[str, Side], *, quiet: Callable[[], bool]) -> None:
        self._host = host
        self._sides = sides
        self._quiet = quiet
        self._process = host.runtime.name
        self._clock = host.runtime.clock
        self._ids = FrameIds(Process.TOOL, host.runtime.epoch)
        self.commands: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "debug.held": self._list,
            "debug.frame": self._frame,
            "debug.drop": self._drop,
            "debug.dup": self._dup,
            "debug.delay": self._delay,
            "debug.move": self._move,
            "debug.replace": self._replace,
            "debug.inject": self._inject,
        }

    def _list(self, args: dict[str, Any]) -> dict[str, Any]:
        """The first `limit` (all) of each queue, of seam `seam` (all), that entered at or after `since`."""
        limit, since = args.get("limit", 1 << 30), args.get("since", 0)
        rows = []
        for side in self._sides.values():
            stage = side.stage
            if stage is None or args.get("seam") not in (None, side.seam):
                continue
            chosen = enumerate(stage.everything()[:limit])
            rows += [self.row(side, held, place) for place, held in chosen if held.entered >= since]
        return {"held": rows}

    def row(self, side: Side, held: Held, place: int, limit: int = _ROW_BYTES) -> dict[str, Any]:
        """What a tool is told of a frame, the `place`th of its queue, with `limit` bytes of its payload."""
        direction = "in" if side.into else "out"
        record = self._host.tap.record(held.frame, side.seam, direction, self._clock.now(), held.entered, limit)
        return {
            "held": self.label(held),
            "seam": side.seam,
            "way": side.way,
            "place": place,
            "entered": held.entered,
            "due": held.due,
            "record": record,
        }

    def label(self, held: Held) -> str:
        """The name of a held frame in the whole stack."""
        return f"{self._process[0]}{held.number}"

    def find(self, args: dict[str, Any]) -> tuple[Side, DebugStage, Held]:
        """The frame of the name {"held"}, and where it is. ControlError if there is none."""
        name = args["held"]
        if not isinstance(name, str) or name[:1] != self._process[0] or not name[1:].isdigit():
            raise ControlError(f"{name!r} is not the name of a frame that {self._process} holds")
        for side in self._sides.values():
            stage = side.stage
            held = stage.find(int(name[1:])) if stage is not None else None
            if stage is not None and held is not None:
                return side, stage, held
        raise ControlError(f"{name} is not held any more; see: lvlip held list")

    def _packet(self, args: dict[str, Any]) -> tuple[Side, DebugStage, Held]:
        side, stage, held = self.find(args)
        if side.seam not in _KINDS or not isinstance(held.frame, PACKETS):
            raise ControlError(f"{args['held']}: {_STREAMS}")
        return side, stage, held

    def _frame(self, args: dict[str, Any]) -> dict[str, Any]:
        """The whole frame, its payload with it."""
        side, stage, held = self.find(args)
        frame = held.frame
        payload = getattr(frame, "payload", b"")
        if isinstance(payload, Place):
            try:
                frame = msgspec.structs.replace(frame, payload=self._host.runtime.memory.read(payload))
            except MemoryLost as error:
                raise ControlError(f"{args['held']}: its payload is gone: {error}") from None
        row = self.row(side, held, stage.everything().index(held), _ALL_BYTES)
        data = msgspec.msgpack.encode(frame) if isinstance(frame, PACKETS) and side.seam in _KINDS else b""
        return {"row": row, "kind": type(frame).__name__, "frame": data}

    # changes

    def _drop(self, args: dict[str, Any]) -> dict[str, Any]:
        side, stage, held = self._packet(args)
        stage.remove(held)
        self._host.runtime.count(reasons.DEBUG_DROP.counter)
        conn, place = self._place(side, held.frame)
        known = lost_as(held.frame, side.seam, side.way)
        self._host.did(Event(self._clock.now(), "drop", reasons.DEBUG_DROP.name, known, conn, place))
        return {"dropped": args["held"]}

    def _dup(self, args: dict[str, Any]) -> dict[str, Any]:
        side, stage, held = self._packet(args)
        changes: dict[str, Any] = {"id": self._ids.next(), "causes": [held.frame.id]}
        made = stage.insert_after(held, msgspec.structs.replace(held.frame, **changes))
        self._did("repeated", side, held.frame)
        return {"held": self.label(made)}

    def _delay(self, args: dict[str, Any]) -> dict[str, Any]:
        side, stage, held = self._packet(args)
        ns = args["ns"]
        if not isinstance(ns, int) or not 0 <= ns <= LONGEST_DELAY_NS:
            raise ControlError(f"a delay is 0 to {LONGEST_DELAY_NS // 10**9} s")
        due = self._clock.now() + ns
        stage.delay(held, due)
        self._did("delayed", side, held.frame, ns=ns)
        return {"due": due}

    def _move(self, args: dict[str, Any]) -> dict[str, Any]:
        """{"held", "place": from 0, or -1 for the last}."""
        _, stage, held = self._packet(args)
        if not isinstance(args["place"], int):
            raise ControlError("a place is a number: 0 goes first, -1 last")
        stage.move(held, args["place"])
        return {"place": stage.everything().index(held)}

    def _replace(self, args: dict[str, Any]) -> dict[str, Any]:
        """{"held", "frame": another one, in msgpack, "changes": what is changed, as "tcp.seq=5"}."""
        side, stage, held = self._packet(args)
        frame = self._decode(side.seam, args["frame"])
        if type(frame) is not type(held.frame):
            raise ControlError(f"{args['held']} is a {type(held.frame).__name__}, not a {type(frame).__name__}")
        stage.replace(held, frame)
        said = args.get("changes")
        known = {"changes": said} if isinstance(said, list) and all(isinstance(one, str) for one in said) else {}
        self._did("changed", side, frame, **known)
        return {"row": self.row(side, held, stage.everything().index(held))}

    def _inject(self, args: dict[str, Any]) -> dict[str, Any]:
        """{"seam", "way", "frame": in msgpack}: a frame at a seam, past its faults; held there if that is held."""
        name = f"{args['seam']} {args['way']}"
        side = self._sides.get(name)
        if side is None:
            raise ControlError(f"{self._process} does not see {name}")
        if side.seam not in _KINDS:
            raise ControlError(f"nothing can be injected at {side.seam}: streams between processes are no packets")
        frame = self._decode(side.seam, args["frame"])
        if not frame.id:
            frame = msgspec.structs.replace(frame, id=self._ids.next())
        if side.seam == "link-ip" and not frame.ingress and side.way == "up":
            frame = msgspec.structs.replace(frame, ingress=self._clock.now())
        self._did("made", side, frame)
        now, stage = self._clock.now(), side.stage
        frames = [frame] if stage is None else stage.push([frame], now)
        if not frames:
            assert stage is not None
            return {"id": frame.id, "held": self.label(stage.queue[-1])}
        (self._host.feed if side.into else self._host.emit)(side.port, frames, now)
        if not self._quiet():
            self._host.flush(now)
        return {"id": frame.id, "held": ""}

    def _did(self, what: str, side: Side, frame: Any, **data: Any) -> None:
        """Tell what a person did to a frame: "changed", "delayed", "repeated" or "made" it."""
        conn, place = self._place(side, frame)
        self._host.did(Event(self._clock.now(), "hand", "", frame.id, conn, {"what": what, **place, **data}))

    @staticmethod
    def _place(side: Side, frame: Any) -> tuple[str, dict[str, Any]]:
        return packet_place(view(frame, side.seam, side.way), side.seam, side.way)

    @staticmethod
    def _decode(seam: str, data: bytes) -> Any:
        try:
            frame = msgspec.msgpack.decode(data, type=_KINDS[seam])
        except msgspec.DecodeError as error:
            raise ControlError(f"no frame for {seam}: {error}") from None
        if isinstance(getattr(frame, "payload", b""), Place):
            raise ControlError("a frame from a tool carries its payload itself")
        return frame

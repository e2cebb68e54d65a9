"""Where the hooks of all addons meet the frames of one way of one seam, and what becomes of each frame there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from levelip.addon import FrameHook, Packet, Verdict
from levelip.frames.packet import DeviceFrame, Segment
from levelip.frames.packet import Packet as IpPacket
from levelip.ipc.addonfile import Hook
from levelip.ipc.delayed import Delayed
from levelip.ipc.faults import lost_as, packet_place, split_frame
from levelip.ipc.memory import MemoryLost
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.tracing.events import Event
from levelip.tracing.reasons import Reason
from levelip.tracing.view import View, view
from levelip.wire.errors import Malformed

if TYPE_CHECKING:
    from levelip.ipc.addons import Addon, Addons

KEPT = 10_000
"""Frames that one stage keeps back at most."""
_PACKETS = (DeviceFrame, IpPacket, Segment)


class AddonStage:
    """A Stage (levelip.ipc.seampoint), for all addons of a process."""

    def __init__(self, addons: Addons, seam: str, way: str) -> None:
        self._addons = addons
        self.seam = seam
        self.way = way
        self.dropped = 0
        self._hooks = addons.hooks(seam, way)
        self._waiting = Delayed()
        self._running = False  # a hook is called for a packet of here
        self._added: list[Any] = []

    def refresh(self) -> None:
        """Addons came or went."""
        self._hooks = self._addons.hooks(self.seam, self.way)

    def push(self, frames: list[Any], now: int) -> list[Any]:
        """Frames through the hooks; those that pass at once."""
        if not self._hooks:
            return frames
        self._addons.now = now
        passed: list[Any] = []
        memory, hooks = self._addons.world.memory, self._hooks
        for frame in frames:
            if type(frame) in _PACKETS:
                self._running = True
                self._one(Packet(frame, self.seam, self.way, memory), hooks, 0, now, passed)
                self._running = False
                if self._added:
                    passed += self._added
                    self._added = []
            else:
                passed.append(frame)
        return passed

    def add(self, at: int, frame: Any, at_once: bool) -> None:
        """A frame that a hook made: at once, it follows the packet that the hook is called for, if that is one of here;
        else it comes in the next round."""
        if at_once and self._running:
            self._added.append(frame)
        else:
            self.keep(at, frame)

    def keep(self, at: int, frame: Any) -> None:
        """Let a frame pass at an instant, at the earliest in the next round."""
        if len(self._waiting) >= KEPT:
            world = self._addons.world
            world.count(reasons.ADDON_QUEUE.counter)
            if world.interest:
                self._tell_lost(reasons.ADDON_QUEUE, frame, view(frame, self.seam, self.way), limit=KEPT)
            return
        self._waiting.add(at, frame)

    def due(self, now: int) -> list[Any]:
        """Frames that were kept until now. Looks at the files, too: it is called in every round."""
        self._addons.now = now
        self._addons.check()
        return self._waiting.due(now)

    def next_timer(self) -> int | None:
        """When `due` has something."""
        return self._waiting.next_timer()

    def drain(self) -> list[Any]:
        """All that is kept, at once."""
        return self._waiting.drain()

    @property
    def kept(self) -> int:
        """Frames that wait."""
        return len(self._waiting)

    def _one(self, packet: Packet, hooks: list[tuple[Addon, Hook]], first: int, now: int, passed: list[Any]) -> None:
        """A packet through the hooks from number `first` on."""
        addons, world = self._addons, self._addons.world
        try:
            for number in range(first, len(hooks)):
                addon, hook = hooks[number]
                if addon.file is None or not addons.matches(addon, hook, packet):
                    continue
                if isinstance(hook.wants, FrameHook) and hook.wants.frames == "wire":
                    pieces = _pieces(packet)
                    if len(pieces) > 1:
                        for piece in pieces:
                            self._one(packet.with_frame(piece), hooks, number, now, passed)
                        return
                before = packet.verdict()
                if not addons.run(addon, hook, packet, now):
                    packet.undo(before)  # an addon that fails changes nothing
                elif world.interest and not packet.dropped:
                    self._tell(packet, before, addon)
                if packet.dropped:
                    self._drop(packet, addon)
                    return
        except MemoryLost:
            world.count(reasons.MEMORY_LOST.counter)
            return
        self._pass(packet, now, passed)

    def _pass(self, packet: Packet, now: int, passed: list[Any]) -> None:
        if packet.delayed_ns:
            self.keep(now + packet.delayed_ns, packet.frame)
        else:
            passed.append(packet.frame)
        for after in packet.copies_ns:
            frame = packet.frame
            again = msgspec.structs.replace(frame, id=self._addons.ids.next(), causes=[frame.id])
            if after or packet.delayed_ns:
                self.keep(now + packet.delayed_ns + after, again)
            else:
                passed.append(again)

    def _tell(self, packet: Packet, before: Verdict, addon: Addon) -> None:
        """What a hook has made of a packet."""
        deeds: dict[str, dict[str, Any]] = {}
        if changes := packet.changes[before.changes :]:
            deeds["changed"] = {"changes": changes}
        if packet.delayed_ns > before.delayed_ns:
            deeds["delayed"] = {"ns": packet.delayed_ns - before.delayed_ns}
        if times := len(packet.copies_ns) - len(before.copies_ns):
            deeds["repeated"] = {"times": times}
        for what, data in deeds.items():
            self._addons.did(addon.name, what, packet.frame, self.seam, self.way, **data)

    def _drop(self, packet: Packet, addon: Addon) -> None:
        self.dropped += 1
        world = self._addons.world
        world.count(reasons.ADDON_DROP.counter)
        if isinstance(packet.frame.payload, Place):
            world.memory.free(packet.frame.payload)
        if world.interest:
            self._tell_lost(reasons.ADDON_DROP, packet.frame, packet.view, addon=addon.name)

    def _tell_lost(self, reason: Reason, frame: Any, seen: View, **data: Any) -> None:
        conn, place = packet_place(seen, self.seam, self.way)
        known = lost_as(frame, self.seam, self.way)
        self._addons.world.publish(Event(self._addons.now, "drop", reason.name, known, conn, {**place, **data}))


def _pieces(packet: Packet) -> list[Any]:
    packet.hold()
    try:
        return split_frame(packet.frame)
    except Malformed:
        return [packet.frame]

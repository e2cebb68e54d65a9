"""Ring slots: which part of which shared memory file holds the two rings of a connection.

A region is a file of equal slots; a slot is a send ring followed by a receive ring. Slots that were used last are
used first again, as their pages are warm.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from levelip.rpc.place import Rings


@dataclass(slots=True)
class Region:
    """The slots of one region: those below `fresh` were used once, `free` holds those of them that are free now."""

    fresh: int = 0
    free: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Slots:
    """All regions. A region is known while one of its slots is in use."""

    send_ring: int
    receive_ring: int
    per_region: int
    regions: dict[str, Region] = field(default_factory=dict)

    def take(self, name: str) -> Rings | None:
        """The rings of a free slot of region `name`; None if all are in use."""
        region = self.regions.get(name)
        if region is None:
            region = self.regions[name] = Region()
        if region.free:
            index = region.free.pop()
        elif region.fresh < self.per_region:
            index = region.fresh
            region.fresh += 1
        else:
            return None
        base = index * (self.send_ring + self.receive_ring)
        return Rings(name, base, self.send_ring, base + self.send_ring, self.receive_ring)

    def available(self, name: str) -> bool:
        """Whether `take` would succeed."""
        region = self.regions.get(name)
        return region is None or bool(region.free) or region.fresh < self.per_region

    def give_back(self, rings: Rings) -> None:
        """The slot of `rings` is free again."""
        region = self.regions[rings.region]
        region.free.append(rings.send_base // (self.send_ring + self.receive_ring))
        if len(region.free) == region.fresh:
            del self.regions[rings.region]

    def in_use(self) -> int:
        """Slots taken now, over all regions."""
        return sum(region.fresh - len(region.free) for region in self.regions.values())

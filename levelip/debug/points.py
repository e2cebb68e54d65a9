"""Where frames can be held: each seam in each direction is one point, and one process looks after it."""

from __future__ import annotations

from typing import Final

from levelip.debug.model import Misused
from levelip.debug.tap import PACKET_SEAMS, PROCESSES, SEAMS, lower_seams, upper_seams

POINTS: Final[dict[str, str]] = {
    "link up": "link", "link down": "link",
    "link-ip up": "ip", "link-ip down": "link",
    "ip-tcp up": "tcp", "ip-tcp down": "ip",
    "ip-udp up": "udp", "ip-udp down": "ip",
    "tcp-gateway up": "gateway", "tcp-gateway down": "tcp",
    "udp-gateway up": "gateway", "udp-gateway down": "udp",
    "gateway-client up": "gateway", "gateway-client down": "gateway",
}  # fmt: skip
"""Point → the process that has it."""
EXITS: Final = ("link down", "gateway-client up")
"""Points behind the cores: what passes there leaves the stack."""


def points_of(where: str) -> list[str]:
    """The points that a person means: a layer (all that it takes in), a seam, "SEAM up" or "SEAM:down"; "device" is
    the seam link, since link alone is the layer. Misused for anything else."""
    if where in PROCESSES:
        return [*(f"{seam} up" for seam in lower_seams(where)), *(f"{seam} down" for seam in upper_seams(where))]
    seam, _, way = where.replace(":", " ").partition(" ")
    seam = "link" if seam == "device" else seam
    if seam not in SEAMS or way not in ("", "up", "down"):
        raise Misused(
            f"{where!r} is no place in the stack: there are the layers {', '.join(PROCESSES)}, the seams device, "
            f"{', '.join(SEAMS[1:])}, and one direction of a seam, as ip-tcp:up"
        )
    return [f"{seam} {one}" for one in ([way] if way else ["up", "down"])]


def seam_and_way(where: str) -> tuple[str, str]:
    """(seam, "up", "down" or "") of a seam's name with or without a direction. Misused for anything else."""
    seam, _, way = where.replace(":", " ").partition(" ")
    seam = "link" if seam == "device" else seam
    if seam not in SEAMS or way not in ("", "up", "down"):
        raise Misused(f"{where!r} is no seam: there are {', '.join(SEAMS)}, each also as SEAM:up or SEAM:down")
    return seam, way


__all__ = ["EXITS", "PACKET_SEAMS", "POINTS", "points_of", "seam_and_way"]

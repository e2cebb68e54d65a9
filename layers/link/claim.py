"""Whether our addresses are ours: probing, announcing, and what to do when another host has one (RFC 5227).

Those that are there when the device comes up are claimed together; one that is added later has a claim of its own, and
the others go on meanwhile.

                acd_probes > 0                    all probes sent, ANNOUNCE_WAIT passed
     (down) ────────────────────▶ probing ───────────────────────────────────────────────▶ owned
        │        device up         ▲    │ another host has it, or probes for it            ▲
        │                          │    ▼ (RFC 5227 2.1.1)                                 │
        │   RATE_LIMIT_INTERVAL    └── conflict                                            │
        └──────────────────────────────────────────────────────────────────────────────────┘
                 device up, acd_probes = 0: as Linux, which does not probe

"Owned" begins with ANNOUNCE_NUM announcements. While "probing" or in "conflict" the addresses are not used at all
(RFC 5227 2.1): the core tells ip that the link is down, sends nothing but probes and learns nothing.

An address that is "owned" is defended and never given up, RFC 5227 2.4 (c): it is the one that somebody configured, and
there is no other to turn to. One announcement says so, unless the last conflict is less than DEFEND_INTERVAL ago.

Probes are off by default: they take 3 to 7 s at each start, a start of link after a crash included, in which a
transfer that would have survived it stands still.
"""

from __future__ import annotations

import random
from typing import Literal

from msgspec import Struct

from levelip.config import LinkConfig

MS = 1_000_000  # nanoseconds
RATE_LIMIT_INTERVAL_NS = 60_000 * MS  # RFC 5227 1.1; we wait as long after the first conflict, having one choice only

Phase = Literal["down", "probing", "conflict", "owned"]


class Claim(Struct):
    """An interface's, or an added address's. Instants are ns of stack time.

    `left`: probes or announcements still to send. `at`: when the next step is due; it counts unless `phase` is down, or
    owned with nothing left. `conflicts`: all that were seen. `last`: when each address was last claimed by another.
    """

    phase: Phase = "down"
    left: int = 0
    at: int = 0
    conflicts: int = 0
    last: dict[bytes, int] = {}

    @property
    def owned(self) -> bool:
        """Whether the addresses may be used."""
        return self.phase == "owned"

    def start(self, config: LinkConfig, rng: random.Random, now: int) -> None:
        """The device came up, or it is time to try again."""
        if config.acd_probes:
            self.phase, self.left = "probing", config.acd_probes
            self.at = now + rng.randrange(config.acd_probe_wait_ms * MS + 1)  # RFC 5227 2.1.1: PROBE_WAIT
        else:
            self._own(config, now)

    def _own(self, config: LinkConfig, now: int) -> None:
        self.phase, self.left, self.at = "owned", config.acd_announcements, now

    def stop(self) -> None:
        """The device went down."""
        self.phase, self.left = "down", 0

    def next_timer(self) -> int | None:
        """When the next step is due."""
        if self.phase == "down" or (self.phase == "owned" and not self.left):
            return None
        return self.at

    def step(self, config: LinkConfig, rng: random.Random, now: int) -> Literal["", "probe", "announce"]:
        """What to send for each address now; called when it is due."""
        if self.phase == "conflict":
            self.start(config, rng, now)
            return ""
        self.left -= 1
        if self.phase == "owned":
            self.at = now + config.acd_announce_interval_ms * MS
            return "announce"
        if self.left < 0:
            self._own(config, now)
            return ""
        if self.left:  # RFC 5227 2.1.1: PROBE_MIN to PROBE_MAX apart
            spread = max(0, config.acd_probe_max_ms - config.acd_probe_min_ms) * MS
            self.at = now + config.acd_probe_min_ms * MS + rng.randrange(spread + 1)
        else:
            self.at = now + config.acd_announce_wait_ms * MS
        return "probe"

    def contested(self, config: LinkConfig, address: bytes, now: int) -> bool:
        """Another host has the address, or wants it while we only probe. Whether to defend it."""
        self.conflicts += 1
        if self.phase == "probing":
            self.phase, self.left, self.at = "conflict", 0, now + RATE_LIMIT_INTERVAL_NS
        last = self.last.get(address)
        self.last[address] = now
        return self.owned and (last is None or now - last >= config.acd_defend_interval_ms * MS)

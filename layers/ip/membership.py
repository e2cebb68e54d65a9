"""Which multicast groups we are in, and what IGMP says of it and when (RFC 3376 5, RFC 2236 3, RFC 1112 appendix I).

A host's half, for memberships without source filters: EXCLUDE {} of RFC 3376 3. Which version is spoken follows the
oldest querier heard of late (RFC 3376 7.2.1). Asks nobody: what is to be sent is returned.
"""

from __future__ import annotations

import random

from msgspec import Struct

from levelip.tracing import reasons
from levelip.tracing.reasons import Reason
from levelip.wire.igmp import (
    ALL_IGMPV3_ROUTERS,
    ALL_ROUTERS,
    ALL_SYSTEMS,
    IS_EXCLUDE,
    IS_INCLUDE,
    LEAVE,
    QUERY,
    REPORT_V1,
    REPORT_V2,
    TO_EXCLUDE,
    TO_INCLUDE,
    GroupRecord,
    IgmpMessage,
    IgmpReport,
)

SECOND = 1_000_000_000
TENTH = SECOND // 10
GROUPS_LIMIT = 256
"""Groups joined at once, at most. (A version 3 report of that many has 2 KB: it goes out in several packets.)"""
SOURCES_LIMIT = 64
"""Sources of specific queries remembered for a group; beyond that the answer is for the group as a whole."""
RECORDS_A_REPORT = 64
"""Group records in one report: 520 bytes, so that it fits into any MTU of 576 and more."""
ROBUSTNESS = 2  # RFC 3376 8.1
QUERY_INTERVAL_S = 125  # RFC 3376 8.2
RESPONSE_INTERVAL = 10 * SECOND  # RFC 3376 8.3
UNSOLICITED_V3 = 1 * SECOND  # RFC 3376 8.11
UNSOLICITED_V2 = 10 * SECOND  # RFC 2236 8.10


class Say(Struct):
    """A message to send: to whom, and the bytes behind the IP header."""

    dst: bytes
    data: bytes


class Group(Struct):
    """One group that we are in. Instants are 0 where nothing is to be done."""

    address: bytes
    users: list[str]
    """Who joined it: "config", "control"; left when nobody is left."""
    answer_at: int = 0
    """When a query for this group is answered."""
    sources: list[bytes] = []
    """What a group-and-source-specific query asked about; empty: about the group."""
    repeat_at: int = 0
    """When joining is said again, in case that it was lost."""
    repeats: int = 0
    reporter: bool = True
    """Ours was the last report heard: whoever leaves then says so (RFC 2236 3)."""


class Leaving(Struct):
    """A group that we have left: version 3 says so more than once (RFC 3376 5.1)."""

    address: bytes
    repeat_at: int
    repeats: int


class MembershipState(Struct):
    """All of it, for snapshots."""

    groups: list[Group] = []
    leaving: list[Leaving] = []
    general_at: int = 0
    v1_until: int = 0
    v2_until: int = 0
    robustness: int = ROBUSTNESS
    interval_s: int = QUERY_INTERVAL_S


class Memberships:
    """224.0.0.1 is always in it and never reported (RFC 3376 5)."""

    def __init__(self, rng: random.Random, highest: int, state: MembershipState | None = None) -> None:
        self._rng = rng
        self.highest = highest
        """The version spoken while no older querier is there: 1 to 3."""
        self.state = state or MembershipState()
        self._groups = {group.address: group for group in self.state.groups}
        self.accepted = frozenset((ALL_SYSTEMS, *self._groups))
        """Destinations that are ours."""

    # joining and leaving

    def join(self, address: bytes, user: str, now: int) -> list[Say] | None:
        """None if there are too many; an empty list if it was joined already."""
        group = self._groups.get(address)
        if group is not None:
            if user not in group.users:
                group.users.append(user)
            return []
        if address == ALL_SYSTEMS:
            return []
        if len(self._groups) >= GROUPS_LIMIT:
            return None
        self.state.leaving = [old for old in self.state.leaving if old.address != address]
        group = Group(address, [user])
        self._groups[address] = group
        self._listed()
        return self._announce(group, now)

    def of(self, user: str) -> set[bytes]:
        """The groups that `user` has joined."""
        return {address for address, group in self._groups.items() if user in group.users}

    def leave(self, address: bytes, user: str, now: int) -> list[Say] | None:
        """None if `user` had not joined it."""
        group = self._groups.get(address)
        if group is None or user not in group.users:
            return None
        group.users.remove(user)
        if group.users:
            return []
        del self._groups[address]
        self._listed()
        match self.version(now):
            case 3:
                repeats = self.state.robustness - 1
                if repeats > 0:
                    self.state.leaving.append(Leaving(address, now + self._delay(UNSOLICITED_V3), repeats))
                return [_report([GroupRecord(TO_INCLUDE, address)])]
            case 2 if group.reporter:
                return [Say(ALL_ROUTERS, IgmpMessage(LEAVE, 0, address).serialize(fill_checksum=True))]
        return []  # version 1 leaves in silence (RFC 1112 appendix I)

    def announce_all(self, now: int) -> list[Say]:
        """The device has come up: whoever is behind it has not heard of us."""
        return [say for group in self._groups.values() for say in self._announce(group, now)]

    def _announce(self, group: Group, now: int) -> list[Say]:
        """Report at once and again after a while (RFC 3376 5.1, RFC 2236 3)."""
        version = self.version(now)
        group.answer_at = 0
        group.repeats = max(0, self.state.robustness - 1)
        wait = UNSOLICITED_V3 if version == 3 else UNSOLICITED_V2
        group.repeat_at = now + self._delay(wait) if group.repeats else 0
        return [self._membership(group, TO_EXCLUDE, version)]

    def _membership(self, group: Group, kind: int, version: int) -> Say:
        """What says that we are in `group`."""
        group.reporter = True
        if version == 3:
            sources, group.sources = tuple(group.sources), []
            if sources and kind == IS_EXCLUDE:
                # RFC 3376 5.2: of the sources asked about, those not excluded, which are all
                return _report([GroupRecord(IS_INCLUDE, group.address, sources)])
            return _report([GroupRecord(kind, group.address)])
        type_ = REPORT_V2 if version == 2 else REPORT_V1
        return Say(group.address, IgmpMessage(type_, 0, group.address).serialize(fill_checksum=True))

    def _listed(self) -> None:
        self.state.groups = list(self._groups.values())
        self.accepted = frozenset((ALL_SYSTEMS, *self._groups))

    def _delay(self, longest: int) -> int:
        return self._rng.randrange(longest) + 1

    # what routers and other hosts say

    def version(self, now: int) -> int:
        """The version to speak now (RFC 3376 7.2.1)."""
        if now < self.state.v1_until:
            return 1
        return min(2 if now < self.state.v2_until else 3, self.highest)

    def heard(self, message: IgmpMessage | IgmpReport, dst: bytes, now: int) -> Reason | None:
        """Act on a message with a right checksum, sent to `dst`; why it is ignored, or None."""
        if isinstance(message, IgmpReport):
            return reasons.IGMP_REPORT  # for routers only; version 3 has no suppression (RFC 3376 4)
        kind = message.type
        if kind == QUERY:
            return self._query(message, dst, now)
        if kind in (REPORT_V1, REPORT_V2):
            return self._other_report(message, now)
        if kind == LEAVE:
            return reasons.IGMP_REPORT
        return reasons.IGMP_UNKNOWN_TYPE  # RFC 3376 4: ignored

    def _other_report(self, message: IgmpMessage, now: int) -> Reason | None:
        """Somebody else is in the group: versions 1 and 2 then need not say so themselves (RFC 2236 3)."""
        group = self._groups.get(message.group)
        if group is None or self.version(now) == 3:
            return reasons.IGMP_REPORT
        if group.answer_at or group.repeat_at:
            group.answer_at = group.repeat_at = group.repeats = 0
        group.reporter = False
        return None

    def _query(self, query: IgmpMessage, dst: bytes, now: int) -> Reason | None:
        """Answer after a random while (RFC 3376 5.2, RFC 2236 3)."""
        general = not any(query.group)
        if dst != (ALL_SYSTEMS if general else query.group) and dst[0] & 0xF0 == 0xE0:
            return reasons.IGMP_BAD_QUERY  # RFC 3376 4.1.12; one to our own address is taken, too
        state = self.state
        version = query.version
        before = self.version(now)
        patience = state.robustness * state.interval_s * SECOND + RESPONSE_INTERVAL  # RFC 3376 8.12
        if version == 1:
            state.v1_until = now + patience
        elif version == 2:
            state.v2_until = now + patience
        else:
            # RFC 3376 4.1.6, 4.1.7: the querier's numbers, where it tells any, become ours
            state.robustness = query.robustness or ROBUSTNESS
            state.interval_s = query.interval_s or QUERY_INTERVAL_S
        if self.version(now) != before:
            self._cancel()  # RFC 3376 7.2.1
        if version == 1 and not general:
            return reasons.IGMP_BAD_QUERY  # version 1 knows general queries only
        longest = max(1, query.max_response_tenths) * TENTH
        if self.version(now) == 3:
            due = now + self._delay(longest)
            if state.general_at and state.general_at <= due:
                return None  # rule 1: the answer to a general query comes sooner and says all
            if general:
                state.general_at = due if self._groups else 0  # rule 2
                return None
            group = self._groups.get(query.group)
            if group is not None:
                self._answer(group, query.sources, due)
            return None
        for group in self._groups.values():
            # RFC 2236 3: a delay for each group; one that runs is set anew only if it would end later than the longest
            if (general or group.address == query.group) and not (group.answer_at and group.answer_at <= now + longest):
                group.answer_at = now + self._delay(longest)
        return None

    def _answer(self, group: Group, sources: list[bytes], due: int) -> None:
        """Rules 3 to 5 of RFC 3376 5.2."""
        if not group.answer_at:
            group.sources = sources if len(sources) <= SOURCES_LIMIT else []
            group.answer_at = due
            return
        if not sources or not group.sources:
            group.sources = []
        else:
            merged = group.sources + [source for source in sources if source not in group.sources]
            group.sources = merged if len(merged) <= SOURCES_LIMIT else []
        group.answer_at = min(group.answer_at, due)

    def _cancel(self) -> None:
        self.state.general_at = 0
        self.state.leaving = []
        for group in self._groups.values():
            group.answer_at = group.repeat_at = group.repeats = 0
            group.sources = []

    # time

    def next_timer(self) -> int | None:
        """When something is to be said."""
        state = self.state
        if not self._groups and not state.leaving:
            return None
        times = [state.general_at] if state.general_at else []
        for group in self._groups.values():
            if group.answer_at:
                times.append(group.answer_at)
            if group.repeat_at:
                times.append(group.repeat_at)
        times += [old.repeat_at for old in state.leaving]
        return min(times, default=None)

    def handle_timer(self, now: int) -> list[Say]:
        """What is due at `now`, in the order general answer, groups as joined, leaves."""
        state = self.state
        version = self.version(now)
        says: list[Say] = []
        if state.general_at and state.general_at <= now:
            state.general_at = 0
            records = [GroupRecord(IS_EXCLUDE, address) for address in self._groups]
            says += [_report(records[at : at + RECORDS_A_REPORT]) for at in range(0, len(records), RECORDS_A_REPORT)]
        for group in self._groups.values():
            if group.answer_at and group.answer_at <= now:
                group.answer_at = 0
                says.append(self._membership(group, IS_EXCLUDE, version))
            if group.repeat_at and group.repeat_at <= now:
                group.repeats -= 1
                wait = UNSOLICITED_V3 if version == 3 else UNSOLICITED_V2
                group.repeat_at = now + self._delay(wait) if group.repeats > 0 else 0
                says.append(self._membership(group, TO_EXCLUDE, version))
        for old in state.leaving:
            if old.repeat_at <= now:
                old.repeats -= 1
                old.repeat_at = now + self._delay(UNSOLICITED_V3)
                says.append(_report([GroupRecord(TO_INCLUDE, old.address)]))
        state.leaving = [old for old in state.leaving if old.repeats > 0]
        return says

    def groups(self) -> list[Group]:
        """In the order in which they were joined."""
        return list(self._groups.values())


def _report(records: list[GroupRecord]) -> Say:
    return Say(ALL_IGMPV3_ROUTERS, IgmpReport(tuple(records)).serialize(fill_checksum=True))

"""Where the link layer sent it: MAC addresses that frames went to against those that the neighbour has."""

from __future__ import annotations

from collections.abc import Iterator

from levelip.debug.collection import Collection
from levelip.debug.facts import Fact
from levelip.debug.findings import Finding
from levelip.debug.rules.case import Case, ms
from levelip.wire.arp import REQUEST

_BROADCAST = "ff:ff:ff:ff:ff:ff"


def stale_arp(case: Case) -> Iterator[Finding]:
    """Packets to one MAC address stayed without an answer, while the neighbour is at another."""
    remote = case.conversation.remote
    out = [seg.fact for seg in case.conversation.ours.segs if seg.fact.eth_dst and seg.fact.eth_dst != _BROADCAST]
    if not out:
        return
    said, macs = case.collection.once(_says).get(remote, ([], set()))
    for mac in dict.fromkeys(fact.eth_dst for fact in out):
        if not macs - {mac}:
            continue
        there = [fact for fact in out if fact.eth_dst == mac]
        others = [fact for fact, address in said if address != mac and fact.mono > there[0].mono]
        if not others:
            continue
        from_mac = [
            fact for fact in case.wire if fact.up and fact.eth_src == mac and fact.src == remote and fact.arp is None
        ]
        repeated = [one for one in case.sent if one.seg.fact in there and one.repeated is not None]
        if any(fact.mono > there[0].mono for fact in from_mac) or (len(there) < 2 and not repeated):
            continue
        origin = next((fact for fact, address in said if address == mac and fact.mono <= there[0].mono), None)
        elsewhere = _address(others[0], remote)
        now = [fact for fact, address in said if address == elsewhere][-1]
        first = origin if origin is not None else there[0]
        yield Finding(
            "stale_arp",
            f"{len(there)} packet{'s' * (len(there) > 1)} for {remote} went to {mac} and met no answer; {remote} is at "
            f"{elsewhere}, as {others[0].name} shows {ms(others[0].mono - there[0].mono)} later",
            first,
            first.mono,
            [
                f"{origin.name} announced {mac}" if origin else f"{there[0].name} is the first that went there",
                f"{now.name} comes from {elsewhere}",
                f"nothing of {remote} came from {mac} since",
            ],
        )
        return


def _says(collection: Collection) -> dict[str, tuple[list[tuple[Fact, str]], set[str]]]:
    """Of each neighbour the frames that show at which MAC address it is, and those addresses."""
    found: dict[str, tuple[list[tuple[Fact, str]], set[str]]] = {}
    for fact in collection.on_wire:
        if fact.up and (address := _address(fact, fact.src)):
            said, macs = found.setdefault(fact.src, ([], set()))
            said.append((fact, address))
            macs.add(address)
    return found


def _address(fact: Fact, remote: str) -> str:
    if fact.arp is not None and fact.src == remote:
        return fact.arp.sha.hex(":")
    return fact.eth_src if fact.src == remote else ""


def silent(case: Case) -> Iterator[Finding]:
    """ARP requests without an answer."""
    told = next(iter(case.drops("arp_unanswered")), None)
    if told is None:
        return
    hop = str(told[0].event.data.get("detail", "")) or case.conversation.remote
    asked = [
        fact
        for fact in case.wire
        if fact.arp is not None and fact.arp.oper == REQUEST and not fact.up and fact.dst == hop
        and fact.mono < told[0].mono
    ]  # fmt: skip
    first = asked[0] if asked else told[1]
    yield Finding(
        "neighbour_silent",
        f"{len(asked)} ARP request{'s' * (len(asked) != 1)} for {hop} stayed without an answer, and what waited was "
        "given up",
        first,
        first.mono if first is not None else told[0].mono,
    )


RULES = (stale_arp, silent)

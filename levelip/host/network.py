"""`lvlip net`: what connects a stack's network to the host's, done once, recorded, and taken back exactly.

Each change is written to the record in the run directory before it is made, so that `down` knows of it even if `up`
was killed; to take back what was recorded and not done does no harm. A record of an earlier boot or of another
network namespace is void.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from levelip.host import firewall, forwarding, interface
from levelip.host.firewall import Door
from levelip.ipc.rundir import RunDirectory, RunError
from levelip.wire.addr import Prefix

RECORD_FILE = "net.json"
DEVICE_FILE = "device.json"
"""link's own note {"name", "created"} of its device; `lvlip down` goes by it."""
AUTO = "auto"
"""In place of an interface: that of the default route."""


class NetError(RunError):
    """The host's network cannot be changed as asked; the text says why and what to do."""


class Wanted(Struct, kw_only=True):
    """What the host's side of a stack shall be."""

    stack: str
    device: str
    kind: Literal["tap", "tun"]
    mac: bytes
    mtu: int
    host_address: str
    """With prefix length; empty: the host's side gets none."""
    network: Prefix
    nat: str = ""
    """Interface to masquerade out of, AUTO, or empty: no address translation."""
    owner: int = 0
    """Uid of who runs the stack."""


class Record(Struct, kw_only=True):
    """What `up` has changed so far."""

    where: str
    """Boot and network namespace."""
    device: str
    created: bool = False
    raised: bool = False
    addresses: list[str] = field(default_factory=list)
    forwarding: dict[str, str] = field(default_factory=dict)
    table: str = ""
    network: str = ""
    nat: str = ""
    doors: list[Door] = field(default_factory=list)


def here() -> str:
    """This boot and this network namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    facts = Path("/proc/self/ns/net").stat()
    return f"{boot} net:[{facts.st_ino}]"


def load(run: RunDirectory) -> Record | None:
    """The record of this boot and namespace, or None."""
    try:
        record = msgspec.json.decode((run.path / RECORD_FILE).read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise NetError(f"{run.path / RECORD_FILE} cannot be read ({error}); remove it by hand") from None
    return record if record.where == here() else None


def save(run: RunDirectory, record: Record) -> None:
    """Write the record in one step."""
    path = run.path / RECORD_FILE
    draft = path.with_suffix(".new")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    draft.replace(path)


def up(run: RunDirectory, wanted: Wanted) -> list[str]:
    """Bring the host's side to what is wanted; what was changed, a sentence each. Raises RunError.

    What is there already is left alone, so a second call changes nothing. One that fails at its first change leaves no
    record behind: nobody set anything up then.
    """
    nat = _nat_interface(wanted)
    record = load(run)
    first = record is None
    if record is not None and record.device != wanted.device:
        raise NetError(f"this stack's network was set up for {record.device}; first: lvlip net down")
    run.create(memory=False)
    if record is None:
        record = Record(where=here(), device=wanted.device)
        save(run, record)
    done: list[str] = []
    try:
        for sentence in _steps(record, wanted, nat):
            save(run, record)  # each step yields twice: "" when it is about to be made, a sentence when it is done
            if sentence:
                done.append(sentence)
    except RunError:
        if first and not done and not _is_made(record):
            (run.path / RECORD_FILE).unlink()
        raise
    return done


def _is_made(record: Record) -> bool:
    """Whether the first change that a record names is there, though it failed: a device may be made and not set up.
    A table of the firewall is made in one step."""
    state = interface.facts(record.device)
    if state is None:
        return False
    if record.created:
        return True
    if any(address in state.addresses for address in record.addresses) or (record.raised and state.up):
        return True
    return bool(record.forwarding) and forwarding.is_on()


def _nat_interface(wanted: Wanted) -> str:
    """The interface to masquerade out of, checked."""
    if not wanted.nat:
        return ""
    nat = wanted.nat
    if nat == AUTO:
        nat = interface.default_interface() or ""
        if not nat:
            raise NetError(f"the host has no default route; name the interface: --nat {'|'.join(interface.names())}")
    if nat == wanted.device:
        raise NetError(f"--nat {nat}: that is the stack's own device; the one toward the network outside is meant")
    if interface.facts(nat) is None:
        raise NetError(f"--nat {nat}: there is no such interface; there are {', '.join(interface.names()) or 'none'}")
    return nat


def _steps(record: Record, wanted: Wanted, nat: str) -> Iterator[str]:
    """One change after the other: yields "" when the next is in the record, and a sentence when it is made."""
    device = wanted.device
    state = interface.facts(device)
    if state is None:
        record.created = True
        yield ""
        interface.create(device, wanted.kind, mac=wanted.mac, mtu=wanted.mtu, owner=wanted.owner)
        yield f"{wanted.kind} device {device} made"
        state = interface.facts(device)
        if state is None:
            raise NetError(f"{device} vanished while it was set up")
    elif state.kind != wanted.kind:
        what = f"a {state.kind} device" if state.kind else "no tun/tap device"
        raise NetError(f"{device} is {what}, not a {wanted.kind} device; choose another device.name")
    if wanted.host_address and wanted.host_address not in state.addresses:
        record.addresses.append(wanted.host_address)
        yield ""
        interface.add_address(device, wanted.host_address)
        yield f"{wanted.host_address} added to {device}"
    if not state.up:
        record.raised = True
        yield ""
        interface.set_up(device, True)
        yield f"{device} switched on"
    if not forwarding.is_on():
        record.forwarding = forwarding.settings()
        yield ""
        forwarding.switch_on()
        yield "net.ipv4.ip_forward switched on"
    table = firewall.table_name(wanted.stack)
    meant = (table, str(wanted.network), nat)
    if meant != (record.table, record.network, record.nat) or not firewall.has_table(table, nat=bool(nat)):
        record.table, record.network, record.nat = meant
        yield ""
        firewall.set_table(table, device, wanted.network, nat)
        translated = f", {wanted.network} masqueraded out of {nat}" if nat else ""
        yield f"nftables table {table}: forward from and to {device}{translated}"
    for door in firewall.open_doors(table, device, record.doors):
        record.doors.append(door)
        way = "from" if door.direction == "in" else "to"
        yield f"chain {door.chain} drops what is forwarded: packets {way} {device} are accepted now"


def down(run: RunDirectory, *, running: bool, others: list[RunDirectory]) -> list[str]:
    """Take back exactly what `up` did; what was changed, a sentence each. Empty: there was nothing to take back.

    `running`: the stack's link has the device open, so it keeps it, and `lvlip down` removes it then. `others`: further
    stacks, which may still need forwarding; they inherit the duty of switching it off.
    """
    record = load(run)
    if record is None:
        (run.path / RECORD_FILE).unlink(missing_ok=True)
        return []
    done: list[str] = []
    for door in list(reversed(record.doors)):
        if firewall.close_door(door, record.device):
            done.append(f"rule for {record.device} removed from chain {door.chain}")
        record.doors.remove(door)
        save(run, record)
    if record.table and firewall.remove_table(record.table):
        done.append(f"nftables table {record.table} removed")
    if record.forwarding:
        done += _stop_forwarding(record, others)
        record.forwarding = {}
        save(run, record)
    done += _put_device_back(run, record, running)
    (run.path / RECORD_FILE).unlink()
    return done


def _stop_forwarding(record: Record, others: list[RunDirectory]) -> list[str]:
    for other in others:
        heir = load(other)
        if heir is not None:
            heir.forwarding = record.forwarding
            save(other, heir)
            return [f"net.ipv4.ip_forward stays on for stack {other.name}"]
    if forwarding.put_back(record.forwarding):
        return ["net.ipv4.ip_forward switched off again"]
    return []


def _put_device_back(run: RunDirectory, record: Record, running: bool) -> list[str]:
    device = record.device
    note = _read_note(run)
    linked = note.get("created") is True and note.get("name") == device
    if record.created or linked:
        if running:
            _write_note(run, {**note, "name": device, "created": True})
            return [f"{device} stays while the stack runs; `lvlip down` removes it"]
        (run.path / DEVICE_FILE).unlink(missing_ok=True)
        return [f"device {device} removed"] if interface.remove(device) else []
    done = []
    for address in record.addresses:
        if interface.remove_address(device, address):
            done.append(f"{address} removed from {device}")
    if record.raised and not running and interface.facts(device) is not None:
        interface.set_up(device, False)
        done.append(f"{device} switched off")
    return done


def _read_note(run: RunDirectory) -> dict[str, Any]:
    try:
        note = msgspec.json.decode((run.path / DEVICE_FILE).read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}
    return note if isinstance(note, dict) else {}


def _write_note(run: RunDirectory, note: dict[str, Any]) -> None:
    path = run.path / DEVICE_FILE
    draft = path.with_suffix(".new")
    draft.write_bytes(msgspec.json.encode(note))
    draft.replace(path)


def show(run: RunDirectory, device: str, stack: str) -> dict[str, Any]:
    """The host's side as it is now, and what of it `up` made."""
    record = load(run)
    state = interface.facts(device)
    table = firewall.table_name(stack)
    data: dict[str, Any] = {
        "device": None if state is None else msgspec.to_builtins(state),
        "name": device,
        "forwarding": forwarding.is_on(),
        "table": table,
        "rules": [],
        "closed_chains": [],
        "made": None if record is None else msgspec.to_builtins(record),
        "nat": record.nat if record else "",
    }
    if os.geteuid() == 0:
        data["rules"] = firewall.rules_text(table)
        opened = {door.chain for door in record.doors} if record else set()
        data["closed_chains"] = [str(chain) for chain in firewall.closed_chains(table) if chain not in opened]
    return data

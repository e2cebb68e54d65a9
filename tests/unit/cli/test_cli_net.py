"""`lvlip net up` where the host refuses: what is recorded is what there may be to take back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from click.testing import Result

from levelip.cli import teardown
from levelip.host import firewall, forwarding, interface, network
from levelip.ipc.rundir import RunDirectory


@dataclass
class Host:
    """A host on which the named change is refused. `there`: the device; `half`: it is made, and not set up."""

    refused: str
    half: bool = False
    there: interface.Facts | None = None
    made: list[str] = field(default_factory=list)

    def facts(self, name: str) -> interface.Facts | None:
        del name
        return self.there

    def create(self, name: str, kind: str, **_: Any) -> None:
        if self.half or self.refused != "create":
            self.there = interface.Facts(7, name, kind, False, 1500, "", [])
        self._do("create")

    def add_address(self, _name: str, address: str) -> None:
        self._do("add_address")
        assert self.there is not None
        self.there.addresses.append(address)

    def set_up(self, _name: str, up: bool) -> None:
        self._do("set_up")
        assert self.there is not None
        self.there.up = up

    def set_table(self, *_: Any) -> None:
        self._do("set_table")

    def _do(self, change: str) -> None:
        if change == self.refused:
            raise interface.InterfaceError(f"cannot {change}: Operation not permitted; run it as root")
        self.made.append(change)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[Host], Host]:
    """Puts a host in place of this one."""

    def put(host: Host) -> Host:
        for name in ("facts", "create", "add_address", "set_up"):
            monkeypatch.setattr(interface, name, getattr(host, name))
        monkeypatch.setattr(firewall, "set_table", host.set_table)
        monkeypatch.setattr(forwarding, "is_on", lambda: True)
        return host

    return put


def test_one_that_is_refused_leaves_no_record(
    lvlip: Callable[..., Result], run: RunDirectory, on: Callable[[Host], Host]
) -> None:
    """Without rights nothing is set up, so that `lvlip down` does not say that `lvlip net up` asked for anything."""
    on(Host("create"))
    result = lvlip("net", "up")
    assert result.exit_code
    assert isinstance(result.exception, interface.InterfaceError) or "run it as root" in result.output
    assert not (run.path / network.RECORD_FILE).exists()
    (run.path / teardown.DEVICE_FILE).write_text('{"name": "lvlnone0", "created": false}')
    assert teardown._remove_device(run) == ["device lvlnone0 stays, as it was there before"]


@pytest.mark.parametrize("refused", ["add_address", "set_up", "set_table"])
def test_nor_where_the_device_was_there(
    lvlip: Callable[..., Result], run: RunDirectory, on: Callable[[Host], Host], refused: str
) -> None:
    """What is there already is nothing that it made, whichever change is the first one."""
    addresses = ["10.0.0.1/24"] if refused != "add_address" else []
    host = on(Host(refused, there=interface.Facts(7, "lvl0", "tap", refused == "set_table", 1500, "", addresses)))
    assert lvlip("net", "up").exit_code
    assert host.made == []
    assert not (run.path / network.RECORD_FILE).exists()


@pytest.mark.parametrize(
    "host", [Host("create", half=True), Host("add_address"), Host("set_table")], ids=lambda host: host.refused
)
def test_what_was_made_before_is_recorded(
    lvlip: Callable[..., Result], run: RunDirectory, on: Callable[[Host], Host], host: Host
) -> None:
    """A device that was made stays recorded though a later change is refused, so that `lvlip net down` removes it."""
    on(host)
    assert lvlip("net", "up").exit_code
    record = network.load(run)
    assert record is not None
    assert record.created


def test_a_record_of_an_earlier_call_stays(
    lvlip: Callable[..., Result], run: RunDirectory, on: Callable[[Host], Host]
) -> None:
    """A second call that is refused takes nothing from what the first one wrote."""
    host = on(Host("set_table"))
    assert lvlip("net", "up").exit_code
    before = (run.path / network.RECORD_FILE).read_bytes()
    host.made.clear()
    assert lvlip("net", "up").exit_code
    assert host.made == []
    assert (run.path / network.RECORD_FILE).read_bytes() == before

"""`lvlip net up` and `down`: the host's side is made once, carries packets out by NAT, and is taken back exactly."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from levelip.ipc.rundir import RunDirectory
from tests.system.namespace import Namespace

ROOT = Path(__file__).parents[2]
STATE = """
import json, pathlib
from pyroute2.nftables.main import NFTables
net = pathlib.Path("/proc/sys/net/ipv4")
paths = [net / "ip_forward", *net.glob("conf/*/forwarding"), *net.glob("conf/*/accept_redirects")]
filters = []
for family in (1, 2):
    nft = NFTables(nfgen_family=family)
    for kind in (nft.get_tables, nft.get_chains, nft.get_rules):
        for each in kind():
            filters.append([family, sorted((name, repr(value)) for name, value in each["attrs"]
                                           if name not in ("NFTA_TABLE_USE", "NFTA_CHAIN_USE"))])
    nft.close()
print(json.dumps([{str(path): path.read_text().strip() for path in sorted(paths)}, sorted(filters)]))
"""
CLOSED = """
from pyroute2.nftables.main import NFTables
nft = NFTables(nfgen_family=2)
nft.begin()
nft.table("add", name="filter")
nft.chain("add", table="filter", name="FORWARD", hook="forward", type="filter", policy=0)
nft.commit()
nft.close()
"""


class Host:
    """A namespace in which `lvlip net` is called."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.namespace = namespace
        self.env = {"LEVELIP_RUN": str(directory), "PYTHONPATH": str(ROOT)}
        self.directory = directory

    def lvlip(self, *argv: str, name: str = "level-ip", check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.namespace.run(
            [sys.executable, "-m", "levelip.cli", *argv, "--name", name], env=self.env, check=check
        )

    def changed(self, *argv: str, **options: Any) -> list[str]:
        """What `lvlip net ...` says it changed."""
        done: list[str] = json.loads(self.lvlip("net", *argv, "--json", **options).stdout)["changed"]
        return done

    def python(self, program: str) -> Any:
        output = self.namespace.run([sys.executable, "-c", program], env=self.env).stdout
        return json.loads(output) if output else None

    def state(self) -> Any:
        """Everything that `net up` may touch: devices, addresses, routes, forwarding, packet filters. Not whether there
        is a carrier, which the kernel may see later."""
        links = json.loads(self.namespace.run(["ip", "-json", "address"]).stdout)
        keep = ("ifname", "flags", "mtu", "address", "addr_info")
        devices = sorted(({key: link.get(key) for key in keep} for link in links), key=lambda link: link["ifname"])
        for device in devices:
            device["flags"] = sorted(set(device["flags"]) - {"NO-CARRIER", "LOWER_UP"})
            for address in device["addr_info"]:
                address.pop("valid_life_time", None)
                address.pop("preferred_life_time", None)
        routes = self.namespace.run(["ip", "route"]).stdout.replace(" linkdown", "")
        return devices, routes, *self.python(STATE)


@pytest.fixture
def host(namespace: Namespace) -> Iterator[Host]:
    """A host with a network outside: a veth whose other end leads nowhere yet."""
    directory = Path(tempfile.mkdtemp(prefix="lv", dir="/tmp"))
    namespace.run(["ip", "link", "add", "out0", "type", "veth", "peer", "name", "far0"])
    namespace.run(["ip", "address", "add", "198.51.100.1/24", "dev", "out0"])
    namespace.run(["ip", "link", "set", "out0", "up"])
    yield Host(namespace, directory)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize("options", [[], ["--nat", "out0"], ["--nat", "out0", "--set", "device.kind=tun"]])
def test_down_takes_back_exactly_what_up_did(host: Host, options: list[str]) -> None:
    """The state before `up` is the state after `down`, and everything in between is there."""
    before = host.state()
    assert host.changed("up", *options)
    during = host.state()
    assert during != before
    assert any(device["ifname"] == "lvl0" and "UP" in device["flags"] for device in during[0])
    assert during[2]["/proc/sys/net/ipv4/ip_forward"] == "1"
    assert host.changed("down")
    assert host.state() == before
    assert not RunDirectory("level-ip", host.directory).memory.exists(), "no stack ran, whose end would take it away"


def test_twice_changes_nothing(host: Host) -> None:
    """`up` is idempotent, and so is `down`."""
    before = host.state()
    host.changed("up", "--nat", "out0")
    during = host.state()
    assert host.changed("up", "--nat", "out0") == []
    assert host.state() == during
    host.changed("down")
    assert host.changed("down") == []
    assert host.state() == before


def test_what_was_there_before_stays(host: Host) -> None:
    """A device, an address and forwarding that others set up are used and not taken away."""
    run = host.namespace.run
    run(["ip", "tuntap", "add", "lvl0", "mode", "tap"])
    run(["ip", "address", "add", "10.0.0.1/24", "dev", "lvl0"])
    run([sys.executable, "-c", "open('/proc/sys/net/ipv4/ip_forward', 'w').write('1')"])
    before = host.state()
    assert len(host.changed("up")) == 2  # switched on, and our table
    assert len(host.changed("down")) == 2
    assert host.state() == before


def test_forwarding_of_single_interfaces_is_put_back(host: Host) -> None:
    """An interface that forwarded on its own still does after `down`, although ip_forward = 0 switches all off."""
    path = "/proc/sys/net/ipv4/conf/out0/forwarding"
    host.namespace.run([sys.executable, "-c", f"open({path!r}, 'w').write('1')"])
    before = host.state()
    host.changed("up")
    host.changed("down")
    assert host.state() == before
    assert before[2][path] == "1" and before[2]["/proc/sys/net/ipv4/ip_forward"] == "0"


def test_nat_may_be_added_and_changed(host: Host) -> None:
    """A second `up` with another --nat replaces the rules; down knows only the state before the first."""
    before = host.state()
    host.changed("up")
    [sentence] = host.changed("up", "--nat", "out0")
    assert "masqueraded out of out0" in sentence
    rules = json.loads(host.lvlip("net", "show", "--json").stdout)["rules"]
    assert "postrouting: ip saddr 10.0.0.0/24 oifname out0 masquerade" in rules
    host.changed("up")
    assert len(json.loads(host.lvlip("net", "show", "--json").stdout)["rules"]) == 2
    host.changed("down")
    assert host.state() == before


def test_two_stacks_share_forwarding(host: Host) -> None:
    """The first that goes leaves forwarding on for the other, which switches it off in the end."""
    before = host.state()
    host.changed("up")
    other = [
        "--set",
        "device.host_address=10.1.0.1/24",
        "--set",
        "ip.address=10.1.0.2/24",
        "--set",
        "ip.gateway=10.1.0.1",
    ]
    host.changed("up", *other, name="b")
    done = host.changed("down")
    assert "net.ipv4.ip_forward stays on for stack b" in done
    assert host.state()[2]["/proc/sys/net/ipv4/ip_forward"] == "1"
    host.changed("down", name="b")
    assert host.state() == before


def test_chains_of_others_that_drop(host: Host) -> None:
    """A FORWARD chain with policy drop (Docker, ufw) gets our two rules at its head, and loses just them again."""
    host.python(CLOSED)
    before = host.state()
    assert "ip filter FORWARD drops what is forwarded" in host.lvlip("net", "show").stdout
    done = host.changed("up", "--nat", "out0")
    assert sum("filter FORWARD" in sentence for sentence in done) == 2
    assert host.changed("up", "--nat", "out0") == []
    assert "drops" not in host.lvlip("net", "show").stdout
    host.changed("down")
    assert host.state() == before


def test_mistakes_change_nothing(host: Host) -> None:
    """An interface that is not there, or of the wrong kind: one line that says so, and everything as it was."""
    before = host.state()
    failed = host.lvlip("net", "up", "--nat", "nowhere0", check=False)
    assert failed.returncode == 1 and "there are far0, out0" in failed.stderr
    failed = host.lvlip("net", "up", "--set", "device.name=far0", check=False)
    assert failed.returncode == 1 and "far0 is a veth device, not a tap device" in failed.stderr
    failed = host.lvlip("net", "up", "--nat", "auto", check=False)
    assert failed.returncode == 1 and "no default route" in failed.stderr
    assert host.changed("down") == []
    assert host.state() == before


def test_interrupted_up_is_taken_back(host: Host) -> None:
    """An `up` that fails in the middle leaves a record by which `down` finds all that was done."""
    before = host.state()
    mount = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys || exit 77; exec "
    command = f"{mount} {sys.executable} -m levelip.cli net up"
    failed = host.namespace.run(["unshare", "--mount", "sh", "-c", command], env=host.env, check=False)
    if failed.returncode == 77:
        pytest.skip("/proc/sys cannot be made read-only here")
    assert failed.returncode == 1 and "sysctl -w net.ipv4.ip_forward=1" in failed.stderr
    assert any(device["ifname"] == "lvl0" for device in host.state()[0])
    assert host.changed("down") == ["device lvl0 removed"]
    assert host.state() == before


def test_a_record_of_another_namespace_is_void(host: Host, make_namespace: Callable[..., Namespace]) -> None:
    """What was set up in a namespace that is gone is not taken back elsewhere."""
    host.changed("up")
    elsewhere = Host(make_namespace(), host.directory)
    before = elsewhere.state()
    assert elsewhere.changed("down") == []
    assert elsewhere.state() == before


def test_show_in_words(host: Host) -> None:
    """`net show` tells device, addresses, forwarding, rules, and whether `up` was there."""
    assert "lvl0 is not there" in host.lvlip("net", "show").stdout
    host.lvlip("net", "up", "--nat", "out0")
    shown = host.lvlip("net", "show").stdout
    for words in ("lvl0: tap, up, mtu 1500", "10.0.0.1/24", "forwarding   on", "masquerade", "lvlip net    up"):
        assert words in shown


def test_wire_has_no_host_side(host: Host) -> None:
    """A wire device connects two stacks without the host; there is nothing to set up."""
    failed = host.lvlip("net", "up", "--set", "device.kind=wire", check=False)
    assert failed.returncode == 1 and "wire" in failed.stderr


def test_not_root(host: Host) -> None:
    """Without the right to do it: one line that says so, and nothing done."""
    if os.geteuid() != 0:
        pytest.skip("needs root to give it up")
    before = host.state()
    drop = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", "--"]
    command = [*drop, sys.executable, "-m", "levelip.cli", "net", "up"]
    failed = host.namespace.run(command, env=host.env, check=False)
    assert failed.returncode == 1 and "run it as root" in failed.stderr and "Traceback" not in failed.stderr
    assert host.changed("down") == []
    assert host.state() == before


PEER = """
import fcntl, os, select, socket, struct, sys
IFREQ = struct.Struct("16sH22x")
fd = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(fd, 0x400454CA, IFREQ.pack(b"lvl0", 0x1001))  # TUNSETIFF: IFF_TUN, IFF_NO_PI
sys.path.insert(0, sys.argv[1])
from levelip.wire.icmp import IcmpMessage
from levelip.wire.ipv4 import Ipv4Header
from levelip.wire.addr import parse_ipv4
request = IcmpMessage.echo_request(ident=7, sequence=1, payload=b"hello").serialize(fill_checksum=True)
src, dst = parse_ipv4("10.0.0.2"), parse_ipv4(sys.argv[2])
head = Ipv4Header.build(src, dst, proto=1, payload_length=len(request)).serialize(fill_checksum=True)
for _ in range(int(sys.argv[3])):
    os.write(fd, head + request)
    while select.select([fd], [], [], 0.25)[0]:
        data = os.read(fd, 2048)
        if data[0] >> 4 == 4 and data[12:16] == dst and data[20] == 0:
            print("answered", IcmpMessage.parse(data, 20).payload.decode())
            sys.exit(0)
sys.exit("no answer")
"""


@pytest.mark.parametrize("closed", [False, True])
def test_packets_reach_a_third_host(host: Host, make_namespace: Callable[..., Namespace], closed: bool) -> None:
    """Through the router namespace and its masquerade a packet of the stack's network reaches a host that knows no
    route back to it, and the answer returns; also where somebody's FORWARD chain drops."""
    world = make_namespace()
    host.namespace.run(["ip", "link", "set", "far0", "netns", str(world.pid)])
    world.run(["ip", "address", "add", "198.51.100.2/24", "dev", "far0"])
    world.run(["ip", "link", "set", "far0", "up"])
    if closed:
        host.python(CLOSED)
    host.lvlip("net", "up", "--set", "device.kind=tun")
    peer = [sys.executable, "-c", PEER, str(ROOT), "198.51.100.2"]
    assert host.namespace.run([*peer, "6"], check=False).returncode == 1  # without NAT nobody knows the way back
    host.lvlip("net", "up", "--set", "device.kind=tun", "--nat", "out0")
    assert host.namespace.run([*peer, "120"]).stdout == "answered hello\n"

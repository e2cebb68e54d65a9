"""What scripts say to other systems, and our answer: --options, sysctls, and commands for a shell.

`SYSCTLS` is the one table of sysctls. A row maps a value to our settings, or says in a sentence why nothing changes
(then only `values` are taken, if it lists any). What is in no table is an error that names it.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from levelip.configfile import keys
from simulation.host import setting
from simulation.net import SECOND
from simulation.script.absent import ACCECN, FAST_OPEN, OPTIONS, Absent, Refused, located, sentence
from simulation.script.language import Option, ScriptError
from simulation.script.rounds import LATEST

Changes = dict[str, str]  # our settings, as text


@dataclass(frozen=True, slots=True)
class Sysctl:
    """One sysctl: `change` maps the words of its value to settings; or `note` says why there is none."""

    change: Callable[[list[str]], Changes] | None = None
    note: str = ""
    values: tuple[str, ...] = ()
    absent: str = ""  # what another value asks for, if that is left out on purpose


def _to(name: str, scale: int = 1) -> Sysctl:
    """The number, times `scale`, is our setting `name`."""
    return Sysctl(lambda words: {name: str(int(words[0], 0) * scale)})


def _flag(name: str) -> Sysctl:
    return Sysctl(lambda words: {name: "true" if int(words[0], 0) else "false"})


def _name(name: str) -> Sysctl:
    return Sysctl(lambda words: {name: words[0]})


def _memory(buffer: str, ring: str) -> Sysctl:
    """min, default, max. A receive buffer may grow as far as Linux lets it (which is what its window scale tells), and
    begins where ours do (tcp.receive_initial); one that sends stays as large as Linux makes it at first."""

    def change(words: list[str]) -> Changes:
        _, default, largest = (int(word) for word in words)
        largest = max(largest, default, 65_536)
        return {ring: str(largest), f"tcp.{buffer}": str(largest if buffer == "receive_buffer" else default)}

    return Sysctl(change)


def _later(name: str, otherwise: str, *values: str) -> Sysctl:
    """Our setting `name` where this version has it; else only `values` say what happens anyway."""
    key = keys().get(name)
    if key is None:
        return Sysctl(note=otherwise, values=values)
    return _flag(name) if isinstance(key.default, bool) else _name(name)


def _plain_ecn(value: int) -> int:
    """RFC 3168's values of tcp_ecn; those above ask for Accurate ECN."""
    if value > 2:
        raise Absent(sentence(f"sysctl {TCP}ecn={value}", ACCECN))
    return value


NO_EFFECT = "an implementation detail of Linux"
TCP = "net.ipv4.tcp_"
DIVISOR = TCP + "tso_win_divisor"


def _table() -> dict[str, Sysctl]:
    table = {
        TCP + "timestamps": Sysctl(lambda words: {"tcp.timestamps": "true" if int(words[0]) else "false"}),
        TCP + "sack": _flag("tcp.sack"),
        TCP + "window_scaling": _flag("tcp.window_scaling"),
        TCP + "syn_retries": _to("tcp.syn_retries"),
        TCP + "synack_retries": _to("tcp.synack_retries"),
        TCP + "retries2": _to("tcp.retries"),
        TCP + "orphan_retries": _to("tcp.orphan_retries"),
        TCP + "fin_timeout": _to("tcp.fin_timeout_ms", 1000),
        TCP + "keepalive_time": _to("tcp.keepalive_idle_ms", 1000),
        TCP + "keepalive_intvl": _to("tcp.keepalive_interval_ms", 1000),
        TCP + "keepalive_probes": _to("tcp.keepalive_probes"),
        TCP + "challenge_ack_limit": _to("tcp.challenge_acks_per_s"),
        TCP + "congestion_control": _name("tcp.congestion"),
        TCP + "rmem": _memory("receive_buffer", "tcp.receive_ring"),
        TCP + "wmem": _memory("send_buffer", "tcp.send_ring"),
        TCP + "rto_min_us": Sysctl(lambda words: {"tcp.rto_min_ms": str(int(words[0]) // 1000)}),
        TCP + "rto_max_ms": _to("tcp.rto_max_ms"),
        "net.ipv4.ip_default_ttl": _to("ip.ttl"),
        "net.ipv4.ip_local_port_range": Sysctl(lambda words: {"tcp.port_first": words[0], "tcp.port_last": words[1]}),
        "net.ipv4.icmp_echo_ignore_all": Sysctl(lambda words: {"ip.echo_reply": "false" if int(words[0]) else "true"}),
        "net.ipv4.icmp_msgs_per_sec": _to("ip.icmp_rate_per_s"),
        "net.ipv4.icmp_msgs_burst": _to("ip.icmp_burst"),
        "net.ipv4.icmp_ratelimit": _to("ip.icmp_ratelimit_ms"),
        "net.ipv4.icmp_ratemask": _to("ip.icmp_ratemask"),
        "net.ipv4.icmp_echo_ignore_broadcasts": _flag("ip.echo_ignore_broadcasts"),
        "net.ipv4.ipfrag_time": _to("ip.fragment_time_ms", 1000),
        "net.ipv4.ipfrag_high_thresh": _to("ip.fragment_memory"),
        "net.ipv4.conf.all.accept_redirects": _flag("ip.accept_redirects"),
        "net.ipv4.conf.all.force_igmp_version": Sysctl(lambda words: {"ip.igmp_version": words[0].replace("0", "3")}),
        "net.ipv4.route.mtu_expires": Sysctl(
            lambda words: {"tcp.mtu_expires_s": words[0], "ip.mtu_expires_ms": str(int(words[0]) * 1000)}
        ),
        "net.core.somaxconn": _to("tcp.backlog_max"),
        TCP + "ecn": Sysctl(lambda words: {"tcp.ecn": str(_plain_ecn(int(words[0])))}),
        TCP + "ecn_option": Sysctl(note="no Accurate ECN", values=("0",), absent=ACCECN),
        TCP + "frto": _later("tcp.frto", "no F-RTO setting"),
        TCP + "dsack": _later("tcp.dsack", "no D-SACK setting"),
        TCP + "reordering": _later("tcp.reordering", "RFC 5681 3.2: three duplicates", "3"),
        TCP + "recovery": _later("tcp.recovery", "loss detection has no switch"),
        TCP + "early_retrans": Sysctl(lambda words: {"tcp.tlp": "true" if int(words[0]) >= 3 else "false"}),
        TCP + "slow_start_after_idle": _later("tcp.slow_start_after_idle", "no restart after idle setting"),
        TCP + "mtu_probing": _later("tcp.mtu_probing", "no probing for the MTU yet", "0"),
        TCP + "syncookies": _later("tcp.syncookies", "no SYN cookies yet"),
        TCP + "max_syn_backlog": _later("tcp.max_syn_backlog", "the backlog alone counts"),
        TCP + "tw_reuse_delay": _to("tcp.tw_reuse_delay_ms"),
        TCP + "tw_reuse": _later("tcp.tw_reuse", "RFC 6191 alone decides"),
        TCP + "rfc1337": _later("tcp.rfc1337", "no setting"),
        TCP + "abort_on_overflow": _later("tcp.abort_on_overflow", "a full backlog drops", "0"),
        TCP + "retries1": _later("tcp.retries1", "routes are not looked up anew"),
        TCP + "notsent_lowat": Sysctl(
            note="no limit but a socket's own",
            values=("4294967295", "-1"),
            absent="a limit for all sockets of what is written and not sent",
        ),
        TCP + "base_mss": _to("tcp.base_mss"),
        TCP + "mtu_probe_floor": _to("tcp.mtu_probe_floor"),
        TCP + "probe_interval": _to("tcp.probe_interval_s"),
        TCP + "probe_threshold": _to("tcp.probe_threshold"),
        TCP + "max_orphans": _to("tcp.max_orphans"),
        TCP + "ecn_fallback": _flag("tcp.ecn_fallback"),
        TCP + "limit_output_bytes": Sysctl(note=NO_EFFECT),
        TCP + "fastopen": Sysctl(
            note="no Fast Open; a SYN's data is taken after the handshake",
            values=("0", "1", "2", "3", "0x0", "0x1", "0x2", "0x3"),
            absent=FAST_OPEN,
        ),
        TCP + "fastopen_key": Sysctl(note="no Fast Open"),
        TCP + "fack": Sysctl(note="gone from Linux too", values=("0",)),
        TCP + "adv_win_scale": Sysctl(note="the window is the free part of the buffer"),
        TCP + "app_win": Sysctl(note="the window is the free part of the buffer"),
        TCP + "moderate_rcvbuf": _later("tcp.moderate_rcvbuf", "no setting"),
        TCP + "no_metrics_save": Sysctl(note="no metrics are kept"),
        TCP + "min_snd_mss": Sysctl(note="the smallest MSS is 48 bytes"),
        TCP + "shrink_window": Sysctl(
            note="the window never shrinks", values=("0",), absent="windows that shrink (RFC 9293 3.8.6: SHOULD NOT)"
        ),
        TCP + "autocorking": Sysctl(note=NO_EFFECT),
        TCP + "thin_linear_timeouts": Sysctl(note="no thin streams", values=("0",)),
        TCP + "min_rtt_wlen": _later("tcp.min_rtt_wlen", NO_EFFECT),
        TCP + "invalid_ratelimit": _to("tcp.invalid_ratelimit_ms"),
        TCP + "l3mdev_accept": Sysctl(note=NO_EFFECT),
        TCP + "stdurg": Sysctl(note="RFC 6093", values=("0",)),
        TCP + "plb_enabled": Sysctl(note="none", values=("0",)),
        TCP + "migrate_req": Sysctl(note="none", values=("0",)),
        TCP + "backlog_ack_defer": Sysctl(note=NO_EFFECT),
        TCP + "tso_rtt_log": Sysctl(note=NO_EFFECT),
        "net.ipv4.ip_no_pmtu_disc": Sysctl(note="the path's MTU is always discovered", values=("0",)),
        "net.core.default_qdisc": Sysctl(note="no queue discipline"),
        "net.core.rmem_max": Sysctl(note="tcp.receive_ring bounds SO_RCVBUF"),
        "net.core.wmem_max": Sysctl(note="tcp.send_ring bounds SO_SNDBUF"),
    }
    table[DIVISOR] = Sysctl(note="another value than Linux's 3 turns offload off: no sending is put off then")
    for name in ("pacing_ss_ratio", "pacing_ca_ratio", "min_tso_segs"):
        table[TCP + name] = Sysctl(note="no pacing: packets leave when the windows allow it")
    for name in ("comp_sack_delay_ns", "comp_sack_nr", "comp_sack_slack_ns", "comp_sack_rtt_percent"):
        table[TCP + name] = Sysctl(note="each segment out of order is answered at once (RFC 5681 4.2)")
    return table


SYSCTLS = _table()

DEFAULTS_SH = {
    "rmem": "4096 540000 15728640", "wmem": "4096 262144 4194304", "timestamps": "1", "syn_retries": "5",
    "synack_retries": "5", "frto": "2", "sack": "1", "dsack": "1", "reordering": "3", "congestion_control": "cubic",
    "slow_start_after_idle": "0", "early_retrans": "4", "recovery": "1", "ecn": "0", "syncookies": "1",
}  # fmt: skip
"""What packetdrill's and Linux's defaults.sh set (net.ipv4.tcp_...): the usual setting of a production host."""

SILENT = (
    "true", "sleep 0", "rm -f", "tc", "ip tcp_metrics", "iptables", "nstat", "modprobe", "set", "export", "ulimit",
    "echo",
)  # fmt: skip
"""Commands without meaning for a stack that is made anew for every script."""


@dataclass(slots=True)
class World:
    """What options and commands before the first event have settled."""

    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tolerance_us: float = 4000
    tolerance_percent: float = 0
    ts_tick_us: int = 0
    local: str = "192.168.0.1"
    prefix: int = 16
    remote: str = "192.0.2.1"
    gateway: str = "192.168.0.2"
    bind_port: int = 8080
    connect_port: int = 8080
    mtu: int = 1500
    mss: int = 0
    offload: bool = True
    local_isn: int = -1
    strict_segments: bool = False
    strict: bool | None = None
    rounds: bool = False  # tcp takes what comes at one instant together, as a process's loop gives it
    linux_push: bool = False  # PSH is not compared: Linux sets it by how its send buffer was cut
    non_fatal: frozenset[str] = frozenset()
    files: dict[str, int] = field(default_factory=dict)  # files of zeros that dd has made: path → bytes
    fixed: frozenset[str] = frozenset()  # settings of --set, which nothing in the script changes


def take_option(world: World, option: Option) -> None:
    """One --option of a script's head, or of the command line. ScriptError if there is no such thing."""
    name, value = option.name, option.value

    def bad(why: str) -> ScriptError:
        return ScriptError(f"--{name}={value or ''}: {why}", option.line, option.column)

    def number(low: int, high: int) -> int:
        try:
            found = int(value or "", 0)
        except ValueError:
            raise bad("a number is needed") from None
        if not low <= found <= high:
            raise bad(f"from {low} to {high}")
        return found

    def address(text: str | None) -> str:
        try:
            return str(IPv4Address((text or "").partition("/")[0]))
        except ValueError:
            raise bad("an IPv4 address is needed") from None

    match name:
        case "tolerance_usecs":
            world.tolerance_us = number(0, 1 << 40)
        case "tolerance_percent":
            try:
                world.tolerance_percent = float(value or "")
            except ValueError:
                raise bad("a number is needed") from None
        case "tcp_ts_tick_usecs":
            world.ts_tick_us = number(0, 1_000_000)
        case "ip_version":
            if value != "ipv4":
                raise Refused(f"--ip_version={value}: not implemented, IPv6", option.line, option.column)
        case "local_ip":
            world.local = address(value)
        case "remote_ip":
            world.remote = address(value)
        case "gateway_ip":
            world.gateway = address(value)
        case "netmask_ip":
            try:
                world.prefix = IPv4Network(f"0.0.0.0/{value}").prefixlen
            except ValueError:
                raise bad("a netmask is needed") from None
        case "bind_port":
            world.bind_port = number(1, 65_535)
        case "connect_port":
            world.connect_port = number(1, 65_535)
        case "mtu":
            world.mtu = number(68, 65_535)
        case "mss":
            world.mss = number(1, 65_535)
        case "local_isn":
            world.local_isn = number(0, 0xFFFF_FFFF)
        case "set":
            key, _, text = (value or "").partition("=")
            take_settings(world, {key: text}, option)
        case "strict_segments":
            world.strict_segments = True
        case "strict":
            world.strict = True
        case "rounds":
            world.rounds = True
        case "non_fatal":
            world.non_fatal = frozenset((value or "").replace(" ", "").split(","))
        case "init_scripts":
            for script in (value or "").split(","):
                for line in run_command(script):
                    _apply(world, line, option)
        case "define" | "send_omit_free" | "verbose" | "debug" | "speed" | "code_sockopt" | "is_anyip":
            pass  # defines were taken by the parser; the others mean nothing to a stack that ends with the script
        case "code_command" | "code_format":
            if "python" not in (value or ""):
                raise bad("code is Python")
        case _:
            if name in OPTIONS:
                raise Refused(sentence(f"--{name}", OPTIONS[name]), option.line, option.column)
            raise ScriptError(f"there is no option --{name}", option.line, option.column)


def take_settings(world: World, changes: Changes, at: Option) -> None:
    """Put settings into the world; those of --set stay."""
    for name, text in changes.items():
        if name in world.fixed:
            continue
        try:
            key, value = setting(name, text)
        except ValueError as error:
            raise ScriptError(str(error), at.line, at.column) from None
        world.settings[key] = value


def _apply(world: World, step: Step, at: Option) -> None:
    """Carry out a step of a command before the stack is made."""
    if step.note:
        world.notes.append(step.note)
    if step.ask is not None:
        raise ScriptError("lvlip asks a stack that runs: write a time before the command", at.line, at.column)
    world.linux_push = world.linux_push or step.linux
    if step.offload is not None:
        world.offload = step.offload
    if step.mtu:
        world.mtu = step.mtu
    if step.file[0]:
        world.files[step.file[0]] = step.file[1]
    take_settings(world, step.changes, at)


def apply_command(world: World, text: str, at: Option) -> None:
    """A command before the first event. ScriptError if it is not known."""
    try:
        for step in run_command(text):
            _apply(world, step, at)
    except ValueError as error:
        raise located(error, at.line, at.column) from None


@dataclass(slots=True)
class Step:
    """What one command comes to."""

    changes: Changes = field(default_factory=dict)
    note: str = ""
    offload: bool | None = None
    mtu: int = 0
    ask: tuple[str, dict[str, Any]] | None = None  # a command of ours to the ip core: name and arguments
    linux: bool = False  # defaults.sh: the script was written for Linux's sender
    file: tuple[str, int] = ("", 0)  # a file of so many zeros
    round: bool = False  # what goes on at this instant ends (--rounds)
    late: int = 0  # ns from now to when the timers run that are due now (--rounds)


_ARITHMETIC = re.compile(r"\$\(\(\s*(\d+(?:\s*\*\s*\d+)*)\s*\)\)")  # $((15*1024*1024))


def run_command(text: str) -> Iterator[Step]:
    """The steps that a `command` comes to. ValueError names one that nobody here knows."""
    text = _ARITHMETIC.sub(lambda found: str(math.prod(map(int, found[1].split("*")))), text.replace("\\\n", " "))
    for raw in re.split(r"\n|;|&&", text):
        line = raw.partition(" #")[0].strip()
        line = re.sub(r"\s*(\d?>&?\s*\S+)", "", line).removeprefix("sudo ").strip()
        if line and not line.startswith("#"):
            yield from _one(line)


def _one(line: str) -> Iterator[Step]:
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ValueError(f"command {line!r}: {error}") from None
    program = words[0].rpartition("/")[2]
    if "|" in words or program == "grep":  # it looks at what a program says, which only that system can answer
        raise Absent(f"command {line!r} asks a question about Linux that cannot be answered here")
    if program == "sysctl":
        for word in [word for word in words[1:] if not word.startswith("-")]:
            yield _sysctl(word)
    elif program == "set_sysctls.py":
        for word in words[1:]:
            yield _sysctl(word.removeprefix("/proc/sys/"))
    elif program.startswith("defaults.sh"):
        yield Step(linux=True)
        for name, value in DEFAULTS_SH.items():
            if name == "congestion_control" and not _known_congestion(value):
                yield Step(note=f"defaults.sh: no congestion control {value}; the stack's own is used")
                continue
            yield _sysctl(f"{TCP}{name}={value}")
    elif program.startswith("sysctl_restore"):
        yield Step()  # the stack ends with the script
    elif program == "ethtool" and words[1:2] in (["-K"], ["--offload"]):
        for name, value in zip(words[3::2], words[4::2], strict=False):
            yield Step(offload=value == "on" if name in ("tso", "gso") else None)
    elif program == "ip" and "mtu" in words and words[1:2] == ["link"]:
        yield Step(mtu=int(words[words.index("mtu") + 1]))
    elif program == "dd":
        yield _zeros(line, words[1:])
    elif program == "tc" and ("netem" in words or words[-2:] == ["limit", "0"]):
        raise Absent(sentence(f"command {line!r}", "a queue that loses or delays packets"))
    elif program == "tc" and "fq" in words:
        raise Absent(sentence(f"command {line!r}", "pacing"))
    elif program == "ip" and words[1:2] == ["route"]:
        raise Absent(sentence(f"command {line!r}", "the metrics of Linux's routes; ours are told by `lvlip route`"))
    elif program == "lvlip":
        yield _own_command(words[1:])
    elif words == ["round"]:
        yield Step(round=True)
    elif words[:2] == ["timers", "late"] and len(words) == 3:
        yield _late(words[2])
    elif program in SILENT or " ".join([program, *words[1:2]]) in SILENT:
        yield Step(note=f"{line}: nothing to do")
    else:
        raise ValueError(f"command {line!r} is not known here; known are {', '.join(COMMANDS)}")


def _zeros(line: str, words: list[str]) -> Step:
    """`dd bs=1 count=5 if=/dev/zero of=PATH`: a file for sendfile()."""
    said = dict(word.split("=", 1) for word in words if "=" in word)
    if said.get("if") != "/dev/zero" or "of" not in said or "count" not in said:
        raise ValueError(f"command {line!r}: dd is known as `dd bs=N count=N if=/dev/zero of=PATH`")
    return Step(file=(said["of"], int(said.get("bs", "512")) * int(said["count"])))


def _late(text: str) -> Step:
    """`timers late 0.0015`: of a script in rounds."""
    late = int(Decimal(text) * SECOND) if re.fullmatch(r"\d*\.?\d+", text) else 0
    if not 0 < late <= LATEST:
        raise ValueError(f"timers late {text}: so many seconds, from 0 to {LATEST // SECOND}")
    return Step(late=late)


def _own_command(words: list[str]) -> Step:
    """`lvlip set`, or what is asked of ip."""
    match words:
        case ["set", said]:
            name, _, value = said.partition("=")
            setting(name, value)
            return Step(changes={name: value})
    return Step(ask=_asked_of_ip(words))


def _asked_of_ip(words: list[str]) -> tuple[str, dict[str, Any]]:
    """`lvlip group join 224.1.2.3`, and the like: what the verb asks of ip, in the words of the command line."""
    match words:
        case ["group", "join" | "leave" as what, group]:
            return f"group.{what}", {"group": group}
        case ["address", "add" | "del" as what, address]:
            return f"address.{what}", {"address": address}
        case ["route", "add" | "del" as what, *route] if route:
            return f"route.{what}", {"route": " ".join(route)}
        case ["route", "flush" | "cache" as what]:
            return f"route.{what}", {}
        case ["ping", host, *options]:
            return "ping", {"dst": host, "id": 1, **_ping_options(options)}
    raise ValueError(f"command lvlip {' '.join(words)!r} is not known here; known are {', '.join(OWN)}")


def _ping_options(words: list[str]) -> dict[str, Any]:
    """Those of `lvlip ping` that one request has."""
    numbers = {"-s": "size", "-t": "ttl", "-Q": "tos", "-e": "id", "-W": "timeout_ms"}
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "-M" and rest and rest.pop(0) == "do":
            found["dont_fragment"] = True
        elif word in numbers and rest:
            found[numbers[word]] = int(rest.pop(0), 0) * (1000 if word == "-W" else 1)
        else:
            raise ValueError(f"lvlip ping: {word} is not known here; known are -M do, {', '.join(numbers)}")
    return found


OWN = (
    "set SECTION.KEY=VALUE", "group join|leave GROUP", "address add|del ADDRESS",
    "route add|del ROUTE", "route flush|cache", "ping HOST",
)  # fmt: skip
COMMANDS = (
    "sysctl", "set_sysctls.py", "defaults.sh", "sysctl_restore*.sh", "ethtool -K", "ip link ... mtu", "dd",
    "round", "timers late SECONDS",
    *(f"lvlip {verb}" for verb in OWN), *SILENT,
)  # fmt: skip


def _known_congestion(name: str) -> bool:
    try:
        setting("tcp.congestion", name)
    except ValueError:
        return False
    return True


def _sysctl(word: str) -> Step:
    name, equals, value = word.partition("=")
    name = name.replace("/", ".")
    row = SYSCTLS.get(name)
    if not equals or row is None:
        raise ValueError(f"sysctl {name} is not known here; see docs/packet-scripts.md for those that are")
    value = value.strip()
    if name == DIVISOR and value != "3":
        return Step(note=f"{name}={value}: offload off", offload=False)
    if row.change is None:
        if row.values and value not in row.values:
            if row.absent:
                raise Absent(sentence(f"sysctl {name}={value}", row.absent))
            raise ValueError(f"sysctl {name}={value}: {row.note}; it can only be {' or '.join(row.values)}")
        return Step(note=f"{name}={value}: {row.note}")
    if name == TCP + "congestion_control" and value == "reno":
        value = "newreno"
    try:
        return Step(changes=row.change(value.split()))
    except Absent:
        raise
    except (ValueError, IndexError):
        raise ValueError(f"sysctl {name}={value!r}: that is no value for it") from None

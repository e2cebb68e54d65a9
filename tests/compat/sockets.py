"""Makes docs/socket-compat.md: each call, flag and option of Python's sockets, what Linux does, what we do.

    python -m tests.compat.sockets            writes the page
    python -m tests.compat.sockets --check    fails if the page is not what would be written

What exists is read from the modules, which options are carried from the gateway's tables, which tests touch a name from
their sources. What differs is written here; tests/unit/client/test_client_compat.py sees that nothing is missing.
"""

from __future__ import annotations

import ast
import inspect
import json
import socket as std
import sys
from collections import defaultdict
from pathlib import Path

from gateway.options import DATAGRAM_OPTIONS, OPTIONS
from levelip.client.datagramsocket import DatagramSocket
from levelip.client.socket import OURS
from levelip.client.streamsocket import socket
from tests.compat.cpython import COUNTS, TITLES
from tests.compat.suites import SUITES

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "socket-compat.md"
MOST = 2
"""Tests named in a row; the others are counted."""

SOURCES = (
    "tests/process/test_client*.py", "tests/system/test_client_*.py", "tests/system/test_sockopts.py",
    "tests/system/programs/*.py",
)  # fmt: skip

SAME = "the same"
CALLS = {
    "accept": "a signal whose handler raises, between the kernel's wait and the call, costs the connection",
    "bind": "on a connection that was reset: EINVAL (Linux binds, and nothing can follow from it)",
    "connect": "non-blocking, one that fails at once (ENETUNREACH) is EINPROGRESS, then SO_ERROR",
    "dup": "MSG_MORE's state and a connected datagram socket's are each object's own",
    "getsockopt": "options: see below",
    "listen": "after shutdown() of the listener: make a new socket",
    "makefile": SAME,
    "recv": "before connect() C code on the descriptor waits instead of ENOTCONN",
    "recvmsg": "of a stream there is no ancillary data; of datagrams what docs/rpc.md has options for",
    "recvmsg_into": "likewise",
    "sendmsg": "ancillary data of datagrams: IP_PKTINFO, IP_TTL, IP_TOS, IP_RETOPTS",
    "sendmsg_afalg": "of AF_ALG sockets, which are the kernel's",
    "setsockopt": "options: see below; SO_SNDBUF made smaller on a connection leaves what was granted before",
    "shutdown": (
        "SHUT_RD: what comes later is thrown away (Linux keeps it readable). On an unconnected socket it fails, as on "
        "Linux, and does nothing (there it shuts the socket all the same)"
    ),
}
"""Methods of a socket with a remark; all others are the same."""

FUNCTIONS = {
    "has_ipv6": "False, as has_dualstack_ipv6()",
    "if_nameindex": "the stack's interfaces", "if_indextoname": "the stack's interfaces",
    "if_nametoindex": "the stack's interfaces", "gethostname": "the host's name", "sethostname": "the host's name",
}  # fmt: skip
"""Functions with a remark."""

FLAGS: dict[str, tuple[str, str]] = {
    # of streams, of datagrams
    "MSG_CMSG_CLOEXEC": (SAME, SAME),
    "MSG_CONFIRM": ("ignored, as TCP does", "ignored: no neighbour is confirmed"),
    "MSG_CTRUNC": (SAME, SAME),
    "MSG_DONTROUTE": ("ignored: there is one link", "ignored: there is one link"),
    "MSG_DONTWAIT": (SAME, SAME),
    "MSG_EOR": ("accepted, no effect: the pair does not carry it", SAME),
    "MSG_ERRQUEUE": ("EAGAIN: always empty", "the error queue of IP_RECVERR, 64 errors a socket"),
    "MSG_FASTOPEN": ("connects, then sends: as Linux without a cookie", "ignored, as UDP does"),
    "MSG_MORE": ("TCP_CORK until a call without it", SAME),
    "MSG_NOSIGNAL": (SAME, SAME),
    "MSG_OOB": ("the same but for what docs/socket-api.md lists (Urgent data)", SAME),
    "MSG_PEEK": (SAME, SAME),
    "MSG_TRUNC": (SAME, SAME),
    "MSG_WAITALL": (SAME, SAME),
}

OPTION_NOTES = {
    "SO_BINDTODEVICE": "the one interface (others: ENODEV, lo: EOPNOTSUPP); what comes from loopback comes, too",
    "SO_DEBUG": "kept, no effect; root instead of CAP_NET_ADMIN",
    "SO_DONTROUTE": "kept, no effect: there is one link",
    "SO_INCOMING_CPU": "kept, no effect; of a connection Linux tells the CPU, here -1",
    "SO_MARK": "kept, no effect; root instead of CAP_NET_ADMIN",
    "SO_PASSCRED": "EOPNOTSUPP, as Linux since 6.16",
    "SO_PASSSEC": "EOPNOTSUPP, as Linux since 6.16",
    "IP_OPTIONS": "source routes are EINVAL",
    "IP_RECVOPTS": "ENOPROTOOPT on streams",
    "IP_RECVRETOPTS": "IP_RETOPTS",
    "IP_RETOPTS": "ENOPROTOOPT on streams",
    "SO_PRIORITY": "kept, no effect, nor changed by IP_TOS; root instead of CAP_NET_ADMIN",
    "TCP_FASTOPEN": "kept, no effect: as Linux with sysctl tcp_fastopen = 1, the default",
    "TCP_NOTSENT_LOWAT": "bounds what waits in the stack; poll says POLLOUT as long as the pair has room",
    "IP_BIND_ADDRESS_NO_PORT": "kept, no effect: bind() chooses the port at once",
    "SO_RCVLOWAT": "of a stream up to half of the receive buffer; of datagrams kept, no effect, as on Linux",
    "SO_RCVTIMEO": "of the descriptor itself",
    "SO_SNDTIMEO": "of the descriptor itself; connect() keeps to it",
    "IP_MULTICAST_IF": "accepted and without effect: there is one interface",
    "IP_ADD_MEMBERSHIP": "a call",
    "IP_DROP_MEMBERSHIP": "a call",
}
UNTESTED = {"sendmsg_afalg": "needs AF_ALG", "sethostname": "would rename the machine"}
"""Names that no test calls, and why."""
_CALLED = ("IP_ADD_MEMBERSHIP", "IP_DROP_MEMBERSHIP", "IP_MULTICAST_IF")
_LEVELS = {"SO_": std.SOL_SOCKET, "TCP_": std.IPPROTO_TCP, "IP_": std.IPPROTO_IP}
NO_OPTIONS = (
    "IP_DEFAULT_MULTICAST_LOOP",
    "IP_DEFAULT_MULTICAST_TTL",
    "IP_MAX_MEMBERSHIPS",
    "SO_J1939_",
    "SO_VM_SOCKETS_",
)
"""How names begin that only look like options, or are those of other families."""


def methods() -> list[str]:
    """Public methods and attributes of a socket object."""
    return sorted(name for name in dir(std.socket) if not name.startswith("_"))


def functions() -> list[str]:
    """Public functions of the module, and has_ipv6."""
    found = [name for name in std.__all__ if inspect.isroutine(getattr(std, name))]
    more = {"has_ipv6", "fromfd", "has_dualstack_ipv6", "create_server", "create_connection"}
    return sorted({*found, *more} - {"socket"})


def flags() -> list[str]:
    """MSG_ constants, and one that Python does not name on every version."""
    return sorted({name for name in dir(std) if name.startswith("MSG_")} | {"MSG_FASTOPEN"})


def options() -> list[tuple[str, int, int]]:
    """(name, level, number) of the options of SOL_SOCKET, TCP and IP that Python names."""
    found = []
    for prefix, level in _LEVELS.items():
        names = sorted(name for name in dir(std) if name.startswith(prefix) and not name.startswith(NO_OPTIONS))
        found += [(name, level, int(getattr(std, name))) for name in names]
    return found


def verdict(name: str, key: tuple[int, int], *, datagrams: bool) -> str:
    """Whether an option of streams or datagram sockets is carried."""
    if datagrams and name in _CALLED:
        return "yes"
    table = DATAGRAM_OPTIONS if datagrams else OPTIONS
    return "yes" if key in table else "–"


def touched() -> dict[str, list[str]]:
    """Name → tests, and cases of the programs that tests run, whose source has it as an attribute: theirs, or that of
    what they name of their module (helpers, tables)."""
    found: dict[str, set[str]] = defaultdict(set)
    for pattern in SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            defined = _defined(ast.parse(path.read_text()))
            cases = _names(defined["CASES"]) if "CASES" in defined else defined.keys()
            program = path.parent.name == "programs"
            for name, node in defined.items():
                if isinstance(node, ast.FunctionDef) and (name in cases if program else name.startswith("test_")):
                    for attribute in _attributes(node, defined):
                        found[attribute].add(f"{path.stem}.{name}")
    return {name: sorted(tests, key=lambda test: ("socketapi" not in test, test)) for name, tests in found.items()}


def _defined(module: ast.Module) -> dict[str, ast.stmt]:
    """What a module defines: functions, classes, tables."""
    found: dict[str, ast.stmt] = {}
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = node
        for target in node.targets if isinstance(node, ast.Assign) else ():
            found |= dict.fromkeys(_names(target), node)
        if isinstance(node, ast.AnnAssign):
            found |= dict.fromkeys(_names(node.target), node)
    return found


def _names(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _attributes(node: ast.stmt, defined: dict[str, ast.stmt]) -> set[str]:
    """All in the source of a function and of what it names."""
    todo, seen = [node], {id(node)}
    found = set()
    while todo:
        one = todo.pop()
        found |= {inner.attr for inner in ast.walk(one) if isinstance(inner, ast.Attribute)}
        found |= {name for name in _names(one) if name.startswith("MSG_")}  # of those that Python does not name
        more = [defined[name] for name in _names(one) & defined.keys() if id(defined[name]) not in seen]
        seen |= {id(other) for other in more}
        todo += more
    return found


def tested(name: str, tests: list[str]) -> str:
    """The cell."""
    if not tests:
        return UNTESTED.get(name, "")
    more = f" and {len(tests) - MOST} more" if len(tests) > MOST else ""
    return ", ".join(f"`{test}`" for test in tests[:MOST]) + more


def page() -> str:
    """The whole page."""
    by = touched()
    lines = [
        "# Python's socket API, name by name", "",
        "Made by `python -m tests.compat.sockets` (Python 3.11) from modules, the gateway's tables and tests; do not",
        "edit. On Linux all of it exists. \"descriptor\": the standard library's own method, on a real descriptor.",
        "docs/socket-api.md says how it works, and what differs beside single calls.", "",
        "## Methods of a socket", "", "| call | here | what differs | tested by |", "|---|---|---|---|",
    ]  # fmt: skip
    for name in methods():
        here = "ours" if any(name in vars(kind) for kind in (socket, DatagramSocket)) else "descriptor"
        lines.append(f"| {name} | {here} | {CALLS.get(name, SAME)} | {tested(name, by.get(name, []))} |")
    lines += [
        "",
        "## Functions of the module",
        "",
        "| function | here | what differs | tested by |",
        "|---|---|---|---|",
    ]
    for name in functions():
        here = "ours" if name in OURS else "the standard library's"
        lines.append(f"| {name} | {here} | {FUNCTIONS.get(name, SAME)} | {tested(name, by.get(name, []))} |")
    lines += [
        "", "Constants, exceptions and enumerations are the standard module's own objects.", "",
        "## Flags", "", "| flag | of a stream | of datagrams | tested by |", "|---|---|---|---|",
    ]  # fmt: skip
    lines += [f"| {name} | {' | '.join(FLAGS[name])} | {tested(name, by.get(name, []))} |" for name in flags()]
    lines += [
        "", "## Options", "",
        "Linux has all of them on one or the other kind of socket; those without a yes are ENOPROTOOPT here.",
        "docs/rpc.md has those that Python does not name.", "",
        "| option | stream | datagrams | what differs | tested by |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for name, level, number in options():
        kinds = [verdict(name, (level, number), datagrams=datagrams) for datagrams in (False, True)]
        note = OPTION_NOTES.get(name, SAME if "yes" in kinds else "ENOPROTOOPT")
        lines.append(f"| {name} | {kinds[0]} | {kinds[1]} | {note} | {tested(name, by.get(name, []))} |")
    return "\n".join(lines + suites()) + "\n"


def suites() -> list[str]:
    """The section of CPython's own tests: what ran where, as it was counted last, and what does not pass, and why."""
    counts = json.loads(COUNTS.read_text())
    lines = [
        "", "## CPython's own tests", "",
        "`python -m tests.compat.cpython` runs the suites of CPython's distribution on the kernel's sockets, by",
        "`python -m levelip -m test SUITE` and by `lvlip run -- python -m test SUITE`, all in one network namespace",
        "and over the loopback, and compares them test by test. Tests that passed, with CPython 3.11:", "",
        f"| suite | {' | '.join(TITLES.values())} |", f"|---|{'---:|' * len(TITLES)}",
    ]  # fmt: skip
    for suite in SUITES:
        cells = [str(counts[suite.name][way]["passed"]) for way in TITLES]
        lines.append(f"| {suite.name} | {' | '.join(cells)} |")
    lines += [
        "", "All that pass on the kernel and not here, one by one; what fails or is skipped there, too, is left out.",
        "`make test` runs the first three suites in both ways, `make test-all` all of them",
        "(`tests/system/test_client_cpython.py`): a test that does not pass and is not in this list is a failure,",
        "and so is one of the list that does.", "",
        "| test | by | why |", "|---|---|---|",
    ]  # fmt: skip
    for suite in SUITES:
        for name, why in (*suite.differ.items(), *((name, f"at times: {why}") for name, why in suite.varies.items())):
            only, _, test = name.rpartition(": ")
            lines.append(f"| {suite.name} `{test}` | {TITLES.get(only, 'both')} | {why} |")
    lines += ["", "Left out, on the kernel too:", "", "| tests | why |", "|---|---|"]
    lines += [f"| {suite.name} `{pattern}` | {why} |" for suite in SUITES for pattern, why in suite.left_out.items()]
    return lines


def main() -> None:
    """Write or check."""
    text = page()
    if sys.argv[1:] == ["--check"]:
        if not PAGE.exists() or PAGE.read_text() != text:
            sys.exit(f"{PAGE.relative_to(ROOT)} is stale: python -m tests.compat.sockets")
        return
    PAGE.write_text(text)


if __name__ == "__main__":
    main()

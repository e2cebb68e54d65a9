"""docs/rpc.md says what the code does: kinds, fields, calls, states, options, the example's bytes."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from datagram_bench import SAMPLES, DatagramBench
from msgspec import NODEFAULT, Struct

from gateway import connection, datagrams, door, info, relay
from gateway.arguments import ARGUMENTS, OF_NO_SOCKET
from gateway.options import DATAGRAM_OPTIONS, OPTIONS, Kind
from gateway.table import VERDICTS
from gateway.work import WAITING_CALLS
from levelip.config import GatewayConfig
from levelip.rpc import codec, messages, place, stream
from levelip.rpc.messages import Hello, Reply, Request, Welcome
from levelip.rpc.stream import Send
from levelip.tracing.reasons import all_reasons

TEXT = (Path(__file__).parents[3] / "docs" / "rpc.md").read_text()


def tables() -> list[list[list[str]]]:
    """The cells of each table, its heading first."""
    found: list[list[list[str]]] = []
    before = ""
    for line in TEXT.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not before.startswith("|"):
                found.append([cells])
            elif not set(line) <= set("|-"):
                found[-1].append(cells)
        before = line
    return found


def table(*heading: str) -> list[list[str]]:
    """The rows of all tables with this heading."""
    rows = [row for each in tables() if each[0][: len(heading)] == list(heading) for row in each[1:]]
    assert rows, heading
    return rows


def fields(struct: type[Struct]) -> str:
    """As the documentation writes them."""
    written = []
    for field in msgspec.structs.fields(struct):
        text = field.encode_name
        default: Any = field.default
        if field.default_factory is not NODEFAULT:
            default = field.default_factory()
        if default is not NODEFAULT:
            shown = {None: "nil", False: "false"}.get(default) if default is None or default is False else None
            text += " = " + (shown or (f'b"{default.decode()}"' if isinstance(default, bytes) else repr(default)))
        written.append(text.replace("''", '""'))
    return ", ".join(written)


def test_messages() -> None:
    """Each message's kind, direction and fields are those of its Struct, and none is missing."""
    to_gateway, to_client = set(get_args(messages.ToGateway)), set(get_args(messages.ToClient))
    documented = {row[1]: row for row in table("kind", "message")}
    assert set(documented) == {struct.__name__ for struct in to_gateway | to_client}
    for struct in to_gateway | to_client:
        ways = (struct in to_gateway, struct in to_client)
        way = {(True, False): "→ gateway", (False, True): "→ client", (True, True): "both"}[ways]
        kind = str(struct.__struct_config__.tag)
        assert documented[struct.__name__] == [kind, struct.__name__, way, fields(struct)]


def test_calls() -> None:
    """Each call's arguments are those of its Struct; every errno exists."""
    documented = {row[0]: row for row in table("op", "args")}
    assert set(documented) == set(ARGUMENTS)
    for op, struct in ARGUMENTS.items():
        assert documented[op][1] == fields(struct), op
        for name in filter(None, documented[op][3].split(", ")):
            assert hasattr(errno, name), name


def test_states() -> None:
    """The table of verdicts is the core's."""
    heading = next(each[0] for each in tables() if each[0][:2] == ["op", "new"])
    rows = {row[0]: row[1:] for row in table("op", "new")}
    for (op, state), verdict in VERDICTS.items():
        shown = rows[op][heading.index(state.value) - 1]
        assert shown == (errno.errorcode[verdict] if verdict else "ok"), (op, state)
    assert len(rows) * (len(heading) - 1) == len(VERDICTS)


def test_options() -> None:
    """Every option is listed under its number, read-only ones as such."""
    documented = {(int(row[0]), int(row[1])): row[2] for row in table("level", "option")}
    assert set(documented) == set(OPTIONS)
    for numbers, option in OPTIONS.items():
        assert documented[numbers].startswith(option.name), option
        assert ("read only" in documented[numbers]) is (option.kind is Kind.READ), option


def test_tcp_info() -> None:
    """struct tcp_info is listed field by field."""
    block = re.search(r"    state B,(?:.|\n)*?accecn_opt_seen H", TEXT)
    assert block is not None
    listed = tuple(tuple(item.split()) for item in re.sub(r"\s+", " ", block[0]).strip().split(", "))
    assert listed == info.FIELDS


def test_numbers() -> None:
    """The limits in the text are the code's."""
    assert f"version {messages.VERSION}**" in TEXT and f"| version | {codec.WIRE_VERSION} |" in TEXT
    assert f"`bin` of up to {place.INLINE_LIMIT:,} bytes" in TEXT
    assert f"at most {codec.MAX_MESSAGES:,}." in TEXT and f"{codec.MAX_PARTS:,} parts" in TEXT
    assert connection.MAX_PART == 1 << 20 and "1 MiB a part" in TEXT
    assert connection.MAX_MESSAGE == 8 << 20 and "8 MiB a message" in TEXT
    assert f"{door.STRANGERS} connections without" in TEXT and connection.MAX_SKIPPED == 64 << 20
    assert f"At most {relay.MAX_UNCONSUMED} Data" in TEXT
    assert f"No more than {WAITING_CALLS} calls" in TEXT


def test_settings() -> None:
    """Every limit of [gateway] is named with its default."""
    for name, default in msgspec.to_builtins(GatewayConfig()).items():
        assert f"`gateway.{name}`" in TEXT, name
        if re.match("clients|sockets|calls", name):
            assert f"`gateway.{name}` | {default:,} |" in TEXT, name


def test_reasons() -> None:
    """All of the gateway's reasons are named."""
    for reason in all_reasons():
        if reason.layer == "gateway":
            assert f"`{reason.name}`" in TEXT, reason.name


SOCK = 7 << 32 | 1
SESSION = [
    (5, 0, Hello(1, "example")),
    (7, 5, Welcome(1, 7, b"0123456789abcdef", "", 8_388_608, 4096)),
    (5, 7, Request(1, "socket", 0, {})),
    (7, 5, Reply(1, 0, {"sock": SOCK})),
    (5, 7, Request(2, "connect", SOCK, {"address": bytes([10, 0, 0, 1]), "port": 80})),
    (5, 7, Send(SOCK, 0, 5, b"hello")),
]


@pytest.mark.parametrize("number", range(len(SESSION)))
def test_bytes_of_the_example(number: int) -> None:
    """The bytes shown are those of the messages named beside them."""
    lines = re.findall(r"^    [→←] (\w+) +([0-9a-f ]+)$", TEXT, re.MULTILINE)
    name, shown = lines[number]
    epoch, to_epoch, message = SESSION[number]
    assert type(message).__name__ == name
    assert shown == msgspec.msgpack.encode((1, epoch, to_epoch, [message])).hex(" ")
    assert len(lines) == len(SESSION)


def test_payload_is_as_described() -> None:
    """A Place has the fields that the text gives, in order."""
    names = ", ".join(field.name for field in msgspec.structs.fields(place.Place))
    assert f"    [{names}]" in TEXT
    assert stream.Send.__struct_config__.tag == 1


def test_calls_on_datagram_sockets() -> None:
    """Every call in every state answers what the table says."""
    heading = next(each[0] for each in tables() if each[0][:2] == ["call", "unbound"])
    rows = {row[0]: row[1:] for row in table("call", "unbound")}
    assert set(rows) == set(ARGUMENTS) - OF_NO_SOCKET
    for state in heading[1:]:
        for op in rows:
            bench = DatagramBench()
            sock = bench.socket(state)
            shown = rows[op][heading.index(state) - 1]
            found = bench.app.errno(op, sock, **SAMPLES.get(op, {}))
            assert found == (0 if shown == "ok" else getattr(errno, shown)), (op, state)


def test_options_of_datagram_sockets() -> None:
    """Every option that such a socket has is listed under its number."""
    documented = {(int(row[0]), int(row[1])): row[2] for row in table("level", "number")}
    calls = {(0, datagrams.IP_MULTICAST_IF), (0, datagrams.ADD_MEMBERSHIP), (0, datagrams.DROP_MEMBERSHIP)}
    assert set(documented) == set(DATAGRAM_OPTIONS) | calls
    for numbers, option in DATAGRAM_OPTIONS.items():
        assert documented[numbers].startswith(option.name), option
        assert ("read only" in documented[numbers]) is (option.kind is Kind.READ), option

"""docs/expressions.md: its tables are the code's, its examples compile, its packets can be made.

    python tests/unit/tracing/test_expression_docs.py      writes the tables into the page
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from samples import PACKETS, SYN_OPTIONS, packet, segment, tcp

from levelip.tracing.build import Connection, Target, build_fields, build_line
from levelip.tracing.edit import EDITABLE, edit, parse_changes
from levelip.tracing.eventfields import CONTEXT_FIELDS, EVENTS
from levelip.tracing.expression import ALL_FIELDS, ExpressionError, compile_expression
from levelip.tracing.fields import FIELDS, fields
from levelip.tracing.fieldtypes import Field
from levelip.wire.tcp import SYN

PAGE = Path(__file__).parents[3] / "docs" / "expressions.md"


def row(field: Field) -> str:
    marks = "e" * (field.name in EDITABLE) + "m" * field.many + "p" * field.payload
    return f"| `{field.name}` | {field.kind.value} | {marks} | {field.title.replace('|', '/')} |"


def tables() -> dict[str, str]:
    """The generated parts of the page, by name."""
    head = "| field | type | | what |\n|---|---|---|---|\n"
    packets = [row(field) for name, field in FIELDS.items() if name not in CONTEXT_FIELDS or name == "frame.id"]
    connections = [row(field) for name, field in CONTEXT_FIELDS.items() if name != "frame.id"]
    events = [f"| `{kind}` | {', '.join(f'`{name}`' for name in names)} |" for kind, names in EVENTS.items()]
    return {
        "packets": head + "\n".join(packets),
        "connections": head + "\n".join(connections),
        "events": "| event | data |\n|---|---|\n" + "\n".join(events),
    }


def written(text: str) -> str:
    """The page with its tables as they should be."""
    for name, table in tables().items():
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text,
            flags=re.DOTALL,
        )  # fmt: skip
    return text


def blocks(kind: str) -> list[str]:
    """Lines of the page's code blocks of a kind."""
    found = re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return [line for block in found for line in block.splitlines() if line.strip()]


def test_the_tables_are_the_codes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert written(text) == text, "run python tests/unit/tracing/test_expression_docs.py"
    assert all(f"<!-- {name} -->" in text for name in tables())


def test_every_field_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, field in ALL_FIELDS.items():
        assert f"`{name}`" in text or field.of == "event", name


def test_every_example_compiles() -> None:
    for line in blocks("text filter"):
        compile_expression(line.partition("  #")[0])


def test_the_errors_are_as_shown() -> None:
    shown = re.findall(r"```text error\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert shown
    for block in shown:
        expression = block.splitlines()[1].strip()
        with pytest.raises(ExpressionError) as caught:
            compile_expression(expression)
        assert str(caught.value) == block.rstrip("\n")


def test_every_edit_can_be_made() -> None:
    for line in blocks("text edit"):
        changes = parse_changes(re.findall(r"""(?:[^\s"]|"[^"]*")+""", line.partition("  #")[0]))
        frame = packet(PACKETS["data"]) if "ip.id" in changes else segment(tcp(SYN, options=SYN_OPTIONS))
        assert fields(edit(frame, changes)) != fields(frame)


def test_every_packet_can_be_made() -> None:
    connection = Connection(bytes((10, 0, 0, 2)), 80, bytes((10, 0, 0, 1)), 4711)
    for line in blocks("text packet"):
        text = line.partition("  #")[0].rstrip()
        target = Target("link-ip", "down" if text.startswith(">") else "up", connection)
        if "=" in text:
            build_fields(parse_changes(re.findall(r"""(?:[^\s"]|"[^"]*")+""", text)), target)
        else:
            build_line(text, target)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

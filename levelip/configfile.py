"""Reading the configuration: file, environment and flags into one `Config`, every mistake named before anything starts.

Later sources win: defaults, the TOML file, variables LEVELIP_<SECTION>_<KEY>, `--set section.key=value`. All mistakes
are collected; each names its source, key and value and says what is allowed. `to_toml` writes what `load` reads.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from levelip import configrules
from levelip.config import Config

FILE_NAME = "level-ip.toml"
CONFIG_VARIABLE = "LEVELIP_CONFIG"
SETTINGS_VARIABLE = "LEVELIP_SETTINGS"
FLAG = "--set"
"""The source of what a command line says."""

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_TITLES = {
    "stack": "what concerns all processes",
    "device": "what link opens",
    "link": "ARP and the device's queue",
    "ip": "addresses, routes, ICMP",
    "tcp": "all of TCP",
    "udp": "datagrams",
    "gateway": "the applications' door",
    "ipc": "pipes between the processes",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. `source` is a file (with the line), a variable, a flag, or empty; `value` is None where there is
    none."""

    source: str
    key: str
    value: Any
    allowed: str

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.source, self.key) if part)
        if self.value is None:
            return f"{where}: {self.allowed}"
        return f"{where} = {literal(self.value)}: {self.allowed}"


class ConfigError(ValueError):
    """The configuration cannot be used; `problems` holds every mistake found."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: its section and name, the type that values are converted to, and what to tell people of it."""

    section: str
    name: str
    type: Any
    default: Any
    description: str
    allowed: str
    runtime: bool

    @property
    def dotted(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable that overrides it."""
        return f"LEVELIP_{self.section}_{self.name}".upper()

    def convert(self, value: Any) -> Any:
        """`value` as this key's type. ValueError if it does not fit."""
        try:
            return msgspec.convert(value, self.type, strict=True)
        except msgspec.ValidationError as error:
            raise ValueError(self.allowed) from error

    def parse(self, text: str) -> Any:
        """The value that `text`, from a flag or a variable, means: TOML, or a bare word. ValueError as `convert`."""
        kind = type(self.default)
        if kind is str:
            if text[:1] in ('"', "'"):
                return self.convert(_toml_value(text, self.allowed))
            return self.convert(text)
        if kind is bool:
            if text.lower() not in _BOOLEANS:
                raise ValueError(self.allowed)
            return _BOOLEANS[text.lower()]
        if kind is list and not text.startswith("["):
            return self.convert([part.strip() for part in text.split(",") if part.strip()])
        return self.convert(_toml_value(text, self.allowed))


@lru_cache(maxsize=1)
def keys() -> dict[str, Key]:
    """Every setting by its dotted name, in the order of `Config`."""
    found: dict[str, Key] = {}
    sections = msgspec.inspect.type_info(Config)
    assert isinstance(sections, msgspec.inspect.StructType)
    for section in sections.fields:
        struct = section.type
        assert isinstance(struct, msgspec.inspect.StructType)
        hints = struct.cls.__annotations__
        resolved = _resolve(struct.cls)
        for item in struct.fields:
            assert item.name in hints
            default = item.default if item.default is not msgspec.NODEFAULT else item.default_factory()
            description = ""
            kind = item.type
            if isinstance(kind, msgspec.inspect.Metadata):
                description = (kind.extra_json_schema or {}).get("description", "")
                kind = kind.type
            dotted = f"{section.name}.{item.name}"
            found[dotted] = Key(
                section.name,
                item.name,
                resolved[item.name],
                default,
                description,
                _allowed(kind),
                dotted in configrules.RUNTIME,
            )
    return found


def _resolve(struct: type) -> dict[str, Any]:
    import typing

    return typing.get_type_hints(struct, include_extras=True)


def load(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    settings: Iterable[str] = (),
    overlay: Mapping[str, Any] | None = None,
) -> Config:
    """The configuration from `path` (None: defaults), `environ`, `overlay` (dotted key → value) and `settings`.

    `settings` are "section.key=value" as given to --set. ConfigError lists every mistake.
    """
    problems: list[Problem] = []
    values: dict[str, tuple[str, Any]] = {}  # dotted key → (source, value)
    if path is not None:
        _from_file(path, values, problems)
    _from_environment(os.environ if environ is None else environ, values, problems)
    for dotted, value in (overlay or {}).items():
        _take("lvlip set", dotted, value, values, problems)
    for setting in settings:
        _from_flag(setting, values, problems)
    tree: dict[str, dict[str, Any]] = {}
    for dotted, (_, value) in values.items():
        section, name = dotted.split(".", 1)
        tree.setdefault(section, {})[name] = value
    config = msgspec.convert(tree, Config)
    for dotted, allowed in configrules.check(config):
        source, value = values.get(dotted, ("default", _lookup(config, dotted)))
        problems.append(Problem(source, dotted, value, allowed))
    if problems:
        raise ConfigError(problems)
    return config


def load_config(path: str | Path | None = None, settings: Iterable[str] = ()) -> Config:
    """What a process shall use: file and --set as given, the environment, and what `lvlip set` has changed since
    its supervisor started (LEVELIP_SETTINGS names the file)."""
    return load(Path(path) if path else None, settings=settings, overlay=read_overlay(os.environ))


def read_overlay(environ: Mapping[str, str]) -> dict[str, Any]:
    """Settings that `lvlip set` changed: they outlive a restart of a layer, but not their supervisor's end."""
    path = environ.get(SETTINGS_VARIABLE)
    if not path:
        return {}
    try:
        data = msgspec.json.decode(Path(path).read_bytes(), type=Overlay)
    except (OSError, msgspec.DecodeError):
        return {}
    return data.settings if data.supervisor == os.getppid() else {}


class Overlay(msgspec.Struct):
    """The file that `lvlip set` writes; `supervisor` is the pid for whose children it holds."""

    supervisor: int
    settings: dict[str, Any] = {}

    def write(self, path: Path) -> None:
        """Replace the file at once."""
        fresh = path.with_name(path.name + ".new")
        fresh.write_bytes(msgspec.json.encode(self))
        fresh.replace(path)


def _from_file(path: Path, values: dict[str, tuple[str, Any]], problems: list[Problem]) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        problems.append(Problem(str(path), "", None, f"cannot be read: {reason}"))
        return
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem(str(path), "", None, f"is no TOML: {error}"))
        return
    lines = _line_numbers(text)
    sections = {key.section for key in keys().values()}
    for section, content in data.items():
        source = f"{path}:{lines.get(section, 1)}"
        if section not in sections:
            problems.append(Problem(source, f"[{section}]", None, _unknown("section", section, sections)))
        elif not isinstance(content, dict):
            problems.append(Problem(source, section, content, f"must be a table: [{section}]"))
        else:
            for name, value in content.items():
                dotted = f"{section}.{name}"
                _take(f"{path}:{lines.get(dotted, 1)}", dotted, value, values, problems)


def _from_environment(environ: Mapping[str, str], values: dict[str, tuple[str, Any]], problems: list[Problem]) -> None:
    variables = {key.variable: key for key in keys().values()}
    prefixes = tuple(f"LEVELIP_{section}_".upper() for section in {key.section for key in variables.values()})
    for variable in sorted(environ):
        if not variable.startswith(prefixes):
            continue
        key = variables.get(variable)
        if key is None:
            problems.append(Problem(variable, "", None, _unknown("variable", variable, variables)))
            continue
        try:
            values[key.dotted] = (variable, key.parse(environ[variable]))
        except ValueError as error:
            problems.append(Problem(variable, key.dotted, environ[variable], str(error)))


def _from_flag(setting: str, values: dict[str, tuple[str, Any]], problems: list[Problem]) -> None:
    try:
        key, value = parse_setting(setting)
    except ConfigError as error:
        problems.extend(error.problems)
        return
    values[key.dotted] = (FLAG, value)


def parse_setting(setting: str, *, source: str = FLAG) -> tuple[Key, Any]:
    """The key and the converted value of "section.key=value". ConfigError, which names `source` where there is one, if
    there is no such key or value."""
    dotted, equals, text = setting.partition("=")
    dotted = dotted.strip()
    key = keys().get(dotted)
    if key is None:
        raise ConfigError([Problem(source, dotted, None, _unknown("key", dotted, keys()))])
    if not equals:
        raise ConfigError([Problem(source, dotted, None, f"give a value: {dotted}=VALUE ({key.allowed})")])
    try:
        return key, key.parse(text.strip())
    except ValueError as error:
        raise ConfigError([Problem(source, dotted, text.strip(), str(error))]) from None


def _take(source: str, dotted: str, value: Any, values: dict[str, tuple[str, Any]], problems: list[Problem]) -> None:
    key = keys().get(dotted)
    if key is None:
        problems.append(Problem(source, dotted, None, _unknown("key", dotted, keys())))
        return
    try:
        values[dotted] = (source, key.convert(value))
    except ValueError as error:
        problems.append(Problem(source, dotted, value, str(error)))


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    if near:
        return f"there is no such {what}; did you mean {near[0]}?"
    if what == "section":
        return f"there is no such section; known are {', '.join(sorted(known))}"
    return f"there is no such {what}; `lvlip config` lists all"


def _toml_value(text: str, allowed: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise ValueError(allowed) from error


def _line_numbers(text: str) -> dict[str, int]:
    """Section and dotted key → line, as far as lines tell without parsing TOML again."""
    lines: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([\w-]+)\s*(?:\.\s*([\w-]+)\s*)?\]", line):
            section = header[1]
            lines.setdefault(section, number)
            if header[2]:
                lines.setdefault(f"{section}.{header[2]}", number)
        elif key := re.match(r"\s*(?:([\w-]+)\s*\.\s*)?\"?([\w-]+)\"?\s*[=.]", line):
            lines.setdefault(f"{key[1] or section}.{key[2]}", number)
            if not section and not key[1]:
                lines.setdefault(key[2], number)
    return lines


def _allowed(kind: Any) -> str:
    inspect = msgspec.inspect
    match kind:
        case inspect.BoolType():
            return "must be true or false"
        case inspect.IntType():
            return f"must be an integer from {_bound(kind.ge, 'any')} to {_bound(kind.le, 'any')}"
        case inspect.LiteralType():
            return f"must be one of {', '.join(map(str, kind.values))}"
        case inspect.StrType():
            return f"must be text of at most {kind.max_length} characters" if kind.max_length else "must be text"
        case inspect.ListType():
            return "must be a list of text"
        case inspect.DictType():
            if isinstance(kind.value_type, inspect.ListType):
                return "must be a table of name = [integer, ...]"
            return "must be a table of name = text"
        case _:
            raise TypeError(f"no sentence for {kind}")


def _bound(value: int | None, otherwise: str) -> str:
    return otherwise if value is None else str(value)


def _lookup(config: Config, dotted: str) -> Any:
    section, name = dotted.split(".", 1)
    return getattr(getattr(config, section), name)


def flatten(config: Config) -> dict[str, Any]:
    """Dotted key → value, in the order of the file."""
    return {dotted: _lookup(config, dotted) for dotted in keys()}


def literal(value: Any) -> str:
    """`value` in TOML's notation."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, dict):
        return (
            f"{{ {', '.join(f'{json.dumps(name)} = {literal(item)}' for name, item in value.items())} }}"
            if value
            else "{}"
        )
    return str(value)


def to_toml(config: Config | None = None, *, comments: bool = True) -> str:
    """`config` (None: the defaults) as a file that `load` reads, every key with its sentence and its range."""
    config = config or Config()
    lines: list[str] = []
    if comments:
        lines += [
            "# Level-IP's configuration: every key with its default. Written by `lvlip config`.",
            "# A variable LEVELIP_<SECTION>_<KEY> or `lvlip up --set section.key=value` overrides a line.",
            "# [run time]: `lvlip set` changes it in the running stack; the others need a restart.",
        ]
    section = ""
    for key in keys().values():
        if key.section != section:
            section = key.section
            lines += ["", f"[{section}]" + (f"  # {_TITLES[section]}" if comments else "")]
        if comments:
            runtime = " [run time]" if key.runtime else ""
            lines += ["", f"# {key.description}", f"# {key.allowed.removeprefix('must be ')}{runtime}"]
        lines.append(f"{key.name} = {literal(_lookup(config, key.dotted))}")
    return "\n".join(lines).lstrip("\n") + "\n"

"""The configuration file: what it says is used, later sources win, and every mistake is told with where it is."""

# ruff: noqa: E501 - expected lines stand as they are printed
from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layers.link.config import TUNABLES
from layers.tcp.control import FIXED
from levelip import configfile
from levelip.addressing import ROUTE_FORMS
from levelip.config import Config, TcpConfig
from levelip.configfile import ConfigError, Overlay, keys, literal, load, parse_setting, read_overlay, to_toml
from levelip.configrules import RUNTIME

ROOT = Path(__file__).parents[2]
NOTHING: dict[str, str] = {}


def mistakes(path: Path | None = None, environ: dict[str, str] = NOTHING, settings: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ=environ, settings=settings)
    name = str(path.parent) + "/" if path else ""
    return [line.removeprefix(name) for line in str(caught.value).splitlines()]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "level-ip.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_anything_the_defaults_hold() -> None:
    assert load(environ=NOTHING) == Config()


def test_the_file_in_the_repository_is_current() -> None:
    """level-ip.toml holds every key, default and sentence: write it anew with `lvlip config --defaults` if not."""
    assert (ROOT / "level-ip.toml").read_text(encoding="utf-8") == to_toml()


def test_the_generated_file_says_what_the_defaults_say(tmp_path: Path) -> None:
    assert load(written(tmp_path, to_toml()), environ=NOTHING) == Config()
    assert set(tomllib.loads(to_toml())) == set(Config.__struct_fields__)


def test_a_changed_configuration_survives_being_written(tmp_path: Path) -> None:
    config = load(
        environ=NOTHING,
        settings=[
            "tcp.nagle=no",
            "ip.routes=192.0.2.0/24 via 10.0.0.9, 198.51.100.0/24 dev",
            'ipc.endpoints={ "ip-tcp" = "ipc:///tmp/a b" }',
            "ipc.affinity={ link = [0, 1] }",
            "device.name=é",
        ],
    )
    assert config.ip.routes == ["192.0.2.0/24 via 10.0.0.9", "198.51.100.0/24 dev"]
    assert config.ipc.affinity == {"link": [0, 1]}
    for comments in (True, False):
        assert load(written(tmp_path, to_toml(config, comments=comments)), environ=NOTHING) == config


def test_environment_beats_the_file_and_a_flag_beats_both(tmp_path: Path) -> None:
    path = written(tmp_path, "[tcp]\ndelayed_ack_ms = 1\nretries = 1\nsyn_retries = 1\n")
    environ = {"LEVELIP_TCP_RETRIES": "2", "LEVELIP_TCP_SYN_RETRIES": "2", "LEVELIP_NAME": "x", "HOME": "/"}
    tcp = load(path, environ=environ, settings=["tcp.syn_retries=3"]).tcp
    assert (tcp.delayed_ack_ms, tcp.retries, tcp.syn_retries) == (1, 2, 3)


def test_every_mistake_is_told_with_file_line_key_value_and_what_is_allowed(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
[tcp]
delayed_ack_ms = 900
nagel = true
[ip]
ttl = "64"
[lnk]
x = 1
[device]
kind = "tup"
name = "a-name-that-is-too-long"
[ipc]
affinity = { link = ["a"] }
""",
    )
    assert mistakes(path) == [
        "level-ip.toml:3: tcp.delayed_ack_ms = 900: must be an integer from 0 to 500",
        "level-ip.toml:4: tcp.nagel: there is no such key; did you mean tcp.nagle?",
        'level-ip.toml:6: ip.ttl = "64": must be an integer from 1 to 255',
        "level-ip.toml:7: [lnk]: there is no such section; did you mean link?",
        'level-ip.toml:10: device.kind = "tup": must be one of tap, tun, wire',
        'level-ip.toml:11: device.name = "a-name-that-is-too-long": must be text of at most 15 characters',
        'level-ip.toml:13: ipc.affinity = { "link" = ["a"] }: must be a table of name = [integer, ...]',
    ]


def test_mistakes_in_variables_and_flags_name_them() -> None:
    environ = {"LEVELIP_TCP_NAGLE": "maybe", "LEVELIP_TCP_NAGL": "1"}
    assert mistakes(None, environ, ("tcp.sack=2", "ip.ttl=300", "ip.ttl", "tcp.zzz=1")) == [
        "LEVELIP_TCP_NAGL: there is no such variable; did you mean LEVELIP_TCP_NAGLE?",
        'LEVELIP_TCP_NAGLE: tcp.nagle = "maybe": must be true or false',
        '--set: tcp.sack = "2": must be true or false',
        '--set: ip.ttl = "300": must be an integer from 1 to 255',
        "--set: ip.ttl: give a value: ip.ttl=VALUE (must be an integer from 1 to 255)",
        "--set: tcp.zzz: there is no such key; `lvlip config` lists all",
    ]


def test_a_file_that_cannot_be_read_or_is_no_toml_is_told(tmp_path: Path) -> None:
    assert mistakes(tmp_path / "none.toml") == ["none.toml: cannot be read: No such file or directory"]
    path = written(tmp_path, "[tcp\n")
    assert mistakes(path)[0].startswith("level-ip.toml: is no TOML: ")
    path.write_bytes(b"\xff")
    assert mistakes(path) == ["level-ip.toml: cannot be read: is not UTF-8 text"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("ip.address=10.0.0.2",), '--set: ip.address = "10.0.0.2": must be an IPv4 address with prefix length, as '
         "10.0.0.2/24"),
        (("ip.address=10.0.0.1/24",), '--set: ip.address = "10.0.0.1/24": must differ from device.host_address '
         "(10.0.0.1/24), which is the host's"),
        (("ip.gateway=192.0.2.1",), '--set: ip.gateway = "192.0.2.1": must lie in 10.0.0.0/24, the network of '
         "ip.address, or be empty"),
        (("ip.routes=192.0.2.0/24 10.0.0.9",), '--set: ip.routes = ["192.0.2.0/24 10.0.0.9"]: ' + ROUTE_FORMS),
        (("device.mac=03:00:00:00:00:01",), '--set: device.mac = "03:00:00:00:00:01": must not be a group address '
         "(lowest bit of the first byte is 0)"),
        (("device.mac=x",), '--set: device.mac = "x": must be a MAC address, as 02:00:00:00:00:02, or empty'),
        (("device.host_address=x",), '--set: device.host_address = "x": must be an IPv4 address with prefix length, as '
         "10.0.0.1/24, or empty"),
        (("device.attach=true",), 'default: device.name = "": must name the existing device, as device.attach is true'),
        (("tcp.send_buffer=8000000",), "--set: tcp.send_buffer = 8000000: must be at most tcp.send_ring (4194304)"),
        (("tcp.congestion=reno",), '--set: tcp.congestion = "reno": must be one of cubic, newreno, or PACKAGE.MODULE:CLASS'),
        (("tcp.port_first=40000", "tcp.port_last=30000"), "--set: tcp.port_first = 40000: must be at most tcp.port_last "
         "(30000)"),
        (("tcp.rto_min_ms=5000", "tcp.rto_max_ms=4000"), "--set: tcp.rto_min_ms = 5000: must be at most tcp.rto_max_ms "
         "(4000)"),
        (("stack.layers=link,dns",), "--set: stack.layers = [\"link\", \"dns\"]: 'dns' is no process; known are link, ip, "
         "tcp, udp, gateway"),
        (('ipc.endpoints={ "ip-dns" = "tcp://h:1" }',), '--set: ipc.endpoints = { "ip-dns" = "tcp://h:1" }: "ip-dns" is '
         "no pipe; known are link-ip, ip-link, ip-tcp, tcp-ip, ip-udp, udp-ip, tcp-gateway, gateway-tcp, udp-gateway, gateway-udp"),
        (('ipc.endpoints={ "ip-tcp" = "udp://h:1" }',), '--set: ipc.endpoints = { "ip-tcp" = "udp://h:1" }: "ip-tcp": '
         "udp://h:1 must be tcp://ADDRESS:PORT or ipc:///PATH"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_each_other_are_refused(settings: tuple[str, ...], message: str) -> None:
    assert mistakes(settings=settings) == [message]


def test_a_tcp_endpoint_needs_keys_and_a_list_of_who_may_connect() -> None:
    """DESIGN 1: CURVE alone admits any key."""
    here = (
        "stack.layers=tcp,gateway",
        'ipc.endpoints={ "ip-tcp" = "tcp://192.0.2.1:1", "tcp-ip" = "tcp://192.0.2.2:1" }',
    )
    told = mistakes(settings=here)
    assert told == [
        'default: ipc.secret_key_file = "": must name a key file (lvlip keygen), as ip-tcp, tcp-ip is a tcp:// endpoint',
        "default: ipc.allowed_keys = []: must list the public keys (lvlip keygen) that may connect to ip-tcp",
        'default: ipc.server_keys = {}: must hold the public key (lvlip keygen) of the process that binds "tcp-ip"',
    ]
    key = "k" * 40
    load(
        environ=NOTHING,
        settings=[
            *here, "ipc.secret_key_file=/keys", f"ipc.allowed_keys={key}", f'ipc.server_keys={{ "tcp-ip" = "{key}" }}',
        ],
    )  # fmt: skip


def test_what_lvlip_set_changed_holds_for_the_children_of_that_supervisor_alone(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    Overlay(os.getppid(), {"tcp.retries": 3}).write(path)
    overlay = read_overlay({"LEVELIP_SETTINGS": str(path)})
    assert load(environ={"LEVELIP_TCP_RETRIES": "2"}, overlay=overlay).tcp.retries == 3
    Overlay(1 << 22, {"tcp.retries": 3}).write(path)
    assert read_overlay({"LEVELIP_SETTINGS": str(path)}) == {}
    path.write_text("no json")
    assert read_overlay({"LEVELIP_SETTINGS": str(path)}) == {}
    assert read_overlay(NOTHING) == {}


def test_what_can_change_at_run_time_is_what_the_cores_take() -> None:
    assert {key for key in RUNTIME if key.startswith("link.")} == {f"link.{name}" for name in TUNABLES}
    fixed = {f"tcp.{name}" for name in FIXED}
    assert {key for key in RUNTIME if key.startswith("tcp.")} == {
        f"tcp.{n}" for n in TcpConfig.__struct_fields__
    } - fixed


def test_every_key_has_a_sentence_and_a_range_that_its_default_keeps() -> None:
    for key in keys().values():
        assert key.description, key.dotted
        assert key.allowed.startswith("must be ")
        assert key.convert(key.default) == key.default
        assert key.variable == f"LEVELIP_{key.dotted.replace('.', '_')}".upper()


def test_a_setting_is_read_as_its_key_wants_it() -> None:
    assert parse_setting("tcp.nagle=off")[1] is False
    assert parse_setting("tcp.retries = 7")[1] == 7
    assert parse_setting("ip.gateway=")[1] == ""
    assert parse_setting('ip.gateway="10.0.0.1"')[1] == "10.0.0.1"
    assert parse_setting('ip.routes=["a b"]')[1] == ["a b"]
    assert parse_setting("stack.layers=link, ip")[1] == ["link", "ip"]


@given(st.recursive(st.booleans() | st.integers(-(2**62), 2**62) | st.text(),
                    lambda inner: st.lists(inner, max_size=3)))  # fmt: skip
def test_literal_writes_what_toml_reads(value: Any) -> None:
    assert tomllib.loads(f"x = {literal(value)}")["x"] == value


@given(
    st.dictionaries(st.text(), st.dictionaries(st.text(), st.booleans() | st.integers() | st.text()) | st.integers())
)
def test_any_toml_is_used_or_refused_and_never_raises_anything_else(data: dict[str, Any]) -> None:
    tree = configfile.literal
    text = "".join(
        f"[{tree(name)}]\n" + "".join(f"{tree(key)} = {tree(value)}\n" for key, value in content.items())
        for name, content in data.items()
        if isinstance(content, dict)
    )
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"lvlip-config-{os.getpid()}.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load(path, environ=NOTHING)
    except ConfigError as error:
        assert error.problems
    finally:
        path.unlink()


def test_struct_and_file_cannot_drift_apart() -> None:
    """What `flatten` gives, put together again, is the configuration."""
    tree: dict[str, dict[str, Any]] = {}
    for dotted, value in configfile.flatten(Config()).items():
        section, _, name = dotted.partition(".")
        tree.setdefault(section, {})[name] = value
    assert msgspec.convert(tree, Config) == Config()


def test_settings_of_name_resolution_are_checked() -> None:
    """Servers are IPv4 addresses, three at most; domains are names; options are those that the resolver knows."""
    good = ("gateway.dns_servers=192.0.2.1, 192.0.2.2", "gateway.dns_search=example.org, corp", "gateway.dns_options=ndots:2, rotate")
    config = load(environ=NOTHING, settings=good)
    assert config.gateway.dns_servers == ["192.0.2.1", "192.0.2.2"]
    assert config.gateway.dns_options == ["ndots:2", "rotate"]
    for wrong in (
        "gateway.dns_servers=ns.example.org", "gateway.dns_servers=192.0.2.1,192.0.2.2,192.0.2.3,192.0.2.4",
        "gateway.dns_search=a b", "gateway.dns_search=a,b,c,d,e,f,g", "gateway.dns_options=ndots", "gateway.dns_options=timeout:0",
    ):  # fmt: skip
        assert [line.split(" = ")[0] for line in mistakes(settings=(wrong,))] == [f"--set: {wrong.partition('=')[0]}"]

"""The commands around a stack: help and exit codes, settings, status, logs, supervisord's configuration."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from cli_layer import FakeLayer
from click.testing import CliRunner, Result
from supervisor.options import ServerOptions

from levelip.cli import logs, supervise, teardown
from levelip.cli.common import LAYERS, Failure, Stack, columns
from levelip.cli.main import COMMANDS, cli, main
from levelip.cli.restart import stop_and_start
from levelip.cli.status import duration
from levelip.cli.up import choose_file, in_network, ordered, progress, refusal
from levelip.config import Config, TcpConfig
from levelip.configfile import Overlay, literal, load, to_toml
from levelip.debug import Debugger
from levelip.debug.programs import python, search_path
from levelip.ipc.clock import Hold, Holder, StackClock
from levelip.ipc.hostdesk import started
from levelip.ipc.rundir import RunDirectory

ROOT = Path(__file__).parents[3]
ALL = [name for section in COMMANDS.values() for name in section]


@pytest.mark.parametrize("name", ALL)
def test_every_command_is_there_and_explains_itself(name: str) -> None:
    """Each takes --name, --run and --json, and its help's first line is what `lvlip --help` says or better."""
    module = next(section[name][0] for section in COMMANDS.values() if name in section)
    found = importlib.import_module(f"levelip.cli.{module}").command
    assert isinstance(found, click.Command)
    assert found.help
    assert {"name", "run", "json"} <= {option for p in found.params for option in [(p.name or "")]}
    assert CliRunner().invoke(cli, [name, "--help"]).exit_code == 0


def test_help_lists_all_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from levelip.cli.main import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, timeout=240
    )
    for name in ALL:
        assert f"\n  {name} " in done.stdout
    for module in ("zmq", "rich", "msgspec", "pyroute2", "supervisor"):
        assert f"'{module}'" not in done.stderr


def test_exit_codes(run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert main(["nonsense"]) == 2
    assert "Did you mean 'trace'?" in (main(["trac"]), capsys.readouterr().err)[1]
    where = ["--name", "t", "--run", str(run.root)]
    assert main([*where, "get"]) == 1
    assert capsys.readouterr().err == "lvlip: stack 't' is not running; start it with: lvlip up --name t\n"

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("levelip.cli.common.Stack.need_running", interrupted)
    assert main([*where, "get"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_name_that_cannot_be_a_file_is_refused(lvlip: Callable[..., Result]) -> None:
    result = lvlip("status", "--name", "a/b")
    assert result.exit_code == 2
    assert "stack name 'a/b': letters, digits" in result.stderr


def test_name_before_and_after_the_command_mean_the_same(run: RunDirectory) -> None:
    for args in (["--name", "x", "down"], ["down", "--name", "x"], ["--name", "y", "down", "--name", "x"]):
        result = CliRunner().invoke(cli, [*args, "--run", str(run.root)])
        assert result.stdout == "stack 'x' was not running\n"


# settings


def config_answers(section: str) -> dict[str, Any]:
    def get(args: dict[str, Any]) -> dict[str, Any]:
        assert args == {"section": section}
        values = getattr(Config(), section)
        return {"values": {name: getattr(values, name) for name in values.__struct_fields__}}

    return {"get": get}


def test_get_shows_what_a_running_layer_uses(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> None:
    layer("tcp", get=lambda _: {"values": {"retries": 3, "nagle": True}})
    assert lvlip("get", "tcp.retries", "tcp.nagle").stdout == "tcp.retries = 3  # default 15\ntcp.nagle = true\n"
    assert json.loads(lvlip("get", "tcp.retries", "--json").stdout) == {
        "key": "tcp.retries", "value": 3, "default": 15, "runtime": True, "pending": None,
    }  # fmt: skip
    unknown = lvlip("get", "tcp.retrys")
    assert unknown.exit_code == 2
    assert unknown.stderr.endswith("Error: there is no setting 'tcp.retrys'; did you mean tcp.retries?\n")


def test_get_shows_what_waits_for_a_restart(
    run: RunDirectory, layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was set and the layer does not use yet; not what it uses by now, nor what an older supervisor was told."""
    monkeypatch.setattr(supervise, "find", lambda _: (None, 77))
    used = {"retries": 3, "connections": 4096, "nagle": True}
    layer("tcp", get=lambda _: {"values": used})
    path = supervise.Paths.of(run).settings
    Overlay(77, {"tcp.connections": 10, "tcp.retries": 3, "tcp.nagle": False}).write(path)
    assert lvlip("get", "tcp.retries", "tcp.connections", "tcp.nagle").stdout == (
        "tcp.retries = 3  # default 15\n"
        "tcp.connections = 4096  # set to 10, after a restart: lvlip restart tcp --name t\n"
        "tcp.nagle = true  # set to false, after a restart: lvlip restart tcp --name t\n"
    )
    assert json.loads(lvlip("get", "tcp.connections", "--json").stdout)["pending"] == 10
    assert json.loads(lvlip("get", "tcp.nagle", "--json").stdout)["pending"] is False
    used["connections"] = 10
    assert lvlip("get", "tcp.connections").stdout == "tcp.connections = 10  # default 4096\n"
    Overlay(76, {"tcp.connections": 20}).write(path)
    assert "set to" not in lvlip("get", "tcp.connections").stdout


def test_get_of_everything_says_what_it_cannot_ask(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]
) -> None:
    def get(args: dict[str, Any]) -> dict[str, Any]:
        section = getattr(Config(), args["section"])
        return {"values": {name: getattr(section, name) for name in section.__struct_fields__}}

    layer("tcp", get=get)
    result = lvlip("get")
    assert result.exit_code == 0
    assert "lvlip: ip is not running; [ip] is left out" in result.stderr
    assert len([line for line in result.stdout.splitlines() if line.startswith("tcp.")]) == len(
        TcpConfig.__struct_fields__
    )


def test_set_tells_the_layer_and_shows_old_and_new(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]
) -> None:
    tcp = layer("tcp", set=lambda args: {"old": 40, "new": args["value"]})
    result = lvlip("set", "tcp.delayed_ack_ms=0")
    assert result.stdout == "tcp.delayed_ack_ms 40 → 0, until the layer is restarted (no supervisord)\n"
    assert tcp.asked[-1] == ("set", {"section": "tcp", "key": "delayed_ack_ms", "value": 0})


def test_set_back_to_what_is_used_waits_for_nothing(
    run: RunDirectory, layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was set before and waited for a restart is named once more, and forgotten."""
    monkeypatch.setattr(supervise, "find", lambda _: (None, 77))

    def get(args: dict[str, Any]) -> dict[str, Any]:
        values = getattr(Config(), args["section"])
        return {"values": {name: getattr(values, name) for name in values.__struct_fields__}}

    for name in LAYERS:
        layer(name, get=get)
    assert "4096 → 10, after a restart" in lvlip("set", "tcp.connections=10").stdout
    back = lvlip("set", "tcp.connections=4096").stdout
    assert back == "tcp.connections is 4096, and so after a restart, where it was to be 10\n"
    assert lvlip("set", "tcp.connections=4096").stdout == "tcp.connections is 4096 already\n"
    told = json.loads(lvlip("set", "tcp.connections=4096", "--json").stdout)
    assert (told["now"], told["restart"]) == (True, None)
    assert "set to" not in lvlip("get", "tcp.connections").stdout


def test_set_refuses_what_means_nothing_before_anything_changes(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]
) -> None:
    tcp = layer("tcp")
    result = lvlip("set", "tcp.retries=3", "tcp.delayed_ack_ms=900")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == 'Error: tcp.delayed_ack_ms = "900": must be an integer from 0 to 500'
    assert [name for name, _ in tcp.asked] == []


def test_set_refuses_what_nothing_would_remember(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> None:
    tcp = layer("tcp", get=lambda _: {"values": {"connections": 4096}})
    result = lvlip("set", "tcp.retries=3", "tcp.connections=10")
    assert result.exit_code == 1
    assert result.stderr == (
        "lvlip: tcp.connections needs a restart, and this stack has no supervisord that could remember it; "
        "put it into the configuration file\n"
    )
    assert tcp.asked == []


def test_the_settings_of_examples_in_the_help_are_no_mistakes() -> None:
    for line in importlib.import_module("levelip.cli.up").command.help.splitlines():
        words = line.split()
        load(environ={}, settings=[word for before, word in itertools.pairwise(words) if before == "--set"])


def test_interfaces_of_the_network_that_a_stack_is_to_have() -> None:
    there = [("lvl0", "10.0.0.1/24"), ("eth0", "10.0.0.9/8"), ("dummy0", "10.0.0.7/32"), ("lvl1", "10.0.1.1/24")]
    assert in_network("10.0.0.1/24", there) == there[:2]
    assert in_network("10.0.1.5/24", there) == [there[1], there[3]]
    assert in_network("192.168.0.1/24", there) == []


def test_a_setting_with_which_a_layer_does_not_start_is_set_otherwise(
    run: RunDirectory, layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor starts tcp again and again: it is there and does not answer, so what it shall use is shown."""
    monkeypatch.setattr(supervise, "find", lambda _: (None, 77))
    monkeypatch.setattr("levelip.cli.common.ANSWER_S", 0.5)

    def get(args: dict[str, Any]) -> dict[str, Any]:
        values = getattr(Config(), args["section"])
        return {"values": {name: getattr(values, name) for name in values.__struct_fields__}}

    layer("ip", get=get)
    path = supervise.Paths.of(run).settings
    Overlay(77, {"tcp.congestion": "os:path"}).write(path)
    lock = run.lock("tcp")
    try:
        shown = lvlip("get", "tcp.congestion")
        result = lvlip("set", "tcp.congestion=newreno")
    finally:
        os.close(lock)
    assert result.stdout == 'tcp.congestion "os:path" → "newreno", after a restart: lvlip restart tcp --name t\n', (
        result.stderr
    )
    assert json.loads(path.read_bytes())["settings"] == {"tcp.congestion": "newreno"}
    assert shown.exit_code == 1
    assert shown.stderr.endswith('; set since lvlip up: tcp.congestion = "os:path"\n')


def test_config_prints_what_up_would_use(lvlip: Callable[..., Result], tmp_path: Path) -> None:
    assert lvlip("config", "--defaults").stdout == to_toml()
    (tmp_path / "level-ip.toml").write_text("[tcp]\nretries = 3\n")
    assert "\nretries = 3\n" in lvlip("config").stdout
    assert lvlip("config", "--check").stdout == f"{tmp_path}/level-ip.toml: fine\n"
    row = json.loads(lvlip("config", "--json").stdout.splitlines()[0])
    assert row["key"] == "stack.seed"
    assert row["variable"] == "LEVELIP_STACK_SEED"
    written = tmp_path / "new.toml"
    assert lvlip("config", "--write", str(written)).exit_code == 0
    assert "retries = 3" in written.read_text()
    again = lvlip("config", "--write", str(written))
    assert again.stderr == f"lvlip: {written} exists already; remove it first, or choose another name\n"


def test_the_file_is_chosen_by_flag_variable_and_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_file(None) is None or choose_file(None) == Path("/etc/level-ip.toml")
    here = tmp_path / "level-ip.toml"
    here.touch()
    assert choose_file(None) == here
    monkeypatch.setenv("LEVELIP_CONFIG", "/elsewhere.toml")
    assert choose_file(None) == Path("/elsewhere.toml")
    assert choose_file("x.toml") == tmp_path / "x.toml"


# up, down, status


def test_a_wrong_configuration_is_told_before_anything_starts(lvlip: Callable[..., Result], run: RunDirectory) -> None:
    result = lvlip("up", "--set", "ip.ttl=0", "--set", "device.kind=tup")
    assert result.exit_code == 2
    assert result.stderr.endswith(
        'Error: --set: ip.ttl = "0": must be an integer from 1 to 255\n'
        '--set: device.kind = "tup": must be one of tap, tun, wire\n'
    )
    assert not (run.path / "supervisord.conf").exists()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "own has no Mine"),
        ("Mine = 5", "Mine in own is no class"),
        ("class Mine: name = 'mine'", "lacks mss, cwnd"),
        ("raise RuntimeError('two\\nlines')", "own cannot be imported: RuntimeError: two lines"),
        ("def Mine(:", "own cannot be imported: SyntaxError"),
        ("import sys; sys.exit()", "own cannot be imported: SystemExit"),
        ("import os; os._exit(3)", "ends the process that imports it, with 3"),
    ],
)
def test_a_congestion_control_of_ones_own_is_tried_before_anything_starts(
    lvlip: Callable[..., Result], run: RunDirectory, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    """By `config --check` and by `up`, as tcp would, in another process; what PYTHONPATH says counts from here."""
    Path("own.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", ".")
    for command in (["config", "--check"], ["up"]):
        result = lvlip(*command, "--set", "tcp.congestion=own:Mine")
        assert result.exit_code == 1
        assert result.stderr.startswith("lvlip: tcp.congestion: ") and reason in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert "own" not in sys.modules
    assert not (run.path / "supervisord.conf").exists()


def test_what_is_relative_in_pythonpath_counts_from_here(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """supervisord and its layers run in the run directory, and there is nothing of one's own."""
    monkeypatch.setenv("PYTHONPATH", f".{os.pathsep}{os.pathsep}lab{os.pathsep}/opt/own")
    said = search_path()["PYTHONPATH"].split(os.pathsep)
    assert said[-3:] == [str(tmp_path), str(tmp_path / "lab"), "/opt/own"]
    assert f'PYTHONPATH="{os.pathsep.join(said)}"' in supervise.conf_text(run, ["tcp"])


def test_a_congestion_control_that_fits_is_fine(lvlip: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its module says something; without tcp it is nobody's."""
    Path("own.py").write_text("from layers.tcp.congestion.cubic import Cubic as Mine\nprint('here')\n")
    monkeypatch.setenv("PYTHONPATH", ".")
    assert lvlip("config", "--check", "--set", "tcp.congestion=own:Mine").stdout == "defaults: fine\n"
    monkeypatch.delenv("PYTHONPATH")
    without = ("--set", "stack.layers=link,ip", "--set", "tcp.congestion=own:Mine")
    assert lvlip("config", "--check", *without).exit_code == 0


def test_up_refuses_a_layer_that_was_started_by_hand(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]
) -> None:
    layer("ip")
    result = lvlip("up", "--set", "stack.layers=ip")
    assert result.exit_code == 1
    assert result.stderr == (
        f"lvlip: ip of stack 't' is running already (pid {os.getpid()}), started by hand; end it first, or use another "
        "--name\n"
    )


def test_down_leaves_a_layer_that_was_started_by_hand(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]
) -> None:
    layer("ip")
    assert f"ip (pid {os.getpid()}) was started by hand and goes on running" in lvlip("down").stdout


def test_status_of_a_stack_without_supervisor(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], run: RunDirectory
) -> None:
    layer("ip")
    waiting = {
        "process": "tcp", "pid": 7, "version": "0", "epoch": 3, "uptime_ns": 500_000_000, "ready": False,
        "waiting_for": ["gateway"], "neighbours": {}, "held": False,
    }  # fmt: skip
    layer("tcp", status=waiting)
    result = lvlip("status")
    assert result.exit_code == 1
    assert result.stdout == (
        f"stack 't', no supervisord, {run.path}\n"
        "layer    state     pid  up\n"
        "link     stopped\n"
        "ip       ready    4242  1 min  started by hand\n"
        "tcp      waits       7  0.5 s  waits for gateway\n"
        "udp      stopped\n"
        "gateway  stopped\n"
    )
    data = json.loads(lvlip("status", "--json").stdout)
    assert [row["state"] for row in data["layers"]] == ["stopped", "ready", "waits", "stopped", "stopped"]


def test_a_hold_says_who_on_another_host_goes_on(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> None:
    """A neighbour that is up and does not run here; one that is down, or runs here, is not meant."""

    def status(name: str, **up: bool) -> dict[str, Any]:
        return {
            "process": name, "pid": 7, "uptime_ns": 1, "epoch": 1, "ready": True, "waiting_for": [], "held": False,
            "neighbours": {other: {"up": is_up} for other, is_up in up.items()},
        }  # fmt: skip

    state = {"standing": True, "queues": [], "breakpoints": {}, "next_deadline": None}
    for name, up in (("tcp", {"ip": True, "gateway": True}), ("gateway", {"tcp": True, "udp": False})):
        layer(name, status=status(name, **up), **{"debug.state": state})
    said = "NOT HELD: ip on another host, where nobody answers: it goes on, timers and all"
    for words in (("hold",), ("hold",), ("status",)):
        text = lvlip(*words).stdout
        assert said in text and "tcp runs" not in text and "udp" not in text.partition(said)[2].splitlines()[0]
    assert json.loads(lvlip("hold", "--json").stdout)["elsewhere"] == ["ip"]
    assert json.loads(lvlip("status", "--json").stdout)["hold"]["elsewhere"] == ["ip"]


def test_whoever_holds_a_stack_needs_no_force(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], run: RunDirectory
) -> None:
    """`status` at the prompt of `lvlip debug`, which is one process with what it carries out, says how to go on."""
    state = {"standing": True, "queues": [], "breakpoints": {}, "next_deadline": None}
    layer("tcp", **{"debug.state": state})
    with Debugger(run.name, root=run.root) as debugger:
        debugger.hold()
        assert "go on with lvlip continue --name t\n" in lvlip("status").stdout
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            clock = StackClock(run.clock)
            clock.explain(Hold(Holder(other.pid, started(other.pid), "root", "lvlip debug"), time.time(), []))
            clock.close()
            assert "go on with lvlip continue --name t --force\n" in lvlip("status").stdout
        finally:
            other.kill()


@pytest.mark.parametrize(
    "words",
    ["continue --wait", "paths --seconds", "why 80 --seconds", "capture -w - --seconds", "stat -d", "ping 10.0.0.1 -i",
     "up --timeout", "restart tcp --timeout", "graph --from", "qlog -o x --seconds"],
)  # fmt: skip
@pytest.mark.parametrize("number", ["nan", "inf", "1e999"])
def test_nothing_waits_for_no_number_of_seconds(lvlip: Callable[..., Result], words: str, number: str) -> None:
    """nan is beyond no limit, and no deadline of it ever comes."""
    done = lvlip(*words.split(), number)
    assert done.exit_code == 2
    assert f"{number} is no number of seconds" in done.stderr


def test_ctrl_c_while_the_command_is_loaded_is_silent() -> None:
    """It comes in the midst of an import: 130, as later, and no traceback."""
    program = (
        "import sys, importlib.abc\n"
        "class Pressed(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'click': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Pressed())\n"
        "from levelip.cli.__main__ import main\n"
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_layer_that_does_not_answer_is_named(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tcp runs and is silent: each command does what can be done, names it, and ends with exit status 1."""
    monkeypatch.setattr("levelip.debug.debugger.ANSWER_S", 60.0)  # of ip; of tcp it is known at once
    state = {"standing": True, "queues": [], "breakpoints": {}, "next_deadline": None}
    layer("ip", **{"debug.state": state, "debug.held": {"held": []}, "debug.breakpoints": {"refused": []}})
    lock = run.lock("tcp")
    held = lvlip("hold")
    assert held.exit_code == 1 and "tcp did not answer" in held.stdout
    for words in (("held", "list"), ("break", "add", "tcp"), ("break", "list"), ("continue",)):
        result = lvlip(*words)
        assert result.exit_code == 1 and "lvlip: tcp did not answer; see: lvlip status" in result.stderr, words
    os.close(lock)


def test_the_next_frame_of_a_stack_that_runs(layer: Callable[..., FakeLayer], lvlip: Callable[..., Result]) -> None:
    """Nothing is held, and no timer can be stepped either."""
    layer("ip", **{"debug.state": {"standing": False, "queues": []}, "debug.held": {"held": []}})
    result = lvlip("held", "show", ".")
    assert (result.exit_code, result.stderr) == (1, "lvlip: stack 't' runs; hold it first, with: lvlip hold\n")


STATUS = {"calls": 7, "flight": {"on": True, "bytes": 2048, "limit": 1 << 25, "failure": ""}, "ended": ""}
FAULT = {"seam": "link", "direction": "up", "loss": 0.5, "packets": 8, "lost": 4, "duplicated": 0, "reordered": 0,
         "corrupted": 0, "overflowed": 0}  # fmt: skip
HOOK = {"hook": "frame", "where": "link both", "expression": "", "calls": 3, "worst_ns": 5000}
ADDON = {"addon": "lossy", "running": True, "error": "", "log": [], "path": "/x/lossy.py", "hooks": [HOOK]}


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["stat"], "4  drop.fault_loss"),
        (["stat", "--delta", "0.01", "--zeros"], "0  drop.fault_loss"),
        (["fault", "show"], "loss=50%"),
        (["fault", "clear"], "cleared: link"),
        (["addon", "list"], "lossy"),
        (["addon", "unload", "lossy"], "lossy unloaded from link"),
        (["addon", "load", "lossy.py"], "lossy in link: frame"),
        (["ss", "-tu"], "Netid"),
        (["record", "status"], "2 KiB of 32 MiB"),
        (["record", "stop"], "link: 5 B in /x/link.rec"),
        (["record", "dump", "DIR"], "link: 5 B in /x/link.rec"),
    ],
)  # fmt: skip
def test_the_other_layers_are_shown_and_a_silent_one_is_named(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], run: RunDirectory, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, words: list[str], shown: str,
) -> None:  # fmt: skip
    """One is stopped (it runs and says nothing): what the other layers say is shown, it is named, the exit status 1."""
    monkeypatch.setattr("levelip.cli.common.ANSWER_S", 60.0)  # of the others; of this one it is known at once
    monkeypatch.setattr("levelip.cli.addon.ADDON_S", 60.0)
    file = {"path": "/x/link.rec", "bytes": 5}
    layer("link", **{
        "counters": {"counters": {"drop.fault_loss": 4}},
        "fault.show": {"faults": [FAULT]}, "fault.clear": {"cleared": ["link"]},
        "addon.list": {"addons": [ADDON]}, "addon.unload": {"log": {"lossy": []}},
        "addon.load": {"loaded": True, "hooks": [HOOK]},
        "record.status": {**STATUS, "file": file, "writing": {**file, "busy": False, "error": ""}},
        "record.stop": {}, "record.dump": {},
    })  # fmt: skip
    layer("tcp", ss={"sockets": []}) if words[0] == "ss" else None
    silent = "udp" if words[0] == "ss" else "ip"
    lock = run.lock(silent)
    result = lvlip(*[str(tmp_path / "rec") if word == "DIR" else word for word in words])
    assert result.exit_code == 1
    assert shown in result.stdout
    assert result.stderr == f"lvlip: {silent} did not answer; see: lvlip status --name {run.name}\n"
    os.close(lock)


def test_breakpoints_of_no_stack(lvlip: Callable[..., Result]) -> None:
    """They are not said to be none."""
    result = lvlip("break", "list")
    assert result.exit_code == 1 and "is not running; start it with: lvlip up" in result.stderr


def test_a_file_of_breakpoints_that_is_none_is_told(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], run: RunDirectory
) -> None:
    """By the tools too, with what to do."""
    layer("tcp", **{"debug.state": {"standing": False, "queues": [], "breakpoints": {}, "next_deadline": None}})
    (run.path / "breakpoints.json").write_text("[{]")
    for words in (("break", "list"), ("break", "add", "tcp"), ("break", "remove", "1")):
        result = lvlip(*words)
        assert result.exit_code == 1, result.output
        assert "does not hold breakpoints" in str(result.exception or result.stderr) + result.stderr
        assert "remove that file" in str(result.exception or result.stderr) + result.stderr


def test_list_shows_the_stacks_below_a_directory(
    layer: Callable[..., FakeLayer], lvlip: Callable[..., Result], run: RunDirectory
) -> None:
    layer("ip")
    RunDirectory("other", run.root).create(memory=False)
    assert lvlip("list").stdout == (
        "name   state    address  running  run directory\n"
        f"other  stopped                    {run.root}/other\n"
        f"t      partly            ip       {run.root}/t\n"
    )


def test_logs_show_the_end_of_a_file(lvlip: Callable[..., Result], run: RunDirectory) -> None:
    missing = lvlip("logs", "tcp")
    said = f"lvlip: {run.logs}/tcp.log does not exist: tcp has not run in stack 't'; see: lvlip status --name t\n"
    assert missing.stderr == said
    (run.logs / "tcp.log").write_text("one\ntwo\nthree\n")
    assert lvlip("logs", "tcp", "-n", "2").stdout == "two\nthree\n"
    assert json.loads(lvlip("logs", "tcp", "-n", "1", "--json").stdout) == {"layer": "tcp", "line": "three"}


def test_what_is_logged_while_the_end_is_shown_is_followed(
    lvlip: Callable[..., Result], run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is missed between the last line that was there and the first that is waited for."""
    log = run.logs / "tcp.log"
    log.write_text("one\n")
    shown: list[str] = []

    def show(_stack: Stack, _layer: str, line: str) -> None:
        shown.append(line)
        if line == "two":
            raise KeyboardInterrupt
        with log.open("a") as file:
            file.write("two\n")

    monkeypatch.setattr(logs, "_print", show)
    lvlip("logs", "tcp", "-f")
    assert shown == ["one", "two"]


def test_supervisord_reads_the_configuration_that_up_writes(tmp_path: Path) -> None:
    """Also below a directory whose name has a blank and a comma."""
    run = RunDirectory("s", tmp_path / "a b,c")
    run.create(memory=False)
    paths = supervise.Paths.of(run)
    paths.conf.write_text(supervise.conf_text(run, ["link", "gateway"]))
    options = _parse(paths.conf)
    programs = {group.name: group.process_configs[0] for group in options.process_group_configs}
    assert sorted(programs) == ["gateway", "link"]
    link = programs["link"]
    assert link.command == f'"{sys.executable}" -P -m layers.link'
    assert link.environment["LEVELIP_RUN"] == str(run.root)
    assert link.environment["LEVELIP_CONFIG"] == str(paths.config)
    assert (link.startsecs, link.stopasgroup, link.killasgroup, link.uid) == (0, True, True, None)
    assert link.stdout_logfile == str(run.logs / "link.log")


def test_supervisord_reads_the_configuration_of_the_checkout() -> None:
    """Everything lies below run/, no user is set, all five processes are there."""
    options = _parse(ROOT / "supervisord.conf")
    assert options.user is None
    programs = {group.name: group.process_configs[0] for group in options.process_group_configs}
    assert sorted(programs) == ["gateway", "ip", "link", "tcp", "udp"]
    for layer, program in programs.items():
        assert program.command == f"{ROOT}/.venv/bin/python -m {supervise.MODULES[layer]}"
        assert program.environment["LEVELIP_RUN"] == f"{ROOT}/run"
        assert {name: program.environment[name] for name in supervise.MALLOC} == supervise.MALLOC
        assert program.stdout_logfile == f"{ROOT}/run/{layer}.log"
        assert (program.startsecs, program.stopasgroup, program.killasgroup, program.uid) == (0, True, True, None)


def _parse(path: Path) -> ServerOptions:
    options = ServerOptions()
    options.realize(["-c", str(path)])
    return options


def test_a_run_directory_that_is_too_long_for_a_socket_is_refused() -> None:
    run = RunDirectory("n", "/tmp/" + "x" * 80)
    with pytest.raises(Failure, match="107 are allowed; choose a shorter directory"):
        supervise.check_socket(run)


@pytest.mark.parametrize("sign", ['"', "%", "\n"])
def test_a_path_that_supervisord_cannot_take_is_refused(sign: str) -> None:
    with pytest.raises(Failure, match="cannot take a path with a quote"):
        supervise.conf_text(RunDirectory("n", f"/tmp/a{sign}b"), ["ip"])


def test_overrides_are_known_from_other_variables() -> None:
    assert supervise.is_override("LEVELIP_TCP_RETRIES")
    assert not supervise.is_override("LEVELIP_NAME")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_supervisor_that_does_not_listen_yet_is_ended_at_once(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """`lvlip up --foreground`, and a lesson, that are interrupted just after supervisord was started: it has no socket
    yet over which it could be told, and nobody waits for what will not end by itself."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])

    def starting(*_: Any) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr(supervise, "spawn", lambda *_, **__: child)
    monkeypatch.setattr(supervise, "STOP_WAIT_S", 100)
    monkeypatch.setattr("levelip.cli.up._wait_ready", starting)
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    begun = time.monotonic()
    try:
        result = CliRunner().invoke(cli, ["up", "--foreground", "--name", run.name, "--run", str(run.root)])
        assert child.poll() == -signal.SIGTERM
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        child.kill()
        child.wait()
    assert result.exit_code in (1, 130)
    assert time.monotonic() - begun < 50


def test_whom_supervisord_killed_is_told_by_its_log(tmp_path: Path) -> None:
    """Of this end alone, and of the processes that ended."""
    log = tmp_path / "supervisord.log"
    log.write_text("2026-11-27 03:00:00,1 WARN killing 'ip' (7) with SIGKILL\n")
    before = log.stat().st_size
    with log.open("a") as file:
        file.write("x WARN killing 'tcp' (8) with SIGKILL\nx INFO waiting for udp to die\nx INFO stopped: udp\n"
                   "x WARN killing 'link' (99) with SIGKILL\n")  # fmt: skip
    assert teardown._killed(log, before, {"supervisord": 3, "link": 5, "ip": 7, "tcp": 8, "udp": 9}) == {"tcp"}


def test_layers_start_from_the_lowest() -> None:
    assert ordered(["gateway", "link"]) == ["link", "gateway"]


def test_a_device_that_was_there_before_stays(run: RunDirectory) -> None:
    note = run.path / teardown.DEVICE_FILE
    note.write_text('{"name": "lvlnone0", "created": false}')
    assert teardown._remove_device(run) == ["device lvlnone0 stays, as it was there before"]
    assert not note.exists()
    note.write_text('{"name": "lvlnone0", "created": true}')
    (run.path / teardown.NET_FILE).touch()
    assert teardown._remove_device(run) == [
        "device lvlnone0 stays, as `lvlip net up` asked; `lvlip net down` removes it"
    ]


def test_keygen_writes_a_pair_for_its_owner_alone(lvlip: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / "keys"
    result = lvlip("keygen", str(path))
    assert result.exit_code == 0
    public = result.stdout.strip()
    assert len(public) == 40
    assert public in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert "exists already" in lvlip("keygen", str(path)).stderr


def test_durations_read_well() -> None:
    spans = [0.5, 59.96, 61, 3_700, 90_000]
    assert [duration(round(span * 1e9)) for span in spans] == ["0.5 s", "60.0 s", "1 min", "1 h 1 min", "1 d 1 h"]
    assert duration(None) == ""


def test_columns_align() -> None:
    assert columns([("a", 1), ("bbb", 22)], ("x", "n"), right={1}) == "x     n\na     1\nbbb  22"


def test_ending_processes_takes_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once: those that ignore SIGTERM are killed and named, whoever waits hears for whom, once."""
    monkeypatch.setattr(supervise, "STOP_WAIT_S", 0.3)
    monkeypatch.setattr(supervise, "UNTOLD_S", 0.1)
    told: list[str] = []
    passed = 0.0
    gone = subprocess.Popen(["true"])
    gone.wait()
    running = {
        name: subprocess.Popen(["sh", "-c", f"trap '{what}' TERM; echo; while :; do sleep 0.05; done"],
                               stdout=subprocess.PIPE)
        for name, what in (("deaf", ""), ("good", "exit"))
    }  # fmt: skip
    try:
        for process in running.values():
            assert process.stdout is not None and process.stdout.read(1), "it has set its trap"
        processes = {"gone": gone.pid, **{name: process.pid for name, process in running.items()}}

        def sleep(seconds: float) -> None:
            """Time passes as soon as the one that listens has ended, however long that takes here."""
            nonlocal passed
            time.sleep(seconds)
            if running["good"].poll() is not None:
                passed += seconds

        monkeypatch.setattr(supervise, "time", SimpleNamespace(monotonic=lambda: passed, sleep=sleep))
        assert supervise.end(processes, told.append) == {"deaf"}
        assert passed < 5
        assert told == [f"waiting for deaf (pid {processes['deaf']}) to end, 0 s at most"]
        assert supervise.end({}, told.append) == set() and len(told) == 1
    finally:
        for process in running.values():
            process.kill()
            process.communicate()


def test_literal() -> None:
    assert literal("x") == '"x"'


def test_progress_fits_on_a_line() -> None:
    """Layers that start are named together."""
    left = {"link": None, "ip": None, "tcp": {"waiting_for": ["ip", "gateway"]}}
    assert progress(left) == "link, ip are starting; tcp waits for ip and gateway"
    assert progress({"link": None}) == "link is starting"
    assert len(progress(dict.fromkeys(LAYERS))) < 60


class Interrupted(supervise.Supervisor):
    """A supervisor while whose second order Ctrl-C comes."""

    def __init__(self) -> None:
        super().__init__(Path("none"))
        self.orders: list[str] = []

    def stop(self, layer: str) -> None:
        self.orders.append(f"stop {layer}")
        if len(self.orders) == 2:
            raise KeyboardInterrupt

    def start(self, layer: str) -> None:
        self.orders.append(f"start {layer}")


def test_an_interrupted_restart_leaves_no_layer_stopped() -> None:
    """All are started again; the interrupt counts then."""
    supervisor = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        stop_and_start(supervisor, ["link", "ip", "tcp"])
    assert supervisor.orders == ["stop link", "stop ip", "start link", "start ip", "start tcp"]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", ""),
        ("x ERROR cannot start: no tap\n" * 2, ""),
        ("x ERROR cannot start: no tap\n" * 3, "no tap"),
        ("x ERROR cannot start: busy\n" + "y INFO starts\nx ERROR cannot start: no tap\n" * 3, "no tap"),
        ("x ERROR cannot start: no tap\nx ERROR cannot start: busy\n" * 3, ""),
    ],
)
def test_a_layer_that_says_why_it_cannot_start_is_believed(tmp_path: Path, said: str, why: str) -> None:
    """At the third time, so that what passes by itself may pass; what an earlier start said does not count."""
    log = tmp_path / "link.log"
    assert refusal(log, 0) == ""
    before = "x ERROR cannot start: no tap\n" * 3
    log.write_text(before + said)
    assert refusal(log, len(before)) == why


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_users_stack_is_told_so() -> None:
    """And not that nothing runs."""

    def nobody(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, user=65534, group=65534, extra_groups=[], capture_output=True, text=True, cwd="/", check=False,
            timeout=240,
        )  # fmt: skip

    if nobody(sys.executable, "-P", "-c", "import levelip.cli.main").returncode:
        pytest.skip("this Python is root's alone")
    with tempfile.TemporaryDirectory(prefix="lv") as root:
        Path(root).chmod(0o755)
        run = RunDirectory("t", root)
        run.create(memory=False)
        for command in ("ss", "hold", "record status"):
            done = nobody(*python("levelip.cli", *command.split(), "--name", "t", "--run", root))
            assert done.stderr == f"lvlip: {run.path} may not be read: stack 't' is another user's\n"
            assert done.returncode == 1

"""The debugger's prompt: short forms, expressions as they are typed, completion, errors that end nothing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_layer import FakeLayer

from levelip.cli import lesson
from levelip.cli.common import Failure, Stack
from levelip.cli.debugcomplete import expression_words
from levelip.cli.prompt import Prompt, break_words
from levelip.ipc.clock import StackClock
from levelip.ipc.rundir import RunDirectory


@pytest.fixture
def prompt(run: RunDirectory) -> Prompt:
    """Of a stack that does not run."""
    return Prompt(Stack(run.name, str(run.root)))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("s", ("step",)),
        ("c", ("continue",)),
        ("b", ("break",)),
        ("d", ("break", "remove")),
        ("l", ("held", "list")),
        ("p", ("held", "show")),
        ("rel", ("held", "release")),
        ("cont", ("continue",)),
        ("ss", ("ss",)),
        ("inj", ("inject",)),
    ],
)
def test_words_may_be_short(prompt: Prompt, typed: str, meant: tuple[str, ...]) -> None:
    """gdb's letters, and the beginning of a word where it says which."""
    assert prompt.expand(typed) == meant


@pytest.mark.parametrize(("typed", "told"), [("st", "may be stat, status, step"), ("xyzzy", "there is no command")])
def test_words_that_say_not_which_are_refused(prompt: Prompt, typed: str, told: str) -> None:
    with pytest.raises(Failure, match=told):
        prompt.expand(typed)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("tcp.flags.syn and tcp.dstport == 80", ["--", "tcp.flags.syn and tcp.dstport == 80"]),
        ('tcp.payload contains "GET /" --once', ["--once", "--", 'tcp.payload contains "GET /"']),
        ("--on drop", ["--on", "drop"]),
        ("--at ip-tcp:up --after 3 'ip.ttl < 5'", ["--at", "ip-tcp:up", "--after", "3", "--", "ip.ttl < 5"]),
        ("--on=retransmit conn.cwnd < 4", ["--on", "retransmit", "--", "conn.cwnd < 4"]),
    ],
)
def test_an_expression_needs_no_quotes(typed: str, words: list[str]) -> None:
    """Options may stand before or behind it; quotes in it are its own."""
    assert break_words(typed) == words


@pytest.mark.parametrize(
    ("before", "text", "some"),
    [
        ("", "rele", ["release "]),
        ("step ", "--t", ["--timer "]),
        ("b ", "tcp.flags.sy", ["tcp.flags.syn "]),
        ("b tcp.flags.syn and ", "tcp.dstp", ["tcp.dstport "]),
        ("b --on ", "retr", ["retransmit "]),
        ("break add --at ", "ip-tcp:d", ["ip-tcp:down "]),
        ("edit t1 ", "tcp.window_size_v", ["tcp.window_size_value="]),
        ("info ", "br", ["breakpoints"]),
        ("hold ", "gateway-client:u", ["gateway-client:up "]),
        ("ss ", "--ti", []),
    ],
)
def test_completion(prompt: Prompt, before: str, text: str, some: list[str]) -> None:
    """Commands, their options, and what these take: fields, events, places."""
    assert prompt.completions(before, text) == some


def test_the_shell_completes_the_last_word_of_an_expression() -> None:
    """There it is one word in quotes."""
    found = expression_words(None, None, "tcp.flags.syn and (tcp.dstpo")  # type: ignore[arg-type]
    assert found == ["tcp.flags.syn and (tcp.dstport"]


def test_errors_are_told_and_end_nothing(
    prompt: Prompt, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A command that fails says why; a file ends there."""
    for line, told in (
        ("hold", "is not running; start it with: lvlip up"),
        ("s x y z", "unexpected extra argument"),
        ("c soon", "a number of seconds, or &"),
        ("c nan", "a number of seconds, or &"),
        ("c inf", "a number of seconds, or &"),
        ("inject 'x", "No closing quotation"),
        ("debug", "there is no command 'debug'"),
        ("c", "is not running"),
        ("info nonsense", "info knows breakpoints"),
        ("info held 'x", "No closing quotation"),
    ):
        assert not prompt.carry_out(line)
        assert told in capsys.readouterr().err
    assert prompt.carry_out("help")
    assert "Ctrl-C holds" in capsys.readouterr().out
    assert prompt.carry_out("help step")
    assert "--timer" in capsys.readouterr().out
    script = tmp_path / "x"
    script.write_text("# nothing\n\nhelp\nhold\nhelp step\n")
    assert not prompt.source(script)
    assert "(lvlip) help step" not in capsys.readouterr().out
    assert not prompt.carry_out(f"source {tmp_path / 'missing'}")
    script.write_text(f"source {script}\n")
    capsys.readouterr()
    assert not prompt.carry_out(f"source {script}")
    assert "16 files carry out each other already" in capsys.readouterr().err


def test_json_is_all_that_is_printed(run: RunDirectory, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Commands of a file are not repeated above it."""
    script = tmp_path / "x"
    script.write_text("explain rto\nexplain tcp_paws\n")
    assert Prompt(Stack(run.name, str(run.root), json=True)).source(script)
    assert [json.loads(line)["reason"] for line in capsys.readouterr().out.splitlines()] == ["rto", "tcp_paws"]


def test_a_command_of_another_program_that_fails_ends_nothing(
    prompt: Prompt, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`script` and `replay` are such; the prompt goes on, and knows that it failed."""
    good = tmp_path / "good.pkt"
    good.write_text("0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n")
    assert not prompt.carry_out(f"script check {tmp_path / 'none.pkt'}")
    assert prompt.carry_out(f"script check {good}")
    captured = capfd.readouterr()
    assert "does not exist" in captured.err
    assert captured.out.startswith("ok ")


def test_ctrl_c_as_soon_as_the_stack_goes_on_holds_it(
    layer: Callable[..., FakeLayer], run: RunDirectory, prompt: Prompt, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also before `continue` waits for a stop."""
    state = {"standing": True, "queues": [], "breakpoints": {}, "next_deadline": None}
    pressed: list[int] = []

    def answer(_: dict[str, Any]) -> dict[str, Any]:
        if not pressed and not clock.held:
            pressed.append(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return state

    answers: dict[str, Any] = {"debug.state": answer, "debug.held": {"held": []}, "debug.breakpoints": {"refused": []}}
    run.create()
    clock = StackClock(run.clock)
    clock.hold()
    layer("tcp", **answers)
    assert prompt.carry_out("c 60")
    assert clock.held and pressed
    clock.close()
    assert "is held since" in capsys.readouterr().out


def test_a_lesson_is_another_process(prompt: Prompt, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes into a namespace of its own and has signals of its own; the prompt does not."""
    started: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(lesson, "run", lambda _stack, module, words: started.append((module, list(words))))
    assert prompt.carry_out("lesson 1 --step --way wire")
    assert started == [("levelip.cli", ["lesson", "1", "--step", "--way", "wire"])]
    assert not prompt.carry_out("lesson 99")

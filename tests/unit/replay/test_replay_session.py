"""Moving through a recording: next, back, goto, state, diff, what-if; scripts and tests made of it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from replay_bench import host_recordings, lossy_upload, stop, transfer

from levelip.tracing.recording import Recording
from simulation.replay.player import Player
from simulation.replay.report import summary
from simulation.replay.session import COMMANDS, Session
from tests.netsim.net import Impairment


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded upload with losses."""
    return lossy_upload(tmp_path_factory.mktemp("session") / "tcp.rec")


@pytest.fixture
def session(path: Path) -> Session:
    """At the beginning of it."""
    return Session([Recording(path)])


def run(session: Session, line: str) -> list[str]:
    """The lines of a command that succeeds."""
    answer = session.run(line)
    assert not answer.failed, answer.lines
    return answer.lines


def test_next_and_back(session: Session) -> None:
    """Call by call, forward and back: the same lines again."""
    first = run(session, "next 20")
    here = session.player.at
    assert here == session.player.recording.first + 20
    run(session, "back 20")
    assert session.player.at == session.player.recording.first
    assert run(session, "n 20") == first
    run(session, "b")
    assert session.player.at == here - 1
    run(session, "goto start")
    run(session, "back 5")
    assert session.player.at == session.player.recording.first, "no further back than the beginning"


def test_what_comes_next_is_told_with_its_own_time(session: Session) -> None:
    """As it is told when it has come, and not with the time of the call before."""
    for number in range(10, 40):
        (coming,) = run(session, f"goto #{number}")
        came = run(session, "next")[0]
        assert coming == f"next: {came}"


def test_goto_an_event(session: Session) -> None:
    """Behind the call at which it happened, with the figures that the condition names; and back to the one before."""
    lines = run(session, "goto event retransmit and conn.cwnd > 1")
    assert any("retransmit" in line for line in lines)
    found = session.player.at
    answer = session.run("goto event retransmit")
    assert not answer.failed and session.player.at > found
    run(session, "back event retransmit")
    assert session.player.at == answer.data["steps"][0]["call"]
    run(session, "back event retransmit")
    assert session.player.at == found - 1


def test_goto_a_packet(session: Session) -> None:
    """By Wireshark's names, by its id, by time, by number."""
    lines = run(session, "goto tcp.flags.syn and direction == up")
    assert any("Flags [S.]" in line for line in lines)
    here = session.player.at
    ident = next(line.split()[-1] for line in run(session, "next 5") if "out ip-tcp" in line)
    run(session, "goto start")
    run(session, f"goto {ident}")
    assert here < session.player.at <= here + 5
    run(session, "goto 5ms")
    at = session.player.recording.span[0] + 5_000_000
    assert session.player.now < at <= session.player.recording.entry(session.player.at).now  # type: ignore[union-attr]
    run(session, "goto #200")
    clock, then = session.run("where").data["wall"], session.player.now
    run(session, "goto start")
    run(session, f"goto {clock}")
    assert abs(session.player.now - then) < 1_000_000
    run(session, "goto #7")
    assert session.player.at == 7
    run(session, "goto end")
    assert session.player.ended
    assert run(session, "next") == ["the recording ends here"]


def test_a_time_of_day_at_which_nothing_was_recorded(session: Session) -> None:
    """An hour before the recording is not its end, which the next day would be."""
    run(session, "goto start")
    clock = session.run("where").data["wall"]
    answer = session.run(f"goto {(int(clock[:2]) - 1) % 24:02}{clock[2:]}")
    assert answer.failed and f"the recording goes from {clock} to " in answer.lines[0]
    assert session.player.at == session.player.recording.first


def test_the_time_of_day_counts_holds(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack that was held for an hour in the middle: `where` and `goto TIME` before it, behind it, and within it."""
    recording = session.player.recording
    before = (recording.first + recording.stop) // 2
    run(session, f"goto #{before}")
    held_at = session.player.now
    monkeypatch.setattr(recording, "_clocks", [(held_at, recording.head.wall_offset + 3600 * 10**9)])
    early = run(session, "where")[0].rpartition(", ")[2]
    run(session, "goto end")
    late, at = run(session, "where")[0].rpartition(", ")[2], session.player.now
    assert (int(late[:2]) - int(early[:2])) % 24 == 1
    run(session, f"goto {early}")
    assert abs(session.player.now - held_at) < 1_000_000
    run(session, f"goto {late}")
    assert abs(session.player.now - at) < 1_000_000
    within = f"{early[:3]}{(int(early[3:5]) + 30) % 60:02}{early[5:]}"
    if within > early:  # 30 minutes later, in the same hour
        run(session, f"goto {within}")
        assert session.player.at > 0
        assert recording.entry(session.player.at).now > held_at  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("nonsense", "there is no command 'nonsense'"),
        ("goto", "goto where?"),
        ("goto #99999999", "there is no call #99999999"),
        ("goto tcp-fffff-1", "no frame tcp-fffff-1"),
        ("goto 25:00:00", "25:00:00 is no time of day"),
        ("goto 19:22", "is no time of day"),
        ("diff 'event nonsense' #3", "no kind of event 'nonsense'"),
        ("goto tcp.flgs.syn", "^"),
        ("goto event retransmit and and", "^"),
        ("goto event conflict", "no call from here on is like that"),
        ("back event conflict", "no call before here is like that"),
        ("next x", "a number of calls"),
        ("state xyzzy", "nothing of the state"),
        ("layer ip", "there is no recording of ip"),
        ("whatif", "what if what?"),
        ("whatif edit", "edit what?"),
        ("whatif edit tcp.nope=1", "tcp.nope"),
        ("whatif edit tcp.window_size_value", "FIELD=VALUE"),
        ("whatif drop tcp.seq=1", "no fields to change"),
        ("whatif drop then dance", "silence"),
        ("whatif drop for ever", "for how long?"),
    ],
)
def test_mistakes(session: Session, line: str, text: str) -> None:
    """A sentence says what would be right, and nobody has moved."""
    run(session, "goto #40")
    answer = session.run(line)
    assert answer.failed
    assert text in "\n".join(answer.lines)
    assert session.player.at == 40
    assert not session.diverged


def test_state_and_diff(session: Session) -> None:
    """The whole TCB at an instant; what changed between two, in either order."""
    run(session, "goto event recovery")
    names = run(session, "state")
    assert any(line.startswith("connections[10.0.0.1:") and "tx.snd_una = " in line for line in names)
    (cwnd,) = run(session, "state congestion.cwnd")
    assert cwnd.split(" = ")[1].isdigit()
    assert cwnd in run(session, "state congestion"), "what is below a name, and not its namesakes alone"
    assert "10.0.0.2:80" in run(session, "connections")[0]
    here = session.player.at
    changed = run(session, "diff")
    assert any("recovery.state" in line for line in run(session, f"diff #{here - 2} #{here}"))
    assert session.player.at == here, "looking does not move"
    assert changed[0].startswith("from #")
    assert run(session, f"diff #{here} 'event retransmit'")[0].startswith(f"from #{here} to #")
    assert session.player.at == here
    for wrong, text in (("tcp.len > 0 5", "in quotes"), ("'#3 #5", "no closing quotation")):
        answer = session.run(f"diff {wrong}")
        assert answer.failed and text in answer.lines[0], answer.lines
    forth = session.run(f"diff #20 #{here}").data["changes"]
    assert forth == session.run(f"diff #{here} #20").data["changes"]


def test_what_if_a_packet_is_lost(session: Session) -> None:
    """The ACK that ends the handshake never comes: nothing else does, and the SYN is sent again after an RTO."""
    run(session, "goto start")
    run(session, "goto tcp.flags.syn and direction == down")
    answer = session.run("whatif drop then silence for 8s")
    assert not answer.failed
    sent = [row for row in answer.data["made"] if "Flags" in row["text"]]
    assert [row["text"].count("Flags [S]") for row in sent] == [1, 1, 1]
    times = [float(row["time"]) for row in sent]
    assert times[1] - times[0] == pytest.approx(2.0, abs=0.01), "RFC 6298 5.5"
    assert "SYN_SENT" in answer.lines[-1]


def test_what_if_a_window_closes(session: Session) -> None:
    """The peer's window becomes zero and stays so: no new data is sent, but probes."""
    run(session, "goto tcp.len == 0 and direction == up and not tcp.flags.syn")
    before = session.player.at
    answer = session.run("whatif edit tcp.window_size_value=0 then silence for 10s")
    assert not answer.failed, answer.lines
    assert session.player.at == before
    assert answer.data["edited"] == {"tcp.window_size_value": "0"}
    assert any("closed" in row["text"] for row in answer.data["made"])


def test_what_if_with_what_came(session: Session) -> None:
    """Beside the recording: a lost segment of data is missed, and acknowledged no more than up to it."""
    answer = session.run("goto tcp.len > 0 and direction == up")
    run(session, "back")
    player = session.player
    while type(player.recording.entry(player.at)).__name__ != "Received":
        run(session, "back")
    answer = session.run("whatif drop")
    assert not answer.failed
    assert answer.data["same"] is False
    assert any(line.startswith(("  - ", "  + ")) for line in answer.lines)


def test_what_if_nothing_changes(session: Session) -> None:
    """An edit that changes nothing that matters leaves all as it was recorded."""
    run(session, "goto event recovery")
    answer = session.run("whatif edit ip.ttl=63")
    assert answer.data["same"] is True, answer.lines


def test_layers(tmp_path: Path) -> None:
    """`layer` goes on in another process of the recording at the same instant."""
    found = host_recordings(tmp_path, 1)
    session = Session(list(found.values()))
    assert session.player.process == "tcp"
    run(session, "goto 5s")
    now = session.player.now
    run(session, "layer ip")
    assert session.player.process == "ip"
    assert session.position()["layer"] == "ip"
    assert abs(session.player.now - now) < 3_000_000_000
    assert session.run("connections").failed


def test_help_tells_of_every_command(session: Session) -> None:
    """Each begins a line of it."""
    lines = run(session, "help")
    for name in COMMANDS:
        assert any(line.startswith(name) for line in lines), name


# the program


def replay(*words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "simulation.replay", *map(str, words)],
        capture_output=True, text=True, timeout=240, check=False, input=stdin,
    )  # fmt: skip


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_scriptable(path: Path, tmp_path: Path) -> None:
    """--goto, -e and -x; --json is one value a command."""
    script = tmp_path / "commands"
    script.write_text("# where is it lost?\ngoto event retransmit\n\nstate snd_una\n")
    found = rows(replay(path, "--goto", "#3", "-e", "where", "-x", str(script), "--json").stdout)
    assert [row["command"] for row in found] == ["goto", "where", "goto", "state"]
    assert found[1]["call"] == 3
    assert any(event["kind"] == "retransmit" for event in found[2]["steps"][0]["events"])
    done = replay(path, "-e", "nonsense", "-e", "where")
    assert done.returncode == 2
    assert "there is no command" in done.stderr and not done.stdout
    script.write_bytes(b"\xd5\xff")
    torn = replay(path, "-x", str(script))
    assert torn.returncode == 2
    assert "it is no text" in torn.stderr and "Traceback" not in torn.stderr


def test_prompt(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty line repeats; the end of input ends it; a mistake does not. The history is its owner's alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    done = replay(path, "-i", stdin="n\n\nnonsense\nwhere\n")
    assert done.returncode == 0, done.stderr
    assert "before call #2 of #0" in done.stdout
    assert "there is no command" in done.stdout
    history = tmp_path / "level-ip" / "replay_history"
    assert not history.exists() or stat.S_IMODE(history.stat().st_mode) == 0o600


def test_wrong_files(path: Path, tmp_path: Path) -> None:
    """A foreign file, an empty directory: a sentence, exit status 2. What is whole of a torn one replays."""
    foreign = tmp_path / "x.pcapng"
    foreign.write_bytes(bytes.fromhex("0a0d0d0a") * 9)
    for what, text in ((foreign, "no Level-IP recording"), (tmp_path / "none", "does not exist")):
        done = replay(what)
        assert done.returncode == 2
        assert text in done.stderr and "Traceback" not in done.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no .rec file" in replay(empty).stderr
    torn = tmp_path / "torn.rec"
    torn.write_bytes(path.read_bytes()[:-1000])
    done = replay(torn)
    assert done.returncode == 0
    assert "torn at byte" in done.stdout


def test_how_much_was_compared(path: Path) -> None:
    """Where nothing of a payload was recorded, "the same" says so; --json counts frames known in part, too."""
    found = json.loads(replay(path, "--json").stdout.splitlines()[0])
    assert found["same"] and 0 < found["in_part"] + found["by_length"] <= found["frames"]
    player = Player(Recording(path))
    counts = {"calls": 9, "frames": 7, "events": 0, "raised": 0}
    assert "\n" not in summary(player, {**counts, "by_length": 0}, 0.1)
    assert "the same (0.1 s)\n    of one frame no more" in summary(player, {**counts, "by_length": 1}, 0.1)
    assert "the same (0.1 s)\n    of 3 frames no more" in summary(player, {**counts, "by_length": 3}, 0.1)


def test_one_of_several_files_that_cannot_be_used(path: Path, tmp_path: Path) -> None:
    """The others are replayed, it is named, the exit status is 2; what is asked of another layer it does not hinder."""
    whole = path.read_bytes()
    (tmp_path / "rec").mkdir()
    for name, data in (("tcp", whole), ("ip", whole[:30]), ("udp", b"no recording"), ("gateway", b"")):
        (tmp_path / "rec" / f"{name}.rec").write_bytes(data)
    done = replay(tmp_path / "rec")
    assert done.returncode == 2
    assert ": the same (" in done.stdout
    assert done.stderr.count("left out: ") == 3, done.stderr
    assert "ip.rec was torn before anything was recorded in it" in done.stderr
    assert "udp.rec is no Level-IP recording" in done.stderr
    asked = replay(tmp_path / "rec", "-e", "where")
    assert asked.returncode == 2 and "before call" in asked.stdout
    alone = replay(tmp_path / "rec", "--layer", "tcp")
    assert (alone.returncode, alone.stderr) == (0, "")

    core, _, _ = transfer(tmp_path / "long.rec", size=1_000_000, how=Impairment(loss=0.03), seed=5)
    stop(core, tmp_path / "long.rec")
    damaged = bytearray((tmp_path / "long.rec").read_bytes())
    damaged[Recording(tmp_path / "long.rec").blocks[-1].offset + 50] ^= 1
    (tmp_path / "rec" / "tcp.rec").write_bytes(whole)
    (tmp_path / "rec" / "link.rec").write_bytes(damaged)
    done = replay(tmp_path / "rec", "--json")
    assert done.returncode == 2
    found = {Path(row["file"]).name: row for row in rows(done.stdout)}
    assert found["tcp.rec"]["same"] and not found["link.rec"]["same"]
    assert "cannot be read (wrong CRC)" in found["link.rec"]["error"]
    assert found["link.rec"]["calls"] > 100
    told = replay(tmp_path / "rec").stderr
    assert f"the {found['link.rec']['calls']} calls before were the same" in told

    for name in ("tcp", "link"):
        (tmp_path / "rec" / f"{name}.rec").unlink()
    done = replay(tmp_path / "rec")
    assert done.returncode == 2 and not done.stdout
    assert "ip.rec was torn" in done.stderr and "udp.rec is no" in done.stderr


def test_to_test(path: Path, tmp_path: Path) -> None:
    """A pytest file that passes, and fails when the code has changed; it is its owner's alone."""
    target = tmp_path / "test_first_loss.py"
    done = replay(path, "--to-test", str(target), "--from", "start", "--to", "event recovery")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert _pytest(target).returncode == 0
    target.write_text(target.read_text().replace("Flags [S]", "Flags [F]", 1))
    failed = _pytest(target)
    assert failed.returncode == 1
    assert "Flags [S]" in failed.stdout


def _pytest(path: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[3]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={path.parent}", str(path)],
        capture_output=True, text=True, timeout=240, check=False, cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip


def test_a_test_of_too_much(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of calls are no test: it is said how to choose."""
    monkeypatch.setattr("simulation.replay.export.TEST_CALLS", 10)
    from simulation.replay.__main__ import main

    assert main([str(path), "--to-test", str(tmp_path / "test_x.py")]) == 2
    assert main([str(path), "--to-test", str(tmp_path / "test_x.py"), "--from", "#9", "--to", "#9"]) == 2
    assert not (tmp_path / "test_x.py").exists()


@pytest.mark.parametrize(("size", "loss", "seed"), [(1_000, 0.0, 5), (60_000, 0.03, 5), (200_000, 0.02, 6)])
def test_to_script(tmp_path: Path, size: int, loss: float, seed: int) -> None:
    """A packet script of a recorded connection, which passes; also of one with losses, whose calls are those that were
    made and not inferred from the packets."""
    path = tmp_path / "tcp.rec"
    core, _, _ = transfer(path, size=size, how=Impairment(loss=loss), seed=seed, pause=True)
    stop(core, path)
    target = tmp_path / "x.pkt"
    done = replay(path, "--to-script", str(target))
    assert done.returncode == 0, done.stderr
    text = target.read_text()
    assert "connect(3, ..., ...)" in text
    assert "tcp.rec" in text.splitlines()[0]
    run_it = subprocess.run(
        [sys.executable, "-m", "simulation.script", "run", str(target)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert run_it.returncode == 0, run_it.stdout + text

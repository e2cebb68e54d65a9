"""Replays of recorded cores: the same to the last frame and event; a changed constant is found at the first frame that
differs; any call is reached from anywhere."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from replay_bench import ALL, dump, host_recordings, stop, transfer

from layers.tcp.congestion import cubic
from layers.tcp.timeouts import handle_timers
from levelip.tracing.recordedcalls import Flushed
from levelip.tracing.recording import Recording
from simulation.replay.compare import plain_state
from simulation.replay.cutting import cut_recording
from simulation.replay.made import made_events
from simulation.replay.player import Player
from simulation.replay.report import divergence_text
from tests.netsim.net import MS, Impairment

KINDS = {
    "clean": Impairment(),
    "loss": Impairment(loss=0.05),
    "everything": Impairment(loss=0.03, duplicate=0.03, reorder=0.05, corrupt=0.02, jitter=2 * MS),
}


@pytest.mark.parametrize("events", [True, False], ids=["events", "frames"])
@pytest.mark.parametrize("inline", [False, True], ids=["places", "inline"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_again(tmp_path: Path, kind: str, inline: bool, events: bool) -> None:
    """Every frame and event of a transfer; with payloads inline and cut, checksums verify as they did."""
    path = tmp_path / "x.rec"
    core, _, _ = transfer(path, how=KINDS[kind], inline=inline, events=events, seed=3)
    found = stop(core, path)
    assert len(found) > 200
    player = Player(found)
    divergence = player.check()
    assert divergence is None, divergence_text(player, divergence)
    assert player.ended


@pytest.mark.parametrize("seed", range(4))
def test_all_cores_of_a_host(tmp_path: Path, seed: int) -> None:
    """Sockets, listeners, pings, noise from the network: ip, tcp and gateway each do the same again, from every
    snapshot and from any instant."""
    for process, found in host_recordings(tmp_path, seed).items():
        player = Player(found)
        divergence = player.check()
        assert divergence is None, f"{process}: {divergence_text(player, divergence)}"
        rng = random.Random(seed)
        for _ in range(6):
            begin = rng.randrange(found.first, found.stop)
            player.seek(begin)
            other = tmp_path / f"{process}-{begin}.rec"
            other.write_bytes(cut_recording(found, begin, found.stop))
            rest = Player(Recording(other))
            divergence = rest.check()
            assert divergence is None, f"{process} from {begin}: {divergence_text(rest, divergence)}"
            other.unlink()
    assert set(ALL) == {path.stem for path in tmp_path.glob("*.rec")}


@pytest.fixture(scope="module")
def lossy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded transfer with losses."""
    path = tmp_path_factory.mktemp("lossy") / "tcp.rec"
    core, _, _ = transfer(path, size=400_000, how=Impairment(loss=0.03), seed=5)
    stop(core, path)
    return path


@pytest.mark.parametrize("seed", ["0", "1", "77"])
def test_another_process_and_hash_seed(lossy: Path, seed: int) -> None:
    """A fresh process under another PYTHONHASHSEED."""
    done = replay(lossy, "--json", PYTHONHASHSEED=seed)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout)
    assert facts["same"] and facts["frames"] > 100 and facts["events"] > 50


def replay(path: Path, *words: str, **env: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "simulation.replay", str(path), *words],
        capture_output=True, text=True, timeout=240, check=False, env={**os.environ, **env},
    )  # fmt: skip


def _outputs(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """What came out of each flush, without looking at what was recorded."""
    player = Player(Recording(path))
    while not player.ended:
        step = player.step()
        if isinstance(step.entry, Flushed):
            yield step.number, step.out


def test_a_flipped_constant_is_found(lossy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another beta the replay stops at the first frame that is not what it was, and says which and how the states
    differ; found here by comparing the outputs of both."""
    before = list(_outputs(lossy))
    monkeypatch.setattr(cubic, "BETA", (3, 10))
    first = next(call for (call, old), (_, new) in zip(before, _outputs(lossy), strict=True) if old != new)
    player = Player(Recording(lossy))
    while (step := player.step()).divergence is None or step.divergence.what != "frame":
        pass
    assert step.number == first
    player = Player(Recording(lossy))
    divergence = player.check()
    assert divergence is not None
    assert divergence.call <= first, "an event tells of it earlier: cwnd"
    assert divergence.what == "event"
    assert divergence.recorded.kind == "cwnd"
    text = divergence_text(player, divergence)
    assert f"call {divergence.call}" in text
    assert "recorded" in text and "replayed" in text
    assert "congestion" in text, "what it changed in the TCB"


def test_events_are_made_up_to_the_first_difference(lossy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decided after it is another story, and the note says so."""

    def made() -> tuple[dict[int, list[Any]], str]:
        ((process, events, note),) = msgspec.msgpack.decode(made_events([Recording(lossy)]), strict=False)
        assert process == "tcp"
        return events, note

    whole, note = made()
    assert not note and len(whole) > 50
    monkeypatch.setattr(cubic, "BETA", (3, 10))
    some, note = made()
    assert "the replay differs from call" in note
    assert 0 < len(some) < len(whole)
    other = [call for call in some if whole.get(call) != some[call]]
    assert set(other) <= set(list(some)[-3:]), "but for the cwnd that led to the difference"


def test_the_program_names_the_first_frame_that_differs(tmp_path: Path) -> None:
    """Of a recording without events: exit status 1, both frames side by side, call, time and state."""
    path = tmp_path / "tcp.rec"
    core, _, _ = transfer(path, size=400_000, how=Impairment(loss=0.03), seed=5, events=False)
    stop(core, path)
    program = (
        "import sys\nfrom layers.tcp.congestion import cubic\ncubic.BETA = (3, 10)\n"
        "from simulation.replay.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the first frame that differs is of call" in done.stdout
    sides = [line.split() for line in done.stdout.splitlines() if line.strip().startswith(("recorded", "replayed"))]
    assert [side[0] for side in sides] == ["recorded", "replayed"]
    assert sides[0][1:] != sides[1][1:]
    assert "changed by calls" in done.stdout
    assert replay(path).returncode == 0


def test_a_silent_difference_is_found(lossy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that differs at a snapshot of the recording, though all that came out is the same."""
    core, _, _ = transfer(None, size=6_000_000, flight=1 << 19, how=Impairment())
    found = dump(core, tmp_path / "x.rec")
    assert len(found.snapshots) > 1
    player = Player(found)
    player.core._ctx.counters["segments_in"] += 1
    divergence = player.check()
    assert divergence is not None and divergence.what == "state"
    assert any("segments_in" in line for line in divergence.differs)


def test_any_call_from_anywhere(lossy: Path) -> None:
    """Back and forth at random: the state is that of a run from the start, each time within a second of our own."""
    found = Recording(lossy)
    rng = random.Random(1)
    places = sorted(rng.randrange(found.first, found.stop) for _ in range(12))
    straight = Player(found)
    states = {}
    for place in places:
        straight.seek(place)
        states[place] = plain_state(straight.core.snapshot())
    player = Player(found)
    for _ in range(30):
        place = rng.choice(places)
        began = time.thread_time()
        player.seek(place)
        assert time.thread_time() - began < 1
        assert player.at == place
        assert plain_state(player.core.snapshot()) == states[place]


def test_a_damaged_block_is_told(lossy: Path, tmp_path: Path) -> None:
    """With the calls that it held; what lies before replays."""
    found = Recording(lossy)
    block = found.blocks[len(found.blocks) // 2]
    data = bytearray(lossy.read_bytes())
    data[block.offset + 100] ^= 1
    path = tmp_path / "x.rec"
    path.write_bytes(data)
    damaged = Player(Recording(path))
    assert damaged.check(block.first) is None
    done = replay(path)
    assert done.returncode == 2
    assert f"calls {block.first} to" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_crash_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ended the process is raised again, and told as the same."""
    core, _, _ = transfer(None, size=100_000, flight=1 << 20)

    def broken(ctx: Any, now: int) -> None:
        if now == 10**12:
            raise ZeroDivisionError("a bug")
        handle_timers(ctx, now)

    with monkeypatch.context() as patch:
        patch.setattr("layers.tcp.core.handle_timers", broken)
        try:
            core.handle_timer(10**12)
        except ZeroDivisionError as error:
            path = core.crash(error, tmp_path, 4)
        assert path is not None
        player = Player(Recording(path))
        raised = []
        assert player.check(told=lambda step: raised.append(step.error)) is None
        assert isinstance(raised[-1], ZeroDivisionError)
    assert Player(Recording(path)).check() is None, "mended: it does not raise any more"

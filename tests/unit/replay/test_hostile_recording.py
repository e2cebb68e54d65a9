"""A recording of somebody else: wrong or hostile, it is an error, and no code of its choosing runs."""

from __future__ import annotations

import random
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from replay_bench import stop, transfer

from levelip.cli.sources import recorded
from levelip.debug.recorded import files_of
from levelip.debug.tap import Notice
from levelip.tracing.recordedcalls import CODES, DamagedFrame, Received, decode_frame
from levelip.tracing.recording import CALLS, END, HEAD, SNAPSHOT, Recording, RecordingError, file_start, make_block
from simulation.replay import trust
from simulation.replay.__main__ import main
from simulation.replay.player import Player
from simulation.replay.report import open_recordings
from tests.netsim.net import Impairment

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode
EVIL = "evil_strategy:Evil"
Body = Callable[[int, bytes], bytes]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good one, of an upload."""
    made = tmp_path_factory.mktemp("good") / "tcp.rec"
    core, _, _ = transfer(made, size=30_000, how=Impairment(loss=0.03), seed=5)
    stop(core, made)
    return made


def rewritten(path: Path, target: Path, change: Body) -> Path:
    """The recording with bodies of blocks as `change(kind, body)` wants them; every CRC is right."""
    data = path.read_bytes()
    out, at = [file_start()], len(file_start())
    while at < len(data):
        _, kind, _, _, length = struct.unpack_from("<4sBBHI", data, at)
        first, calls, begin, end = struct.unpack_from("<QIQQ", data, at + 16)
        body = data[at + 44 : at + 44 + length]
        out.append(make_block(kind, change(kind, body), first=first, calls=calls, begin=begin, end=end))
        at += 44 + length
    target.write_bytes(b"".join(out))
    return target


def in_config(kind: int, body: bytes) -> bytes:
    if kind != SNAPSHOT:
        return body
    snapshot = decode(body)
    snapshot["config"]["tcp"]["congestion"] = EVIL
    return encode(snapshot)


def in_connections(kind: int, body: bytes) -> bytes:
    if kind != SNAPSHOT:
        return body
    snapshot = decode(body)
    for row in snapshot["state"]["connections"]:
        row["congestion"]["name"] = EVIL
    return encode(snapshot)


def in_a_setting(kind: int, body: bytes) -> bytes:
    if kind != CALLS:
        return body
    calls = decode(body)
    now = next(call[1] for call in calls if call[0] in (1, 2))
    return encode([[6, now, "congestion", EVIL], *calls[1:]])


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Leaves its mark when it is imported, from a place where it would be found. Neither that it was, nor a
    configuration that names it, outlives its test."""
    monkeypatch.setattr(trust, "_given", {})
    mark = tmp_path / "it ran"
    (tmp_path / "evil_strategy.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("LEVELIP_CONFIG", raising=False)
    yield mark
    sys.modules.pop("evil_strategy", None)


@pytest.fixture
def late(tmp_path: Path) -> Path:
    """One that begins in the middle of a transfer: its snapshot has a connection."""
    core, _, _ = transfer(None, size=3_000_000, flight=256 << 10)
    made = tmp_path / "late.rec"
    core.control(0, "record.dump", {"file": str(made)}, core._now)
    core.close()
    Recording(made).close()
    return made


@pytest.mark.parametrize("where", [in_config, in_connections, in_a_setting])
def test_no_import_by_a_name_in_the_file(
    late: Path, evil: Path, tmp_path: Path, where: Body, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it is named: exit status 2 and what to do about it, and it was not imported."""
    target = rewritten(late, tmp_path / "evil.rec", where)
    assert main([str(target)]) == 2
    assert "tcp.congestion of your configuration" in capsys.readouterr().err
    assert main([str(target), "--goto", "end"]) == 2
    assert not evil.exists()


@pytest.mark.parametrize("where", [in_config, in_a_setting])
def test_no_import_for_a_script(
    path: Path, evil: Path, tmp_path: Path, where: Body, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor while a script is made of it, whose host would have that setting."""
    target, script = rewritten(path, tmp_path / "evil.rec", where), tmp_path / "x.pkt"
    assert main([str(target), "--to-script", str(script)]) == 2
    assert "tcp.congestion of your configuration" in capsys.readouterr().err
    assert not evil.exists() and not script.exists()


CODE = "%{ import evil_strategy }%"


def told(key: str, value: Any) -> Body:
    """A setting in place of a frame."""

    def change(kind: int, body: bytes) -> bytes:
        if kind != CALLS:
            return body
        calls = decode(body)
        at = next(place for place in range(len(calls) // 2, len(calls)) if calls[place][0] == 1)
        return encode([*calls[:at], [6, calls[at][1], key, value], *calls[at + 1 :]])

    return change


def code_in_the_head(kind: int, body: bytes) -> bytes:
    if kind != HEAD:
        return body
    head = decode(body)
    head["config"]["ip"]["hostname"] = head["config"]["ip"]["ttl"] = f'5" +0 {CODE} //'
    return encode(head)


def no_config(kind: int, body: bytes) -> bytes:
    return encode({**decode(body), "config": {"ip": [1]}}) if kind == HEAD else body


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (told(f"delayed_ack_ms=20`\n+0 {CODE}\n+0 `lvlip set tcp.delayed_ack_ms", 20), "no script can say"),
        (told("congestion", f"cubic` +0 {CODE} +0 `"), "no script can say"),
        (code_in_the_head, "no script can say"),
        (no_config, "no configuration of ours"),
    ],
)
def test_no_code_in_a_script(
    path: Path, evil: Path, tmp_path: Path, where: Body, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A packet script may hold code; what a recording says never becomes some: there is no script, and none was run."""
    target, script = rewritten(path, tmp_path / "evil.rec", where), tmp_path / "x.pkt"
    assert main([str(target), "--to-script", str(script)]) == 2
    assert said in capsys.readouterr().err
    assert not evil.exists() and not script.exists()


def test_no_code_in_a_test(path: Path, evil: Path, tmp_path: Path) -> None:
    """The version and the name of a recording stay within the test's docstring."""

    def change(kind: int, body: bytes) -> bytes:
        code = '0"""\nimport evil_strategy\n"""'
        return encode({**decode(body), "version": code}) if kind == HEAD else body

    target = rewritten(path, tmp_path / 'x"""\nimport evil_strategy\n""".rec', change)
    test = tmp_path / "test_x.py"
    assert main([str(target), "--to-test", str(test), "--from", "start", "--to", "#9"]) == 0
    exec(compile(test.read_text(), str(test), "exec"), {})
    assert not evil.exists()


def test_import_by_the_configuration(late: Path, evil: Path, tmp_path: Path) -> None:
    """What the user's own configuration names is imported."""
    target = rewritten(late, tmp_path / "evil.rec", in_connections)
    config = tmp_path / "mine.toml"
    config.write_text(f'[tcp]\ncongestion = "{EVIL}"\n')
    main([str(target), "--config", str(config)])
    assert evil.exists()


def test_cuts_that_fit_no_frame(path: Path) -> None:
    """Neither another attribute is read nor memory taken for a length that none can have."""
    frames = [entry for _, entry in Recording(path).entries(0) if isinstance(entry, Received)]
    entry = next(one for one in frames if one.code == CODES_SEGMENT)
    for cut in [("payload", 1 << 62, 0), ("payload", -1, 0), ("payload", 9000, 1 << 40), ("__class__.__doc__", 9, 0),
                ("iface", 9000, 0), ("message.payload", 9000, 0)]:  # fmt: skip
        with pytest.raises(DamagedFrame):
            decode_frame(entry.code, entry.frame, [cut])
    with pytest.raises(DamagedFrame):
        decode_frame(250, entry.frame, [])
    with pytest.raises(DamagedFrame):
        decode_frame(entry.code, encode(["?"]), [])


CODES_SEGMENT = next(code for kind, (code, _) in CODES.items() if kind.__name__ == "Segment")


def _shuffled(rng: random.Random, data: Any) -> Any:
    """Plain data in which something is something else."""
    strange: tuple[Any, ...] = (None, -1, 1 << 63, 0.5, "", b"", [], {}, "x:y", [[[[]]]], b"\xff" * 70_000, True)
    if rng.random() < 0.02:
        return rng.choice(strange)
    if isinstance(data, dict):
        return {key: _shuffled(rng, value) for key, value in data.items()}
    if isinstance(data, list) and len(data) < 100:
        return [_shuffled(rng, value) for value in data]
    return data


@pytest.mark.parametrize("seed", range(60))
def test_anything_at_all(path: Path, tmp_path: Path, seed: int) -> None:
    """Blocks with right CRCs and wrong contents: an error, a difference, or the same; nothing else."""
    rng = random.Random(seed)

    def change(kind: int, body: bytes) -> bytes:
        if rng.random() < 0.3:
            return body
        if rng.random() < 0.7:
            return encode(_shuffled(rng, decode(body)))
        data = bytearray(body)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data)

    target = rewritten(path, tmp_path / "x.rec", change)
    try:
        Player(Recording(target)).check()
    except RecordingError as error:
        assert str(error)
    assert main([str(target), "--goto", "event retransmit", "--what-if", "drop for 1s"]) in (0, 1, 2)


@pytest.mark.parametrize("rows", [5, [5], [{}], [{"id": "x"}], "drop an address", "cut an address"])
def test_connections_of_a_snapshot_that_are_none(path: Path, tmp_path: Path, rows: Any) -> None:
    """`lvlip why --from` and the others tell how far it can be read."""

    def change(kind: int, body: bytes) -> bytes:
        if kind != SNAPSHOT:
            return body
        snapshot = decode(body)
        if isinstance(rows, str):
            row = {"id": 1, "local": b"\x0a", "local_port": 1, "remote_port": 2, "rx": {"rcv_nxt": 1, "irs": 1},
                   "tx": {"iss": 1}}  # fmt: skip
            snapshot["state"]["connections"] = [{**row, "remote": b"\x0a"} if rows.startswith("cut") else row]
        else:
            snapshot["state"]["connections"] = rows
        return encode(snapshot)

    found = list(recorded(rewritten(path, tmp_path / "x.rec", change)))
    assert isinstance(found[0], Notice) and found[0].text.startswith("tcp: no further: ")


def test_the_rewriting_is_faithful(path: Path, tmp_path: Path) -> None:
    """Unchanged bodies make the same file: what the other tests show is due to what they change."""
    assert rewritten(path, tmp_path / "x.rec", lambda _, body: body).read_bytes() == path.read_bytes()
    assert zlib.crc32(path.read_bytes()) and {HEAD, SNAPSHOT, CALLS, END} == {1, 2, 3, 4}


def test_a_directory_that_is_named_as_a_recording_is_none(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For `why` and `paths --from`, graphs, the web view and replay alike. A file that is none is left out."""
    (tmp_path / "x.rec").mkdir()
    (tmp_path / "tcp.rec").write_bytes(path.read_bytes())
    found = list(recorded(tmp_path))
    assert found and not any(isinstance(one, Notice) for one in found)
    assert files_of(tmp_path) == [tmp_path / "tcp.rec"]
    assert [one.path for one in open_recordings([tmp_path])] == [tmp_path / "tcp.rec"]
    (tmp_path / "y.rec").symlink_to(tmp_path / "nowhere")
    said = [one.text for one in recorded(tmp_path) if isinstance(one, Notice)]
    assert said == [f"left out: {tmp_path}/y.rec: No such file or directory"]
    assert main([str(tmp_path)]) == 2
    assert "y.rec: No such file or directory" in capsys.readouterr().err

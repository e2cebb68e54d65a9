"""A network in which an addon plants a fault, and what `why` says to the records of the host that suffers it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from levelip.cli.comments import Commenter
from levelip.config import TcpConfig
from levelip.debug.collection import Collection
from levelip.debug.facts import Fact
from levelip.debug.tap import DIRECTION, KIND, PACKET_SEAMS, SEAM
from levelip.debug.why import Story, why
from tests.netsim.tcp_apps import Socket, small_config
from tests.netsim.whole import B, Cable, WholeHost, network

SECOND = 1_000_000_000
PORT = 80
HEAD = "from levelip import addon\n\n"


def addon_file(directory: Path, text: str, name: str = "fault.py") -> Path:
    """An addon that only its owner may write."""
    path = directory / name
    path.write_text(HEAD + text)
    path.chmod(0o644)
    return path


class Watched:
    """10.0.0.1, which is watched, and 10.0.0.2, which listens, a second after they began."""

    def __init__(self, *, a: TcpConfig | None = None, b: TcpConfig | None = None, **cable: Any) -> None:
        self.net, self.a, self.b, self.cable = network(a=a, b=b, **cable)
        self.cable: Cable
        self.a: WholeHost
        self.b: WholeHost
        self.b.listen(PORT)
        self.net.advance(self.net.now + SECOND)


def to_segment(number: int, deed: str) -> str:
    """An addon that does this to one of the segments with data that we send: the first has number 1."""
    return f"""
@addon.frame("tcp.len > 0", way="down")
def hook(packet, context):
    context.state.seen = getattr(context.state, "seen", 0) + 1
    if context.state.seen == {number}:
        packet.{deed}
"""


class Planted(Watched):
    """10.0.0.1 connects to 10.0.0.2; the addon stands between them from the start."""

    def __init__(self, directory: Path, text: str, *, a: TcpConfig | None = None, b: TcpConfig | None = None,
                 **cable: Any) -> None:  # fmt: skip
        super().__init__(a=a, b=b, **cable)
        self.cable.load(addon_file(directory, text))

    def connect(
        self, data: bytes = b"", *, eof: bool = False, reply: bytes | None = None, seconds: float = 5
    ) -> Socket:
        """Connect, send, and let `seconds` pass."""
        self.b.reply = reply
        socket = self.a.connect(B, PORT, data, eof=eof)
        self.net.run(seconds=seconds)
        assert not self.cable.world.lines, self.cable.world.lines
        return socket

    def wait(self, seconds: float) -> None:
        self.net.run(seconds=seconds)

    def story(self) -> Story:
        """What `lvlip why 80` says."""
        stories = why(Collection(self.a.records), str(PORT))
        assert len(stories) == 1
        return stories[0]


def cause(story: Story, name: str) -> Fact:
    """The first wrong packet; the first finding is `name`, and has a rule."""
    assert story.cause is not None, story.sentences
    assert story.cause.name == name, [(one.name, one.says) for one in story.findings]
    assert "RFC" in story.cause.kind.rule
    assert story.first_wrong is not None
    return story.first_wrong


def config(**changes: Any) -> TcpConfig:
    return small_config(**changes)


def captured(records: list[Any], path: Path, seams: tuple[str, ...] = PACKET_SEAMS) -> Path:
    """What `lvlip capture -w` writes of these records: each seam from one side, as frames come in."""
    chosen = [seam for seam in PACKET_SEAMS if seam in seams]
    with path.open("wb") as stream:
        commenter = Commenter(stream, chosen, ethernet=True)
        for record in records:
            if isinstance(record, list) and record[KIND] == "f":
                if record[SEAM] not in PACKET_SEAMS or (record[SEAM] != "link" and record[DIRECTION] != "in"):
                    continue
                commenter.take([record], captured=record[SEAM] in chosen)
            else:
                commenter.take([record], captured=True)
        commenter.finish()
    return path

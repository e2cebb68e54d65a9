"""The session's states: hello, memory, held requests, another gateway. The wire is left out: messages are handed in."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from levelip.client.session import PATIENCE_S, Outstanding, Session, State
from levelip.rpc.messages import Pending, Refused, Reply, Request, Welcome
from levelip.rpc.stream import Send

HERE, THERE = 1111, 2222  # epochs of two gateways


class Owner:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.delivered: list[Any] = []
        self.opens: list[bool] = []
        self.stale: list[Outstanding] = []

    def deliver(self, message: Any) -> None:
        """A message of the current epoch."""
        self.delivered.append(message)

    def opened(self, fresh: bool) -> None:
        """The session is open."""
        self.opens.append(fresh)

    def settle_stale(self, request: Outstanding) -> None:
        """Unanswered by a dead gateway."""
        self.stale.append(request)


class Target:
    """A socket."""

    gid = 0


class World:
    """A session whose posts are kept."""

    def __init__(self, path: Path) -> None:
        self.owner = Owner()
        self.session = Session(f"ipc://{path}/gateway", "test", self.owner)
        self.posts: list[list[Any]] = []
        self.session._post = self.posts.append  # type: ignore[method-assign] # the wire
        self.answers: list[tuple[int, dict[str, Any], str]] = []

    def done(self, *answer: Any) -> None:
        """Of a request."""
        self.answers.append(answer)

    def take(self, message: Any, epoch: int = HERE) -> None:
        """A message arrives."""
        self.session._take(epoch, message)

    def open(self, epoch: int = HERE, memory_dir: str = "") -> None:
        """Connected, hello said and answered."""
        self.session._hello()
        self.take(Welcome(1, epoch, b"token", memory_dir, 4096, 4), epoch)


@pytest.fixture
def world(tmp_path: Path):
    """A session with nobody at its endpoint."""
    made = World(tmp_path)
    yield made
    made.session._dealer.setsockopt(17, 0)  # LINGER
    made.session.close()


def test_opens_without_memory(world: World) -> None:
    """Hello without a token, Welcome without a directory: open, payloads inline."""
    world.open()
    ((hello,),) = world.posts
    assert (hello.token, hello.memory) == (b"", "")
    assert world.session.state is State.OPEN
    assert world.session.memory is None
    assert world.owner.opens == [True]


def test_opens_with_memory(world: World, tmp_path: Path) -> None:
    """With a directory the file is made, and its name said with the token, before anything else."""
    world.open(memory_dir=str(tmp_path))
    assert world.session.state is State.MEMORY
    hello = world.posts[1][0]
    assert hello.token == b"token"
    assert (tmp_path / hello.memory).stat().st_size == 4096 * 4
    assert world.owner.opens == []
    world.take(Welcome(1, HERE, b"token", str(tmp_path), 4096, 4))
    assert world.owner.opens == [True]
    assert world.session.memory is not None


@pytest.mark.parametrize("why", ["refused", "no directory"])
def test_memory_is_optional(world: World, tmp_path: Path, why: str) -> None:
    """Where memory cannot be, the session goes on inline and leaves no file."""
    if why == "refused":
        world.open(memory_dir=str(tmp_path))
        world.take(Refused(errno.EINVAL, "no"))
    else:
        world.open(memory_dir=str(tmp_path / "none"))
    assert world.session.state is State.OPEN
    assert world.session.memory is None
    assert not [path for path in tmp_path.iterdir() if len(path.name) == 32]


def test_refused(world: World) -> None:
    """A client that is not let in hears the gateway's errno, for what was held and for what follows."""
    world.session.request("socket", None, {}, world.done)
    world.session._hello()
    world.take(Refused(errno.EACCES, "owner only"))
    world.session.request("socket", None, {}, world.done)
    assert world.answers == [(errno.EACCES, {}, "owner only")] * 2


def test_requests_wait_for_the_gateway_and_for_their_socket(world: World) -> None:
    """Held until the session is open and the target has an id; replies find their request, in any order."""
    target = Target()
    world.session.request("socket", None, {}, world.done)
    world.session.request("listen", target, {"backlog": 1}, world.done)
    assert world.session.outbox == []
    world.open()
    assert world.session.outbox == [Request(1, "socket", 0, {})]
    target.gid = 9
    world.session.release()
    assert world.session.outbox[1:] == [Request(2, "listen", 9, {"backlog": 1})]
    world.take(Reply(2, errno.EINVAL, {}, "why"))
    world.take(Reply(1, 0, {"sock": 3}))
    world.take(Reply(1, 0, {"sock": 3}))
    assert world.answers == [(errno.EINVAL, {}, "why"), (0, {"sock": 3}, "")]


def test_patience_ends(world: World, tmp_path: Path) -> None:
    """Without a gateway a request ends in ENETDOWN, which names the door and the cure."""
    world.session.request("socket", None, {}, world.done)
    deadline = world.session.next_deadline()
    assert deadline is not None
    world.session.expire(deadline - PATIENCE_S / 2)
    assert world.answers == []
    world.session.expire(deadline)
    ((code, _, message),) = world.answers
    assert code == errno.ENETDOWN
    assert str(tmp_path / "gateway") in message
    assert "lvlip up" in message
    assert world.session.next_deadline() is None


def test_another_epoch_is_not_heard(world: World) -> None:
    """Messages of an earlier gateway, or before Welcome, are dropped."""
    world.take(Pending(1, 1))
    world.open()
    world.take(Pending(1, 1), THERE)
    assert world.owner.delivered == []
    world.take(Pending(1, 2))
    assert world.owner.delivered == [Pending(1, 2)]


def test_a_new_gateway(world: World) -> None:
    """It is told the token; what was meant for the old one is not sent; unanswered requests are settled, internal
    ones dropped."""
    world.open()
    world.session.request("bind", Target(), {}, world.done, internal=True)
    target = Target()
    target.gid = 5
    world.session.request("accept", target, {}, world.done)
    world.session.request("setsockopt", target, {}, world.done, internal=True)
    world.session.outbox.append(Send(5, 0, 10))
    world.open(THERE)
    assert world.posts[-1][0].token == b"token"
    assert world.owner.opens == [True, True]
    assert [request.op for request in world.owner.stale] == ["accept"]
    assert world.session.outbox == []


def test_the_same_gateway_again(world: World) -> None:
    """After a reconnect to the same one the session goes on, and nothing is settled as lost."""
    world.open()
    target = Target()
    target.gid = 5
    world.session.request("connect", target, {}, world.done)
    world.open()
    assert world.owner.opens == [True, False]
    assert world.owner.stale == []
    world.take(Reply(1, 0))
    assert world.answers == [(0, {}, "")]


def test_a_forgotten_token(world: World) -> None:
    """A gateway that refuses the token gets a Hello without one."""
    world.open()
    world.session._hello()
    world.take(Refused(errno.EACCES, "who?"), THERE)
    assert [post[0].token for post in world.posts] == [b"", b"token", b""]
    world.take(Welcome(1, THERE, b"other", "", 0, 0), THERE)
    assert world.owner.opens == [True, True]

"""The streams between clients and tcp: offsets are checked and passed on; bytes are never kept.

Incoming bytes lie in the socket's receive ring until the client has consumed them, so what the client may not have
yet (its connection is to be accepted, its credit is used up, it is about to come back) is only a pair of offsets here:

    consumed ......... relayed ......... received
       client has these    still in the ring

What is under way to a client is bounded for each socket by TCP's window (bytes), by `rpc_inline_credit` where bytes
travel inline, and by MAX_UNCONSUMED messages, whatever their size.
"""

from __future__ import annotations

import errno

from gateway.state import NOT_YET, Session, Socket
from gateway.table import Input, State
from gateway.work import Work
from levelip.frames.seam import ForClient
from levelip.rpc.messages import KNOWS_URGENT
from levelip.rpc.stream import Accepted, Consumed, Data, Eof, Reset, Send, Urgent
from levelip.tracing.reasons import BAD_STREAM, TCP_UNKNOWN, UNKNOWN_SOCKET, WRONG_STATE

MAX_UNCONSUMED = 64  # Data messages a socket; what comes beyond goes later as one
INLINE_PIECE = 65_536  # bytes of one Data that is made here for a client without shared memory


class Relay:
    """Both directions of every stream."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._state = work.state
        self._sockets = work.state.sockets
        self._sessions = work.state.sessions

    # client → tcp

    def send(self, session: Session, message: Send) -> None:
        """Pass on bytes of the outgoing stream."""
        sock = self._sockets.get(message.sock)
        if sock is None or sock.session != session.number or sock.listener:
            self._work.drop(UNKNOWN_SOCKET, sock=message.sock)
            return
        if sock.state is not State.CONNECTED or sock.ended:
            self._work.drop(WRONG_STATE, sock=message.sock, state=sock.state.value)
            return
        offset, length, payload = message.offset, message.length, message.payload
        if payload:
            fits = type(payload) is bytes and len(payload) == length
        else:  # tcp's own region holds other clients' bytes too: who has no memory of its own must bring them
            fits = length == 0 or bool(sock.region)
        if not fits:
            self._work.refuse(session, errno.EINVAL, BAD_STREAM, "Send: payload and length differ", sock=sock.id)
            return
        end = offset + length
        if offset > sock.sent or end > sock.limit:  # a gap, or beyond the grant: say where it may go on
            detail = f"Send {offset}+{length} at {sock.sent}, limit {sock.limit}"
            self._work.drop(BAD_STREAM, sock=sock.id, detail=detail)
            self._work.tell(session, Accepted(sock.id, sock.sent, sock.limit))
            return
        if end > sock.sent:
            self._work.counters["stream_bytes_out"] += end - sock.sent
            sock.sent = end
        self._work.to_tcp.append(message)

    def consumed(self, session: Session, message: Consumed) -> None:
        """The client took bytes: tcp's window may move, and more may follow."""
        sock = self._sockets.get(message.sock)
        if sock is None or sock.session != session.number or sock.listener:
            self._work.drop(UNKNOWN_SOCKET, sock=message.sock)
            return
        upto = message.upto
        if upto > sock.relayed:
            detail = "Consumed: more than there was"
            self._work.refuse(session, errno.EINVAL, BAD_STREAM, detail, sock=sock.id)
            return
        if upto <= sock.consumed:
            return
        if not sock.region:
            session.inline -= upto - sock.consumed
        sock.consumed = upto
        if upto >= sock.mark:  # all marked messages are consumed: the others become the marked ones
            sock.marked, sock.fresh, sock.mark = sock.fresh if upto < sock.relayed else 0, 0, sock.relayed
        if sock.in_tcp:  # after a reset too: tcp keeps the ring while there are unread bytes in it
            self._work.to_tcp.append(message)
        if sock.relayed < sock.received:
            self.pump(sock)
        if session.starved:
            self._feed(session)

    def eof(self, session: Session, message: Eof) -> None:
        """The client sends nothing more (shutdown(SHUT_WR))."""
        sock = self._sockets.get(message.sock)
        if sock is None or sock.session != session.number or sock.listener:
            self._work.drop(UNKNOWN_SOCKET, sock=message.sock)
        elif sock.state is not State.CONNECTED:
            self._work.drop(WRONG_STATE, sock=sock.id, state=sock.state.value)
        elif message.at != sock.sent:
            detail = f"Eof at {message.at}, sent {sock.sent}"
            self._work.refuse(session, errno.EINVAL, BAD_STREAM, detail, sock=sock.id)
        else:
            sock.ended = True
            self._work.to_tcp.append(message)

    def mark(self, session: Session, message: Urgent) -> None:
        """The client's stream is urgent up to an offset: tcp hears of it before the bytes come."""
        sock = self._sockets.get(message.sock)
        if sock is None or sock.session != session.number or sock.listener:
            self._work.drop(UNKNOWN_SOCKET, sock=message.sock)
        elif sock.state is not State.CONNECTED or sock.ended:
            self._work.drop(WRONG_STATE, sock=sock.id, state=sock.state.value)
        elif message.upto > sock.limit:
            detail = f"Urgent up to {message.upto}, limit {sock.limit}"
            self._work.refuse(session, errno.EINVAL, BAD_STREAM, detail, sock=sock.id)
        else:
            self._work.counters["urgent_out"] += 1
            self._work.to_tcp.append(message)

    def abort(self, session: Session, message: Reset) -> None:
        """The client gives the connection up; the socket itself stays until it is closed."""
        sock = self._sockets.get(message.sock)
        if sock is None or sock.session != session.number or sock.listener:
            self._work.drop(UNKNOWN_SOCKET, sock=message.sock)
        elif sock.state is not State.CONNECTED:
            self._work.drop(WRONG_STATE, sock=sock.id, state=sock.state.value)
        else:
            self._work.to_tcp.append(Reset(sock.id, 0))
            sock.in_tcp = False
            self._work.move(sock, Input.GONE)
            sock.received = sock.relayed  # nobody wants the rest

    # tcp → client

    def data(self, frame: Data) -> None:
        """Bytes of the incoming stream: on to the client, unless they have to wait in the ring."""
        sock = self._sockets.get(frame.sock)
        if sock is None:
            self._work.drop(TCP_UNKNOWN, sock=frame.sock)
            return
        received = sock.received
        length = len(frame.payload)
        end = frame.offset + length
        if frame.offset != received or sock.state is not State.CONNECTED:
            self._odd_data(sock, frame.offset, end)
            return
        sock.received = end
        self._work.counters["stream_bytes_in"] += length
        session = self._sessions[sock.session]
        if (
            sock.relayed == received
            and sock.marked + sock.fresh < MAX_UNCONSUMED
            and not sock.listener
            and session.peer
            and (sock.region or self._credit(session, sock) >= length)
        ):
            sock.relayed = end
            if not sock.region:
                session.inline += length
            sock.fresh += 1
            self._work.to_door.append(ForClient(session.peer, frame))
        else:
            self.pump(sock)

    def marked(self, frame: Urgent) -> None:
        """The peer has announced urgent data (RFC 9293 3.8.5): the client hears of it before the bytes come."""
        sock = self._sockets.get(frame.sock)
        if sock is None or sock.state is not State.CONNECTED:
            self._work.drop(TCP_UNKNOWN, sock=frame.sock)
            return
        self._work.counters["urgent_in"] += 1
        sock.urgent = frame.upto
        if not sock.listener:
            self._tell_mark(sock)

    def _tell_mark(self, sock: Socket) -> None:
        """Of what the client has already, or to a client that does not know the message, there is nothing to say."""
        session = self._sessions[sock.session]
        if sock.urgent > sock.relayed and session.knows & KNOWS_URGENT:
            self._work.tell(session, Urgent(sock.id, sock.urgent))

    def _odd_data(self, sock: Socket, offset: int, end: int) -> None:
        """A repeat is nothing; after a gap the stream is worth nothing (the seam does not lose, so it is a fault)."""
        if sock.state is not State.CONNECTED:
            self._work.drop(TCP_UNKNOWN, sock=sock.id)
        elif end > sock.received:
            self._work.drop(BAD_STREAM, sock=sock.id, detail=f"Data at {offset}, {sock.received} was due")
            self._work.to_tcp.append(Reset(sock.id, 0))
            sock.in_tcp = False
            self.gone(sock, errno.ECONNRESET)

    def pump(self, sock: Socket) -> None:
        """Tell the client what has waited and may go now: everything, bounds or not, once the connection is over."""
        session = self._sessions[sock.session]
        if sock.listener or not session.peer:
            return
        everything = sock.reset != NOT_YET
        while sock.relayed < sock.received and (everything or sock.marked + sock.fresh < MAX_UNCONSUMED):
            length = sock.received - sock.relayed
            if not sock.region:
                length = min(length, INLINE_PIECE)
                if not everything and length > self._credit(session, sock):
                    if length <= self._work.config.gateway.rpc_inline_credit - (sock.relayed - sock.consumed):
                        session.starved[sock.id] = True
                    return
            if sock.rings is None:
                return
            if not sock.region:
                session.inline += length
            data = Data(sock.id, sock.relayed, sock.rings.receive(sock.relayed, length))
            sock.relayed += length
            sock.fresh += 1
            self._work.to_door.append(ForClient(session.peer, data))
        if sock.relayed < sock.received:
            return
        if sock.eof != NOT_YET and not sock.eof_relayed:
            sock.eof_relayed = True
            self._work.tell(session, Eof(sock.id, sock.eof))
        if sock.reset != NOT_YET:
            self._work.tell(session, Reset(sock.id, sock.reset))

    def _credit(self, session: Session, sock: Socket) -> int:
        """Bytes that may travel inline now: of this socket, and of all the client's together."""
        config = self._work.config.gateway
        own = config.rpc_inline_credit - (sock.relayed - sock.consumed)
        return min(own, config.client_inline - session.inline)

    def _feed(self, session: Session) -> None:
        """Less is under way to the client: sockets that had to wait for others go on, in the order of their waiting."""
        limit = self._work.config.gateway.client_inline - INLINE_PIECE
        while session.starved and session.inline <= limit:
            number = next(iter(session.starved))
            del session.starved[number]
            sock = self._sockets.get(number)
            if sock is not None:
                self.pump(sock)

    def forget(self, session: Session, sock: Socket) -> None:
        """A socket is closed: what its client had not consumed makes room for its other sockets."""
        if not sock.region:
            session.inline -= sock.relayed - sock.consumed
        session.starved.pop(sock.id, None)
        self._feed(session)

    def accepted(self, frame: Accepted) -> None:
        """tcp took bytes and grants more."""
        sock = self._sockets.get(frame.sock)
        if sock is None or sock.leaving:
            self._work.drop(TCP_UNKNOWN, sock=frame.sock)
            return
        sock.accepted = frame.upto
        sock.limit = max(sock.limit, frame.limit)  # a smaller one is for the client, who may have used the one before
        if not sock.listener:
            self._work.tell(self._sessions[sock.session], frame)

    def end(self, frame: Eof) -> None:
        """The peer's FIN is in order."""
        sock = self._sockets.get(frame.sock)
        if sock is None or sock.state is not State.CONNECTED:
            self._work.drop(TCP_UNKNOWN, sock=frame.sock)
        elif sock.eof == NOT_YET:
            sock.eof = frame.at
            self.pump(sock)

    def gone(self, sock: Socket, error: int) -> None:
        """The connection is over; `error` is for SO_ERROR. What was received before it stays readable, as on Linux."""
        self._work.move(sock, Input.GONE)
        sock.so_error = error
        sock.reset = error
        self.pump(sock)

    def resume(self, sock: Socket) -> None:
        """The client came back on a new connection: all of it again, from what it last consumed on."""
        if sock.listener:
            return
        if not sock.region:
            self._sessions[sock.session].inline -= sock.relayed - sock.consumed
        sock.relayed = sock.mark = sock.consumed
        sock.marked = sock.fresh = 0
        sock.eof_relayed = False
        if sock.state is State.CONNECTED:
            self._work.tell(self._sessions[sock.session], Accepted(sock.id, sock.sent, sock.limit))
        self.taken(sock)

    def taken(self, sock: Socket) -> None:
        """The client knows the socket: it hears what has waited for that."""
        self._tell_mark(sock)
        self.pump(sock)

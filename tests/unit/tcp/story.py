"""A connection's story: what one tcp core says to each neighbour, its events, its counters and what `lvlip ss` shows of
its sockets, step by step, as text to read and to compare."""

from __future__ import annotations

from typing import Any

from tcp_host import MS, START, Got, Host

SHY = ("sock", "local", "local_port", "remote", "remote_port", "congestion", "iss", "irs", "info")
LAST = ("last_data_sent", "last_data_recv", "last_ack_recv")  # shown as instants, as timers are


class Story(Host):
    """A Host that writes down what happens. `tell` begins a step; nothing is taken from its queues but by the story."""

    def __init__(self, **how: Any) -> None:
        self.lines: list[str] = []
        self.shown: dict[int, dict[str, Any]] = {}
        self.counted: dict[str, int] = {}
        self.cookie = 0  # the ISN of the last SYN-ACK
        super().__init__(**how)
        self.core.interest = True

    def tell(self, what: str) -> None:
        """A step: what is done next."""
        self.lines.append(f"{(self.now - START) / MS:.3f} {what}")

    def flush(self, room: dict[str, int] | None = None) -> None:
        super().flush(room)
        self.note()

    def note(self) -> None:
        """What came of it."""
        at = f"{(self.now - START) / MS:.3f}"
        for event in self.core.events():
            data = " ".join(f"{key}={_value(value)}" for key, value in event.data.items())
            frame = event.frame & 0xFFFF_FFFF
            self.lines.append(f"  {at} event {event.kind} {event.reason} {frame} {event.conn[:9]} {data}".rstrip())
        for segment in self.segments:
            self.lines.append(f"  {at} > {self._segment(segment)}")
            got = Got(self, segment)
            if got.options.timestamps:
                self.last_tsval = got.options.timestamps[0]
            if "S" in got.flags:
                self.agreed_ts, self.cookie = bool(got.options.timestamps), got.raw_seq
        for message in self.messages:
            fields = " ".join(f"{name}={_value(getattr(message, name))}" for name in message.__struct_fields__)
            self.lines.append(f"  {at} ^ {type(message).__name__} {fields}")
        for name in ("doubts", "progress", "path_mtus"):
            for one in getattr(self, name):
                self.lines.append(f"  {at} v {name} {_value(one)}")
            getattr(self, name).clear()
        self.learn()
        self.segments.clear()
        self.messages.clear()
        self._changes(at)

    def learn(self) -> None:
        """Rings and ids from what was told."""
        for message in self.messages:
            kind = type(message).__name__
            if kind in ("Incoming", "Connected"):
                self.sock, self.rings, self.limit = message.sock, message.rings, message.limit

    def _segment(self, segment: Any) -> str:
        got = Got(self, segment)
        options = got.options
        words = [got.flags, f"seq={got.seq}", f"ack={got.ack}", f"win={got.win}", f"len={got.len}"]
        if options.timestamps:
            words.append(f"ts={(options.timestamps[0] - self._offset()) & 0xFFFF_FFFF},{options.timestamps[1]}")
        words += [f"sack={got.sack}"] if got.sack else []
        words += [f"mss={options.mss} ws={options.wscale} sackok={options.sack_permitted}"] if options.mss else []
        words += [f"gso={got.gso}"] if got.gso else []
        words += [f"tos={got.tos}"] if got.tos else []
        words += [f"urg={int.from_bytes(segment.head[18:20], 'big')}"] if "U" in got.flags else []
        words += ["" if segment.dont_fragment else "may-fragment", f"causes={[one & 0xFFFF for one in segment.causes]}"]
        return " ".join(word for word in words if word)

    def _offset(self) -> int:
        conn = self.core._ctx.sockets.get(self.sock)
        return conn.ts_offset if conn is not None else 0

    def _changes(self, at: str) -> None:
        """Counters and figures that are others than before."""
        counters = {name: value for name, value in self.core.counters.items() if value}
        more = [f"{name}+{value - self.counted.get(name, 0)}" for name, value in counters.items()
                if value != self.counted.get(name, 0)]  # fmt: skip
        self.counted = counters
        if more:
            self.lines.append(f"  {at} counts {' '.join(sorted(more))}")
        rows = {row["sock"]: row for row in self.core.control(1, "ss", {}, self.now)["sockets"]}
        for sock, row in rows.items():
            plain = {**{key: value for key, value in row.items() if key not in SHY}, **row["info"]}
            plain["timers"] = {kind: round((self.now + left - START) / MS, 3) for kind, left in row["timers"].items()}
            for since in LAST:
                if plain.get(since):
                    plain[since] = (self.now - START) // MS - plain[since]
            old = self.shown.get(sock, {})
            changed = [f"{key}={_value(value)}" for key, value in plain.items() if old.get(key, 0) != value]
            if changed:
                self.lines.append(f"  {at} shows {sock & 0xFFFF} {' '.join(changed)}")
            self.shown[sock] = plain
        for sock in set(self.shown) - set(rows):
            self.lines.append(f"  {at} gone {sock & 0xFFFF}")
            del self.shown[sock]

    # steps that tell themselves

    def got(self, flags: str, **fields: Any) -> None:
        """The peer sends."""
        said = " ".join(f"{key}={len(value) if key == 'data' else value}" for key, value in fields.items())
        self.tell(f"< {flags} {said}".rstrip())
        self.inject(flags, **fields)

    def does(self, frame: Any) -> None:
        """The application or a neighbour."""
        self.tell(
            f"! {type(frame).__name__} {' '.join(_value(getattr(frame, one)) for one in frame.__struct_fields__)}"
        )
        self.call(frame)

    def waits(self, ms: float) -> None:
        """Time passes."""
        self.tell(f"waits {ms}")
        self.advance(ms)

    def says(self, size: int) -> None:
        """The application writes."""
        self.tell(f"! writes {size}")
        self.write(bytes(size))


def _value(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex() if len(value) <= 4 else f"{len(value)} bytes"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, int) and value >> 40 and not isinstance(value, bool):
        return str(value & 0xFFFF) if value >> 60 else str(value)
    return str(value).replace(" ", "")

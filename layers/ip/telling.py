"""An error about a packet of ours goes to whoever sent it: a transport, or a ping (RFC 1122 3.2.2, 4.2.3.9)."""

from __future__ import annotations

from layers.ip.context import Context, proto_text
from layers.ip.icmp import Quoted
from levelip.frames.packet import IcmpError
from levelip.tracing import reasons
from levelip.wire.icmp import ECHO, ICMP_HEADER_LEN, icmp_name
from levelip.wire.ipv4 import Proto


def tell(
    ctx: Context, icmp_type: int, code: int, quoted: Quoted, *, reporter: bytes, causes: list[int], mtu: int = 0
) -> bool:
    """Pass an error on; whether a ping of ours was found to wait for just this packet."""
    src, dst, proto, head = quoted.src, quoted.dst, quoted.proto, quoted.head
    port = ctx.transports.get(proto)
    if proto == Proto.ICMP:
        port = None
        if len(head) >= ICMP_HEADER_LEN and head[0] == ECHO:  # of what a faulty transport sent there may be less
            found = ctx.pings.failed(head, dst, icmp_type=icmp_type, code=code, mtu=mtu, reporter=reporter)
            if found is not None:
                ctx.answer(*found)
                return True
            port = ctx.transports.get(Proto.UDP)  # where ICMP's sockets are
    if port is not None:
        ctx.counters["icmp.to_transport"] += 1
        error = IcmpError(ctx.ids.next(), causes, icmp_type, code, mtu, reporter, src, dst, proto, head)
        ctx.out.append((port, error))
        return False
    frame = causes[0] if causes else 0
    ctx.drop(reasons.ICMP_NO_TRANSPORT, frame, dst=dst, proto=proto_text(proto), error=icmp_name(icmp_type, code))
    return False

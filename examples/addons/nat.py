"""A NAT in front of the stack: outside it has another address and other ports (RFC 3022, NAPT; TCP alone).

lvlip addon load examples/addons/nat.py inside=10.0.0.2 outside=10.0.0.77

`outside` must be a free address of the network. It is put into ARP, too, so that the neighbours find it. What ICMP
errors quote is not translated. Connections from outside are let in where a port was forwarded: forward=8080:80.
"""

from ipaddress import IPv4Address

from levelip import addon
from levelip.addon import Context, Packet

FIRST_PORT = 61_000


def loaded(context: Context) -> None:
    if not {"inside", "outside"} <= context.options.keys():
        raise ValueError("two addresses are needed: inside=10.0.0.2 outside=10.0.0.77")
    context.state.inside = str(IPv4Address(context.options["inside"]))
    context.state.outside = str(IPv4Address(context.options["outside"]))
    if not hasattr(context.state, "to_outside"):  # a table that is there already outlives a change of this file
        context.state.to_outside = {}
        context.state.to_inside = {}
    for pair in filter(None, context.options.get("forward", "").split(",")):
        outer, _, inner = pair.partition(":")
        context.state.to_inside[int(outer)] = int(inner)
        context.state.to_outside[int(inner)] = int(outer)


@addon.frame("arp")
def arp(packet: Packet, context: Context) -> None:
    state = context.state
    if packet.way == "down" and packet["arp.src.proto_ipv4"] == state.inside:
        packet["arp.src.proto_ipv4"] = state.outside
    elif packet.way == "up" and packet["arp.dst.proto_ipv4"] == state.outside:
        packet["arp.dst.proto_ipv4"] = state.inside


@addon.frame("tcp", way="down")
def out(packet: Packet, context: Context) -> None:
    state, port = context.state, packet["tcp.srcport"]
    if packet["ip.src"] != state.inside:
        return
    if port not in state.to_outside:
        outer = FIRST_PORT + len(state.to_outside)
        state.to_outside[port], state.to_inside[outer] = outer, port
        context.log(f"{state.inside}:{port} is {state.outside}:{outer} outside")
    packet.edit({"ip.src": state.outside, "tcp.srcport": state.to_outside[port]})


@addon.frame("tcp", way="up")
def back(packet: Packet, context: Context) -> None:
    state = context.state
    if packet["ip.dst"] != state.outside:
        return
    port = state.to_inside.get(packet["tcp.dstport"])
    if port is None:
        packet.drop()  # nobody asked for it
        return
    packet.edit({"ip.dst": state.inside, "tcp.dstport": port})

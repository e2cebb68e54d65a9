"""The IP header of a script's packets: compared, written as a script has it."""

from __future__ import annotations

from dataclasses import dataclass

from levelip.tracing.packetline.builder import ECN
from levelip.wire.addr import format_ipv4
from levelip.wire.ipv4 import OPTION_END, OPTION_NOP, Ipv4Header, iter_options
from simulation.script.language import IpInfo

ECN_NAMES = {value: name for name, value in ECN.items()}
ALERT = bytes.fromhex("94040000")  # router alert, RFC 2113 2.1


@dataclass(frozen=True, slots=True)
class Row:
    """One field of a comparison."""

    name: str
    expected: str
    got: str
    differs: bool


# comparison, and text


def compare_ip(spec: IpInfo, ip: Ipv4Header, fragment: tuple[int, int] | None) -> list[Row]:
    """What a line says of the header, and of fragments and options also what it does not say: that there are none."""
    rows = []
    for name, wanted, got in (("from", spec.src, ip.src), ("to", spec.dst, ip.dst)):
        if wanted is not None:
            rows.append(Row(name, format_ipv4(wanted), format_ipv4(got), wanted != got))
    if spec.ecn is not None:
        came = ECN_NAMES[ip.ecn]
        fits = came in ("ect0", "ect1") if spec.ecn == "ect01" else came == spec.ecn
        rows.append(Row("ecn", spec.ecn, came, not fits))
    if spec.tos is not None:
        rows.append(Row("tos", f"0x{spec.tos:x}", f"0x{ip.tos:x}", spec.tos != ip.tos))
    if spec.ttl is not None:
        rows.append(Row("ttl", str(spec.ttl), str(ip.ttl), spec.ttl != ip.ttl))
    if spec.ident is not None:
        rows.append(Row("ip id", str(spec.ident), str(ip.ident), spec.ident != ip.ident))
    if spec.dont_fragment is not None:
        rows.append(Row("df", _yes(spec.dont_fragment), _yes(ip.dont_fragment), spec.dont_fragment != ip.dont_fragment))
    if spec.fragment is not None or fragment is not None:
        expected = "none" if spec.fragment is None else "{}:{}".format(*spec.fragment)
        came = "none" if fragment is None else "{}:{}".format(*fragment)
        rows.append(Row("fragment", expected, came, expected != came))
        rows.append(
            Row("mf", _yes(spec.more_fragments), _yes(ip.more_fragments), spec.more_fragments != ip.more_fragments)
        )
    if spec.options or ip.options:
        padded = spec.options + bytes(-len(spec.options) & 3)
        rows.append(Row("ip options", options_text(padded), options_text(ip.options), padded != ip.options))
    return rows


def options_text(options: bytes) -> str:
    """As a script has them; "none" for none. They are well formed, or were made by a script."""
    names = {OPTION_END: "eol", OPTION_NOP: "nop"}
    texts = []
    at = 0
    for option in iter_options(options):
        packed = option.serialize()
        at += len(packed)
        if packed == ALERT:
            texts.append("alert")
        else:
            data = f" 0x{option.data.hex()}" if option.data else ""
            texts.append(names.get(option.kind) or f"option {option.kind}{data}")
    texts += ["eol"] * (len(options) - at)
    return ", ".join(texts) or "none"


def ip_text(ip: Ipv4Header, fragment: tuple[int, int] | None) -> str:
    """What is noteworthy of a header of ours, as a script would expect it; empty if nothing is."""
    words = []
    if fragment is not None:
        words += ["frag {}:{}".format(*fragment), f"id {ip.ident}"]
        words += ["mf"] if ip.more_fragments else []
    if ip.options:
        words.append(options_text(ip.options))
    return f"[{', '.join(words)}] " if words else ""


def _yes(value: bool) -> str:
    return "yes" if value else "no"

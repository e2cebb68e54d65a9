"""Packets as packetdrill writes them, "S 0:0(0) win 1000 <mss 1460>": read, and made."""

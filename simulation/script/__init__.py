"""Packet scripts: packetdrill's language over the gateway, tcp and ip cores (docs/packet-scripts.md)."""

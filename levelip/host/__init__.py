"""The host's side of a stack's network: device, addresses, forwarding, packet filter. For commands, never for cores."""

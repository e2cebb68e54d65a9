"""UDP: datagrams between ip and the gateway (RFC 768, RFC 1122 4.1)."""

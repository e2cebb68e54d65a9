"""The ip process: IPv4 (RFC 791, 1122) and ICMP (RFC 792) between link and the transports."""

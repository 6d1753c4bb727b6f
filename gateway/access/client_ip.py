"""The client's IP address: the peer of the connection, or what our own trusted proxies report about it.

Each proxy appends the address of its client to X-Forwarded-For. With n proxies of ours, the n-th entry from the right
is therefore true, and the client may have written anything to the left of it. `gateway.access.trusted_proxies` stores
the result in REMOTE_ADDR, where the rest of the gateway reads it. IPv4 addresses mapped into IPv6 become plain IPv4.

Werkzeug's ProxyFix is not used: it splits X-Forwarded-For by the rules for quoted strings, so a client that sends one
stray quote (`X-Forwarded-For: "x`) merges all entries into one. ProxyFix then reports the proxy's own address, and
blocklist and rate limits no longer see the client's.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# A household or a machine gets at least a /64 and can choose any of its 2^64 addresses for each request.
_IPV6_RATE_LIMIT_PREFIX = 64

# Logs name no network smaller than this: enough to see a pattern, too little to identify a person.
_LOG_PREFIX = {4: 24, 6: 48}

_WITH_PORT = re.compile(r"\[([^\]]+)\](?::\d{1,5})?|(\d+\.\d+\.\d+\.\d+):\d{1,5}")


def parse_address(text: str) -> Address | None:
    """Return the IP address in a text, without its port, or None if the text is not an address."""
    text = text.strip()
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])  # drops the zone of fe80::1%eth0
    except ValueError:
        return None
    return unmap_ipv4(address)


def unmap_ipv4(address: Address) -> Address:
    """Return the IPv4 address inside an IPv4-mapped IPv6 address (::ffff:0:0/96), or the address itself."""
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address


def client_address(peer: str, forwarded_for: str, proxies: int) -> str:
    """Return the address of the client behind exactly `proxies` proxies of ours; empty if it is unknown.

    If X-Forwarded-For has fewer entries than there are proxies, or the entry that counts is not an address, the request
    did not come through all proxies. The peer's own address is returned then.
    """
    entries = forwarded_for.split(",")
    reported = parse_address(entries[-proxies]) if 0 < proxies <= len(entries) else None
    address = reported or parse_address(peer)
    return str(address) if address else ""


def rate_limit_key(address: str) -> str:
    """Return the key under which an address is rate limited: an IPv4 address, an IPv6 /64, or "unknown"."""
    parsed = parse_address(address)
    if parsed is None:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(ipaddress.ip_network((parsed, _IPV6_RATE_LIMIT_PREFIX), strict=False))


def truncate_network(network: Network) -> str:
    """Return a network as logs may name it: at most a /24 (IPv4) or a /48 (IPv6)."""
    longest = _LOG_PREFIX[network.version]
    return str(network if network.prefixlen <= longest else network.supernet(new_prefix=longest))


def truncate_address(address: str) -> str:
    """Return the network of an address as logs may name it, a /24 (IPv4) or a /48 (IPv6); "-" if it is unknown."""
    parsed = parse_address(address)
    return "-" if parsed is None else truncate_network(ipaddress.ip_network(parsed))

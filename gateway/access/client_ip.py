"""Where a request comes from: the peer of the connection, or what exactly so many trusted proxies say of it.

Each proxy appends the address of whoever asked it to X-Forwarded-For, so with n proxies of ours the n-th entry from the
right is true and whatever stands left of it was sent by a stranger. Everything else of the gateway takes the address
from here: REMOTE_ADDR, with IPv4 mapped into IPv6 folded back.

X-Forwarded-Host counts for nothing: many proxies pass on what a stranger wrote there. Our own name is the header Host,
or, where proxies change that, the setting public_url.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IPV6_GROUP_BITS = 64
"""A household or a machine gets a /64 at least, and may choose any of its 2^64 addresses for each request."""

_WITH_PORT = re.compile(r"\[([^\]]+)\](?::\d{1,5})?|(\d+\.\d+\.\d+\.\d+):\d{1,5}")


def read_address(text: str) -> Address | None:
    """Return the address that a text is, IPv4 in IPv6 folded; None when it is none. A port is taken off."""
    text = text.strip()
    if found := _WITH_PORT.fullmatch(text):
        text = found[1] or found[2]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])  # fe80::1%eth0 has a zone, which is the machine's own
    except ValueError:
        return None
    return fold(address)


def fold(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for (::ffff:0:0/96), else the address."""
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address


def find_address(peer: str, forwarded_for: str, hops: int) -> str:
    """Return whose request it is, behind exactly `hops` proxies of ours.

    When fewer entries are there than proxies, or the one that counts is no address, the request did not come the way
    that all others come: then it counts as the peer's own.
    """
    entries = forwarded_for.split(",")
    told = read_address(entries[-hops]) if 0 < hops <= len(entries) else None
    found = told or read_address(peer)
    return str(found) if found else ""


def rate_limit_key(address: str) -> str:
    """Return who shares one allowance: an IPv4 address alone, an IPv6 address with its /64; "unknown" for none."""
    parsed = read_address(address)
    if parsed is None:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(ipaddress.ip_network((parsed, IPV6_GROUP_BITS), strict=False))


class TrustedProxies:
    """WSGI middleware: puts the visitor's address, and the scheme and host of our own, where all look."""

    def __init__(self, app: WSGIApplication, hops: int, public_url: str = "") -> None:
        self._app = app
        self._hops = hops
        self._public_scheme, _, self._public_host = public_url.partition("://")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request."""
        forwarded_for = environ.get("HTTP_X_FORWARDED_FOR", "")
        environ["REMOTE_ADDR"] = find_address(environ.get("REMOTE_ADDR", ""), forwarded_for, self._hops)
        if self._public_host:
            environ["wsgi.url_scheme"], environ["HTTP_HOST"] = self._public_scheme, self._public_host
        elif self._hops:
            # Proxies replace this one and do not append to it; the last is that of the nearest.
            scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip()
            if scheme in ("http", "https"):
                environ["wsgi.url_scheme"] = scheme
        return self._app(environ, start_response)

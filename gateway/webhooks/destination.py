"""Where a webhook may go: the check of its URL, and of the addresses that its host has.

Clients choose the URL and the gateway calls it, so it must not reach what only the gateway can reach: other services of
its network, itself, or a cloud's metadata. A name is resolved once for each attempt, all of its addresses are checked,
and the connection goes to one of these.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.storage.dns_lookup import DnsResolver

MAX_URL_LENGTH = 2_048
# Seconds for a look-up. Public names are usually found in less than one.
DNS_TIMEOUT_S = 3.0

_NAME = re.compile(r"[a-z0-9_.-]{1,253}")
_DEFAULT_PORTS = {"https": 443, "http": 80}
# The rest of IPv6 is not routed, or contains an IPv4 address.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_TRANSITION = (ipaddress.IPv6Network("2001::/32"), ipaddress.IPv6Network("2002::/16"))  # Teredo and 6to4
# Networks whose only way to IPv4 is a NAT64 have these addresses for public IPv4 hosts (RFC 6052).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# A public address at which each virtual machine of Azure reaches the host that it runs on.
_AZURE_HOST = ipaddress.IPv4Address("168.63.129.16")
# Relays of 6to4, and the network of RFC 6890 of which Python counts only a part as private.
_OTHER_SPECIAL = (ipaddress.IPv4Network("192.88.99.0/24"), ipaddress.IPv4Network("192.0.0.0/24"))


class WebhookUrlError(ValueError):
    """The URL is invalid, or its host must not be reached. The message is the second half of a sentence."""


class HostLookupError(Exception):
    """The host has no address now. Another attempt may find one."""


@dataclass(frozen=True)
class Destination:
    """The parts of a valid URL."""

    scheme: str
    host: str
    """Name or address, without the brackets of IPv6."""
    port: int
    target: str
    """Path and query."""
    is_trusted: bool
    """Whether the operator allows HTTP and private addresses for this host."""


def parse_url(url: str, trusted_hosts: AbstractSet[str]) -> Destination:
    """Return the parts of a URL. Raises WebhookUrlError; looks nothing up."""
    if len(url) > MAX_URL_LENGTH:
        raise WebhookUrlError(f"it has {len(url):,} characters; the maximum is {MAX_URL_LENGTH:,}")
    if not url.isascii() or not url.isprintable() or re.search(r"[\s\\\"<>^`{|}]", url):
        raise WebhookUrlError("it has characters that a URL cannot have; write them in percent-encoding")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").removesuffix("."), parts.port
    except ValueError:
        raise WebhookUrlError("its host or its port is invalid") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.netloc:
        raise WebhookUrlError("it must begin with https://")
    if "@" in parts.netloc:
        raise WebhookUrlError("it must not have a name or a password; put a secret into the path or the query")
    if "#" in url:
        raise WebhookUrlError("it must not have a fragment (#...), which is never sent")
    if not _is_host(host):
        raise WebhookUrlError("its host is invalid; write an international name in its ASCII form (xn--...)")
    if port == 0:
        raise WebhookUrlError("port 0 cannot be reached")
    port = port or _DEFAULT_PORTS[parts.scheme]
    shown = f"[{host}]" if ":" in host else host
    is_trusted = bool({shown, f"{shown}:{port}"} & trusted_hosts)
    if parts.scheme == "http" and not is_trusted:
        raise WebhookUrlError("it must begin with https://, because results are private")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Destination(parts.scheme, host, port, target, is_trusted)


def find_addresses(destination: Destination, resolver: DnsResolver) -> list[str]:
    """Return the addresses of a host. Raises HostLookupError, and WebhookUrlError if one of them is not public."""
    host = destination.host
    try:
        found = resolver.wait(host, destination.port, DNS_TIMEOUT_S)
    except OSError as error:
        raise HostLookupError(f"the host was not found within {DNS_TIMEOUT_S:g} seconds") from error
    addresses = list(dict.fromkeys(str(address[0]) for family, *_, address in found if family in _FAMILIES))
    if not addresses:
        raise HostLookupError("the host has no address")
    if not destination.is_trusted and not all(is_public(address) for address in addresses):
        raise WebhookUrlError("its host has an address that is not public")
    return addresses


_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def is_public(text: str) -> bool:
    """Return whether an address belongs to the public Internet: one host that anyone can reach."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:  # such as one with a zone, which only local addresses have
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return _is_public_ipv4(address)
    if address.ipv4_mapped is not None:
        return _is_public_ipv4(address.ipv4_mapped)
    if address in _NAT64:
        return _is_public_ipv4(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    is_unicast = address in _GLOBAL_UNICAST and not any(address in network for network in _TRANSITION)
    return is_unicast and address.is_global


def _is_public_ipv4(address: ipaddress.IPv4Address) -> bool:
    is_special = address.is_multicast or address.is_reserved or any(address in network for network in _OTHER_SPECIAL)
    return address.is_global and not is_special and address != _AZURE_HOST


def _is_host(host: str) -> bool:
    if ":" not in host:
        return bool(_NAME.fullmatch(host)) and ".." not in host and not host.startswith(".")
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return "%" not in host

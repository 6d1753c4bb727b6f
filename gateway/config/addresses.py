"""Addresses in settings: host names, and the address of a Triton elsewhere.

A function returns what is wrong as the second half of an error message, or an empty string.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

TLS_SCHEME = "grpcs://"
# RFC 1123, and underscores, which Docker Compose allows in the names of services.
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_MAX_NAME_LENGTH = 253
_ALL_DIGITS_AND_DOTS = re.compile(r"[0-9.]+")
_FORM = "must be host:port or grpcs://host:port"


@dataclass(frozen=True)
class BackendAddress:
    """Where a Triton elsewhere listens for gRPC."""

    target: str
    """host:port as gRPC reads it, with an IPv6 address in brackets."""
    is_tls: bool


def parse_backend_address(text: str) -> BackendAddress:
    """Return the parts of `backend_address`. Raises ValueError, with the second half of an error message."""
    is_tls = text.startswith(TLS_SCHEME)
    target = text.removeprefix(TLS_SCHEME)
    if target.startswith("unix:"):
        raise ValueError(f"{_FORM}: Triton listens on TCP ports only, not on Unix sockets")
    if "://" in target:
        raise ValueError(f"{_FORM}, without another scheme")
    if re.search(r"[/?#@]", target):
        raise ValueError(f"{_FORM}, without a path or a user name")
    host, separator, port = target.rpartition(":")
    if not separator or target.endswith("]"):
        raise ValueError(f"{_FORM}; the port is missing. Triton's gRPC port is 8001 by default")
    if ":" in host and not _find_host_error(host, is_ipv6=True):
        raise ValueError(f"{_FORM}, with an IPv6 address in brackets: [::1]:8001")
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65_535):
        raise ValueError(f"{_FORM}, with a port between 1 and 65,535")
    if error := _find_host_error(host[1:-1], is_ipv6=True) if _is_bracketed(host) else _find_host_error(host):
        raise ValueError(f"{_FORM}; {error}")
    return BackendAddress(target, is_tls)


def backend_address(value: str) -> str:
    """Check that a value is empty or the address of a Triton elsewhere."""
    try:
        if value:
            parse_backend_address(value)
    except ValueError as error:
        return str(error)
    return ""


def listen_host(value: str) -> str:
    """Check that a value is a host name or an IP address without a port."""
    if error := _find_host_error(value, is_ipv6=":" in value):
        return f"must be one IP address or host name without scheme, port or brackets; {error}"
    return ""


def tls_name(value: str) -> str:
    """Check that a value is empty or a name that a certificate can have."""
    return "must be a host name or an IP address" if value and _find_host_error(value, is_ipv6=":" in value) else ""


def _is_bracketed(host: str) -> bool:
    return host.startswith("[") and host.endswith("]")


def _find_host_error(host: str, *, is_ipv6: bool = False) -> str:
    if not host:
        return "the host is missing"
    if is_ipv6 or _ALL_DIGITS_AND_DOTS.fullmatch(host):
        kind = ipaddress.IPv6Address if is_ipv6 else ipaddress.IPv4Address
        try:
            kind(host)
        except ValueError:
            return f"{host[:80]!r} is not an {'IPv6' if is_ipv6 else 'IPv4'} address"
        return ""
    labels = host.removesuffix(".").split(".")
    if len(host) > _MAX_NAME_LENGTH or not all(_LABEL.fullmatch(label) for label in labels):
        return f"{host[:80]!r} is not a host name (write an international name in its ASCII form, xn--...)"
    return ""

"""Origins (scheme://host:port) in settings and headers, and the path prefix under which a proxy serves the gateway."""

from __future__ import annotations

import re
from typing import NamedTuple

ANY_ORIGIN = "*"

_MAX_ORIGIN_LENGTH = 200
_ORIGIN = re.compile(r"https?://([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}

# Unreserved characters of RFC 3986 only, so that a prefix needs no escaping in HTML, headers or URLs.
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+){1,8}")
_MAX_PREFIX_LENGTH = 200
# First segments of the gateway's own paths. With one of them as a prefix, "/api/..." could mean two things.
OWN_SEGMENTS = (
    ".well-known",
    "api",
    "docs",
    "favicon.ico",
    "healthz",
    "problems",
    "readyz",
    "results",
    "robots.txt",
    "static",
)


class PublicUrl(NamedTuple):
    """The parts of the setting public_url; all empty if it is not set."""

    scheme: str
    host: str
    """Host with its port, as in the header Host."""
    prefix: str
    """Path before the gateway's own paths, such as /superres; empty for none."""


def is_origin(text: str) -> bool:
    """Return whether a text is an origin: http or https, a host and an optional port, at most 200 characters."""
    return len(text) <= _MAX_ORIGIN_LENGTH and bool(_ORIGIN.fullmatch(text))


def parse_prefix(text: str) -> str:
    """Return a path prefix without its final slash; an empty string if it is missing, invalid or a path of our own."""
    prefix = text.strip()[: _MAX_PREFIX_LENGTH + 1].removesuffix("/")
    if len(prefix) > _MAX_PREFIX_LENGTH or not _PREFIX.fullmatch(prefix):
        return ""
    segments = prefix.split("/")[1:]
    return "" if segments[0] in OWN_SEGMENTS or {".", ".."} & set(segments) else prefix


def parse_public_url(value: str) -> PublicUrl:
    """Return the parts of a valid public_url."""
    scheme, _, rest = value.partition("://")
    host, slash, path = rest.partition("/")
    return PublicUrl(scheme, host, parse_prefix(slash + path))


def public_url(value: str) -> str:
    """Check that a value is empty, or an origin with an optional path."""
    if not value:
        return ""
    scheme, host, prefix = parse_public_url(value)
    if not is_origin(f"{scheme}://{host}"):
        return "must look like https://superres.example or https://example.org/superres"
    path = value.partition("://")[2].partition("/")[2]
    if path and not prefix:
        return (
            "its path may have letters, digits and . _ ~ - in up to 8 parts, and must not begin with "
            f"{', '.join(OWN_SEGMENTS)}"
        )
    return ""


def origins(value: str) -> str:
    """Check that a value is a comma-separated list of origins, or *."""
    parts = [part.strip() for part in value.split(",")] if value else []
    if any(part != ANY_ORIGIN and not is_origin(part) for part in parts):
        return "must be *, or origins such as https://app.example, separated by commas"
    return ""


def parse_origins(value: str) -> frozenset[str]:
    """Return the origins of a valid list as browsers write them: in lower case and without the scheme's own port."""
    return frozenset(_as_browsers_write(part.strip().lower()) for part in value.split(",") if part.strip())


def _as_browsers_write(origin: str) -> str:
    return origin.removesuffix(_DEFAULT_PORTS.get(origin.partition("://")[0], ""))

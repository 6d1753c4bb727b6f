"""URLs of Redis: of one server, of the Sentinels that know the master, or of nodes of a cluster.

    redis://[user:password@]host:port/db               rediss:// with TLS, unix:///path for a socket
    redis+sentinel://[user:password@]host:port,host:port/service
    redis+cluster://[user:password@]host:port,host:port

The last two are written as the package `limits` writes them; `rediss+sentinel` and `rediss+cluster` use TLS. Options of
redis-py follow after a question mark, such as `ssl_ca_certs`. No error message repeats the URL, which may hold a
password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode

import redis
from redis.connection import parse_url

SCHEMES = (
    "redis://",
    "rediss://",
    "unix://",
    "redis+sentinel://",
    "rediss+sentinel://",
    "redis+cluster://",
    "rediss+cluster://",
)

# Each unreachable address costs one call at most one timeout to connect and one to respond.
MAX_NODES = 9

_DEFAULT_PORTS = {"sentinel": 26379, "cluster": 6379}
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
_EXAMPLES = {
    "server": "redis://:password@host:6379/0",
    "sentinel": "redis+sentinel://:password@host:26379,host:26379/service",
    "cluster": "redis+cluster://:password@host:6379,host:6379",
}


class RedisUrlError(ValueError):
    """A URL is invalid. The message is the second half of a sentence, and never repeats the URL."""


@dataclass(frozen=True)
class RedisUrl:
    """A parsed URL."""

    kind: Literal["server", "sentinel", "cluster"]
    nodes: tuple[tuple[str, int], ...] = ()
    """Host and port of each Sentinel or cluster node. Empty for a server."""
    service: str = ""
    """The name by which the Sentinels know the master."""
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    """Keyword arguments of redis-py's connections: database, user, password, TLS; the address only for a server."""
    sentinel_options: dict[str, Any] = field(default_factory=dict, repr=False)
    """The same for connections to the Sentinels."""

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted."""
        return issubclass(self.options.get("connection_class", redis.Connection), redis.SSLConnection)

    @property
    def secrets(self) -> tuple[str, ...]:
        """User names and passwords in the URL, which no message may contain."""
        options = (self.options, self.sentinel_options)
        return tuple({each[name] for each in options for name in ("username", "password") if each.get(name)})


def parse_redis_url(url: str) -> RedisUrl:
    """Return the parts of a URL. Raises RedisUrlError."""
    if not url.startswith(SCHEMES):
        raise RedisUrlError(f"must begin with {', '.join(SCHEMES)}")
    scheme, _, rest = url.partition("://")
    base, _, kind = scheme.partition("+")
    try:
        if kind == "sentinel":
            return _parse_sentinel(base, rest)
        return _parse_cluster(base, rest) if kind == "cluster" else RedisUrl("server", options=_parse_options(url))
    except (ValueError, TypeError, redis.RedisError) as error:
        reason = f"with a valid port and options that redis-py supports{_describe(error)}"
        raise RedisUrlError(f"must look like {_EXAMPLES[kind or 'server']}, {reason}") from None


def _describe(error: Exception) -> str:
    return f": {error}" if isinstance(error, RedisUrlError) else ""


def _parse_sentinel(base: str, rest: str) -> RedisUrl:
    user, hosts, path, query = _split(rest)
    if not path or "/" in path:
        raise RedisUrlError("the name of the service must follow the addresses after one slash")
    pairs = parse_qsl(query, keep_blank_values=True)
    own = {name.removeprefix("sentinel_"): value for name, value in pairs if name in _SENTINEL_OPTIONS}
    shared = urlencode([pair for pair in pairs if pair[0] not in _SENTINEL_OPTIONS])
    options = _parse_options(f"{base}://{user}sentinel/?{shared}", without_address=True)
    # As in `limits`, the Sentinels get the user and password of Redis unless they have their own, or empty ones.
    access = {name: own.get(name, options.get(name)) for name in ("username", "password")}
    sentinel_options = {name: value for name, value in options.items() if name not in ("db", *access)}
    sentinel_options |= {name: value for name, value in access.items() if value}
    return RedisUrl("sentinel", _parse_nodes(hosts, "sentinel"), unquote(path), options, sentinel_options)


def _parse_cluster(base: str, rest: str) -> RedisUrl:
    user, hosts, path, query = _split(rest)
    if path not in ("", "0"):
        raise RedisUrlError("a cluster has only database 0")
    options = _parse_options(f"{base}://{user}cluster/?{query}", without_address=True)
    if options.pop("db", 0):
        raise RedisUrlError("a cluster has only database 0")
    return RedisUrl("cluster", _parse_nodes(hosts, "cluster"), options=options)


def _split(rest: str) -> tuple[str, str, str, str]:
    """Return user and password with their @, the addresses, the path without its slash, and the query."""
    before, _, query = rest.partition("?")
    authority, _, path = before.partition("/")
    user, separator, hosts = authority.rpartition("@")
    name, colon, password = user.partition(":")
    # Encoded again, so that a password with a colon or bracket does not change what the rest means.
    return (
        f"{quote(unquote(name), safe='')}{colon}{quote(unquote(password), safe='')}{separator}",
        hosts,
        path.rstrip("/"),
        query,
    )


def _parse_nodes(hosts: str, kind: str) -> tuple[tuple[str, int], ...]:
    nodes = []
    for number, text in enumerate(hosts.split(","), 1):
        match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]@/]+)(?::([0-9]{1,5}))?", text.strip())
        port = int(match[2] or _DEFAULT_PORTS[kind]) if match else 0
        if match is None or not 0 < port <= 65_535:
            raise RedisUrlError(f"address {number} is not a host and a port between 1 and 65,535")
        nodes.append((match[1].strip("[]"), port))
    if len(nodes) > MAX_NODES:
        raise RedisUrlError(f"it has {len(nodes)} addresses, and the maximum is {MAX_NODES}")
    return tuple(nodes)


def _parse_options(url: str, *, without_address: bool = False) -> dict[str, Any]:
    options: dict[str, Any] = parse_url(url)
    redis.ConnectionPool(**options).make_connection()  # creates an object and does not connect
    if without_address:
        options.pop("host", None)
    return options

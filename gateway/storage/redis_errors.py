"""Why Redis cannot be used, in words for the log. No message contains a user name or password of the URL.

Some errors concern one command, such as a key that holds a wrong type. All others mean that this server cannot be used
at all now: it is away, refuses the connection, or does not accept writes. Then another server may have taken over.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Iterator

import redis
from redis.exceptions import RedisClusterException

from gateway.storage.dns_lookup import HostNotFoundError

# What redis-py raises. RedisClusterException is not a RedisError.
REDIS_ERRORS = (redis.RedisError, RedisClusterException, OSError)

# Codes of error responses that concern the whole server (https://redis.io/docs: READONLY and LOADING during a failover,
# NOREPLICAS with min-replicas-to-write, MISCONF with stop-writes-on-bgsave-error).
_SERVER_STATES = {
    "READONLY": "it is a read-only replica",
    "LOADING": "it is loading its data",
    "MASTERDOWN": "it is a replica that has lost its master",
    "CLUSTERDOWN": "its cluster is down",
    "NOREPLICAS": "it accepts no writes, because too few replicas are connected (min-replicas-to-write)",
    "OOM": "it is out of memory (maxmemory)",
    "MISCONF": "it accepts no writes, because it cannot save its data to disk",
    "BUSY": "it is busy with a script",
    "NOPERM": "its user may not use a command or key that the gateway needs (ACL)",
    "NOAUTH": "it requires a password",
    "WRONGPASS": "it rejects the user or password",
    "MOVED": "it is a node of a cluster: write the URL as redis+cluster://",
    "ASK": "it is a node of a cluster: write the URL as redis+cluster://",
}
_CODE = re.compile(rf"(?:^|\s-)({'|'.join(_SERVER_STATES)})\b")


def concerns_whole_server(error: Exception) -> bool:
    """Return whether an error means that this server cannot be used now, rather than that it rejects one command."""
    if isinstance(error, redis.DataError):
        return False
    return not isinstance(error, redis.ResponseError) or bool(_find_code(error))


def explain(error: BaseException, secrets: Iterable[str] = ()) -> str:
    """Return why Redis cannot be used, such as "connection refused"."""
    words = next((text for each in _causes(error) if (text := _explain_one(each))), "") or str(error)
    for secret in sorted(secrets, key=len, reverse=True):
        words = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", words)
    return " ".join(words.split()).rstrip(".") or type(error).__name__


def _explain_one(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"the TLS handshake failed: {error.reason or error}"
    if isinstance(error, HostNotFoundError):
        return str(error)
    return _SERVER_STATES.get(_find_code(error), "") if isinstance(error, redis.RedisError) else ""


def _find_code(error: BaseException) -> str:
    """Return the code of a response that concerns the whole server, or an empty string.

    Redis before version 7 puts it into the text of an error in a script.
    """
    if isinstance(error, redis.AuthenticationError) and getattr(error, "status_code", None) is None:
        return "WRONGPASS"
    match = _CODE.search(getattr(error, "status_code", None) or "") or _CODE.search(str(error))
    return match[1] if match else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the causes of an error, the first cause first: redis-py replaces them by errors of its own."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    yield from reversed(chain)

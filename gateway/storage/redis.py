"""The Redis that gateways share for rate limits and usage: one server, a master that Sentinels know, or a cluster.

No call waits long: the times to look up a name, to connect and to respond are limited. After an error that concerns the
whole server, all connections are dropped. The next call connects again, to the server that has taken over its name, to
the new master, or to the nodes that the cluster has now.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn, TypeAlias, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.utils import str_if_bytes

from gateway.storage.dns_lookup import DnsResolver
from gateway.storage.redis_errors import REDIS_ERRORS, concerns_whole_server, explain
from gateway.storage.redis_url import RedisUrl, parse_redis_url

R = TypeVar("R")

Client: TypeAlias = "redis.Redis | RedisCluster"

_DNS_TIMEOUT_S = 0.25
_CONNECT_TIMEOUT_S = 0.25
_RESPONSE_TIMEOUT_S = 0.5


class RedisUnavailableError(Exception):
    """Redis cannot be used now. The message says why."""


class RedisCommandError(Exception):
    """Redis rejected one command. The message says why."""


@dataclass(frozen=True)
class LuaScript:
    """A script that Redis runs as one step. All keys that it uses must be in one slot of a cluster."""

    text: str

    @cached_property
    def sha(self) -> str:
        """The name under which Redis knows the script once it has run it."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class SharedRedis:
    """Runs commands in the Redis of a URL. Safe for several threads. Connects with the first command."""

    def __init__(self, url: str) -> None:
        self._url = parse_redis_url(url)
        self._lock = threading.Lock()
        self._client: Client | None = None
        # One thread connects to a cluster, and the others wait for it: else each would wait for all timeouts in turn.
        self._opening: Future[Client] | None = None

    @property
    def is_cluster(self) -> bool:
        """Whether keys that are used together need a common hash tag."""
        return self._url.kind == "cluster"

    def call(self, command: Callable[[Client], R]) -> R:
        """Return what a command returns. Raises RedisUnavailableError or RedisCommandError."""
        client = None
        try:
            client = self._connected()
            return command(client)
        except REDIS_ERRORS as error:
            reason = explain(error, self._url.secrets)
            if not concerns_whole_server(error):
                raise RedisCommandError(reason) from error
            if self._url.uses_tls and "Timeout connecting" in reason:
                reason += "; perhaps the port does not use TLS"  # Redis waits for the end of such a command
            if self._url.uses_tls and ("No such file" in reason or "Permission denied" in reason):
                reason += "; check the files in the URL's ssl_ options"
            self._drop(client)
            raise RedisUnavailableError(reason) from error

    def run(self, script: LuaScript, key: str, *arguments: str | float) -> Any:
        """Run a script on one key and return its result. Raises as `call` does."""

        def run(client: Client) -> Any:
            try:
                return client.evalsha(script.sha, 1, key, *arguments)
            except redis.exceptions.NoScriptError:  # a new or restarted server does not know it yet
                return client.eval(script.text, 1, key, *arguments)

        return self.call(run)

    def write_probe(self, key: str) -> None:
        """Write a short-lived key into the cluster slot of `key`. Raises as `call` does.

        Shows that Redis accepts writes, which a replica or a full server does not.
        """
        # The hash tag is the whole key. The name begins as all names do, because an ACL may allow only these.
        self.call(lambda client: client.set(f"superres:probe:{{{key}}}", "1", ex=60))

    def _connected(self) -> Client:
        with self._lock:
            if self._client is not None:
                return self._client
            is_first = self._opening is None
            opening = self._opening = self._opening or Future()
        if is_first:
            try:
                client = open_client(self._url)
            except BaseException as error:
                with self._lock:
                    self._opening = None
                opening.set_exception(error)
                raise
            with self._lock:
                self._client, self._opening = client, None
            opening.set_result(client)
        return opening.result()

    def _drop(self, client: Client | None) -> None:
        """Replace a client at the next call. Commands that run on it in other threads may end."""
        with self._lock:
            if client is None or client is not self._client:
                return
            self._client = None
        nodes = [node.redis_connection for node in client.get_nodes()] if isinstance(client, RedisCluster) else [client]
        for node in nodes:
            if node is not None:
                node.connection_pool.disconnect(inuse_connections=False)


def open_client(url: RedisUrl) -> Client:
    """Return a client with short timeouts. With redis-py's defaults, a dead Redis blocks each request.

    Only a cluster is connected to here, to read which node has which slots.
    """
    timeouts = {"socket_connect_timeout": _CONNECT_TIMEOUT_S, "socket_timeout": _RESPONSE_TIMEOUT_S}
    if url.kind == "cluster":
        return _open_cluster(url, timeouts)
    timeouts["retry"] = Retry(NoBackoff(), 0)
    if url.kind == "sentinel":
        return _open_sentinel(url, timeouts)
    return redis.Redis(connection_pool=_BoundedPool(**{**url.options, **timeouts}))


def _open_sentinel(url: RedisUrl, timeouts: dict[str, Any]) -> redis.Redis:
    sentinel = _BoundedSentinel([], **timeouts)
    options = {**url.sentinel_options, **timeouts}
    sentinel.sentinels = [
        redis.Redis(connection_pool=_BoundedPool(host=host, port=port, **options)) for host, port in url.nodes
    ]
    options = {**url.options, **timeouts}
    is_tls = "connection_class" in options
    options.pop("connection_class", None)
    return sentinel.master_for(url.service, connection_pool_class=_BoundedSentinelPool, ssl=is_tls, **options)


def _open_cluster(url: RedisUrl, timeouts: dict[str, Any]) -> RedisCluster:
    (host, port), *others = url.nodes
    cluster = RedisCluster(
        url=f"redis://{f'[{host}]' if ':' in host else host}:{port}",  # the rest is in the options
        startup_nodes=[ClusterNode(*node) for node in others],
        connection_pool_class=_BoundedPool,
        retry=Retry(NoBackoff(), 0),
        reinitialize_steps=0,  # a slot that has moved is looked up by itself
        **{**url.options, **timeouts},
    )
    # redis-py reads the slots again when a node fails: in one thread at a time, each waiting for all timeouts. Instead
    # SharedRedis drops the whole client, and the one call that tests Redis opens the next.
    cluster.nodes_manager.initialize = _refuse_to_initialize
    return cluster


def _refuse_to_initialize(*_: object, **__: object) -> NoReturn:
    raise redis.ConnectionError("a node of the cluster does not respond, or the cluster is down")


_resolver = DnsResolver()


class _BoundedDnsLookup:
    """Mixin for redis-py's connections: looks the host up with a timeout, before redis-py does."""

    host: str
    port: int

    def _connect(self) -> Any:
        _resolver.wait(self.host, self.port, _DNS_TIMEOUT_S)
        return super()._connect()  # type: ignore[misc]


class _NamedRefusal:
    """Mixin for redis-py's connections: what Redis responds while a connection is made concerns all commands."""

    def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - as in redis-py
        try:
            super().on_connect_check_health(check_health)  # type: ignore[misc]
        except redis.ResponseError as error:  # such as a database that does not exist
            raise redis.ConnectionError(f"it rejects the connection: {error}") from error


class _BoundedPool(redis.ConnectionPool):  # type: ignore[misc]
    """A pool whose connections look hosts up with a timeout; not those to a socket, which has no host name."""

    connection_class: type[Any]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        has_host = issubclass(self.connection_class, redis.Connection)
        mixins = (_NamedRefusal, _BoundedDnsLookup) if has_host else (_NamedRefusal,)
        self.connection_class = type("BoundedConnection", (*mixins, self.connection_class), {})


class _BoundedSentinelPool(_BoundedPool, SentinelConnectionPool):  # type: ignore[misc]
    def __init__(self, service_name: str, sentinel_manager: Sentinel, **options: Any) -> None:
        super().__init__(service_name=service_name, sentinel_manager=sentinel_manager, **options)


class _BoundedSentinel(Sentinel):  # type: ignore[misc]
    """Finds the master, and says why there is none."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the master that the first responding Sentinel knows."""
        failure: Exception | None = None
        for number, sentinel in enumerate(self.sentinels):
            try:
                found = sentinel.sentinel_get_master_addr_by_name(service_name)
            except REDIS_ERRORS as error:
                failure = failure or error
                continue
            if found:
                self.sentinels[0], self.sentinels[number] = sentinel, self.sentinels[0]
                return str_if_bytes(found[0]), int(found[1])
            failure = MasterNotFoundError(f"none of them knows a master named {service_name}")
        reason = explain(failure) if failure else "none is known"
        raise MasterNotFoundError(f"the Sentinels do not name the master: {reason}") from failure

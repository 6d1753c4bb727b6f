"""Bytes in Redis that several gateways share: uploads and results, with one bound for all of them.

They are written in chunks: a call has half a second.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, TypeVar

from gateway.async_jobs import redis_scripts as scripts
from gateway.async_jobs.store import JobStoreError
from gateway.storage.redis import LuaScript, RedisCommandError, RedisUnavailableError, SharedRedis

T = TypeVar("T")

PREFIX = "superres:{jobs}:"
# A chunk of an upload or result: 20 ms at 200 Mbit/s.
CHUNK_BYTES = 524_288


class RedisData:
    """Named bytes in Redis. Each method may raise JobStoreError. Safe to use from several threads."""

    def __init__(self, url: str, *, max_bytes: int) -> None:
        self._redis = SharedRedis(url)
        self._max_bytes = max_bytes

    def write(self, data: bytes, max_age_s: float, *, is_result: bool, name: str = "") -> str:
        """Store bytes and return their name; an empty one if they do not fit.

        Old results are dropped for other bytes, uploads never.
        """
        name = name or secrets.token_hex(12)
        kind = "1" if is_result else "0"
        if not self.run(scripts.RESERVE, name, len(data), max_age_s, self._max_bytes, kind):
            return ""
        key, view = f"{PREFIX}data:{name}", memoryview(data)
        try:
            for start in range(0, len(view), CHUNK_BYTES):
                self._push(key, bytes(view[start : start + CHUNK_BYTES]))
            self.call(lambda client: client.expire(key, int(max_age_s) + 60))
        except JobStoreError:
            self._try_to_drop(name)
            raise
        return name

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a name; None if they were dropped."""
        if not name:
            return None
        key, chunks = f"{PREFIX}data:{name}", list[bytes]()
        count: int = self.call(lambda client: client.llen(key))
        for index in range(count):
            if (chunk := self._read_chunk(key, index)) is None:
                return None  # dropped meanwhile
            chunks.append(chunk)
        return b"".join(chunks) if chunks else None

    def drop(self, name: str) -> bool:
        """Forget the bytes of a name; return whether there were any."""
        return bool(self.run(scripts.DROP, name))

    def run(self, script: LuaScript, *arguments: str | float) -> Any:
        """Return the result of a script."""
        try:
            return self._redis.run(script, PREFIX, *arguments)
        except (RedisUnavailableError, RedisCommandError) as error:
            raise JobStoreError(str(error)) from error

    def call(self, command: Callable[[Any], T]) -> T:
        """Return what a command returns."""
        try:
            return self._redis.call(command)
        except (RedisUnavailableError, RedisCommandError) as error:
            raise JobStoreError(str(error)) from error

    def _push(self, key: str, chunk: bytes) -> None:
        self.call(lambda client: client.rpush(key, chunk))

    def _read_chunk(self, key: str, index: int) -> bytes | None:
        chunk: bytes | None = self.call(lambda client: client.lindex(key, index))
        return chunk

    def _try_to_drop(self, name: str) -> None:
        """Drop bytes that were written in part, if Redis can be used; otherwise they expire."""
        try:
            self.drop(name)
        except JobStoreError:
            return

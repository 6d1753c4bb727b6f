"""Where usage is stored: in a file in state_dir, or in Redis for several gateways.

Gateways that share a store share one backend: a second in which two of them saw it awake counts once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from gateway.usage.file_store import FileUsageStore
from gateway.usage.records import MonthlyUsage, UsageBatch


class UsageStore(Protocol):
    """Storage for monthly usage. Safe to use from several threads and processes."""

    def now(self) -> float:
        """Return the store's time in seconds since 1970, which decides the month. Never waits."""
        ...

    def add(self, batch: UsageBatch) -> None:
        """Write a whole batch, or raise UsageStoreError and write nothing."""
        ...

    def read(self) -> dict[str, MonthlyUsage]:
        """Return all stored months by name. Raises UsageStoreError."""
        ...


def open_usage_store(path: Path, redis_url: str) -> UsageStore:
    """Return a store in Redis when `redis_url` is set, otherwise in the file at `path`."""
    if not redis_url:
        return FileUsageStore(path)
    # Imported here because redis takes 70 ms, and most installations do not use it.
    from gateway.usage.redis_store import RedisUsageStore  # noqa: PLC0415

    return RedisUsageStore(redis_url)

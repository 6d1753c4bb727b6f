"""Stores usage in Redis, in one hash per month, for several gateways.

Redis's own clock decides the month and which second has been counted, so the gateways' clocks may differ.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict

from gateway.storage.redis import Client, LuaScript, RedisCommandError, RedisUnavailableError, SharedRedis
from gateway.usage.records import (
    CLOCK_TOLERANCE_S,
    MAX_CLIENTS,
    MAX_MONTHS,
    OTHER_CLIENTS,
    ClientUsage,
    MonthlyUsage,
    UsageBatch,
    UsageStoreError,
)

# Expiry of a month in Redis: 13 months and some days.
_EXPIRY_S = 400 * 86_400
_PREFIX = "superres:meter:"
# In a cluster, the hash tag puts all keys into one slot, because the script uses several of them.
_CLUSTER_PREFIX = "superres:{meter}:"
# Difference to Redis's clock that is a delay in the network rather than a clock that was set.
_MAX_DELAY_S = 1.0

_log = logging.getLogger(__name__)

_ADD = LuaScript(
    f"""
local batch, now = cjson.decode(ARGV[1]), tonumber(ARGV[2])
if not now then now = tonumber(redis.call('time')[1]) end
if redis.call('set', KEYS[1] .. 'batch:' .. batch.id, '1', 'NX', 'EX', 86400) == false then return 0 end
local till = tonumber(redis.call('get', KEYS[1] .. 'until') or '0')
if till > now + {CLOCK_TOLERANCE_S} then till = 0 end
"""
    """
for _, span in ipairs(batch.spans) do
  local from = math.max(span.begin, till)
  if span['end'] > from then
    till = span['end']
    redis.call('set', KEYS[1] .. 'until', string.format('%.6f', till))
    redis.call('hincrbyfloat', KEYS[1] .. span.month, span.kind, string.format('%.6f', till - from))
    redis.call('expire', KEYS[1] .. span.month, batch.expiry_s)
  end
end
for _, use in ipairs(batch.uses) do
  local month, client = KEYS[1] .. use.month, use.client
  if redis.call('hexists', month, 'work_s:' .. client) == 0 and redis.call('hlen', month) >= 2 * batch.max_clients then
    client = batch.others
  end
  redis.call('hincrby', month, 'images:' .. client, use.images)
  redis.call('hincrbyfloat', month, 'work_s:' .. client, string.format('%.6f', use.work_s))
  redis.call('expire', month, batch.expiry_s)
end
return 1
"""
)

# The clock of the node that has the months.
_TIME = LuaScript("return redis.call('time')")

# Raises each field of a month to a value that was stored before.
_RESTORE = LuaScript(
    """
for field, value in pairs(cjson.decode(ARGV[1])) do
  if tonumber(value) > tonumber(redis.call('hget', KEYS[1], field) or '0') then
    redis.call('hset', KEYS[1], field, value)
  end
end
redis.call('expire', KEYS[1], ARGV[2])
return 1
"""
)

Fields = Mapping[str, float]


class RedisUsageStore:
    """Usage in Redis. What Redis loses (FLUSHALL, a restart without its data, eviction) is stored again from memory."""

    def __init__(
        self, url: str, *, clock: Callable[[], float] | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` replaces Redis's own clock in tests."""
        self._redis = SharedRedis(url)
        self._prefix = _CLUSTER_PREFIX if self._redis.is_cluster else _PREFIX
        self._clock = clock
        self._monotonic = monotonic
        # Redis's time minus that of the monotonic clock. Until Redis has responded, the machine's clock has to do.
        self._offset_s = time.time() - monotonic()
        self._known: dict[str, Fields] = {}

    def now(self) -> float:
        """Return the time of Redis's clock."""
        return self._monotonic() + self._offset_s if self._clock is None else self._clock()

    def add(self, batch: UsageBatch) -> None:
        """Write a batch in one step."""
        uses = [{"month": month, "client": client, **asdict(use)} for (month, client), use in batch.uses.items()]
        arguments = {
            "id": batch.id,
            "spans": [asdict(span) for span in batch.spans],
            "uses": uses,
            "expiry_s": _EXPIRY_S,
            "max_clients": MAX_CLIENTS,
            "others": OTHER_CLIENTS,
        }
        now = "" if self._clock is None else str(self._clock())
        try:
            self._redis.run(_ADD, self._prefix, json.dumps(arguments), now)
        except (RedisUnavailableError, RedisCommandError) as error:
            raise _describe(error) from error

    def read(self) -> dict[str, MonthlyUsage]:
        """Return all stored months by name."""
        try:
            self._read_clock()
            found = self._redis.call(self._read_all)
            if lost := self._find_lost(found):
                for name, fields in lost.items():
                    self._redis.run(_RESTORE, self._prefix + name, json.dumps(dict(fields)), _EXPIRY_S)
                found = self._redis.call(self._read_all)
                _log.warning(
                    "Redis had lost usage that this gateway knew (%s); it is stored again. Redis was emptied, it was "
                    "restarted without its data, or it is short of memory.",
                    ", ".join(sorted(lost)),
                )
        except (RedisUnavailableError, RedisCommandError) as error:
            raise _describe(error) from error
        self._known = found
        return {name: _month(name, fields) for name, fields in found.items()}

    def _read_clock(self) -> None:
        before = self._monotonic()
        seconds, microseconds = self._redis.run(_TIME, self._prefix)
        offset_s = int(seconds) + int(microseconds) / 1e6 - (before + self._monotonic()) / 2
        if abs(offset_s - self._offset_s) > _MAX_DELAY_S:
            self._offset_s = offset_s

    def _read_all(self, client: Client) -> dict[str, Fields]:
        keys: Iterable[bytes] = client.scan_iter(f"{_glob(self._prefix)}????-??", count=1000)
        names = sorted(key.decode().removeprefix(self._prefix) for key in keys)[-MAX_MONTHS:]
        return {
            name: {field.decode(): float(value) for field, value in client.hgetall(self._prefix + name).items()}
            for name in names
        }

    def _find_lost(self, found: Mapping[str, Fields]) -> dict[str, Fields]:
        """Return the months of which Redis has less than it had at the last reading, as they were."""
        stored = sorted({*self._known, *found})[-MAX_MONTHS:]  # an older one may have expired
        return {
            name: fields
            for name, fields in self._known.items()
            if name in stored
            and any(value > found.get(name, {}).get(field, 0.0) + 0.001 for field, value in fields.items())
        }


def _glob(text: str) -> str:
    """Return a pattern that matches a text itself."""
    return text.replace("[", "\\[")


def _month(name: str, fields: Fields) -> MonthlyUsage:
    clients = {
        client: ClientUsage(int(fields.get(f"images:{client}", 0)), value)
        for field, value in fields.items()
        if field.startswith("work_s:") and (client := field.removeprefix("work_s:"))
    }
    return MonthlyUsage(name, fields.get("boot_s", 0.0), fields.get("up_s", 0.0), clients)


def _describe(error: Exception) -> UsageStoreError:
    return UsageStoreError(f"Redis, which stores the GPU usage, cannot be used: {error}.")

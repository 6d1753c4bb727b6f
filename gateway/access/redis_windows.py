"""Moving windows in Redis: one list of times per key, newest first, with one entry per unit.

The lists are those of the package `limits`, so that counts survive an upgrade. Its scripts are not used, because they
count by the clock of each gateway: here Redis's own clock counts, which is the same for all. If it is set back, later
entries count as if they were made now, so that nobody waits longer than one window.
"""

from __future__ import annotations

from gateway.access.moving_windows import Clock, WindowUsage
from gateway.storage.redis import LuaScript, SharedRedis

KEY_PREFIX = "superres:rate-limit"

# Entries per command of a script; Lua's stack limits the number of arguments to 8,000.
_CHUNK = 5_000

# Begins each script. ARGV[1] is the time, or empty for Redis's own clock. A list is not rewritten for one second: the
# clocks of two masters may differ by so much.
_BEGIN = f"""
local key, now = KEYS[1], tonumber(ARGV[1])
if not now then
  local time = redis.call('time')
  now = tonumber(time[1]) + tonumber(time[2]) / 1e6
end
local stamp = string.format('%.6f', now)
local function push(amount)
  while amount > 0 do
    local times = {{}}
    for i = 1, math.min(amount, {_CHUNK}) do times[i] = stamp end
    redis.call('lpush', key, unpack(times))
    amount = amount - #times
  end
end
local function is_later(entry) return entry and tonumber(entry) > now + 1 end
if is_later(redis.call('lindex', key, 0)) then
  local later, expiry_ms = 0, redis.call('pttl', key)
  while is_later(redis.call('lindex', key, 0)) do
    redis.call('lpop', key)
    later = later + 1
  end
  push(later)
  if expiry_ms > 0 then redis.call('pexpire', key, expiry_ms) end
end
"""

_ACQUIRE = LuaScript(
    _BEGIN
    + """
local limit, expiry, amount = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if amount > limit then return false end
local blocking = redis.call('lindex', key, limit - amount)
if blocking and tonumber(blocking) >= now - expiry then return false end
push(amount)
redis.call('ltrim', key, 0, limit - 1)
redis.call('expire', key, expiry)
return stamp
"""
)

# Finds the oldest entry in the window by bisection. Returns the number of entries in it and the age of the oldest.
_USAGE = LuaScript(
    _BEGIN
    + """
local begin, low, high = now - tonumber(ARGV[2]), 0, redis.call('llen', key)
while low < high do
  local middle = math.floor((low + high) / 2)
  if tonumber(redis.call('lindex', key, middle)) >= begin then low = middle + 1 else high = middle end
end
if low == 0 then return {0, '0'} end
return {low, tostring(math.max(0, now - tonumber(redis.call('lindex', key, low - 1))))}
"""
)

_WAIT = LuaScript(
    _BEGIN
    + """
local limit, expiry, amount = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local blocking = redis.call('lindex', key, limit - amount)
if not blocking then return '0' end
return tostring(math.max(0, math.min(expiry, tonumber(blocking) + expiry - now)))
"""
)

_FIXED = LuaScript(
    """
local count = redis.call('incrby', KEYS[1], ARGV[1])
if count == tonumber(ARGV[1]) then redis.call('expire', KEYS[1], ARGV[2]) end
return count
"""
)


class RedisWindows:
    """Moving windows, and the fixed windows of `limits`, in Redis. Raises what `SharedRedis.call` raises."""

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        """`clock` replaces Redis's own clock in tests."""
        self._redis = SharedRedis(url)
        self._clock = clock

    def acquire(self, key: str, limit: int, expiry: int, amount: int) -> float | None:
        """Count an amount if it fits into the limit. Return the time at which it was counted, or None."""
        counted_at = self._redis.run(_ACQUIRE, _full(key), self._now(), limit, expiry, amount)
        return None if counted_at is None else float(counted_at)

    def refund(self, key: str, amount: int, counted_at: float) -> None:
        """Remove an amount that was counted at that time."""
        self._redis.call(lambda client: client.lrem(_full(key), amount, f"{counted_at:.6f}"))

    def usage(self, key: str, expiry: int) -> WindowUsage:
        """Return what is counted in the window."""
        used, oldest_s = self._redis.run(_USAGE, _full(key), self._now(), expiry)
        return WindowUsage(int(used), float(oldest_s))

    def wait_s(self, key: str, limit: int, expiry: int, amount: int) -> float:
        """Return the seconds until an amount fits, provided that nothing else is counted until then."""
        return float(self._redis.run(_WAIT, _full(key), self._now(), limit, expiry, amount))

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add an amount to a fixed window and return its count."""
        return int(self._redis.run(_FIXED, _full(key), amount, expiry))

    def get(self, key: str) -> int:
        """Return the count of a fixed window."""
        return int(self._redis.call(lambda client: client.get(_full(key))) or 0)

    def remaining_s(self, key: str) -> float:
        """Return the seconds until a fixed window ends."""
        return max(0.0, self._redis.call(lambda client: client.pttl(_full(key))) / 1000)

    def clear(self, key: str) -> None:
        """Drop everything that was counted under a key."""
        self._redis.call(lambda client: client.delete(_full(key)))

    def reset(self) -> int:
        """Drop all counts, and return the number of keys that had one."""
        return self._redis.call(
            lambda client: sum(client.delete(key) for key in client.scan_iter(f"{KEY_PREFIX}:*", count=1000))
        )

    def write_probe(self, key: str) -> None:
        """Write next to a key, to find out whether Redis accepts writes."""
        self._redis.write_probe(_full(key))

    def _now(self) -> str:
        return "" if self._clock is None else f"{self._clock():.6f}"


def _full(key: str) -> str:
    return f"{KEY_PREFIX}:{key}"

"""Shares the state of a backend elsewhere, and how long its boots take, between gateways: through Redis, each second.

A thread of its own sends what this gateway has seen and takes what the others have. No request waits for Redis. While
it is away, each gateway knows what it sees itself. Redis's own clock decides how old a report is.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict

from gateway.backend.peers import REPORT_EXPIRY_S, PeerReport
from gateway.backend.state import MAX_BOOTS, BackendStateTracker
from gateway.storage.redis import LuaScript, RedisCommandError, RedisUnavailableError, SharedRedis

INTERVAL_S = 1.0
# At most one line of log in this time says that Redis is away.
_LOG_INTERVAL_S = 60.0
# Boot times of a backend that nobody has used for so long are forgotten.
_EXPIRY_S = 90 * 86_400

_log = logging.getLogger(__name__)

# Stores a report (none if it is empty) and boot times; returns the time, all boot times, and the reports of the others.
# Arguments: the gateway, its report, new boot times, boot times in case there are none, and the time or "".
_EXCHANGE = LuaScript(
    f"""
local expiry, max_boots, key_expiry = {REPORT_EXPIRY_S}, {MAX_BOOTS}, {_EXPIRY_S}
"""
    """
local now = tonumber(ARGV[5])
if not now then
  local time = redis.call('time')
  now = time[1] + time[2] / 1000000
end
local stored, boots, reports = redis.call('hgetall', KEYS[1]), nil, {}
for i = 1, #stored, 2 do
  if stored[i] == 'boots' then
    boots = cjson.decode(stored[i + 1])
  else
    local report = cjson.decode(stored[i + 1])
    if stored[i] == ARGV[1] or math.abs(now - report.at) > expiry then
      redis.call('hdel', KEYS[1], stored[i])
    else
      reports[#reports + 1] = stored[i + 1]
    end
  end
end
if ARGV[2] ~= '' then
  local report = cjson.decode(ARGV[2])
  report.at = now
  redis.call('hset', KEYS[1], ARGV[1], cjson.encode(report))
end
local known = boots or cjson.decode(ARGV[4])
for _, boot in ipairs(cjson.decode(ARGV[3])) do known[#known + 1] = boot end
while #known > max_boots do table.remove(known, 1) end
local text = '[]'
if #known > 0 then
  text = cjson.encode(known)
  redis.call('hset', KEYS[1], 'boots', text)
end
redis.call('expire', KEYS[1], key_expiry)
return {string.format('%.6f', now), text, unpack(reports)}
"""
)


class StateSharing:
    """Exchanges the state of one backend with the gateways that use the same Redis and the same address."""

    def __init__(
        self,
        state_tracker: BackendStateTracker,
        redis_url: str,
        address: str,
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`clock` replaces Redis's own clock in tests."""
        self._state_tracker = state_tracker
        self._redis = SharedRedis(redis_url)
        self._key = f"superres:backend:{hashlib.sha256(address.encode()).hexdigest()[:16]}"
        self._gateway = secrets.token_hex(8)
        self._clock = clock
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._logged_at = float("-inf")

    def start(self) -> None:
        """Exchange now and each second, in a thread."""
        self._thread = threading.Thread(target=self._run, name="share-backend-state", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and take this gateway's report back."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * INTERVAL_S)
        self.exchange(is_leaving=True)

    def exchange(self, *, is_leaving: bool = False) -> bool:
        """Send and take reports and boot times once; return whether Redis could be used."""
        report, new_boots, known_boots = self._state_tracker.report()
        arguments = (
            "" if is_leaving else json.dumps(asdict(report)),
            json.dumps(new_boots),
            json.dumps(known_boots),
            "" if self._clock is None else str(self._clock()),
        )
        try:
            now, boots, *reports = self._redis.run(_EXCHANGE, self._key, self._gateway, *arguments)
        except (RedisUnavailableError, RedisCommandError) as error:
            if time.monotonic() - self._logged_at >= _LOG_INTERVAL_S:
                self._logged_at = time.monotonic()
                _log.warning("the state of the backend is not shared with other gateways: %s", error)
            return False
        peers = [_parse(text, float(now)) for text in reports]
        self._state_tracker.take_shared(peers, json.loads(boots), n_sent=len(new_boots))
        return True

    def _run(self) -> None:
        while True:
            self.exchange()
            if self._stopping.wait(INTERVAL_S):
                return


def _parse(text: bytes, now: float) -> PeerReport:
    """Return a report with its ages as they are now."""
    stored = json.loads(text)
    passed_s = max(0.0, now - stored["at"])
    response, boot = stored.get("response_age_s"), stored.get("boot_age_s")
    return PeerReport(
        calls=int(stored["calls"]),
        response_age_s=None if response is None else response + passed_s,
        boot_age_s=None if boot is None else boot + passed_s,
    )

"""Tracks the backend's state (asleep, booting, up, failed) and how long its boots take.

The state follows from requests and wake calls alone: a health check would wake a sleeping backend. The durations of the
last boots are stored in a file, so that the usual time of a boot is known after a restart too.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

StateName = Literal["asleep", "booting", "up", "failed"]

# Boots whose durations are stored.
MAX_BOOTS = 50
# State changes that are remembered. More of them between two readings of the usage meter, one second apart, would be
# missed.
MAX_STATES = 100
# Seconds after which a boot counts as failed. Boots take 3 to 15 s.
BOOT_LIMIT_S = 120.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BackendState:
    """The state at one moment."""

    name: StateName
    since_s: float
    """Seconds since the state was entered."""
    usual_boot_s: tuple[float, float] | None
    """Median and 90th percentile of past boots in seconds; None before the first."""

    def describe(self) -> dict[str, Any]:
        """Return the member `backend` of `GET /api/v1/status`."""
        return {"state": self.name, "since_s": round(self.since_s, 1), "usual_boot_s": self.describe_boot_times()}

    def describe_boot_times(self) -> dict[str, float] | None:
        """Return the usual duration of a boot as JSON, or None."""
        if self.usual_boot_s is None:
            return None
        return {"p50": round(self.usual_boot_s[0], 1), "p90": round(self.usual_boot_s[1], 1)}


class BackendStateTracker:
    """The state of one backend. Safe to use from several threads."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        assume_asleep_after_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start in the state asleep. `path` stores the durations of boots; None keeps them in memory.

        A remote backend falls asleep unseen. It counts as asleep `assume_asleep_after_s` after its last response; 0
        turns this off.
        """
        self._path = path
        self._assume_asleep_after_s = assume_asleep_after_s
        self._clock = clock
        self._lock = threading.Lock()
        self._name: StateName = "asleep"
        self._since = self._last_response = clock()
        self._entered: deque[tuple[StateName, float]] = deque([(self._name, self._since)], maxlen=MAX_STATES)
        self._waiting = 0  # requests that wait for a boot to end
        # Whether a request has waited during the whole boot. Only then is the duration of the boot known at its end.
        self._is_boot_observed = True
        # Whether a boot exceeded BOOT_LIMIT_S and every connection since then was refused.
        self._is_unreachable = False
        self._boots = deque(_read_boots(path), maxlen=MAX_BOOTS)

    def current(self) -> BackendState:
        """Return the current state."""
        with self._lock:
            self._apply_timeouts()
            return BackendState(self._name, self._clock() - self._since, _median_and_p90(list(self._boots)))

    def recent_states(self) -> list[tuple[StateName, float]]:
        """Return the last states with the seconds since each was entered, oldest first and ending with the current one.

        So a caller that polls also sees states that lasted less than its interval, such as a short boot.
        """
        with self._lock:
            self._apply_timeouts()
            now = self._clock()
            return [(name, now - since) for name, since in self._entered]

    def begin_boot(self) -> bool:
        """Enter the state booting. Returns false when the backend is already up or booting."""
        with self._lock:
            self._apply_timeouts()
            if self._name in ("up", "booting"):
                return False
            self._enter("booting")
            return True

    def mark_up(self) -> None:
        """Record a response of the backend, which ends a boot."""
        with self._lock:
            boots = None
            if self._name == "booting" and self._is_boot_observed:
                self._boots.append(self._clock() - self._since)
                boots = list(self._boots)
            if self._name != "up":
                self._enter("up")
            self._last_response = self._clock()
        if boots is not None:
            self._save(boots)

    def mark_asleep(self) -> None:
        """Record that the backend was put to sleep, or disappeared."""
        with self._lock:
            self._enter("asleep")

    def mark_refused(self) -> bool:
        """Record a refused connection, as while a server boots. Returns false once the boot counts as failed."""
        with self._lock:
            self._apply_timeouts()
            if self._name == "asleep":
                self._enter("booting")
            if self._name == "booting" and self._is_unreachable:
                self._enter_unreachable()
            return self._name != "failed"

    @contextmanager
    def waiting_for_boot(self) -> Iterator[None]:
        """Mark that a request waits for the boot. Its duration is recorded only if one waits until the end."""
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                self._is_boot_observed = self._is_boot_observed and self._waiting > 0

    def mark_failed(self) -> None:
        """Record that a boot failed."""
        with self._lock:
            self._enter("failed")

    def _enter(self, name: StateName, since: float | None = None) -> None:
        since = self._clock() if since is None else since
        if name != self._name:
            self._entered.append((name, since))
        self._name, self._since = name, since
        self._is_boot_observed = True
        self._is_unreachable = self._is_unreachable and name == "booting"

    def _enter_unreachable(self) -> None:
        self._enter("failed")
        self._is_unreachable = True

    def _apply_timeouts(self) -> None:
        now = self._clock()
        if self._name == "booting" and now - self._since > BOOT_LIMIT_S:
            self._enter_unreachable()
        idle_s = now - self._last_response
        if self._name == "up" and 0 < self._assume_asleep_after_s < idle_s:
            self._enter("asleep", self._last_response + self._assume_asleep_after_s)

    def _save(self, boots: list[float]) -> None:
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replacement = self._path.with_suffix(".new")
            replacement.write_text(json.dumps([round(boot, 2) for boot in boots]))
            replacement.replace(self._path)
        except OSError as error:
            _log.warning("cannot write the boot durations to %s: %s", self._path, error.strerror)


def _read_boots(path: Path | None) -> list[float]:
    try:
        read = json.loads(path.read_text()) if path else []
        return [float(boot) for boot in read if 0 < float(boot) <= BOOT_LIMIT_S]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        _log.warning("cannot read the boot durations in %s: %s", path, error)
        return []


def _median_and_p90(boots: list[float]) -> tuple[float, float] | None:
    """Return the median and the 90th percentile by nearest rank, so that each is a boot that happened."""
    if not boots:
        return None
    ordered = sorted(boots)
    return ordered[(len(ordered) - 1) // 2], ordered[-(-9 * len(ordered) // 10) - 1]

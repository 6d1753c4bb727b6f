"""The backend's four states: asleep, booting since when, up, failed; and how long its boots usually take.

Fed by real requests and wake calls alone: asking a sleeping backend how it is would wake it. The last boots are kept in
a file, so that the first visitor after a restart is told a usual time too.
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

MAX_BOOTS = 50
MAX_STATES = 100
"""So many changes may lie between two looks of the meter (once a second) before it misses the oldest."""
BOOT_LIMIT_S = 120.0
"""A boot takes 3 to 15 s; one that takes this long is taken for failed."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BackendState:
    """The state of a moment."""

    name: StateName
    since_s: float
    """How long it has been in it."""
    usual_boot_s: tuple[float, float] | None
    """Median and 90th percentile of past boots; None before the first."""

    def describe(self) -> dict[str, Any]:
        """Return it as `GET /api/v1/status` tells it."""
        return {"state": self.name, "since_s": round(self.since_s, 1), "usual_boot_s": self.describe_boot_times()}

    def describe_boot_times(self) -> dict[str, float] | None:
        """Return the usual time of a boot, or None."""
        if self.usual_boot_s is None:
            return None
        return {"p50": round(self.usual_boot_s[0], 1), "p90": round(self.usual_boot_s[1], 1)}


class BackendStateTracker:
    """What is known of one backend. Safe to use from several threads."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        assume_asleep_after_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin asleep. `path` keeps the boots; None keeps them in memory.

        `assume_asleep_after_s` is for a backend that falls asleep without telling: so long after its last answer it
        is taken for asleep (0: never).
        """
        self._path = path
        self._presumed_asleep_after_s = assume_asleep_after_s
        self._clock = clock
        self._lock = threading.Lock()
        self._name: StateName = "asleep"
        self._since = self._last_answer = clock()
        self._entered: deque[tuple[StateName, float]] = deque([(self._name, self._since)], maxlen=MAX_STATES)
        self._watchers = 0
        self._is_seen = True
        """Whether somebody has waited for the boot to end all the time: then its length is known when it has."""
        self._is_gone = False
        """Whether a boot had all its time, and nobody listened ever since."""
        self._boots = deque(_read_boots(path), maxlen=MAX_BOOTS)

    def current(self) -> BackendState:
        """Return the state of this moment."""
        with self._lock:
            self._let_time_pass()
            return BackendState(self._name, self._clock() - self._since, _usual(list(self._boots)))

    def recent_states(self) -> list[tuple[StateName, float]]:
        """Return the last states in turn, each with how many seconds ago it began; the last is this moment's.

        Who looks now and then sees what came and went in between: a boot may take less than a second.
        """
        with self._lock:
            self._let_time_pass()
            now = self._clock()
            return [(name, now - since) for name, since in self._entered]

    def begin_boot(self) -> bool:
        """Note that the backend was asked to boot; false when it is up or booting already."""
        with self._lock:
            self._let_time_pass()
            if self._name in ("up", "booting"):
                return False
            self._enter("booting")
            return True

    def mark_up(self) -> None:
        """Note a sign of life: a boot, if there was one, is over."""
        with self._lock:
            boots = None
            if self._name == "booting" and self._is_seen:
                self._boots.append(self._clock() - self._since)
                boots = list(self._boots)
            if self._name != "up":
                self._enter("up")
            self._last_answer = self._clock()
        if boots is not None:
            self._keep(boots)

    def mark_asleep(self) -> None:
        """Note that the backend was put to sleep, or is gone."""
        with self._lock:
            self._enter("asleep")

    def mark_refused(self) -> bool:
        """Note that nobody listens there, as while a server boots; false once a boot has had all its time: failed."""
        with self._lock:
            self._let_time_pass()
            if self._name == "asleep":
                self._enter("booting")
            if self._name == "booting" and self._is_gone:
                self._fail_for_long()
            return self._name != "failed"

    @contextmanager
    def waiting_for_boot(self) -> Iterator[None]:
        """Wait for a boot's end: when the last who did has left before it, nobody will know how long it took."""
        with self._lock:
            self._watchers += 1
        try:
            yield
        finally:
            with self._lock:
                self._watchers -= 1
                self._is_seen = self._is_seen and self._watchers > 0

    def mark_failed(self) -> None:
        """Note that a boot ended without a backend."""
        with self._lock:
            self._enter("failed")

    def _enter(self, name: StateName, since: float | None = None) -> None:
        since = self._clock() if since is None else since
        if name != self._name:
            self._entered.append((name, since))
        self._name, self._since = name, since
        self._is_seen = True
        self._is_gone = self._is_gone and name == "booting"

    def _fail_for_long(self) -> None:
        self._enter("failed")
        self._is_gone = True

    def _let_time_pass(self) -> None:
        now = self._clock()
        if self._name == "booting" and now - self._since > BOOT_LIMIT_S:
            self._fail_for_long()
        idle_s = now - self._last_answer
        if self._name == "up" and 0 < self._presumed_asleep_after_s < idle_s:
            self._enter("asleep", self._last_answer + self._presumed_asleep_after_s)

    def _keep(self, boots: list[float]) -> None:
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replacement = self._path.with_suffix(".new")
            replacement.write_text(json.dumps([round(boot, 2) for boot in boots]))
            replacement.replace(self._path)
        except OSError as error:
            _log.warning("the boots cannot be kept in %s: %s", self._path, error.strerror)


def _read_boots(path: Path | None) -> list[float]:
    try:
        read = json.loads(path.read_text()) if path else []
        return [float(boot) for boot in read if 0 < float(boot) <= BOOT_LIMIT_S]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        _log.warning("the boots in %s cannot be read: %s", path, error)
        return []


def _usual(boots: list[float]) -> tuple[float, float] | None:
    """Median and 90th percentile, each a boot that was: the nearest rank."""
    if not boots:
        return None
    ordered = sorted(boots)
    return ordered[(len(ordered) - 1) // 2], ordered[-(-9 * len(ordered) // 10) - 1]

"""Tracks the backend's state (asleep, booting, up, failed) and how long its boots take.

The state follows from requests and wake calls alone, of this gateway and of those that share the backend: a health
check would wake a sleeping backend. The durations of the last boots are stored in a file, and in Redis if there is one
(`gateway.backend.state_sharing`), so that the usual time of a cold start is known after a restart too.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gateway.backend.peers import PeerReport, Peers

StateName = Literal["asleep", "booting", "up", "failed"]

# Boots whose durations are stored.
MAX_BOOTS = 50
# State changes that are remembered. More of them between two readings of the usage meter, one second apart, would be
# missed.
MAX_STATES = 100
# Seconds after which a boot counts as failed. Boots take 3 to 15 s, and minutes where a machine has to be added first.
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
    reason: str = ""
    """A sentence for users on why the backend failed or is being replaced; empty if there is none."""

    def describe(self) -> dict[str, Any]:
        """Return the member `backend` of `GET /api/v1/status`."""
        return {
            "state": self.name,
            "since_s": round(self.since_s, 1),
            "usual_boot_s": self.describe_boot_times(),
            "reason": self.reason or None,
        }

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
        hang_after_s: float = 0.0,
        boot_limit_s: float = BOOT_LIMIT_S,
        min_boot_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start in the state asleep. `path` stores the durations of boots; None keeps them in memory.

        A remote backend falls asleep unseen. It counts as asleep `assume_asleep_after_s` after its last response; 0
        turns this off. `hang_after_s` is how long calls may go without a result before it counts as hung; 0 turns
        this off. `boot_limit_s` is how long a boot may take; a wait of less than `min_boot_s` counts as none.
        """
        self.boot_limit_s = boot_limit_s
        self._min_boot_s = min_boot_s
        self._path = path
        self._hang_after_s = hang_after_s
        self._assume_asleep_after_s = assume_asleep_after_s
        self._clock = clock
        self._lock = threading.Lock()
        self._name: StateName = "asleep"
        self._since = self._last_response = self._last_call_end = clock()
        self._entered: deque[tuple[StateName, float]] = deque([(self._name, self._since)], maxlen=MAX_STATES)
        self._waiting = 0  # requests that wait for a boot to end
        self._calls = 0  # that are open
        # Whether a request has waited during the whole boot. Only then is the duration of the boot known at its end.
        self._is_boot_observed = True
        # Whether a boot exceeded its limit and every connection since then was refused.
        self._is_unreachable = False
        self._reason = ""
        # When the first of the calls since the last result began that all ended without one; None if there is none.
        self._silent_since: float | None = None
        self._boots = deque(_read_boots(path, min_boot_s, boot_limit_s), maxlen=MAX_BOOTS)
        self._unshared_boots: deque[float] = deque(maxlen=MAX_BOOTS)
        self._peers = Peers()
        self._has_responded = False
        # When this gateway saw last that the backend is down. What others have seen before does not count then.
        self._down_at = float("-inf")

    def current(self) -> BackendState:
        """Return the current state."""
        with self._lock:
            self._apply_timeouts()
            usual_boot_s = _median_and_p90(list(self._boots))
            now = self._clock()
            name, since = self._name, self._since
            if name == "asleep" and (boot_began_at := self._peers.boot_began_at(now)) is not None:
                name, since = "booting", boot_began_at
            return BackendState(name, now - since, usual_boot_s, self._reason)

    def recent_states(self) -> list[tuple[StateName, float]]:
        """Return the last states with the seconds since each was entered, oldest first and ending with the current one.

        So a caller that polls also sees states that lasted less than its interval, such as a short boot.
        """
        with self._lock:
            self._apply_timeouts()
            now = self._clock()
            return [(name, now - since) for name, since in self._entered]

    def report(self) -> tuple[PeerReport, list[float], list[float]]:
        """Return what this gateway has seen, the boots that it has not shared yet, and the others that it knows."""
        with self._lock:
            self._apply_timeouts()
            now = self._clock()
            report = PeerReport(
                calls=self._calls,
                response_age_s=now - self._last_response if self._has_responded else None,
                boot_age_s=now - self._since if self._name == "booting" else None,
            )
            shared = list(self._boots)[: len(self._boots) - len(self._unshared_boots)]
            return report, list(self._unshared_boots), shared

    def take_shared(self, reports: Iterable[PeerReport], boots: Sequence[float], *, n_sent: int) -> None:
        """Take what the other gateways have seen, and the boots of all, which include the first `n_sent` unshared."""
        with self._lock:
            self._peers.take(reports, self._clock())
            for _ in range(min(n_sent, len(self._unshared_boots))):
                self._unshared_boots.popleft()
            self._boots = deque([*boots, *self._unshared_boots], maxlen=MAX_BOOTS)
            self._apply_timeouts()

    def begin_boot(self) -> bool:
        """Enter the state booting. Returns false when the backend is already up or booting."""
        with self._lock:
            self._apply_timeouts()
            if self._name in ("up", "booting"):
                return False
            if (boot_began_at := self._peers.boot_began_at(self._clock())) is not None:
                self._enter("booting", max(boot_began_at, self._since))
                self._is_boot_observed = False  # the gateway that began it records it
            else:
                self._enter("booting")
            return True

    def mark_ready(self) -> None:
        """Record that the backend reports that it is ready. After a hang only a result proves that it works."""
        with self._lock:
            has_hung = bool(self._reason)
        if not has_hung:
            self.mark_up()

    def mark_up(self) -> None:
        """Record a response of the backend, which ends a boot."""
        with self._lock:
            self._silent_since, self._reason = None, ""
            boots = None
            boot_s = self._clock() - self._since
            if self._name == "booting" and self._is_boot_observed and boot_s >= self._min_boot_s:
                self._boots.append(boot_s)
                self._unshared_boots.append(boot_s)
                boots = list(self._boots)
            if self._name != "up":
                self._enter("up")
            self._last_response, self._has_responded = self._clock(), True
        if boots is not None:
            self._save(boots)

    def mark_asleep(self) -> None:
        """Record that the backend was put to sleep, or disappeared."""
        with self._lock:
            self._silent_since, self._reason = None, ""
            self._enter("asleep")
            self._down_at = self._since

    def mark_silent(self, waited_s: float) -> None:
        """Record a call that ended at its deadline, `waited_s` after it was sent, without any part of a result.

        Such calls for `hang_after_s`, with no result between them, mean that the backend has failed.
        """
        with self._lock:
            if self._silent_since is None:
                self._silent_since = max(self._clock() - waited_s, self._last_response)
            silent_s = self._clock() - self._silent_since
            if 0 < self._hang_after_s <= silent_s:
                self._reason = f"The backend has not responded to any image for {silent_s:.0f} s."
                self._enter("failed")
                self._down_at = self._since

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
    def calling(self) -> Iterator[None]:
        """Mark that a call is open. Meanwhile the backend does not count as asleep, however long it is silent."""
        with self._lock:
            self._apply_timeouts()
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                self._last_call_end = self._clock()

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

    def mark_failed(self, reason: str = "") -> None:
        """Record that a boot failed, or that the backend hung. The reason, for users, is kept during the next boot."""
        with self._lock:
            self._reason = reason
            self._enter("failed")
            self._down_at = self._since

    def _enter(self, name: StateName, since: float | None = None) -> None:
        since = self._clock() if since is None else since
        if name != self._name:
            self._entered.append((name, since))
        self._name, self._since = name, since
        self._is_boot_observed = True
        self._is_unreachable = self._is_unreachable and name == "booting"

    def _enter_unreachable(self, since: float | None = None) -> None:
        self._enter("failed", since)
        self._is_unreachable, self._down_at = True, self._since

    def _apply_timeouts(self) -> None:
        now, limit_s = self._clock(), self._assume_asleep_after_s
        if self._name == "booting" and now - self._since > self.boot_limit_s:
            # At the time of the limit, not now: this process may have been stopped since (SIGSTOP).
            self._enter_unreachable(self._since + self.boot_limit_s)
        seen_up_at = self._peers.last_response if self._peers.last_response > self._down_at else float("-inf")
        idle_since = max(self._last_response, self._last_call_end, seen_up_at)
        peers_have_calls = self._peers.have_calls(now)
        if self._name != "up" and seen_up_at > float("-inf"):
            if peers_have_calls or limit_s <= 0 or now - seen_up_at <= limit_s:
                self._silent_since, self._reason = None, ""
                self._enter("up", max(seen_up_at, self._since))
        elif self._name == "up" and not self._calls and not peers_have_calls and 0 < limit_s < now - idle_since:
            self._enter("asleep", idle_since + limit_s)

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


def _read_boots(path: Path | None, min_s: float, limit_s: float) -> list[float]:
    try:
        read = json.loads(path.read_text()) if path else []
        return [float(boot) for boot in read if float(boot) > 0 and min_s <= float(boot) <= limit_s]
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

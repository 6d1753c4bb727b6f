"""What the gateways that share a backend have seen of it, so that each knows more of its state than its own calls say.

A gateway reports only what it has seen itself. Else two idle gateways would keep each other's state up without end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Seconds after which the report of a gateway counts no more; it sends one each second.
REPORT_EXPIRY_S = 10.0


@dataclass(frozen=True)
class PeerReport:
    """What one gateway has seen. Ages are in seconds at the moment of the report."""

    calls: int
    """Calls that are open."""
    response_age_s: float | None
    """Since its last response; None before the first."""
    boot_age_s: float | None
    """Since the boot that it waits for began; None if it waits for none."""


class Peers:
    """The last reports of the other gateways. Not safe for several threads: its owner has a lock."""

    def __init__(self) -> None:
        self._received_at = float("-inf")
        self._calls = 0
        self._boot_began_at: float | None = None
        self.last_response = float("-inf")
        """When any of them had its last response, by the clock of this gateway."""

    def take(self, reports: Iterable[PeerReport], now: float) -> None:
        """Replace the reports by those that arrived now."""
        reports = list(reports)
        self._received_at = now
        self._calls = sum(report.calls for report in reports)
        boots = [report.boot_age_s for report in reports if report.boot_age_s is not None]
        self._boot_began_at = now - max(boots) if boots else None
        responses = [report.response_age_s for report in reports if report.response_age_s is not None]
        if responses:
            self.last_response = max(self.last_response, now - min(responses))

    def have_calls(self, now: float) -> bool:
        """Return whether any of them has a call open."""
        return self._calls > 0 and self._is_recent(now)

    def boot_began_at(self, now: float) -> float | None:
        """Return when the boot began that any of them waits for; None if none does."""
        return self._boot_began_at if self._is_recent(now) else None

    def _is_recent(self, now: float) -> bool:
        return now - self._received_at <= REPORT_EXPIRY_S

"""Estimates how long a job will take: its wait in the queue, the boot of the backend, and the work."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.backend.interface import Backend
from gateway.jobs.job_pace import JobPace
from gateway.jobs.options import UpscaleRequest


@dataclass(frozen=True)
class Estimate:
    """Estimated seconds of each phase. None for a phase that was never measured."""

    queue_s: float
    boot_s: float | None
    work_s: float | None

    @property
    def total_s(self) -> float | None:
        """Seconds of all phases; None if one of them is not known."""
        return None if self.boot_s is None or self.work_s is None else self.queue_s + self.boot_s + self.work_s


def estimate_job(request: UpscaleRequest, queue_s: float, backend: Backend, pace: JobPace) -> Estimate:
    """Return the estimate for a job that will wait `queue_s` in the queue. Contacts nobody."""
    state = backend.state_tracker.current()
    boot_s: float | None = 0.0
    if state.name != "up":
        usual_s = state.usual_boot_s[0] if state.usual_boot_s else None
        elapsed_s = state.since_s if state.name == "booting" else 0.0
        boot_s = None if usual_s is None else max(0.0, usual_s - elapsed_s)
    return Estimate(queue_s, boot_s, pace.estimate_s(request.options.variant.name, request.pixels))

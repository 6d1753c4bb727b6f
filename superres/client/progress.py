"""What is known of an upscale while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Phase = Literal["uploading", "queued", "booting", "working", "downloading", "waiting"]
"""`waiting`: for the next attempt, after an error."""


@dataclass(frozen=True)
class UpscaleProgress:
    """One step of an upscale. `str` gives a short text for people."""

    phase: Phase
    done: int = 0
    """Bands of the result that are finished, or bytes of it that were downloaded."""
    total: int = 0
    """All of these bands or bytes; 0 while they are not known."""
    ahead: int = 0
    """While it is queued: images that run or wait ahead of it."""
    backend: str = ""
    """State of the backend in the phase `booting`: "booting", "asleep" or "failed"."""
    elapsed_s: float | None = None
    """Seconds since the boot began."""
    usual_s: float | None = None
    """Median of past boots in seconds."""
    left_s: float | None = None
    """Estimated seconds left."""
    reason: str = ""
    """In the phase `waiting`: the error that the next attempt follows."""
    pause_s: float = 0.0
    """In the phase `waiting`: seconds until the next attempt."""

    @property
    def share(self) -> float | None:
        """Finished part of this phase, 0 to 1; None while it is not known."""
        return min(1.0, self.done / self.total) if self.total else None

    def __str__(self) -> str:
        percent = f" {100 * self.share:.0f} %" if self.share is not None else ""
        if self.phase == "queued":
            return f"in the queue, {self.ahead} {'image' if self.ahead == 1 else 'images'} ahead"
        if self.phase == "booting":
            since = f" for {self.elapsed_s:.0f} s" if self.elapsed_s is not None else ""
            usually = f" (usually {self.usual_s:.0f} s)" if self.usual_s is not None else ""
            return f"the backend is {self.backend}{since}{usually}"
        if self.phase == "waiting":
            return f"{self.reason} Trying again in {self.pause_s:.0f} s."
        return self.phase + percent


OnProgress = Callable[[UpscaleProgress], object]
"""Called with each step. The asynchronous client awaits what it returns, if that is awaitable."""


def progress_from_event(name: str, members: Mapping[str, Any]) -> UpscaleProgress | None:
    """Return what an event (docs/reference/events.md) says; None if it says nothing of the progress."""
    if name == "progress":
        done, bands = members.get("bands_done"), members.get("bands")
        if isinstance(done, int) and isinstance(bands, int):
            return UpscaleProgress("working", done, bands, left_s=_seconds(members.get("left_s")))
    elif name == "queue":
        ahead = members.get("ahead")
        if isinstance(ahead, int) and members.get("position"):
            return UpscaleProgress("queued", ahead=ahead)
    elif name == "state":
        return _progress_from_backend(members)
    return None


def progress_from_job(members: Mapping[str, Any]) -> UpscaleProgress | None:
    """Return what the status of an asynchronous job says; None once the job has ended."""
    if members.get("state") == "queued":
        return progress_from_event("queue", members.get("queue") or {}) or UpscaleProgress("queued")
    if members.get("state") != "running":
        return None
    backend = members.get("backend")
    if not members.get("bands_done") and isinstance(backend, Mapping) and backend.get("state") != "up":
        since, usual = backend.get("since_s"), backend.get("usual_boot_s")
        return _progress_from_backend({"state": backend.get("state"), "elapsed_s": since, "usual_s": usual})
    return progress_from_event("progress", members)


def _progress_from_backend(members: Mapping[str, Any]) -> UpscaleProgress:
    state = str(members.get("state"))[:40]
    if state == "up":
        return UpscaleProgress("working")
    usual = members.get("usual_s")
    return UpscaleProgress(
        "booting",
        backend=state,
        elapsed_s=_seconds(members.get("elapsed_s")),
        usual_s=_seconds(usual.get("p50")) if isinstance(usual, Mapping) else None,
    )


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None

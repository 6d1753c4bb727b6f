"""A job: one upscale request being served. Its interface, progress and result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from gateway.backend.interface import Band
from gateway.cancellation import CancelToken
from gateway.jobs.options import UpscaleRequest
from gateway.jobs.queue import QueuePosition
from swinir.checks import OutputChecks


@dataclass(frozen=True)
class Result:
    """An upscaled image."""

    data: bytes = field(repr=False)
    media_type: str
    filename: str
    width: int
    height: int
    notes: tuple[str, ...]
    """Sentences for the user: what was changed, dropped or invented."""
    seconds: float
    """Time from the request to the encoded image, including the wait in the queue."""
    checks: OutputChecks | None = None
    """Checks of the output; None if the backend does not report them."""
    cache: Literal["hit", "miss"] = "miss"
    """A hit was computed for an earlier request with the same content."""


@dataclass(frozen=True)
class Progress:
    """One more band is done."""

    bands_done: int
    bands: int
    elapsed_s: float
    """Seconds since the request."""
    left_s: float
    """Estimated seconds left, from the pace of the bands so far; the backend's boot is not counted."""
    band: Band
    width: int
    """Width of the whole output, in pixels."""
    height: int
    """Height of the whole output, in pixels."""


OnProgress: TypeAlias = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """Do nothing."""


class Job(Protocol):
    """One upscale: in the queue, running, or answered from the cache."""

    @property
    def request(self) -> UpscaleRequest:
        """The image and the options."""
        ...

    @property
    def request_id(self) -> str:
        """Id of the HTTP request, for log lines."""
        ...

    @property
    def cancel_token(self) -> CancelToken:
        """Cancels the job from another thread."""
        ...

    @property
    def position(self) -> QueuePosition:
        """Position in the queue."""
        ...

    def run(self, on_progress: OnProgress = ignore_progress) -> Result:
        """Return the result, calling `on_progress` after each band; raise a Problem or CancelledError."""
        ...

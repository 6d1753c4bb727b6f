"""A job: one upscale request being served. Its interface, progress and result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from gateway.backend.interface import Band
from gateway.cancellation import CancelToken
from gateway.jobs.options import UpscaleRequest
from gateway.jobs.phases import PhaseTimer
from gateway.jobs.queue import QueuePosition
from gateway.jobs.strength import ChosenStrength
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
    """Whether the result came from the cache. A "hit" was computed for an earlier request with the same content."""
    strength: ChosenStrength | None = None
    """The strength that was chosen for the image; None if the request names one or the variant takes none."""


@dataclass(frozen=True)
class Progress:
    """One more band is done."""

    bands_done: int
    bands: int
    elapsed_s: float
    """Seconds since the request."""
    left_s: float
    """Estimated seconds left, from the pace of the bands so far; the backend's boot is not counted."""
    band: Band | None
    """The rows that were finished; None for a band of the alpha, which is enlarged ahead of the colours."""
    width: int
    """Width of the whole output, in pixels."""
    height: int
    """Height of the whole output, in pixels."""
    icc_profile: bytes | None = None
    """The profile that describes the band in a JPEG: for greyscale or RGB, as its header says."""


OnProgress: TypeAlias = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """Do nothing."""


class Job(Protocol):
    """One upscale: in the queue, running, or served from the cache."""

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

    @property
    def bands_done(self) -> int:
        """Number of bands that the backend has sent; 0 for a cached result."""
        ...

    @property
    def gpu_s(self) -> float:
        """Seconds that the network has worked; 0 for a cached result."""
        ...

    counts_image: bool
    """Whether `run` charges the finished image. An asynchronous job charges it once its end is stored."""

    @property
    def phases(self) -> PhaseTimer:
        """The time that the job spends in each phase; a cached one has no phases."""
        ...

    def run(self, on_progress: OnProgress = ignore_progress) -> Result:
        """Return the result, calling `on_progress` after each band; raise a Problem or CancelledError."""
        ...

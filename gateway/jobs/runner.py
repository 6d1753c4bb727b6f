"""The job runner: decodes an upload, sends it to the backend and encodes the result, while holding a queue slot.

One deadline starts with the request; it covers the wait in the queue, the backend's boot and its work. The result is
encoded band by band as bands arrive, and a caller may watch the progress. A backend fault is retried once if enough
time is left.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from gateway import problems
from gateway.backend.interface import (
    Backend,
    BackendError,
    BackendFaultError,
    BackendMisconfiguredError,
    BackendNotStartedError,
    Band,
)
from gateway.cancellation import CancelledError, CancelToken
from gateway.error_mapping import problem_from_backend_error, problem_from_image_error
from gateway.jobs.choice import choose_variant
from gateway.jobs.job import OnProgress, Progress, Result, ignore_progress
from gateway.jobs.nearest import BAND_ROWS, repeat_bands
from gateway.jobs.options import UpscaleOptions, UpscaleRequest
from gateway.jobs.queue import (
    ClientQueueFullError,
    JobQueue,
    QueueFullError,
    QueuePosition,
    QueueSlot,
    QueueTimeoutError,
)
from preprocessing.codec import BandEncoder, Image, decode, describe_losses
from preprocessing.errors import ImageError
from preprocessing.mixing import FULL_STRENGTH_PERCENT, mix
from swinir.auto import NEAREST
from swinir.checks import Rows, mix_rows, summarise
from swinir.credits import CHROMA_NOTE
from swinir.image_grid import tile_grid

_log = logging.getLogger(__name__)

Charge = Callable[[str, float, int], object]
"""Takes (client name, seconds that the network worked, finished images)."""
CacheResult = Callable[[UpscaleRequest, Result], object]

# Retry-After while the gateway shuts down: usually another instance starts at once.
_RESTART_RETRY_S = 10.0

ANONYMOUS = "(anonymous)"
"""Name under which the usage of clients without an API key is counted."""


class JobRunner:
    """Runs jobs, at most as many at once as the queue allows. Safe to use from several threads."""

    def __init__(
        self,
        backend: Backend,
        queue: JobQueue,
        *,
        deadline_s: float,
        clock: Callable[[], float] = time.monotonic,
        charge: Charge = lambda *_: None,
        cache_result: CacheResult = lambda *_: None,
    ) -> None:
        self.backend = backend
        self.charge = charge
        self.cache_result = cache_result
        self.deadline_s = deadline_s
        self.clock = clock
        self.is_shutting_down = False
        self._queue = queue
        self._lock = threading.Lock()
        self._jobs: set[QueuedJob] = set()

    def submit(
        self, request: UpscaleRequest, request_id: str, client_name: str = ANONYMOUS, client_id: str = ""
    ) -> QueuedJob:
        """Put a job into the queue; raise QueueFull or TooManyAtOnce if it has no slot.

        Usage is charged to `client_name`; the queue is fair across `client_id`s. The caller must `run` the job.
        """
        try:
            job = QueuedJob(
                self, request, request_id, client_name, self._queue.acquire(client_id, request.working_bytes)
            )
        except ClientQueueFullError as error:
            raise problems.retry_later(
                problems.TooManyAtOnce,
                f"You already have {count_images(error.waiting)} in the queue, the maximum per client. "
                f"Try again in {problems.describe_wait(error.retry_after_s)}.",
                error.retry_after_s,
            ) from error
        except QueueFullError as error:
            raise queue_full(error.waiting, error.retry_after_s) from error
        with self._lock:
            self._jobs.add(job)
            is_shutting_down = self.is_shutting_down
        if is_shutting_down:
            job.cancel_token.cancel()
        return job

    def shut_down(self) -> None:
        """Cancel all jobs, including later ones. Their clients get a 503 that says the gateway is restarting."""
        with self._lock:
            self.is_shutting_down = True
            jobs = list(self._jobs)
        for job in jobs:
            job.cancel_token.cancel()

    def release(self, job: QueuedJob) -> None:
        """Release the slot of a job. Called by the job."""
        with self._lock:
            self._jobs.discard(job)
        job.slot.release()

    def run(self, request: UpscaleRequest, request_id: str) -> Result:
        """Submit a job and run it; raise a Problem if it fails or misses the deadline."""
        return self.submit(request, request_id).run()


class QueuedJob:
    """A `gateway.jobs.job.Job` that waits for a queue slot and then runs on the backend."""

    def __init__(
        self, runner: JobRunner, request: UpscaleRequest, request_id: str, client_name: str, slot: QueueSlot
    ) -> None:
        self.request = request
        self.request_id = request_id
        self.cancel_token = CancelToken()
        self.slot = slot
        self._client_name = client_name
        self._runner = runner
        self._backend = runner.backend
        self._clock = runner.clock
        self._started_at = runner.clock()
        self._deadline = self._started_at + runner.deadline_s

    @property
    def position(self) -> QueuePosition:
        """Position in the queue."""
        return self.slot.position

    def run(self, on_progress: OnProgress = ignore_progress) -> Result:
        """Return the result, calling `on_progress` after each band; raise a Problem or CancelledError."""
        try:
            self.slot.wait(self._deadline - self._clock(), self.cancel_token)
            image = decode(self.request.upload)  # fully transparent pixels get the colour of their neighbours
            self.request = choose_variant(self.request, image)
            data, rows = self._upscale(image, on_progress)
            self.slot.has_finished = True
        except QueueTimeoutError as error:
            raise problems.DeadlineExceeded(
                f"The image waited in the queue for {self._runner.deadline_s:g} seconds, the maximum. Try again later."
            ) from error
        except ImageError as error:
            raise problem_from_image_error(error) from error
        except CancelledError:
            if not self._runner.is_shutting_down:
                raise
            raise problems.retry_later(
                problems.BackendUnavailable,
                "The gateway is restarting. You were not charged for this image. "
                f"Try again in {_RESTART_RETRY_S:.0f} seconds.",
                _RESTART_RETRY_S,
            ) from None
        finally:
            self._runner.release(self)
        options = self.request.options
        variant = options.variant
        chroma_note = CHROMA_NOTE if variant.channels == 1 and not image.is_grey else ""
        losses = describe_losses(image, options.format)
        notes = (*image.notes, *losses, chroma_note, _strength_note(options), variant.notice)
        result = Result(
            data=data,
            media_type=f"image/{options.format}",
            filename=self.request.filename,
            width=image.width * variant.scale,
            height=image.height * variant.scale,
            notes=tuple(note for note in notes if note),
            seconds=self._clock() - self._started_at,
            checks=summarise(np.concatenate(rows)) if rows else None,
        )
        self._runner.charge(self._client_name, 0.0, 1)
        self._runner.cache_result(self.request, result)
        return result

    def _upscale(self, image: Image, on_progress: OnProgress) -> tuple[bytes, list[Rows]]:
        """Call the backend, and once more after a fault: equal pixels give an equal result, so a retry is safe."""
        started_at = self._clock()
        try:
            try:
                return self._upscale_once(image, on_progress)
            except BackendFaultError as error:
                if self._deadline - self._clock() < self._clock() - started_at:
                    raise  # a retry that takes as long would miss the deadline
                _log.warning("%s: retrying after a backend fault: %s", self.request_id, error)
                return self._upscale_once(image, on_progress)
        except BackendError as error:
            is_ours = isinstance(error, BackendFaultError | BackendMisconfiguredError | BackendNotStartedError)
            level = logging.ERROR if is_ours else logging.WARNING
            _log.log(level, "%s: %s: %s", self.request_id, type(error).__name__, error)
            raise problem_from_backend_error(
                error,
                deadline_s=self._runner.deadline_s,
                usual_boot_s=self._backend.state_tracker.current().usual_boot_s,
                variant=self.request.options.variant.name,
            ) from error

    def _upscale_once(self, image: Image, on_progress: OnProgress) -> tuple[bytes, list[Rows]]:
        """Return the encoded result and its rows of checks; each band is encoded before the next one is read."""
        options = self.request.options
        variant = options.variant
        repeats_pixels = variant is NEAREST
        encoder = BandEncoder(image, variant.scale, options.format, options.quality, is_exact=repeats_pixels)
        count = _count_bands(self.request)
        rows: list[Rows] = []
        started_at = self._clock()
        if repeats_pixels:
            bands = repeat_bands(image.pixels, variant.scale, self.cancel_token)
        else:
            bands = self._backend.upscale_bands(
                image.pixels,
                variant.name,
                deadline=self._deadline,
                request_id=self.request_id,
                cancel_token=self.cancel_token,
            )
        for done, restored in enumerate(bands, 1):
            self._runner.charge(self._client_name, restored.work_s, 0)  # also if the job is cancelled later
            try:
                band = _mix(restored, image, options)
                encoder.add(band.pixels)
            except ValueError as error:
                raise BackendFaultError(f"the bands do not add up to the image: {error}") from error
            if band.checks is not None:
                rows.append(band.checks)
            now, bottom = self._clock(), band.top + len(band.pixels)
            if done == 1:  # only now is it known when the boot ended, if there was one
                started_at = max(started_at, now - self._backend_up_s())
            left_s = (now - started_at) * (encoder.height - bottom) / bottom
            on_progress(
                Progress(
                    bands_done=done,
                    bands=max(done, count),
                    elapsed_s=now - self._started_at,
                    left_s=left_s,
                    band=band,
                    width=encoder.width,
                    height=encoder.height,
                )
            )
        try:
            return encoder.finish(), rows
        except ValueError as error:
            raise BackendFaultError(f"the bands do not add up to the image: {error}") from error

    def _backend_up_s(self) -> float:
        """Return how long the backend has been up; infinity if it does not report that it is."""
        state = self._backend.state_tracker.current()
        return state.since_s if state.name == "up" else math.inf


def queue_full(waiting: int, retry_after_s: float) -> problems.Problem:
    """Return the problem of a full queue."""
    return problems.retry_later(
        problems.QueueFull,
        f"The queue is full ({count_images(waiting)} waiting). Try again in {problems.describe_wait(retry_after_s)}.",
        retry_after_s,
    )


def count_images(count: int) -> str:
    """Return "1 image", "2 images", ..."""
    return "1 image" if count == 1 else f"{count} images"


def _mix(band: Band, image: Image, options: UpscaleOptions) -> Band:
    """Return a band mixed with the upload by the strength. Raises ValueError if it does not fit the upload.

    Mixed here and not in Triton: the input is at hand, and the models' contract needs no further tensor.
    """
    if options.strength_percent == FULL_STRENGTH_PERCENT:
        return band
    original = image.pixels[band.top : band.top + len(band.pixels)]
    checks = None if band.checks is None else mix_rows(band.checks, options.strength)
    return replace(band, pixels=mix(original, band.pixels, options.strength_percent), checks=checks)


def _strength_note(options: UpscaleOptions) -> str:
    if (percent := options.strength_percent) == FULL_STRENGTH_PERCENT:
        return ""
    return f"Strength {options.strength:g}: the result is a mix of {percent} % restored and {100 - percent} % original."


def _count_bands(request: UpscaleRequest) -> int:
    """Return how many bands the backend will send: it chooses the same grid."""
    variant, upload = request.options.variant, request.upload
    if variant is NEAREST:
        return -(-upload.height // BAND_ROWS)
    return tile_grid(variant, upload.height, upload.width).rows

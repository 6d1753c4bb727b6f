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
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from gateway import problems
from gateway.backend.interface import (
    Backend,
    BackendError,
    BackendFaultError,
    BackendHungError,
    BackendMisconfiguredError,
    BackendNotStartedError,
    BackendTimeoutError,
)
from gateway.cancellation import CancelledError, CancelToken
from gateway.error_mapping import problem_from_backend_error, problem_from_image_error
from gateway.jobs.alpha_pass import AlphaPass
from gateway.jobs.bands import count_bands, make_bands, mix_band
from gateway.jobs.choice import choose_strength, choose_variant
from gateway.jobs.job import OnProgress, Progress, Result, ignore_progress
from gateway.jobs.job_codec import decode_upload, make_encoder
from gateway.jobs.job_pace import JobPace
from gateway.jobs.options import UpscaleRequest
from gateway.jobs.phases import Phase, PhaseTimer
from gateway.jobs.queue import (
    ClientQueueFullError,
    JobQueue,
    QueueFullError,
    QueuePosition,
    QueueSlot,
    QueueTimeoutError,
)
from gateway.jobs.refusals import count_images, gateway_restarting, queue_full
from gateway.jobs.result_notes import describe_result
from gateway.tracing.spans import passed_on
from preprocessing.codec import Image, profile_for
from preprocessing.errors import ImageError
from swinir.auto import NEAREST
from swinir.checks import Rows, summarise

_log = logging.getLogger(__name__)

Charge = Callable[[str, float, int], object]
"""Takes (client name, seconds that the network worked, finished images)."""
CacheResult = Callable[[UpscaleRequest, Result], object]
ObservePhases = Callable[[str, Mapping[Phase, float]], object]
"""Takes (name of the variant, seconds of each phase) of a job that ended, with a result or without."""

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
        observe_phases: ObservePhases = lambda *_: None,
    ) -> None:
        self.backend = backend
        self.charge = charge
        self.cache_result = cache_result
        self.observe_phases = observe_phases
        self.deadline_s = deadline_s
        self.clock = clock
        self.pace = JobPace()
        self.is_shutting_down = False
        self._queue = queue
        self._lock = threading.Lock()
        self._jobs: set[QueuedJob] = set()

    def submit(
        self,
        request: UpscaleRequest,
        request_id: str,
        client_name: str = ANONYMOUS,
        client_id: str = "",
        traceparent: str = "",
    ) -> QueuedJob:
        """Put a job into the queue; raise QueueFull or TooManyAtOnce if it has no slot.

        Usage is charged to `client_name`; the queue is fair across `client_id`s. `traceparent` is the trace that
        Triton's spans become part of. The caller must `run` the job.
        """
        try:
            slot = self._queue.acquire(client_id, request.working_bytes, is_small=request.is_small)
            job = QueuedJob(self, request, request_id, client_name, slot, traceparent)
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
        self,
        runner: JobRunner,
        request: UpscaleRequest,
        request_id: str,
        client_name: str,
        slot: QueueSlot,
        traceparent: str,
    ) -> None:
        self.request = request
        self.request_id = request_id
        self.cancel_token = CancelToken()
        self.slot = slot
        self._client_name = client_name
        self._traceparent = traceparent
        self._runner = runner
        self._backend = runner.backend
        self._clock = runner.clock
        self._started_at = runner.clock()
        self._deadline = self._started_at + runner.deadline_s
        self.phases = PhaseTimer(runner.clock, runner.backend.state_tracker.recent_states)
        self.gpu_s = 0.0
        self.counts_image = True
        self._bands = (0, 0)  # finished, all; of the last call of the backend

    @property
    def position(self) -> QueuePosition:
        """Position in the queue."""
        return self.slot.position

    @property
    def bands_done(self) -> int:
        """Number of bands that the last call of the backend has sent."""
        return self._bands[0]

    def run(self, on_progress: OnProgress = ignore_progress) -> Result:
        """Return the result, calling `on_progress` after each band; raise a Problem or CancelledError."""
        try:
            self.slot.wait(self._deadline - self._clock(), self.cancel_token)
            self.phases.enter("decode")
            image = decode_upload(self.request)
            self.request = choose_strength(choose_variant(self.request, image), image)
            alpha = AlphaPass(image, self.request.options.variant)
            with passed_on(self._traceparent):
                data, rows = self._upscale(image, alpha, on_progress)
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
            raise gateway_restarting("You were not charged for this image.") from None
        finally:
            self.phases.end()
            self._runner.release(self)
            self._runner.observe_phases(self.request.options.variant_name, self.phases.seconds())
        result = Result(
            data=data,
            media_type=f"image/{self.request.options.format}",
            filename=self.request.filename,
            width=self.request.width,
            height=self.request.height,
            notes=describe_result(image, self.request),
            seconds=self._clock() - self._started_at,
            checks=summarise(np.concatenate(rows)) if rows else None,
            strength=self.request.options.chosen_strength,
        )
        self._runner.pace.observe(self.request.options.variant.name, self.request.pixels, self.phases.seconds())
        if self.counts_image:
            self._runner.charge(self._client_name, 0.0, 1)
        self._runner.cache_result(self.request, result)
        return result

    def _upscale(self, image: Image, alpha: AlphaPass, on_progress: OnProgress) -> tuple[bytes, list[Rows]]:
        """Call the backend, and once more after a fault: equal pixels give an equal result, so a retry is safe."""
        started_at = self._clock()
        try:
            try:
                return self._upscale_once(image, alpha, on_progress)
            except BackendHungError as hang:  # the time until now says nothing about how long a retry takes
                if not hang.is_replaced:
                    raise
                _log.warning("%s: sending the image again: %s", self.request_id, hang)
                try:
                    return self._upscale_once(image, alpha, on_progress)
                except BackendTimeoutError as error:
                    raise hang from error
            except BackendFaultError as error:
                if self._deadline - self._clock() < self._clock() - started_at:
                    raise  # a retry that takes as long would miss the deadline
                _log.warning("%s: retrying after a backend fault: %s", self.request_id, error)
                return self._upscale_once(image, alpha, on_progress)
        except BackendError as error:
            is_ours = isinstance(error, BackendFaultError | BackendMisconfiguredError | BackendNotStartedError)
            level = logging.ERROR if is_ours else logging.WARNING
            _log.log(level, "%s: %s: %s", self.request_id, type(error).__name__, error)
            raise problem_from_backend_error(
                error,
                deadline_s=self._runner.deadline_s,
                usual_boot_s=self._backend.state_tracker.current().usual_boot_s,
                variant=self.request.options.variant.name,
                bands=self._bands,
            ) from error

    def _upscale_once(self, image: Image, alpha: AlphaPass, on_progress: OnProgress) -> tuple[bytes, list[Rows]]:
        """Return the encoded result and its rows of checks; each band is encoded before the next one is read."""
        options = self.request.options
        variant = options.variant
        repeats_pixels = variant is NEAREST
        encoder = make_encoder(self.request, image, alpha)
        preview_profile = profile_for(image, "jpeg")
        count = count_bands(self.request, alpha)
        self._bands = (0, count)
        rows: list[Rows] = []
        bottom = 0  # of the finished rows in the result
        started_at = self._clock()
        self.phases.enter("work", waits_for_backend=not repeats_pixels)
        pixels_done, pixels = 0, image.width * image.height * variant.scale**2 + alpha.pending_pixels
        bands = make_bands(
            self._backend,
            image,
            alpha,
            options,
            deadline=self._deadline,
            request_id=self.request_id,
            cancel_token=self.cancel_token,
        )
        for done, (restored, mask) in enumerate(bands, 1):
            self._bands = (done, max(done, count))
            self.phases.note_band()
            self.phases.enter("encode")
            self.gpu_s += restored.work_s
            self._runner.charge(self._client_name, restored.work_s, 0)  # also if the job is cancelled later
            try:
                if mask is not None:
                    mask.add(restored.pixels)
                    band = None
                else:
                    band = mix_band(restored, image, options)
                    band = replace(band, top=bottom, pixels=encoder.add(band.pixels))
                    bottom += len(band.pixels)
            except ValueError as error:
                raise BackendFaultError(f"the bands do not add up to the image: {error}") from error
            if band is not None and band.checks is not None:
                rows.append(band.checks)
            now, pixels_done = self._clock(), pixels_done + restored.pixels.size // 3
            if done == 1:  # only now is it known when the boot ended, if there was one
                started_at = max(started_at, now - self._backend_up_s())
            left_s = (now - started_at) * (pixels - pixels_done) / pixels_done
            on_progress(
                Progress(
                    bands_done=done,
                    bands=max(done, count),
                    elapsed_s=now - self._started_at,
                    left_s=left_s,
                    band=band,
                    width=encoder.width,
                    height=encoder.height,
                    icc_profile=preview_profile,
                )
            )
            self.phases.enter("work", waits_for_backend=not repeats_pixels)
        self.phases.enter("encode")
        try:
            return encoder.finish(), rows
        except ValueError as error:
            raise BackendFaultError(f"the bands do not add up to the image: {error}") from error

    def _backend_up_s(self) -> float:
        """Return how long the backend has been up; infinity if it does not report that it is."""
        state = self._backend.state_tracker.current()
        return state.since_s if state.name == "up" else math.inf

"""Upscaling: an order becomes a result. decode -> backend -> alpha -> encode, all of it while holding a place.

The one deadline begins here and covers the wait for a place, the backend's boot and its work. A picture is encoded as
its bands come, and whoever waits may watch them come.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gateway import error_mapping as causes
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
from gateway.jobs.options import UpscaleRequest
from gateway.jobs.queue import ClientQueueFullError, JobQueue, QueueFullError, QueueSlot, QueueTimeoutError
from preprocessing.codec import BandEncoder, Image, decode, describe_losses
from preprocessing.errors import ImageError
from preprocessing.tiling import choose_grid
from swinir.checks import OutputChecks, Rows, summarise
from swinir.zoo import CHROMA_NOTE

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """A picture made."""

    data: bytes = field(repr=False)
    media_type: str
    filename: str
    width: int
    height: int
    notes: tuple[str, ...]
    """What was changed, dropped or invented, as sentences for the person who asked."""
    seconds: float
    """From the order to the encoded picture, the wait for a place included."""
    checks: OutputChecks | None = None
    """What was checked of it; None where the backend does not say."""
    cache: Literal["hit", "miss"] = "miss"
    """A hit was made for an earlier order of the same content."""


@dataclass(frozen=True)
class Progress:
    """A band more is done."""

    bands_done: int
    bands: int
    elapsed_s: float
    """Since the order."""
    left_s: float
    """At the pace of the bands so far, the backend's boot not counted."""
    band: Band
    width: int
    """Of the whole output, as `height` is."""
    height: int


Watch = Callable[[Progress], None]
Charge = Callable[[str, float, int], object]
"""Takes (client, seconds that the network worked, pictures that are finished)."""
Keep = Callable[[UpscaleRequest, Result], object]
"""Takes what was made, for whoever may ask for it again."""
RESTART_RETRY_S = 10.0
"""When to come again while the gateway ends: whoever ended it starts another, as a rule."""
ANONYMOUS = "(anonymous)"
"""Whoever has no key, as a client. A key of that name would be counted with them."""


class JobRunner:
    """Makes results, as many at once as there are places. Safe to use from several threads."""

    def __init__(
        self,
        upscaler: Backend,
        places: JobQueue,
        *,
        deadline_s: float,
        clock: Callable[[], float] = time.monotonic,
        charge: Charge = lambda *_: None,
        keep: Keep = lambda *_: None,
    ) -> None:
        self.upscaler = upscaler
        self.charge = charge
        self.keep = keep
        self.deadline_s = deadline_s
        self.clock = clock
        self.is_ending = False
        self._places = places
        self._lock = threading.Lock()
        self._works: set[Job] = set()

    def begin(self, order: UpscaleRequest, request_id: str, client: str = ANONYMOUS, visitor: str = "") -> Job:
        """Take a place or one in the queue; raise QueueFull or TooManyAtOnce when there is none.

        `client` is who is charged, `visitor` is whose turn it is. Whoever begins must `run`.
        """
        try:
            work = Job(self, order, request_id, client, self._places.enter(visitor, order.working_bytes))
        except ClientQueueFullError as error:
            raise problems.retry_later(
                problems.TooManyAtOnce,
                f"You have {error.waiting} in the queue, as many as one may have there. Send more when they are done.",
                error.retry_after_s,
            ) from error
        except QueueFullError as error:
            raise problems.retry_later(
                problems.QueueFull,
                f"Every place is taken and {error.waiting} pictures are waiting, as many as may. Try again later.",
                error.retry_after_s,
            ) from error
        with self._lock:
            self._works.add(work)
            is_ending = self.is_ending
        if is_ending:
            work.cancel_token.cancel()
        return work

    def end(self) -> None:
        """Stop every work, those to come too; whoever waits for one is told that the gateway ends."""
        with self._lock:
            self.is_ending = True
            works = list(self._works)
        for work in works:
            work.cancel_token.cancel()

    def leave(self, work: Job) -> None:
        """Give up the place of a work, or its wait for one; called by the work."""
        with self._lock:
            self._works.discard(work)
        work.ticket.leave()

    def run(self, order: UpscaleRequest, request_id: str) -> Result:
        """Make the picture; raise a Problem when that cannot be done before the deadline."""
        return self.begin(order, request_id).run()


class Job:
    """One order on its way. Setting `stop` ends it from another thread, wherever it is."""

    def __init__(
        self, upscaling: JobRunner, order: UpscaleRequest, request_id: str, client: str, ticket: QueueSlot
    ) -> None:
        self.order = order
        self.cancel_token = CancelToken()
        self.ticket = ticket
        self.request_id = request_id
        self._client = client
        self._upscaling = upscaling
        self._upscaler = upscaling.upscaler
        self._charge = upscaling.charge
        self._keep = upscaling.keep
        self._clock = upscaling.clock
        self._deadline_s = upscaling.deadline_s
        self._began = upscaling.clock()
        self._deadline = self._began + upscaling.deadline_s

    def run(self, watch: Watch = lambda _: None) -> Result:
        """Make the picture, telling `watch` of each band; raise a Problem, or Stopped when nobody waits for it."""
        try:
            self.ticket.wait(self._deadline - self._clock(), self.cancel_token)
            image = decode(self.order.upload)  # colour comes bled under alpha 0
            data, rows = self._ask(image, watch)
            self.ticket.has_finished = True
        except QueueTimeoutError as error:
            raise problems.DeadlineExceeded(
                f"No place became free within {self._deadline_s:g} seconds. Try again later."
            ) from error
        except ImageError as error:
            raise causes.problem_from_image_error(error) from error
        except CancelledError:
            if not self._upscaling.is_ending:
                raise
            raise problems.retry_later(
                problems.BackendUnavailable,
                "The gateway is being restarted. This picture costs you nothing. Send it again in a moment.",
                RESTART_RETRY_S,
            ) from None
        finally:
            self._upscaling.leave(self)
        choices = self.order.choices
        variant = choices.variant
        kept = CHROMA_NOTE if variant.channels == 1 and not image.is_grey else ""
        notes = (*image.notes, *describe_losses(image, choices.format), kept, variant.notice)
        result = Result(
            data=data,
            media_type=f"image/{choices.format}",
            filename=self.order.filename,
            width=image.width * variant.scale,
            height=image.height * variant.scale,
            notes=tuple(note for note in notes if note),
            seconds=self._clock() - self._began,
            checks=summarise(np.concatenate(rows)) if rows else None,
        )
        self._charge(self._client, 0.0, 1)
        self._keep(self.order, result)
        return result

    def _ask(self, image: Image, watch: Watch) -> tuple[bytes, list[Rows]]:
        """Ask the backend, and once more after a fault: the same pixels give the same picture, so that is safe."""
        began = self._clock()
        try:
            try:
                return self._ask_once(image, watch)
            except BackendFaultError as error:
                if self._deadline - self._clock() < self._clock() - began:
                    raise  # a second try of the same length would not fit
                _log.warning("%s: asking the backend again after a fault: %s", self.request_id, error)
                return self._ask_once(image, watch)
        except BackendError as error:
            is_ours = isinstance(error, BackendFaultError | BackendMisconfiguredError | BackendNotStartedError)
            level = logging.ERROR if is_ours else logging.WARNING
            _log.log(level, "%s: %s: %s", self.request_id, type(error).__name__, error)
            usual_boot_s = self._upscaler.state_tracker.current().usual_boot_s
            raise causes.problem_from_backend_error(
                error, deadline_s=self._deadline_s, usual_boot_s=usual_boot_s
            ) from error

    def _ask_once(self, image: Image, watch: Watch) -> tuple[bytes, list[Rows]]:
        """Return the file and the rows of checks, encoding each band before the next one is taken."""
        choices = self.order.choices
        variant = choices.variant
        encoder = BandEncoder(image, variant.scale, choices.format, choices.quality)
        count = _count_bands(self.order)
        rows: list[Rows] = []
        began = self._clock()
        bands = self._upscaler.upscale_bands(
            image.pixels,
            variant.name,
            deadline=self._deadline,
            request_id=self.request_id,
            cancel_token=self.cancel_token,
        )
        for done, band in enumerate(bands, 1):
            self._charge(self._client, band.work_s, 0)  # also of a picture that nobody waits for to its end
            try:
                encoder.add(band.pixels)
            except ValueError as error:
                raise BackendFaultError(f"the bands do not make the picture: {error}") from error
            if band.checks is not None:
                rows.append(band.checks)
            now, bottom = self._clock(), band.top + len(band.pixels)
            if done == 1:  # only now is it known when the boot was over, if there was one
                began = max(began, now - self._up_for_s())
            left_s = (now - began) * (encoder.height - bottom) / bottom
            watch(Progress(done, max(done, count), now - self._began, left_s, band, encoder.width, encoder.height))
        try:
            return encoder.finish(), rows
        except ValueError as error:
            raise BackendFaultError(f"the bands do not make the picture: {error}") from error

    def _up_for_s(self) -> float:
        """Return how long the backend has been up; infinitely long where it does not say."""
        state = self._upscaler.state_tracker.current()
        return state.since_s if state.name == "up" else math.inf


def _count_bands(order: UpscaleRequest) -> int:
    """Return how many bands the backend will make: it chooses the same grid."""
    variant, upload = order.choices.variant, order.upload
    grid = choose_grid(
        upload.height, upload.width, window=variant.window, halo=variant.halo, max_tile_px=variant.max_tile_px
    )
    return grid.rows

"""Upscaling: an order becomes a result. decode -> backend -> alpha -> encode, all of it while holding a place.

The one deadline begins here and covers the wait for a place, the backend's boot and its work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway import problems
from gateway.orders import Order
from gateway.places import NoPlace, Places, WaitedTooLong
from gateway.upscaler import BackendError, BackendFault, BackendMisconfigured, Upscaler
from preprocessing.alpha import scale_alpha
from preprocessing.codec import Image, Pixels, decode, describe_losses, encode
from preprocessing.errors import ImageError

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


class Upscaling:
    """Makes results, as many at once as there are places. Safe to use from several threads."""

    def __init__(
        self, upscaler: Upscaler, places: Places, *, deadline_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._upscaler = upscaler
        self._places = places
        self._deadline_s = deadline_s
        self._clock = clock

    def run(self, order: Order, request_id: str) -> Result:
        """Make the picture; raise a Problem when that cannot be done before the deadline."""
        began = self._clock()
        deadline = began + self._deadline_s
        try:
            with self._places.take(deadline):
                made, data = self._make(order, deadline, request_id)
        except NoPlace as error:
            raise problems.retry_later(
                problems.QueueFull,
                f"Every place is taken and {error.waiting} pictures are waiting, as many as may. Try again later.",
                error.retry_after_s,
            ) from error
        except WaitedTooLong as error:
            raise problems.DeadlineExceeded(
                f"No place became free within {self._deadline_s:g} seconds. Try again later."
            ) from error
        except ImageError as error:
            raise problems.of_image_error(error) from error
        notice = order.choices.variant.notice
        return Result(
            data=data,
            media_type=f"image/{order.choices.format}",
            filename=order.filename,
            width=made.width,
            height=made.height,
            notes=(*made.notes, notice) if notice else made.notes,
            seconds=self._clock() - began,
        )

    def _make(self, order: Order, deadline: float, request_id: str) -> tuple[Image, bytes]:
        """Return the picture and its file; only here are pixels in memory."""
        choices = order.choices
        image = decode(order.upload)  # colour comes bled under alpha 0
        pixels = self._ask(image.pixels, order, deadline, request_id)
        made = Image(
            pixels=pixels,
            alpha=None if image.alpha is None else scale_alpha(image.alpha, choices.variant.scale),
            is_grey=image.is_grey,
            icc_profile=image.icc_profile,
            notes=(*image.notes, *describe_losses(image, choices.format)),
        )
        return made, encode(made, choices.format, choices.quality)

    def _ask(self, pixels: Pixels, order: Order, deadline: float, request_id: str) -> Pixels:
        """Ask the backend, and once more after a fault: the same pixels give the same picture, so that is safe."""
        began = self._clock()
        try:
            try:
                return self._ask_once(pixels, order, deadline, request_id)
            except BackendFault as error:
                if deadline - self._clock() < self._clock() - began:
                    raise  # a second try of the same length would not fit
                _log.warning("%s: asking the backend again after a fault: %s", request_id, error)
                return self._ask_once(pixels, order, deadline, request_id)
        except BackendError as error:
            level = logging.ERROR if isinstance(error, BackendFault | BackendMisconfigured) else logging.WARNING
            _log.log(level, "%s: %s: %s", request_id, type(error).__name__, error)
            raise problems.of_backend_error(error) from error

    def _ask_once(self, pixels: Pixels, order: Order, deadline: float, request_id: str) -> Pixels:
        variant = order.choices.variant
        upscaled = self._upscaler.upscale(pixels, variant.name, deadline=deadline, request_id=request_id)
        height, width = (side * variant.scale for side in pixels.shape[:2])
        if upscaled.shape != (height, width, 3):
            raise BackendFault(f"the answer has shape {list(upscaled.shape)}, not [{height}, {width}, 3]")
        return upscaled

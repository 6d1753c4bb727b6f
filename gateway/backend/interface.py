"""What the gateway needs of whatever upscales, and every way in which that may fail.

The one seam to the outside world: `triton_client` fulfils it over Triton's gRPC, `testing/backend.py` without it.

BackendError             anything that kept an answer from coming
  BackendUnavailable     nobody answers there: asleep, booting, stopping, replaced; worth asking again later
  BackendNotStarted      it was asked to boot and did not: for the operator, but worth asking again later
  BackendTimeout         the deadline passed before the answer came
    BackendStillBooting  because it had not even booted
  BackendRefused         it found the request itself wrong, and says why in words fit for the person who asked
  BackendMisconfigured   our side is set up wrongly (a wrong MODEL_KEY, a missing model): for the operator alone
  BackendFault           it failed at a request that seems sound (an answer of the wrong shape)
    BackendDied          it or a part of it died at work; another one is booting
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from gateway.backend.state import BackendStateTracker
from gateway.cancellation import CancelToken
from preprocessing.image import Pixels
from swinir.checks import Rows


class BackendError(Exception):
    """No answer came; the text is for the log."""


class BackendUnavailableError(BackendError):
    """Nobody answers; asking again later may help."""


class BackendNotStartedError(BackendError):
    """Its boot failed; the text is for the operator."""


class BackendTimeoutError(BackendError):
    """The deadline passed first."""


class BackendStillBootingError(BackendTimeoutError):
    """The deadline passed before the boot was over; nothing was asked of it yet."""


class BackendRejectedError(BackendError):
    """The request was found wrong; the text is fit for the person who asked."""


class BackendMisconfiguredError(BackendError):
    """The gateway and its backend do not fit together; the text is for the operator."""


class BackendFaultError(BackendError):
    """A sound request failed."""


class BackendDiedError(BackendFaultError):
    """It died at work, and is being replaced."""


@dataclass(frozen=True, eq=False)
class Band:
    """Rows of the output that are final."""

    top: int
    """First row of the output."""
    pixels: Pixels = field(repr=False)
    """uint8 [h, W * scale, 3]."""
    checks: Rows | None = field(default=None, repr=False)
    """float32 [n, 6], a row a tile (`swinir.checks`); None where it was not checked."""
    work_s: float = 0.0
    """What the network took for it; the meter counts it."""


class Backend(Protocol):
    """A backend, seen from the gateway. Safe to call from several threads."""

    @property
    def state_tracker(self) -> BackendStateTracker:
        """What is known of it."""
        ...

    def upscale_bands(
        self, pixels: Pixels, variant: str, *, deadline: float, request_id: str, cancel_token: CancelToken
    ) -> Iterator[Band]:
        """Yield the bands of [H * scale, W * scale, 3] for [H, W, 3] uint8, top to bottom, none missing.

        `deadline` is a moment of `time.monotonic` and covers the boot of a backend that sleeps. Raises a BackendError,
        or CancelledError soon after `cancel_token` is cancelled.
        """
        ...

    def wake(self) -> None:
        """Begin to boot if it sleeps; returns at once."""
        ...

    def close(self) -> None:
        """Let go of every connection and process; called once, after the last request."""
        ...

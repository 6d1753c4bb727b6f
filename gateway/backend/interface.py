"""The interface between the gateway and a backend, and every way in which a call can fail.

`triton_client` implements it with Triton's gRPC API, `testing.backend` with a fake for tests.

BackendError                  the call returned no result
  BackendUnavailableError     nothing listens: asleep, booting, stopping or being replaced; a later call may succeed
    BackendUnreachableError   no connection could be made
  BackendNotStartedError      it failed to boot; a later call starts another boot
  BackendTimeoutError         the deadline passed first
    BackendStillBootingError  and the backend had not even booted
  BackendRejectedError        it found the request invalid; the message may be shown to the client
  BackendMisconfiguredError   a wrong MODEL_KEY or a missing model; the message is for the operator
    BackendVariantMissingError  it has no weights for the variant: they were deleted, or never fetched
  BackendFaultError           it failed on a valid request, or its response is invalid
    BackendDiedError          it died while it worked, and another one is booting
      BackendHungError        it made no progress while it worked, and was ended
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
    """The call returned no result. The message is for the log."""


class BackendUnavailableError(BackendError):
    """Nothing listens at the address, or the connection broke. A later call may succeed."""


class BackendUnreachableError(BackendUnavailableError):
    """No connection to the address could be made."""


class BackendNotStartedError(BackendError):
    """The backend failed to boot. The message is for the operator."""


class BackendTimeoutError(BackendError):
    """The deadline passed before the result was complete."""


class BackendStillBootingError(BackendTimeoutError):
    """The deadline passed while the backend was booting. The request was never sent."""


class BackendRejectedError(BackendError):
    """The backend found the request invalid. The message may be shown to the client."""


class BackendMisconfiguredError(BackendError):
    """The gateway and the backend do not fit together. The message is for the operator."""


class BackendVariantMissingError(BackendMisconfiguredError):
    """The backend has no weights for the variant, although the gateway offers it."""


class BackendFaultError(BackendError):
    """The backend failed on a valid request, or returned an invalid response."""


class BackendDiedError(BackendFaultError):
    """The backend died while it worked, and is being replaced."""


class BackendHungError(BackendDiedError):
    """The backend made no progress for `seconds`. `is_replaced` is false when replacing it has not helped before."""

    def __init__(self, seconds: float, *, is_replaced: bool = True) -> None:
        super().__init__(f"the backend made no progress for {seconds:.0f} s")
        self.seconds = seconds
        self.is_replaced = is_replaced


@dataclass(frozen=True, eq=False)
class Band:
    """Finished rows of the output."""

    top: int
    """Index of the band's first row in the output."""
    pixels: Pixels = field(repr=False)
    """[h, W * scale, 3] of the type of the image, uint8 or uint16."""
    checks: Rows | None = field(default=None, repr=False)
    """float32 [n, 6], one row per tile (`swinir.checks`); None when the tiles were not checked."""
    work_s: float = 0.0
    """Compute seconds of the network for these rows; the usage meter counts them."""


class Backend(Protocol):
    """A backend as the gateway calls it. Safe to use from several threads."""

    @property
    def state_tracker(self) -> BackendStateTracker:
        """The last known state, and how long boots take."""
        ...

    def upscale_bands(
        self, pixels: Pixels, variant: str, *, deadline: float, request_id: str, cancel_token: CancelToken
    ) -> Iterator[Band]:
        """Yield all bands of the output [H * scale, W * scale, 3] for an image [H, W, 3], from top to bottom.

        The image is uint8 or uint16, and its bands have the same type.

        `deadline` is a time of `time.monotonic` and includes the boot of a sleeping backend. Raises a BackendError, or
        CancelledError soon after `cancel_token` is cancelled.
        """
        ...

    def wake(self) -> None:
        """Start to boot when the backend is asleep. Returns at once."""
        ...

    def close(self) -> None:
        """Close every connection and end every process. Called once, after the last request."""
        ...

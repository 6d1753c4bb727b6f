"""What the gateway needs of whatever upscales, and every way in which that may fail.

The one seam to the outside world: `gateway.backend` fulfils it over Triton's gRPC, `tests/fakes.py` without it.

BackendError             anything that kept an answer from coming
  BackendUnavailable     nobody answers there: asleep, booting, stopping, replaced; worth asking again later
  BackendTimeout         the deadline passed before the answer came
  BackendRefused         it found the request itself wrong, and says why in words fit for the person who asked
  BackendMisconfigured   our side is set up wrongly (a wrong MODEL_KEY, a missing model): for the operator alone
  BackendFault           it failed at a request that seems sound (a stub that died, an answer of the wrong shape)
"""

from __future__ import annotations

from typing import Protocol

from preprocessing.image import Pixels


class BackendError(Exception):
    """No answer came; the text is for the log."""


class BackendUnavailable(BackendError):
    """Nobody answers; asking again later may help."""


class BackendTimeout(BackendError):
    """The deadline passed first."""


class BackendRefused(BackendError):
    """The request was found wrong; the text is fit for the person who asked."""


class BackendMisconfigured(BackendError):
    """The gateway and its backend do not fit together; the text is for the operator."""


class BackendFault(BackendError):
    """A sound request failed."""


class Upscaler(Protocol):
    """A backend, seen from the gateway. Safe to call from several threads."""

    def upscale(self, pixels: Pixels, variant: str, *, deadline: float, request_id: str) -> Pixels:
        """Return [H * scale, W * scale, 3] uint8 for [H, W, 3] uint8; `deadline` is a moment of `time.monotonic`.

        Raises a BackendError.
        """
        ...

    def close(self) -> None:
        """Let go of every connection and process; called once, after the last request."""
        ...

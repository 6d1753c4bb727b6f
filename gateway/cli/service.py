"""What upscales the images of `superres upscale`: the backend of this machine, or a service elsewhere.

`local_service` and `remote_service` implement it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from gateway.cli.progress import ProgressReport
from gateway.config.settings import Settings
from gateway.jobs.options import UpscaleRequest


class ServiceError(Exception):
    """Nothing more can be upscaled: it cannot be reached, or refuses this client. The message is for the user."""


class UpscaleError(Exception):
    """One image was not upscaled; the message is for the user."""

    def __init__(self, message: str, *, is_service_fault: bool = False) -> None:
        """`is_service_fault` says that the image is not the cause."""
        super().__init__(message)
        self.is_service_fault = is_service_fault


@dataclass(frozen=True)
class Facts:
    """What is known of a result before its bytes are."""

    filename: str
    """Name of the result for the stem of the request."""
    variant: str
    width: int
    height: int
    seconds: float
    work_s: float | None
    """Seconds without the wait for a boot or in a queue; None if they are not known, as for a cached result."""
    notes: tuple[str, ...]
    """Sentences for the user: the choice of the variant, and what was changed, dropped or invented."""


class ResultWriter(Protocol):
    """Takes the bytes of one result."""

    def write(self, data: bytes, /) -> object:
        """Append bytes."""
        ...


Save = Callable[[Facts], AbstractContextManager[ResultWriter]]
"""Opens what takes the bytes of a result. Leaving the context with an error discards them."""


class UpscaleService(Protocol):
    """Upscales images."""

    @property
    def max_at_once(self) -> int:
        """Maximum number of threads that may call `upscale` at the same time, for small images."""
        ...

    @property
    def settings(self) -> Settings:
        """The limits that uploads and results must keep, and the variants that are offered."""
        ...

    @property
    def name(self) -> str:
        """Name of the place: "here" for this machine, otherwise the URL."""
        ...

    def upscale(self, request: UpscaleRequest, save: Save, report: ProgressReport) -> Facts:
        """Upscale an image and write it to what `save` opens. Raises UpscaleError, ServiceError or what `save` does."""
        ...

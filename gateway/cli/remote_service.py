"""Upscales on a service elsewhere, by `superres.client`. Shows its queue, its boot and its progress.

Needs httpx, which the extra `client` installs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self, cast

from gateway.cli.pace import describe_duration
from gateway.cli.progress import ProgressReport
from gateway.cli.service import Facts, ResultWriter, Save, ServiceError, UpscaleError
from gateway.cli.service_settings import ServiceSettings, read_service_settings
from gateway.jobs.filenames import fit_name
from gateway.jobs.options import UpscaleRequest
from superres.client import (
    Client,
    ClientError,
    ConnectionFailedError,
    ProblemError,
    ResultFacts,
    RetryLimits,
    UnexpectedResponseError,
    UpscaleParameters,
    UpscaleProgress,
)
from superres.client.retries import Cause, find_cause

# A monthly budget or a ban takes longer than the maximum wait: then the run ends. One client sends one image at a time,
# so that its pauses need no jitter.
_LIMITS = RetryLimits(attempts=6, fault_attempts=2, max_wait_s=900.0, max_waits_s=3_600.0, jitter=0.0)
_ONE_ATTEMPT = RetryLimits(attempts=1, fault_attempts=1, max_wait_s=0.0)
# Name of a result whose upload had no name: what follows "image" is the variant, the size and the format.
_RESULT_NAME = re.compile(r"image(_[A-Za-z0-9_.-]{1,120}\.[a-z0-9]{2,5})")
# Seconds between two changes of the countdown.
_STEP_S = 1.0


class RemoteService:
    """A running gateway. A context manager, like the service of this machine."""

    max_at_once = 1  # its queue is shared with other clients

    def __init__(
        self, url: str, key: str, parameters: Mapping[str, str], *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Asks for the limits and variants. Raises ServiceError if none responds.

        `parameters` are those of each request.
        """
        self._parameters = dict(parameters)
        self._sleep = sleep
        self._report: ProgressReport | None = None
        try:
            self._client = Client(url, key, retries=_LIMITS, sleep=self._pause)
        except ClientError as error:  # the address, or a proxy or certificates of the environment
            raise ServiceError(str(error)) from error
        self.name = str(self._client.url)
        try:
            self.settings = self._read_settings()
        except ServiceError:
            self._client.close()
            raise

    @property
    def is_private(self) -> bool:
        """Whether nobody between here and the service can read the key and the images."""
        return self._client.url.is_private

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the connections."""
        self._client.close()

    def upscale(self, request: UpscaleRequest, save: Save, report: ProgressReport) -> Facts:
        """Upscale an image and write it to what `save` opens. Raises UpscaleError or ServiceError."""
        parameters = cast("UpscaleParameters", {**self._parameters, "format": request.options.output.suffix[1:]})
        started_at, known = time.monotonic(), list[Facts]()
        self._report = report

        def open_sink(result: ResultFacts) -> AbstractContextManager[ResultWriter]:
            known.append(_describe(result, request, time.monotonic() - started_at))
            return save(known[-1])

        try:
            self._client.upscale_into(
                request.upload.data, open_sink, on_progress=lambda progress: _show(progress, report), **parameters
            )
        except ClientError as error:
            raise _translate(error) from error
        return known[-1]

    def _read_settings(self) -> ServiceSettings:
        try:
            with Client(self.name, retries=_ONE_ATTEMPT) as client:
                description = client.describe()
        except ConnectionFailedError as error:
            raise ServiceError(f"{self.name} cannot be reached. {error}") from error
        except ClientError as error:
            if isinstance(error, ProblemError) or find_cause(error) is not Cause.FINAL:
                raise ServiceError(f"{self.name} does not describe its variants. {error}") from error
            raise ServiceError(str(error)) from error
        return read_service_settings(description, self.name)

    def _pause(self, seconds: float) -> None:
        """Wait for the next attempt, with a countdown on the terminal."""
        while seconds > 0:
            if self._report:
                self._report.show(f"trying again in {describe_duration(seconds)}", force=True)
            step_s = min(_STEP_S, seconds)
            self._sleep(step_s)
            seconds -= step_s


def _translate(error: ClientError) -> ServiceError | UpscaleError:
    """Return the error of the command for one of the client, which made the attempts that it may."""
    cause = find_cause(error)
    if cause is Cause.BUSY:
        return ServiceError(f"{error} This command does not wait that long.")
    if cause is Cause.LOST:
        return ServiceError(f"{error} It was tried {_LIMITS.attempts} times.")
    if cause is Cause.FAULT:
        return UpscaleError(str(error), is_service_fault=True)
    if isinstance(error, ProblemError) and error.status in (401, 403):
        advice = " Check the key: `superres keys list` of the service shows its keys." if error.status == 401 else ""
        return ServiceError(f"The service refuses all images: {error}{advice}")
    if isinstance(error, ProblemError) or (isinstance(error, UnexpectedResponseError) and error.status == 413):
        return UpscaleError(str(error))
    return ServiceError(str(error))


def _describe(result: ResultFacts, request: UpscaleRequest, elapsed_s: float) -> Facts:
    """Return what is known of a result. Raises ServiceError for an invalid name."""
    name = _RESULT_NAME.fullmatch(result.filename)
    if not name:
        raise ServiceError(f"The service sent an invalid name of a result: {result.filename!r}.")
    return Facts(
        filename=fit_name(request.stem, name[1]),
        variant=result.variant,
        width=result.width,
        height=result.height,
        seconds=elapsed_s,
        work_s=None if result.is_cached else result.seconds,
        notes=tuple(note for note in (result.choice, *result.notes) if note),
    )


def _show(progress: UpscaleProgress, report: ProgressReport) -> None:
    """Show a step on the terminal."""
    if progress.phase == "waiting":
        report.say(f"  {progress.reason} Trying again in {describe_duration(progress.pause_s)}.")
    elif progress.phase == "working" and progress.total:
        report.show_bands(progress.done, progress.total)
    elif progress.phase == "working":
        report.begin_work()
    elif progress.phase == "booting":
        since = f" for {progress.elapsed_s:.0f} s" if progress.elapsed_s is not None else ""
        usually = f" (usually {describe_duration(progress.usual_s)})" if progress.usual_s is not None else ""
        report.show(f"the backend is {progress.backend}{since}{usually}", force=True)
    else:
        report.show(str(progress), force=progress.phase != "downloading")

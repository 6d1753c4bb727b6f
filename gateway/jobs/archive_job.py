"""Upscales several images of one request, one after the other, so that a request never holds more than one queue slot.

An image that fails does not stop the others: the report at the end of the archive has its problem.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from gateway.cancellation import CancelToken
from gateway.jobs.archive import MEDIA_TYPE, ArchiveWriter
from gateway.jobs.job import Job, OnProgress, Result, ignore_progress
from gateway.jobs.options import UpscaleOptions, UpscaleRequest
from gateway.jobs.phases import PhaseTimer
from gateway.jobs.queue import RUNNING, QueuePosition
from gateway.jobs.result_cache import cache_key
from gateway.jobs.result_facts import describe_facts
from gateway.jobs.upload_memory import Reservation, UploadMemoryFullError
from gateway.problems import Problem, QueueFull, ResultTooLarge, TooManyAtOnce

ARCHIVE_NAME = "upscaled.zip"

# Header and entry of one file in a ZIP, and its part of the report.
_OVERHEAD_BYTES = 8_192

# Seconds between two attempts to get a queue slot for the next image.
_SLOT_RETRY_S = 0.5


@dataclass(eq=False)
class ArchiveImage:
    """One image of a request."""

    stem: str
    request: UpscaleRequest | None
    """What to upscale; None if it was rejected, and once it has ended."""
    problem: dict[str, Any] | None = None
    """Why it was rejected, as an RFC 9457 object."""
    cached: Job | None = None
    """The job of a result that was in the cache."""
    on_problem: Callable[[Problem], object] = lambda _: None
    """Is called with the problem of an image that failed, to refund it."""


@dataclass(frozen=True)
class ArchiveMember:
    """What became of an image."""

    stem: str
    result: Result | None
    options: UpscaleOptions | None
    problem: dict[str, Any] | None


Submit: TypeAlias = Callable[[UpscaleRequest], Job]
"""Puts an image into the queue; raises a Problem if it has no slot."""


class ArchiveJob:
    """A `gateway.jobs.job.Job` of several images, whose result is a ZIP."""

    counts_image = False

    def __init__(
        self,
        images: Sequence[ArchiveImage],
        submit: Submit,
        *,
        request_id: str,
        describe_problem: Callable[[Problem], dict[str, Any]],
        is_shutting_down: Callable[[], bool],
        slot_limit_s: float,
        reserve: Callable[[int], Reservation] | None = None,
        max_bytes: int = 1 << 62,
    ) -> None:
        """`slot_limit_s` is the maximum of seconds to wait for a queue slot, `max_bytes` that of the whole archive.

        `reserve` takes memory for the results that `run` collects; it raises UploadMemoryFullError.
        """
        self.request_id = request_id
        self.cancel_token = CancelToken()
        self.phases = PhaseTimer(first=None)
        self._ended_gpu_s = 0.0
        self.count_misses = 0
        """Images that were computed, not found in the cache."""
        self.counts_images = True
        """Whether each image is charged as it ends. An asynchronous job charges them once its end is stored."""
        self._images = images
        self._submit = submit
        self._describe_problem = describe_problem
        self._is_shutting_down = is_shutting_down
        self._slot_limit_s = slot_limit_s
        self._reserve = reserve
        self._reservations: list[Reservation] = []
        self._max_bytes = max_bytes
        self.cache_keys: list[str] = []
        """Under which keys the result cache may have the results."""
        self.images_done = 0
        """Images that have ended, with a result or without."""
        self._current: Job | None = None
        self._first_problem: Problem | None = None
        self._first = next(image.request for image in images if image.request)

    @property
    def request(self) -> UpscaleRequest:
        """The image that is upscaled now, or the first one."""
        return self._current.request if self._current else self._first

    @property
    def position(self) -> QueuePosition:
        """Position of the current image in the queue."""
        return self._current.position if self._current else RUNNING

    @property
    def bands_done(self) -> int:
        """Bands of the current image that the backend has sent."""
        return self._current.bands_done if self._current else 0

    @property
    def count(self) -> int:
        """Number of images, rejected ones included."""
        return len(self._images)

    @property
    def gpu_s(self) -> float:
        """Seconds that the network has worked, for all images so far."""
        return self._ended_gpu_s + (self._current.gpu_s if self._current else 0.0)

    def members(self, on_progress: OnProgress = ignore_progress) -> Iterator[ArchiveMember]:
        """Yield what became of each image, in order; raise CancelledError, or a Problem if none succeeded.

        Nothing is yielded before the first success, so that a caller can still respond with a problem.
        """
        failed: list[ArchiveMember] = []
        has_succeeded = False
        for image in self._images:
            member = self._run(image, on_progress, waits=has_succeeded)
            if member.result is None and not has_succeeded:
                failed.append(member)
                continue
            yield from failed
            failed, has_succeeded = [], True
            yield member
        if not has_succeeded and self._first_problem:
            raise self._first_problem

    def run(self, on_progress: OnProgress = ignore_progress) -> Result:
        """Return the whole archive."""
        started_at = time.monotonic()
        writer, parts, members = ArchiveWriter(), list[bytes](), list[dict[str, Any]]()
        n_bytes, is_cached = 0, True
        for member in self.members(on_progress):
            name = None
            if member.result is not None and (problem := self._find_space_problem(n_bytes, member.result)):
                member = replace(member, result=None, problem=self._describe_problem(problem))  # noqa: PLW2901
            elif member.result is not None:
                name, data = writer.add(member.result.filename, member.result.data)
                parts.append(data)
                n_bytes += len(data)
                is_cached = is_cached and member.result.cache == "hit"
            members.append(describe_member(member, name))
        report = describe_report(members)
        parts.append(writer.finish(report))
        return Result(
            data=b"".join(parts),
            media_type=MEDIA_TYPE,
            filename=ARCHIVE_NAME,
            width=0,
            height=0,
            notes=(count_sentence(report),),
            seconds=time.monotonic() - started_at,
            cache="hit" if is_cached else "miss",
        )

    def _run(self, image: ArchiveImage, on_progress: OnProgress, *, waits: bool) -> ArchiveMember:
        if image.request is None:
            self.images_done += 1
            return ArchiveMember(image.stem, None, None, image.problem)
        try:
            job = self._current = image.cached or self._get_slot(image.request, waits=waits)
            job.counts_image = job.counts_image and self.counts_images
            with self.cancel_token.on_cancel(job.cancel_token.cancel):
                result = job.run(on_progress)
            self.count_misses += result.cache == "miss"
            self.cache_keys.append(cache_key(job.request))
            return ArchiveMember(image.stem, result, job.request.options, None)
        except Problem as problem:
            if self._is_shutting_down():
                raise
            self._first_problem = self._first_problem or problem
            image.on_problem(problem)
            return ArchiveMember(image.stem, None, None, self._describe_problem(problem))
        finally:
            if self._current is not None:
                self._ended_gpu_s += self._current.gpu_s
            self._current = image.request = image.cached = None
            self.images_done += 1

    def _get_slot(self, request: UpscaleRequest, *, waits: bool) -> Job:
        """Put an image into the queue. Once the request has a result, wait for a slot rather than lose the image."""
        end = time.monotonic() + self._slot_limit_s
        is_woken = threading.Event()
        with self.cancel_token.on_cancel(is_woken.set):
            while True:
                self.cancel_token.raise_if_cancelled()
                try:
                    return self._submit(request)
                except (QueueFull, TooManyAtOnce):
                    if not waits or time.monotonic() > end:
                        raise
                is_woken.wait(_SLOT_RETRY_S)

    def close(self) -> None:
        """Release the memory of the results."""
        for reservation in self._reservations:
            reservation.release()

    def _find_space_problem(self, n_bytes: int, result: Result) -> Problem | None:
        """Reserve memory for a result; return the problem if there is none left."""
        n_bytes += len(result.data) + _OVERHEAD_BYTES
        if n_bytes > self._max_bytes:
            return ResultTooLarge(
                f"The results up to this image have {n_bytes:,} bytes; the maximum for an asynchronous job is "
                f"{self._max_bytes:,}. Send fewer images, or send them without `Prefer: respond-async`."
            )
        try:
            if self._reserve:
                self._reservations.append(self._reserve(len(result.data)))
        except UploadMemoryFullError:
            return ResultTooLarge(
                "The memory for the results of other requests with several images is full. Send this image again, or "
                "send the images without `Prefer: respond-async`."
            )
        return None


def describe_member(member: ArchiveMember, name: str | None) -> dict[str, Any]:
    """Return the entry of an image in the report; `name` is that of its file in the archive."""
    facts = describe_facts(member.result, member.options) if member.result and member.options else {}
    return {"upload": member.stem, "file": name, "problem": member.problem, **facts, "filename": name}


def describe_report(members: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the report of an archive."""
    failed = sum(member["problem"] is not None for member in members)
    return {"succeeded": len(members) - failed, "failed": failed, "images": list(members)}


def count_sentence(report: dict[str, Any]) -> str:
    """Return how many images succeeded, as a note."""
    count = report["succeeded"] + report["failed"]
    if not report["failed"]:
        return f"All {count} images were upscaled."
    return f"{report['failed']} of {count} images failed: report.json in the archive says why."

"""Asynchronous jobs: runs them on threads of their own, and takes over those of gateways that have ended.

A job holds a slot of the queue like every other, so the queue bounds how many there are at work. Its record outlives it
in a store. What has ended is charged once: the gateway that may write the final state counts the image.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.async_jobs.archives import (
    archive_memory_bytes,
    count_computed,
    describe_job_result,
    find_cache_keys,
    max_archive_bytes,
    unpack_uploads,
)
from gateway.async_jobs.problems import JobLost
from gateway.async_jobs.record import JobRecord, JobState, new_run_id
from gateway.async_jobs.store import JobStore, JobStoreError
from gateway.cancellation import CancelledError
from gateway.config.settings import Settings
from gateway.jobs.archive_job import ArchiveImage, ArchiveJob
from gateway.jobs.estimate import estimate_job
from gateway.jobs.job import Job, Progress
from gateway.jobs.options import UpscaleOptions, UpscaleRequest, make_request, parse_options
from gateway.jobs.queue import RUNNING, JobQueue
from gateway.jobs.refusals import queue_full
from gateway.jobs.runner import JobRunner
from gateway.jobs.upload_memory import UploadMemory
from gateway.problems import INTERNAL_DETAIL, InternalError, Problem

# Seconds between two writes of the progress, which also extend the lease, and between two looks for abandoned jobs.
RENEW_INTERVAL_S = 1.0
# Seconds in which the final state is written again if the store cannot be used. Then the lease ends, and another
# gateway does the work once more.
FINISH_LIMIT_S = 20.0
# A job whose gateways end this often is given up: it may be what ends them.
MAX_ATTEMPTS = 3

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class RunningJob:
    """A job that this gateway works on."""

    record: JobRecord
    job: Job
    base_path: str = ""
    on_problem: Callable[[Problem], object] = lambda _: None
    on_end: Callable[[], object] = lambda: None
    progress: Progress | None = None
    estimate_s: Callable[[], float | None] = lambda: None
    """Estimates the seconds left while no band has arrived."""

    def current(self) -> JobRecord:
        """Return the record with the progress so far."""
        position, progress = self.job.position, self.progress
        is_running = position == RUNNING
        return replace(
            self.record,
            state="running" if is_running else "queued",
            position=position.position,
            ahead=position.ahead,
            bands_done=progress.bands_done if progress else 0,
            bands=progress.bands if progress else 0,
            # Of an archive it is not known: the progress is that of one of its images.
            left_s=None if self.record.images else progress.left_s if progress else self.estimate_s(),
            gpu_s=self.job.gpu_s,
            images_done=self.job.images_done if isinstance(self.job, ArchiveJob) else 0,
        )


class AsyncJobs:
    """The asynchronous jobs of one gateway. Safe to use from several threads."""

    def __init__(
        self,
        store: JobStore,
        runner: JobRunner,
        queue: JobQueue,
        settings: Settings,
        *,
        count_ended: Callable[[JobState], object] = lambda _: None,
        refund: Callable[[JobRecord, Problem], object] = lambda *_: None,
        forget_cached: Callable[[Sequence[str]], object] = lambda _: None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`count_ended` is called with the final state of each job that this gateway has ended.

        `refund` is called with a job that was taken over and its problem, `forget_cached` with the keys of results
        in the cache whose job was deleted meanwhile.
        """
        self.run_id = new_run_id()
        self.store = store
        self.wall_clock = wall_clock
        self._runner = runner
        self._queue = queue
        self._settings = settings
        self._count_ended = count_ended
        self._refund = refund
        self._forget_cached = forget_cached
        self._lock = threading.Lock()
        self._running: dict[str, RunningJob] = {}
        self._closed = threading.Event()
        self._archive_memory = UploadMemory(archive_memory_bytes(settings), wait_s=0.0)

    def start(self) -> None:
        """Extend leases and take over abandoned jobs from now on, on a thread, if the store is shared."""
        if self.store.is_shared:
            threading.Thread(target=self._maintain, name="async-jobs", daemon=True).start()

    def close(self) -> None:
        """Take over nothing more."""
        self._closed.set()

    def count_running(self) -> int:
        """Return the number of jobs that this gateway works on, queued ones included."""
        with self._lock:
            return len(self._running)

    def run(self, running: RunningJob) -> None:
        """Run a job that the store has, on a thread of its own."""

        def estimate_s() -> float | None:
            wait_s = self._queue.estimate_wait_s(running.job.position.position)
            return estimate_job(running.job.request, wait_s, self._runner.backend, self._runner.pace).total_s

        running.estimate_s = estimate_s
        with self._lock:
            self._running[running.record.id] = running
        threading.Thread(target=self._run, args=(running,), name="async-job", daemon=True).start()

    def find(self, job_id: str) -> JobRecord | None:
        """Return a job as it is now; None if it is not known. Raises JobStoreError."""
        with self._lock:
            running = self._running.get(job_id)
        record = self.store.get(job_id)
        if record is None or record.is_finished or running is None:
            return record
        return running.current()

    def cancel(self, record: JobRecord) -> bool:
        """Cancel an unfinished job, whichever gateway works on it; return False if it has finished meanwhile."""
        is_cancelled = self.store.cancel(record.end("cancelled", self.wall_clock()))
        with self._lock:
            running = self._running.get(record.id)
        if is_cancelled:
            self._count_ended("cancelled")
            if running:
                running.job.cancel_token.cancel()
        return is_cancelled

    def _run(self, running: RunningJob) -> None:
        try:
            self._run_to_the_end(running)
        except Exception as error:  # noqa: BLE001 - a bug: the job's lease ends, and the log says why
            _log.exception("%s: %s", running.record.request_id, type(error).__name__)
        finally:
            with self._lock:
                self._running.pop(running.record.id, None)
            running.on_end()

    def _run_to_the_end(self, running: RunningJob) -> None:
        def note(progress: Progress) -> None:
            running.progress = replace(progress, band=None)

        try:
            result = running.job.run(note)
        except Problem as problem:
            if self._runner.is_shutting_down and self.store.is_shared:
                _log.info("%s: job %s is left to another gateway", running.record.request_id, running.record.id)
                self.store.release(running.current())
                return
            self._fail(running, problem)
        except CancelledError:
            self._end(running.current().end("cancelled", self.wall_clock()), None)
        except Exception as error:  # noqa: BLE001 - a bug must end the job with a problem
            _log.exception("%s: %s", running.record.request_id, type(error).__name__)
            self._fail(running, InternalError(INTERNAL_DETAIL))
        else:
            facts = describe_job_result(running.job, result)
            keys = find_cache_keys(running.job) if self._settings.cache_max_bytes else []
            record = running.current().end("done", self.wall_clock(), result=facts, cache_keys=keys)
            if not self._end(record, result.data):
                self._forget_cached(keys)
            elif count := count_computed(running.job, result):
                self._runner.charge(record.client_name, 0.0, count)

    def _fail(self, running: RunningJob, problem: Problem) -> None:
        body = problem.body(running.record.request_id, running.base_path)
        if self._end(running.current().end("failed", self.wall_clock(), problem=body), None):
            running.on_problem(problem)

    def _end(self, record: JobRecord, data: bytes | None) -> bool:
        """Write a final state; return whether this gateway was the one to end the job."""
        limit = time.monotonic() + FINISH_LIMIT_S
        while True:
            try:
                is_written = self.store.finish(record, data)
                break
            except JobStoreError as error:
                _log.warning("%s: the end of job %s cannot be stored: %s", record.request_id, record.id, error)
                if time.monotonic() > limit:
                    return False
                self._closed.wait(RENEW_INTERVAL_S)
        if is_written:
            self._count_ended(record.state)
            _log.info("%s: job %s: %s", record.request_id, record.id, record.state)
        return is_written

    def _maintain(self) -> None:
        while not self._closed.wait(RENEW_INTERVAL_S):
            try:
                self._renew()
                while not self._closed.is_set() and not self._runner.is_shutting_down and self._take_one():
                    pass
            except JobStoreError as error:
                _log.warning("the jobs cannot be stored: %s", error)
            except Exception as error:  # noqa: BLE001 - the next round may succeed
                _log.exception("asynchronous jobs: %s", type(error).__name__)

    def _renew(self) -> None:
        with self._lock:
            jobs = list(self._running.values())
        for running in jobs:
            if not self.store.renew(running.current()):
                running.job.cancel_token.cancel()

    def _take_one(self) -> bool:
        """Take over one abandoned job unless the queue is full; return whether there may be more."""
        if self._queue.state().is_full:
            return False
        taken = self.store.take_abandoned()
        if taken is None:
            return False
        self._resume(*taken)
        return True

    def _resume(self, record: JobRecord, upload: bytes | None) -> None:
        """Run a job whose lease was taken; end it if that is impossible."""
        with self._lock:
            if record.id in self._running:
                return  # its lease ended because this gateway was stopped for a while
        if upload is None or record.attempts > MAX_ATTEMPTS:
            why = "Its upload is no longer stored." if upload is None else f"{MAX_ATTEMPTS} gateways ended during it."
            self._end_taken(record, "lost", JobLost(f"The job was lost. {why} Send the image again."))
            return
        _log.info("%s: taking over job %s, attempt %d", record.request_id, record.id, record.attempts)
        try:
            options = parse_options(record.parameters, self._settings)
            job = self._make_job(record, upload, options)
        except Problem as problem:
            if problem.status in (429, 503):  # the queue has filled up meanwhile
                self.store.release(record)
            else:
                self._end_taken(record, "failed", problem)
            return
        on_end = job.close if isinstance(job, ArchiveJob) else lambda: None
        self.run(RunningJob(record, job, record.base_path, lambda problem: self._refund(record, problem), on_end))

    def _make_job(self, record: JobRecord, upload: bytes, options: UpscaleOptions) -> Job:
        """Return the job of a record that was taken over; raise a Problem if it cannot be run now."""
        if not record.images:
            request = make_request(upload, f"{record.stem}.", options, self._settings)
            job: Job = self._runner.submit(request, record.request_id, record.client_name, record.client_id)
            job.counts_image = False
            return job
        images = unpack_uploads(
            upload, options, self._settings, request_id=record.request_id, base_path=record.base_path
        )
        return self.make_archive_job(
            images,
            request_id=record.request_id,
            client_name=record.client_name,
            client_id=record.client_id,
            describe_problem=lambda problem: problem.body(record.request_id, record.base_path),
        )

    def make_archive_job(
        self,
        images: Sequence[ArchiveImage],
        *,
        request_id: str,
        client_name: str,
        client_id: str,
        describe_problem: Callable[[Problem], dict[str, Any]],
    ) -> ArchiveJob:
        """Return a job of several images; raise QueueFull if as many run as the queue has slots."""
        with self._lock:
            count = sum(isinstance(running.job, ArchiveJob) for running in self._running.values())
        state = self._queue.state()
        if state.is_full or count > self._settings.queue_size:
            raise queue_full(state.waiting, state.retry_after_s)

        def submit(request: UpscaleRequest) -> Job:
            return self._runner.submit(request, request_id, client_name, client_id)

        job = ArchiveJob(
            images,
            submit,
            request_id=request_id,
            describe_problem=describe_problem,
            is_shutting_down=lambda: self._runner.is_shutting_down,
            slot_limit_s=self._settings.deadline_s,
            reserve=lambda n_bytes: self._archive_memory.reserve(n_bytes, client_id),
            max_bytes=max_archive_bytes(self._settings, is_shared=self.store.is_shared),
        )
        job.counts_images = False
        return job

    def _end_taken(self, record: JobRecord, state: JobState, problem: Problem) -> None:
        body = problem.body(record.request_id, record.base_path)
        if self.store.finish(record.end(state, self.wall_clock(), problem=body), None):
            self._count_ended(state)
            self._refund(record, problem)

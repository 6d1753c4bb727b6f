"""The queue of large jobs: a background thread runs one micro-batch of each job, round robin.

Small jobs do not use it and pass large ones. Without it a request of one small tile would wait for every tile of the
image before it. An error in a job, or in sending its response, never ends the thread. Does not import Triton.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from swinir.inference.batching import TileJob
from swinir.inference.engine import InferenceCancelledError, Restored

log = logging.getLogger(__name__)

# Jobs of at most this many pixels are small: a quarter of a micro-batch on a CPU.
SMALL_PIXELS = 128 * 128

# Added to the niceness of the queue's thread and of the threads that torch starts for it: on a shared core a small job
# then gets three quarters of the time.
NICENESS = 5

# `swinir.inference.batching.run_jobs` with its engine: sets `restored` or `error` of each job.
Run = Callable[[list[TileJob]], None]


@dataclass(eq=False)
class _QueuedJob:
    job: TileJob
    on_finished: Callable[[TileJob], None]
    tiles_done: int = 0


class LargeJobQueue:
    """Runs large jobs on one thread, round robin. `put` is safe to call from any thread.

    If the thread ever leaves its loop, `on_death` is called. By default it ends the process, which the launcher and the
    health check notice. Otherwise every large job would wait without end while small jobs still succeed.
    """

    def __init__(self, run: Run, micro_batch_pixels: int, on_death: Callable[[], None] = lambda: os._exit(1)) -> None:
        self._run = run
        self._micro_batch_pixels = micro_batch_pixels
        self._on_death = on_death
        self._queue: deque[_QueuedJob] = deque()
        self._not_empty = threading.Condition()
        threading.Thread(target=self._run_thread, name="large-jobs", daemon=True).start()

    def put(self, job: TileJob, on_finished: Callable[[TileJob], None]) -> None:
        """Queue a job. `on_finished` is called with it on the queue's thread, once it has `restored` or `error`."""
        with self._not_empty:
            self._queue.append(_QueuedJob(job, on_finished))
            self._not_empty.notify()

    def _run_thread(self) -> None:
        try:
            self._loop()
        except BaseException:
            log.critical("the thread of large jobs has died: ending this process", exc_info=True)
        self._on_death()

    def _loop(self) -> None:
        thread = threading.get_native_id()  # on Linux a priority belongs to a thread
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
        while True:
            with self._not_empty:
                self._not_empty.wait_for(lambda: self._queue)
                micro_batch = self._take_micro_batch()
            parts = [
                TileJob(queued.job.tiles[queued.tiles_done : queued.tiles_done + count], queued.job.variants)
                for queued, count in micro_batch
            ]
            active = [part for part, (queued, _) in zip(parts, micro_batch, strict=True) if not _is_cancelled(queued)]
            try:
                self._run(active)
            except Exception as error:  # noqa: BLE001 - a bug must fail these jobs, not the queue
                for part in active:
                    part.error = error
            unfinished = [
                queued for (queued, _), part in zip(micro_batch, parts, strict=True) if not _advance(queued, part)
            ]
            with self._not_empty:
                self._queue.extend(unfinished)  # behind all other jobs: round robin

    def _take_micro_batch(self) -> list[tuple[_QueuedJob, int]]:
        """Return (job, number of its tiles) for the first job and for jobs of its group that fit into a micro-batch."""
        first = self._queue.popleft()
        _, height, width, _ = first.job.tiles.shape
        free_tiles = max(1, self._micro_batch_pixels // (height * width))
        micro_batch = []
        for queued in [first, *(queued for queued in self._queue if queued.job.group == first.job.group)]:
            if free_tiles == 0:
                break
            count = min(free_tiles, len(queued.job.tiles) - queued.tiles_done)
            micro_batch.append((queued, count))
            free_tiles -= count
        for queued, _ in micro_batch[1:]:
            self._queue.remove(queued)
        return micro_batch


def _is_cancelled(queued: _QueuedJob) -> bool:
    """Return whether the client has disconnected, and set the job's error if so."""
    job = queued.job
    try:
        if job.is_cancelled():
            job.error = InferenceCancelledError(f"cancelled after {queued.tiles_done} of {len(job.tiles)} tiles")
    except Exception as error:  # noqa: BLE001 - when this request cannot be queried, it cannot get a response either
        job.error = error
    return job.error is not None


def _advance(queued: _QueuedJob, part: TileJob) -> bool:
    """Store the result of a part. Return true when the job is finished and `on_finished` was called."""
    job = queued.job
    job.error = job.error or part.error
    if job.error is None:
        try:
            _store(queued, part)
        except Exception as error:  # noqa: BLE001 - there may not be enough memory for the whole result
            job.error = error
        else:
            if queued.tiles_done < len(job.tiles):
                return False
    if job.error is not None:
        job.restored = None
    try:
        queued.on_finished(job)
    except Exception:
        log.exception("the result of %d tiles could not be sent", len(job.tiles))
    return True


def _store(queued: _QueuedJob, part: TileJob) -> None:
    job, restored = queued.job, part.restored
    assert restored is not None  # noqa: S101 - guaranteed by `Run`
    if len(part.tiles) == len(job.tiles):  # one micro-batch: nothing to join, and so no copy
        job.restored, queued.tiles_done = restored, len(part.tiles)
        return
    if job.restored is None:
        count = len(job.tiles)
        job.restored = Restored(
            np.empty((count, *restored.tiles.shape[1:]), restored.tiles.dtype),
            np.empty((count, *restored.checks.shape[1:]), restored.checks.dtype),
            np.empty(count, np.int64),
        )
    span = slice(queued.tiles_done, queued.tiles_done + len(part.tiles))
    job.restored.tiles[span], job.restored.checks[span] = restored.tiles, restored.checks
    job.restored.work_us[span] = restored.work_us
    queued.tiles_done = span.stop

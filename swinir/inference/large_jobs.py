"""The lane: large jobs done in the background, a micro-batch of each in turn, while small ones pass them by.

Without it a request of one small tile would wait for every tile of the image before it. Nothing that goes wrong with a
job, its answer included, ends the lane. Knows nothing of Triton.
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

SMALL_PIXELS = 128 * 128
"""Jobs of at most this many pixels pass by; a quarter of a micro-batch on a CPU."""

NICENESS = 5
"""More than others, for the lane's thread and those that torch starts for it: a small job gets three quarters of a core
that they share."""

Run = Callable[[list[TileJob]], None]
"""`swinir.inference.batching.run_jobs` with its engine: ends each job with `restored` or `error`."""


@dataclass(eq=False)
class _Entry:
    job: TileJob
    finish: Callable[[TileJob], None]
    done: int = 0
    """Tiles restored so far."""


class LargeJobQueue:
    """A thread that works off large jobs fairly. Safe to put jobs in from any thread.

    Should the thread ever leave its loop, `end` is called: by default it ends the process, whose death is noticed. A
    lane that stands still would let every large job wait for ever while small ones say that all is well.
    """

    def __init__(self, run: Run, micro_batch_pixels: int, end: Callable[[], None] = lambda: os._exit(1)) -> None:
        self._run = run
        self._micro_batch_pixels = micro_batch_pixels
        self._end = end
        self._entries: deque[_Entry] = deque()
        self._filled = threading.Condition()
        threading.Thread(target=self._live, name="lane", daemon=True).start()

    def put(self, job: TileJob, finish: Callable[[TileJob], None]) -> None:
        """Take a job in; `finish` is called with it, on the lane's thread, once it has `restored` or `error`."""
        with self._filled:
            self._entries.append(_Entry(job, finish))
            self._filled.notify()

    def _live(self) -> None:
        try:
            self._work()
        except BaseException:
            log.critical("the lane has died, and this process with it", exc_info=True)
        self._end()

    def _work(self) -> None:
        own = threading.get_native_id()  # Linux: priorities are a thread's
        os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + NICENESS)
        while True:
            with self._filled:
                self._filled.wait_for(lambda: self._entries)
                turn = self._take_turn()
            parts = [
                TileJob(entry.job.tiles[entry.done : entry.done + count], entry.job.variants) for entry, count in turn
            ]
            live = [part for part, (entry, _) in zip(parts, turn, strict=True) if not _is_dropped(entry)]
            try:
                self._run(live)
            except Exception as error:  # noqa: BLE001 - a bug must fail these jobs, not the lane
                for part in live:
                    part.error = error
            unfinished = [entry for (entry, _), part in zip(turn, parts, strict=True) if not _advance(entry, part)]
            with self._filled:
                self._entries.extend(unfinished)  # to the end: everybody else has a turn first

    def _take_turn(self) -> list[tuple[_Entry, int]]:
        """Take the job whose turn it is, and what fits into a micro-batch beside it: (entry, how many of its tiles)."""
        first = self._entries.popleft()
        _, height, width, _ = first.job.tiles.shape
        room = max(1, self._micro_batch_pixels // (height * width))
        turn, left = [], [first, *(entry for entry in self._entries if entry.job.group == first.job.group)]
        for entry in left:
            if room == 0:
                break
            count = min(room, len(entry.job.tiles) - entry.done)
            turn.append((entry, count))
            room -= count
        for entry, _ in turn[1:]:
            self._entries.remove(entry)
        return turn


def _is_dropped(entry: _Entry) -> bool:
    """Whether whoever asked has left; then the job ends here."""
    try:
        if entry.job.is_cancelled():
            entry.job.error = InferenceCancelledError(f"cancelled after {entry.done} of {len(entry.job.tiles)} tiles")
    except Exception as error:  # noqa: BLE001 - who cannot be asked cannot be answered either
        entry.job.error = error
    return entry.job.error is not None


def _advance(entry: _Entry, part: TileJob) -> bool:
    """Put a part's answer where it belongs; true when the job is finished, and said so."""
    job = entry.job
    job.error = job.error or part.error
    if job.error is None:
        try:
            _take_in(entry, part)
        except Exception as error:  # noqa: BLE001 - there may be no memory for the whole answer
            job.error = error
        else:
            if entry.done < len(job.tiles):
                return False
    if job.error is not None:
        job.restored = None
    try:
        entry.finish(job)
    except Exception:
        log.exception("an answer of %d tiles was made and could not be given", len(job.tiles))
    return True


def _take_in(entry: _Entry, part: TileJob) -> None:
    job, made = entry.job, part.restored
    assert made is not None  # noqa: S101 - what `Run` promises
    if job.restored is None:
        count = len(job.tiles)
        job.restored = Restored(
            np.empty((count, *made.tiles.shape[1:]), made.tiles.dtype),
            np.empty((count, *made.checks.shape[1:]), made.checks.dtype),
            np.empty(count, np.int64),
        )
    own = slice(entry.done, entry.done + len(part.tiles))
    job.restored.tiles[own], job.restored.checks[own] = made.tiles, made.checks
    job.restored.work_us[own] = made.work_us
    entry.done = own.stop

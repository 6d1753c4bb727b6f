"""The queue of large jobs: round robin, shared passes, cancels, and errors that never stop it."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

import numpy as np
import pytest

from gateway.jobs.options import SMALL_IMAGE_PIXELS
from swinir.inference.batching import TileJob
from swinir.inference.engine import EngineError, InferenceCancelledError, Restored
from swinir.inference.large_jobs import SMALL_PIXELS, LargeJobQueue

LIMIT_S = 120.0


def tiles(count: int, value: int, side: int = 4) -> Any:
    return np.full((count, side, side, 3), value, np.uint8)


class RunRecorder:
    """Runs jobs by adding one to every pixel; remembers which jobs shared a pass; waits at `gate` before each."""

    def __init__(self) -> None:
        self.passes: list[list[tuple[int, int]]] = []
        """(value, tiles) of each job of each pass."""
        self.gate = threading.Semaphore(0)
        self.finished: queue.Queue[TileJob] = queue.Queue()
        self.broken: set[int] = set()

    def run(self, jobs: list[TileJob]) -> None:
        assert self.gate.acquire(timeout=LIMIT_S)
        self.passes.append([(int(job.tiles[0, 0, 0, 0]), len(job.tiles)) for job in jobs])
        for job in jobs:
            if int(job.tiles[0, 0, 0, 0]) in self.broken:
                job.error = EngineError("broken")
            else:
                job.restored = Restored(
                    job.tiles + np.uint8(1),
                    job.tiles[:, 0, 0, :1].astype(np.float32),
                    np.full(len(job.tiles), 7),
                )

    def release(self, passes: int) -> None:
        for _ in range(passes):
            self.gate.release()

    def next_finished(self) -> TileJob:
        return self.finished.get(timeout=LIMIT_S)


def make_large_jobs(recorder: RunRecorder, tiles_a_pass: int) -> LargeJobQueue:
    return LargeJobQueue(recorder.run, tiles_a_pass * 4 * 4)


def test_job_comes_back_whole_however_many_passes_it_took() -> None:
    recorder = RunRecorder()
    all_tiles = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
    make_large_jobs(recorder, 2).put(TileJob(all_tiles, {"a"}), recorder.finished.put)
    recorder.release(3)

    job = recorder.next_finished()

    assert job.error is None
    assert job.restored is not None
    assert np.array_equal(job.restored.tiles, all_tiles + 1)
    assert np.array_equal(job.restored.checks, all_tiles[:, 0, 0, :1])
    assert [count for each in recorder.passes for _, count in each] == [2, 2, 1]


def test_job_of_one_micro_batch_is_not_copied() -> None:
    recorder, passes = RunRecorder(), list[Restored | None]()

    def run(jobs: list[TileJob]) -> None:
        recorder.run(jobs)
        passes.append(jobs[0].restored)

    LargeJobQueue(run, 2 * 4 * 4).put(TileJob(tiles(2, 1), {"a"}), recorder.finished.put)
    recorder.release(1)

    restored = recorder.next_finished().restored

    assert restored is not None
    assert restored is passes[0]


def test_jobs_take_turns_a_micro_batch_each() -> None:
    """Different variants share no pass, and the second does not wait for the end of the first."""
    recorder = RunRecorder()
    large_jobs = make_large_jobs(recorder, 1)
    large_jobs.put(TileJob(tiles(3, 1), {"a"}), recorder.finished.put)
    large_jobs.put(TileJob(tiles(1, 2), {"b"}), recorder.finished.put)
    recorder.release(4)

    finished = [int(recorder.next_finished().tiles[0, 0, 0, 0]) for _ in range(2)]

    assert finished == [2, 1]
    assert [value for each in recorder.passes for value, _ in each][:3] in ([1, 2, 1], [1, 1, 2])


def test_jobs_of_one_variant_and_shape_share_a_pass() -> None:
    recorder = RunRecorder()
    large_jobs = make_large_jobs(recorder, 4)
    large_jobs.put(TileJob(tiles(4, 9), {"first"}), recorder.finished.put)  # held at the gate while the others queue up
    for value in (1, 2):
        large_jobs.put(TileJob(tiles(2, value), {"a"}), recorder.finished.put)
    large_jobs.put(TileJob(tiles(2, 3, side=8), {"a"}), recorder.finished.put)
    recorder.release(4)

    for _ in range(4):
        recorder.next_finished()

    assert [(1, 2), (2, 2)] in recorder.passes


def test_job_whose_client_left_ends_before_its_next_pass() -> None:
    recorder, left = RunRecorder(), threading.Event()
    make_large_jobs(recorder, 1).put(TileJob(tiles(5, 1), {"a"}, left.is_set), recorder.finished.put)
    recorder.release(1)
    while not recorder.passes:
        time.sleep(0.01)
    left.set()
    recorder.release(9)

    job = recorder.next_finished()

    assert isinstance(job.error, InferenceCancelledError)
    assert job.restored is None
    assert len([each for each in recorder.passes if each]) <= 2, "only the pass that was running"


def test_job_that_fails_fails_alone_and_the_queue_goes_on() -> None:
    recorder = RunRecorder()
    recorder.broken = {1}
    large_jobs = make_large_jobs(recorder, 2)
    for value in (1, 2):
        large_jobs.put(TileJob(tiles(1, value), {"a"}), recorder.finished.put)
    recorder.release(2)

    jobs = sorted((recorder.next_finished() for _ in range(2)), key=lambda job: int(job.tiles[0, 0, 0, 0]))

    assert isinstance(jobs[0].error, EngineError)
    assert jobs[1].restored is not None


def test_bug_fails_its_jobs_and_not_the_queue() -> None:
    responses: queue.Queue[TileJob] = queue.Queue()
    calls = []

    def run(jobs: list[TileJob]) -> None:
        calls.append(len(jobs))
        if len(calls) == 1:
            raise KeyError("a bug")
        for job in jobs:
            job.restored = Restored(job.tiles, np.zeros((len(job.tiles), 6), np.float32), np.full(len(job.tiles), 7))

    large_jobs = LargeJobQueue(run, 16)
    large_jobs.put(TileJob(tiles(1, 1), {"a"}), responses.put)
    assert isinstance(responses.get(timeout=LIMIT_S).error, KeyError)

    large_jobs.put(TileJob(tiles(1, 1), {"a"}), responses.put)
    assert responses.get(timeout=LIMIT_S).restored is not None


def test_result_that_cannot_be_sent_does_not_affect_the_next_job(caplog: pytest.LogCaptureFixture) -> None:
    recorder = RunRecorder()
    large_jobs = make_large_jobs(recorder, 2)
    recorder.release(2)

    def fail(_job: TileJob) -> None:
        raise OSError("shared memory is full")

    large_jobs.put(TileJob(tiles(2, 1), {"a"}), fail)
    large_jobs.put(TileJob(tiles(2, 2), {"a"}), recorder.finished.put)

    assert recorder.next_finished().restored is not None
    assert "the result of 2 tiles could not be sent" in caplog.text


def test_failing_cancel_check_fails_its_job_alone() -> None:
    recorder = RunRecorder()
    large_jobs = make_large_jobs(recorder, 2)
    recorder.release(2)

    def fail() -> bool:
        raise OSError("nobody there")

    large_jobs.put(TileJob(tiles(2, 1), {"a"}, fail), recorder.finished.put)
    large_jobs.put(TileJob(tiles(2, 2), {"a"}), recorder.finished.put)

    assert isinstance(recorder.next_finished().error, OSError)
    assert recorder.next_finished().restored is not None


def test_part_without_a_result_fails_its_job_and_not_the_queue() -> None:
    responses: queue.Queue[TileJob] = queue.Queue()
    large_jobs = LargeJobQueue(lambda _jobs: None, 16)  # a bug: sets neither a result nor an error
    for value in (1, 2):
        large_jobs.put(TileJob(tiles(1, value), {"a"}), responses.put)
    assert [type(responses.get(timeout=LIMIT_S).error) for _ in range(2)] == [AssertionError, AssertionError]


def test_thread_that_dies_ends_its_process() -> None:
    """Otherwise every large job would wait without end, and nothing would report it."""
    ended = threading.Event()

    def run(_jobs: list[TileJob]) -> None:
        raise SystemExit("what no guard expects")

    LargeJobQueue(run, 16, ended.set).put(TileJob(tiles(1, 1), {"a"}), lambda _job: None)

    assert ended.wait(LIMIT_S)


def test_gateway_and_engine_call_the_same_images_small() -> None:
    assert SMALL_IMAGE_PIXELS == SMALL_PIXELS

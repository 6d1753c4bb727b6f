"""The queue of large jobs: order, sharing of passes, cancelling and failure of its thread."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

import numpy as np
import pytest

from swinir.inference.batching import TileJob
from swinir.inference.engine import EngineError, InferenceCancelledError, Restored
from swinir.inference.large_jobs import LargeJobQueue

LIMIT_S = 30.0


def tiles(count: int, value: int, side: int = 4) -> Any:
    return np.full((count, side, side, 3), value, np.uint8)


class RunRecorder:
    """Runs jobs by adding 1 to every pixel, records which jobs shared a pass, and waits at `gate` before each pass."""

    def __init__(self) -> None:
        self.passes: list[list[tuple[int, int]]] = []
        """(value, tiles) of each job of each pass."""
        self.gate = threading.Semaphore(0)
        self.answers: queue.Queue[TileJob] = queue.Queue()
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

    def answer(self) -> TileJob:
        return self.answers.get(timeout=LIMIT_S)


def lane_of(recorder: RunRecorder, tiles_a_pass: int) -> LargeJobQueue:
    return LargeJobQueue(recorder.run, tiles_a_pass * 4 * 4)


def test_a_job_comes_back_whole_however_many_passes_it_took() -> None:
    recorder = RunRecorder()
    given = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
    lane_of(recorder, 2).put(TileJob(given, {"a"}), recorder.answers.put)
    recorder.release(3)

    job = recorder.answer()

    assert job.error is None
    assert job.restored is not None
    assert np.array_equal(job.restored.tiles, given + 1)
    assert np.array_equal(job.restored.checks, given[:, 0, 0, :1])
    assert [count for each in recorder.passes for _, count in each] == [2, 2, 1]


def test_jobs_take_turns_a_micro_batch_each() -> None:
    """Jobs of different variants do not share passes; the second does not wait for the end of the first."""
    recorder = RunRecorder()
    lane = lane_of(recorder, 1)
    lane.put(TileJob(tiles(3, 1), {"a"}), recorder.answers.put)
    lane.put(TileJob(tiles(1, 2), {"b"}), recorder.answers.put)
    recorder.release(4)

    finished = [int(recorder.answer().tiles[0, 0, 0, 0]) for _ in range(2)]

    assert finished == [2, 1]
    assert [value for each in recorder.passes for value, _ in each][:3] in ([1, 2, 1], [1, 1, 2])


def test_jobs_of_one_variant_and_shape_share_a_pass() -> None:
    recorder = RunRecorder()
    lane = lane_of(recorder, 4)
    lane.put(TileJob(tiles(4, 9), {"first"}), recorder.answers.put)  # while it waits at the gate, the others queue up
    for value in (1, 2):
        lane.put(TileJob(tiles(2, value), {"a"}), recorder.answers.put)
    lane.put(TileJob(tiles(2, 3, side=8), {"a"}), recorder.answers.put)
    recorder.release(4)

    for _ in range(4):
        recorder.answer()

    assert [(1, 2), (2, 2)] in recorder.passes


def test_a_job_whose_client_left_ends_before_its_next_pass() -> None:
    recorder, left = RunRecorder(), threading.Event()
    lane_of(recorder, 1).put(TileJob(tiles(5, 1), {"a"}, left.is_set), recorder.answers.put)
    recorder.release(1)
    while not recorder.passes:
        time.sleep(0.01)
    left.set()
    recorder.release(9)

    job = recorder.answer()

    assert isinstance(job.error, InferenceCancelledError)
    assert job.restored is None
    assert len([each for each in recorder.passes if each]) <= 2, "the pass that was under way, and no other"


def test_a_job_that_fails_fails_alone_and_the_lane_goes_on() -> None:
    recorder = RunRecorder()
    recorder.broken = {1}
    lane = lane_of(recorder, 2)
    for value in (1, 2):
        lane.put(TileJob(tiles(1, value), {"a"}), recorder.answers.put)
    recorder.release(2)

    jobs = sorted((recorder.answer() for _ in range(2)), key=lambda job: int(job.tiles[0, 0, 0, 0]))

    assert isinstance(jobs[0].error, EngineError)
    assert jobs[1].restored is not None


def test_a_bug_fails_its_jobs_and_not_the_lane() -> None:
    answers: queue.Queue[TileJob] = queue.Queue()
    calls = []

    def run(jobs: list[TileJob]) -> None:
        calls.append(len(jobs))
        if len(calls) == 1:
            raise KeyError("a bug")
        for job in jobs:
            job.restored = Restored(job.tiles, np.zeros((len(job.tiles), 6), np.float32), np.full(len(job.tiles), 7))

    lane = LargeJobQueue(run, 16)
    lane.put(TileJob(tiles(1, 1), {"a"}), answers.put)
    assert isinstance(answers.get(timeout=LIMIT_S).error, KeyError)

    lane.put(TileJob(tiles(1, 1), {"a"}), answers.put)
    assert answers.get(timeout=LIMIT_S).restored is not None


def test_an_answer_that_cannot_be_given_costs_the_next_job_nothing(caplog: pytest.LogCaptureFixture) -> None:
    recorder = RunRecorder()
    lane = lane_of(recorder, 2)
    recorder.release(2)

    def fail(_job: TileJob) -> None:
        raise OSError("shared memory is full")

    lane.put(TileJob(tiles(2, 1), {"a"}), fail)
    lane.put(TileJob(tiles(2, 2), {"a"}), recorder.answers.put)

    assert recorder.answer().restored is not None
    assert "an answer of 2 tiles was made and could not be given" in caplog.text


def test_a_client_that_cannot_be_asked_whether_it_is_there_fails_alone() -> None:
    recorder = RunRecorder()
    lane = lane_of(recorder, 2)
    recorder.release(2)

    def fail() -> bool:
        raise OSError("nobody there")

    lane.put(TileJob(tiles(2, 1), {"a"}, fail), recorder.answers.put)
    lane.put(TileJob(tiles(2, 2), {"a"}), recorder.answers.put)

    assert isinstance(recorder.answer().error, OSError)
    assert recorder.answer().restored is not None


def test_a_part_that_does_not_fit_the_answer_fails_its_job_and_not_the_lane() -> None:
    answers: queue.Queue[TileJob] = queue.Queue()
    lane = LargeJobQueue(lambda _jobs: None, 16)  # neither returns a result nor raises an error
    for value in (1, 2):
        lane.put(TileJob(tiles(1, value), {"a"}), answers.put)
    assert [type(answers.get(timeout=LIMIT_S).error) for _ in range(2)] == [AssertionError, AssertionError]


def test_a_lane_that_dies_takes_its_process_along() -> None:
    """Otherwise every large job would wait without end, and no check would notice."""
    ended = threading.Event()

    def run(_jobs: list[TileJob]) -> None:
        raise SystemExit("what no guard expects")

    LargeJobQueue(run, 16, ended.set).put(TileJob(tiles(1, 1), {"a"}), lambda _job: None)

    assert ended.wait(LIMIT_S)

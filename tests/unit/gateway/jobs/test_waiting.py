"""What ends a wait for a job: cancellation, shutdown, a full queue, the deadline."""

from __future__ import annotations

import threading

import pytest

from gateway import problems
from gateway.backend.interface import (
    BackendUnavailableError,
)
from gateway.cancellation import CancelledError
from gateway.jobs.queue import Capacity, JobQueue
from gateway.jobs.runner import QueuedJob
from testing import images
from testing.backend import FakeBackend
from testing.clock import ManualClock
from testing.jobs import make_runner, upscale_request
from testing.requests import PHOTO


def test_cancelling_ends_the_work_at_the_backend_and_frees_the_slot() -> None:
    upscaler, queue, ends = FakeBackend(gate=threading.Event()), JobQueue(Capacity(running=1, waiting=1)), []
    job = make_runner(upscaler, queue).submit(upscale_request(), "id")

    def run() -> None:
        try:
            job.run()
        except CancelledError as stopped:
            ends.append(stopped)

    worker = threading.Thread(target=run)
    worker.start()
    assert upscaler.arrived.acquire(timeout=120)
    job.cancel_token.cancel()
    worker.join(120)

    assert (len(ends), upscaler.stops, queue.state().running) == (1, 1, 0)


def test_usual_job_time_is_learnt_from_finished_jobs_only(clock: ManualClock) -> None:
    queue = JobQueue(Capacity(running=1, waiting=1), clock=clock, usual_job_s=5.0)
    start = PHOTO[: PHOTO.index(b"IDAT") - 4]
    broken = upscale_request(start + images.png_chunk(b"IDAT", b"no pixels") + images.png_chunk(b"IEND", b""))
    fine = upscale_request()
    failing = FakeBackend(failures=[BackendUnavailableError("it is gone")] * 2)

    for upscaler, job_request in ((FakeBackend(), broken), (failing, fine)) * 2:
        with pytest.raises(problems.Problem):
            make_runner(upscaler, queue).run(job_request, "id")
    assert queue.state().retry_after_s == 5.0, "fast failures do not lower the estimate"

    make_runner(FakeBackend(), queue).run(fine, "id")
    assert queue.state().retry_after_s == 4.0


def test_cancelling_ends_the_wait_in_the_queue() -> None:
    queue = JobQueue(Capacity(running=1, waiting=1))
    queue.acquire()
    job = make_runner(FakeBackend(), queue).submit(upscale_request(), "id")
    assert job.slot.position == (1, 1)
    job.cancel_token.cancel()
    with pytest.raises(CancelledError):
        job.run()
    assert queue.state().waiting == 0


def test_shutdown_tells_running_and_waiting_jobs_to_retry() -> None:
    upscaler, positions = FakeBackend(gate=threading.Event()), []
    ending = make_runner(upscaler, JobQueue(Capacity(running=1, waiting=1)))
    jobs = [ending.submit(upscale_request(), "id") for _ in range(2)]  # one running, one waiting

    def run(job: QueuedJob) -> None:
        with pytest.raises(problems.BackendUnavailable) as caught:
            job.run()
        positions.append(int(caught.value.headers["Retry-After"]))

    workers = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for worker in workers:
        worker.start()
    assert upscaler.arrived.acquire(timeout=120)
    ending.shut_down()
    for worker in workers:
        worker.join(120)

    assert (positions, upscaler.stops) == ([10, 10], 1)
    with pytest.raises(problems.BackendUnavailable):
        ending.run(upscale_request(), "id")


def test_full_queue_rejects_with_retry_after() -> None:
    gate = threading.Event()
    upscaler = FakeBackend(gate=gate)
    busy = make_runner(upscaler, JobQueue(Capacity(running=1, waiting=0)))
    worker = threading.Thread(target=busy.run, args=(upscale_request(), "id"))
    worker.start()
    assert upscaler.arrived.acquire(timeout=120)

    with pytest.raises(problems.QueueFull) as caught:
        busy.run(upscale_request(), "id")

    gate.set()
    worker.join(120)
    assert caught.value.detail == "The queue is full (0 images waiting). Try again in 5 seconds."
    assert int(caught.value.headers["Retry-After"]) == caught.value.extensions["retry_after_s"] >= 1
    assert busy.run(upscale_request(), "id").width == 128


def test_client_over_its_share_of_the_queue_is_rejected_with_the_number() -> None:
    queue = JobQueue(Capacity(running=1, waiting=9, waiting_per_client=1), usual_job_s=0.4)
    runner = make_runner(FakeBackend(), queue)
    for _ in range(2):
        runner.submit(upscale_request(), "id", client_id="a")

    with pytest.raises(problems.TooManyAtOnce) as caught:
        runner.submit(upscale_request(), "id", client_id="a")

    assert caught.value.detail == (
        "You already have 1 image in the queue, the maximum per client. Try again in 1 second."
    )


def test_wait_in_the_queue_ends_at_the_deadline() -> None:
    gate = threading.Event()
    upscaler = FakeBackend(gate=gate)
    queue = JobQueue(Capacity(running=1, waiting=1))
    worker = threading.Thread(target=make_runner(upscaler, queue).run, args=(upscale_request(), "id"))
    worker.start()
    assert upscaler.arrived.acquire(timeout=120)

    with pytest.raises(problems.DeadlineExceeded):
        make_runner(upscaler, queue, deadline_s=0.01).run(upscale_request(), "id")

    gate.set()
    worker.join(120)
    assert len(upscaler.calls) == 1

"""What ends a wait in gateway.jobs.runner: a stop, the gateway's end, full places, the deadline."""

from __future__ import annotations

import threading

import pytest

from gateway import problems
from gateway.backend.interface import (
    BackendUnavailableError,
)
from gateway.cancellation import CancelledError
from gateway.jobs.queue import Capacity, JobQueue
from gateway.jobs.runner import Job
from testing import images
from testing.backend import FakeBackend
from testing.clock import ManualClock
from testing.jobs import order, upscaling
from testing.requests import PHOTO


def test_a_stop_ends_the_work_at_the_backend_and_frees_the_place() -> None:
    upscaler, places, ends = FakeBackend(gate=threading.Event()), JobQueue(Capacity(at_work=1, waiting=1)), []
    work = upscaling(upscaler, places).begin(order(), "id")

    def run() -> None:
        try:
            work.run()
        except CancelledError as stopped:
            ends.append(stopped)

    worker = threading.Thread(target=run)
    worker.start()
    assert upscaler.arrived.acquire(timeout=30)
    work.cancel_token.cancel()
    worker.join(30)

    assert (len(ends), upscaler.stops, places.state().at_work) == (1, 1, 0)


def test_the_usual_time_is_learnt_from_pictures_that_were_made(clock: ManualClock) -> None:
    places = JobQueue(Capacity(at_work=1, waiting=1), clock=clock, usual_s=5.0)
    head = PHOTO[: PHOTO.index(b"IDAT") - 4]
    broken = order(head + images.png_chunk(b"IDAT", b"no pixels") + images.png_chunk(b"IEND", b""))
    fine = order()
    failing = FakeBackend(failures=[BackendUnavailableError("it is gone")] * 2)

    for upscaler, asked in ((FakeBackend(), broken), (failing, fine)) * 2:
        with pytest.raises(problems.Problem):
            upscaling(upscaler, places).run(asked, "id")
    assert places.state().retry_after_s == 5.0, "failures at once do not make the queue any quicker"

    upscaling(FakeBackend(), places).run(fine, "id")
    assert places.state().retry_after_s == 4.0


def test_a_stop_ends_the_wait_for_a_place() -> None:
    places = JobQueue(Capacity(at_work=1, waiting=1))
    places.enter()
    work = upscaling(FakeBackend(), places).begin(order(), "id")
    assert work.ticket.turn == (1, 1)
    work.cancel_token.cancel()
    with pytest.raises(CancelledError):
        work.run()
    assert places.state().waiting == 0


def test_when_the_gateway_ends_whoever_waits_is_told_to_come_again() -> None:
    upscaler, told = FakeBackend(gate=threading.Event()), []
    ending = upscaling(upscaler, JobQueue(Capacity(at_work=1, waiting=1)))
    works = [ending.begin(order(), "id") for _ in range(2)]  # one at work, one in the queue

    def run(work: Job) -> None:
        with pytest.raises(problems.BackendUnavailable) as caught:
            work.run()
        told.append(int(caught.value.headers["Retry-After"]))

    workers = [threading.Thread(target=run, args=(work,)) for work in works]
    for worker in workers:
        worker.start()
    assert upscaler.arrived.acquire(timeout=30)
    ending.end()
    for worker in workers:
        worker.join(30)

    assert (told, upscaler.stops) == ([10, 10], 1)
    with pytest.raises(problems.BackendUnavailable):
        ending.run(order(), "id")


def test_when_all_places_are_taken_the_next_is_sent_away_with_a_time() -> None:
    gate = threading.Event()
    upscaler = FakeBackend(gate=gate)
    busy = upscaling(upscaler, JobQueue(Capacity(at_work=1, waiting=0)))
    worker = threading.Thread(target=busy.run, args=(order(), "id"))
    worker.start()
    assert upscaler.arrived.acquire(timeout=30)

    with pytest.raises(problems.QueueFull) as caught:
        busy.run(order(), "id")

    gate.set()
    worker.join(30)
    assert int(caught.value.headers["Retry-After"]) == caught.value.extensions["retry_after_s"] >= 1
    assert busy.run(order(), "id").width == 128


def test_a_wait_for_a_place_ends_at_the_deadline() -> None:
    gate = threading.Event()
    upscaler = FakeBackend(gate=gate)
    places = JobQueue(Capacity(at_work=1, waiting=1))
    worker = threading.Thread(target=upscaling(upscaler, places).run, args=(order(), "id"))
    worker.start()
    assert upscaler.arrived.acquire(timeout=30)

    with pytest.raises(problems.DeadlineExceeded):
        upscaling(upscaler, places, deadline_s=0.01).run(order(), "id")

    gate.set()
    worker.join(30)
    assert len(upscaler.asked) == 1

"""Taking over the jobs of gateways that have ended: what is run, what is given up, and what is left alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask

from gateway.async_jobs.jobs import MAX_ATTEMPTS, AsyncJobs
from gateway.async_jobs.memory_store import MemoryJobStore
from gateway.async_jobs.record import JobRecord, new_job_id
from gateway.async_jobs.store import JobLimits, JobStoreError
from gateway.jobs.result_store import ResultStore
from gateway.services import services
from testing.fixtures import MakeApp
from testing.redis_server import wait_for
from testing.requests import PHOTO


class SharedStore(MemoryJobStore):
    """Has abandoned jobs to take, as Redis does, and fails as often as a test asks."""

    is_shared = True

    def __init__(self) -> None:
        results = ResultStore(max_bytes=1_000_000, max_count=100, max_age_s=60.0)
        limits = JobLimits(max_count=100, max_per_client=100, max_age_s=60.0, result_max_age_s=60.0)
        super().__init__(limits, results)
        self.abandoned: list[tuple[JobRecord, bytes | None]] = []
        self.failures = 0
        self.before_finish: Callable[[JobRecord], object] = lambda _: None

    def take_abandoned(self) -> tuple[JobRecord, bytes | None] | None:  # type: ignore[override]
        return self.abandoned.pop() if self.abandoned else None

    def finish(self, record: JobRecord, data: bytes | None) -> bool:
        if self.failures:
            self.failures -= 1
            raise JobStoreError("Redis is away")
        self.before_finish(record)
        return super().finish(record, data)


@pytest.fixture
def store() -> SharedStore:
    return SharedStore()


@pytest.fixture
def ended() -> list[str]:
    """The final states that were counted."""
    return []


@pytest.fixture
def jobs(app: Flask, store: SharedStore, ended: list[str]) -> AsyncJobs:
    running = services(app)
    return AsyncJobs(store, running.runner, running.queue, running.settings, count_ended=ended.append)


def abandon(store: SharedStore, upload: bytes | None = PHOTO, attempts: int = 2, **parameters: str) -> str:
    options = {"variant": "compact_x4", **parameters}
    job = JobRecord(new_job_id("0123abcd"), "client:a", "a", "request", 1.0, options, "photo", attempts=attempts)
    store.add(job, b"")
    store.abandoned.append((job, upload))
    return job.id


def await_end(jobs: AsyncJobs, job_id: str) -> JobRecord:
    def is_finished() -> bool:
        found = jobs.find(job_id)
        return found is not None and found.is_finished

    jobs.start()
    try:
        wait_for(is_finished, "the end of the job")
    finally:
        jobs.close()
    found = jobs.find(job_id)
    assert found is not None
    return found


def test_abandoned_job_is_run_with_its_options(jobs: AsyncJobs, store: SharedStore, ended: list[str]) -> None:
    job = await_end(jobs, abandon(store, format="webp"))

    assert (job.state, job.attempts) == ("done", 2)
    assert job.result is not None
    assert (job.result["filename"], job.result["width"]) == ("photo_compact_x4.webp", 128)
    assert store.read_result(job) is not None
    assert ended == ["done"]


@pytest.mark.parametrize(
    ("upload", "attempts", "reason"),
    [(None, 2, "upload is no longer stored"), (PHOTO, MAX_ATTEMPTS + 1, "3 gateways ended")],
)
def test_job_that_cannot_be_finished_is_lost_in_words(
    jobs: AsyncJobs, store: SharedStore, ended: list[str], upload: bytes | None, attempts: int, reason: str
) -> None:
    job = await_end(jobs, abandon(store, upload, attempts))

    assert job.state == "lost"
    assert job.problem is not None
    assert job.problem["type"] == "/problems/job-lost"
    assert reason in job.problem["detail"]
    assert ended == ["lost"]


def test_job_whose_variant_is_gone_fails_with_the_problem(jobs: AsyncJobs, store: SharedStore) -> None:
    job = await_end(jobs, abandon(store, variant="no-such"))

    assert job.state == "failed"
    assert job.problem is not None
    assert job.problem["status"] == 400


def test_result_of_a_job_that_was_deleted_leaves_the_cache(make_app: MakeApp, store: SharedStore) -> None:
    running = services(make_app(cache_max_bytes=1_000_000))
    cache = running.result_cache
    jobs = AsyncJobs(store, running.runner, running.queue, running.settings, forget_cached=cache.forget_keys)
    job_id = abandon(store)
    store.before_finish = lambda record: store.cancel(record.end("cancelled", 2.0))

    assert await_end(jobs, job_id).state == "cancelled"

    wait_for(lambda: not jobs.count_running(), "the end of the thread", 60.0)
    assert cache.stats().count == 0


def test_end_is_written_again_after_an_outage(jobs: AsyncJobs, store: SharedStore, ended: list[str]) -> None:
    store.failures = 1

    job = await_end(jobs, abandon(store))

    assert job.state == "done"
    assert ended == ["done"]

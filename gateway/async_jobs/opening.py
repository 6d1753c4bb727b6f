"""Opens the store of asynchronous jobs that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable

from gateway.async_jobs.memory_store import MemoryJobStore
from gateway.async_jobs.redis_data import RedisData
from gateway.async_jobs.redis_store import RedisJobStore
from gateway.async_jobs.shared_results import SharedResults
from gateway.async_jobs.store import JobLimits, JobStore
from gateway.config.settings import Settings
from gateway.jobs.result_store import ResultStore


def open_job_store(
    settings: Settings, results: ResultStore, clock: Callable[[], float]
) -> tuple[JobStore, SharedResults | None]:
    """Return the store of jobs, and the results of event streams that replicas share.

    Both are in Redis if there is one and it may hold them. Otherwise jobs are in memory, and no results are shared.
    Connects to nothing.
    """
    limits = JobLimits(
        max_count=settings.jobs_max_count,
        max_per_client=settings.jobs_max_per_client,
        max_age_s=settings.jobs_max_age_s,
        result_max_age_s=settings.results_max_age_s,
    )
    if settings.redis_url and settings.jobs_redis_max_bytes:
        data = RedisData(settings.redis_url, max_bytes=settings.jobs_redis_max_bytes)
        return RedisJobStore(data, limits), SharedResults(data, settings.results_max_age_s)
    return MemoryJobStore(limits, results, clock=clock), None

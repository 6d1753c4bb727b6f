"""The application factory: takes settings and a backend, returns a Flask application. Opens and reads no files."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flask import Flask

from gateway.access.admitted_request import is_refunded
from gateway.access.control import AccessControl
from gateway.access.csrf import CsrfTokens
from gateway.access.rate_limits import RateLimiter
from gateway.access.trusted_proxies import TrustedProxies
from gateway.async_jobs.deliveries import WebhookDeliveries
from gateway.async_jobs.jobs import AsyncJobs
from gateway.async_jobs.opening import open_job_store
from gateway.async_jobs.record import JobRecord, JobState
from gateway.backend.interface import Backend
from gateway.config.settings import Settings
from gateway.config.webhook_checks import parse_hosts
from gateway.jobs.queue import Capacity, JobQueue
from gateway.jobs.request_body import FORM_OVERHEAD_BYTES, MAX_FIELD_BYTES, MAX_FORM_PARTS
from gateway.jobs.result_cache import ResultCache
from gateway.jobs.result_store import ResultStore
from gateway.jobs.runner import JobRunner
from gateway.jobs.upload_memory import UploadMemory
from gateway.metrics import Metrics, Sources
from gateway.problems import Problem
from gateway.services import Services
from gateway.tracing.opening import open_tracing
from gateway.usage.meter import UsageMeter
from gateway.usage.store import open_usage_store
from gateway.usage.unwritten import UnwrittenUsageFile
from gateway.views import api, api_description, files, form, health, hooks, pages, results, status, webhooks
from gateway.views import async_jobs as job_views
from gateway.views.html_compression import register_html_compression
from gateway.views.language import register_language
from gateway.webhooks.keys import WebhookKeys
from gateway.webhooks.sender import WebhookSender
from gateway.wsgi.disconnects import DisconnectWatcher
from gateway.wsgi.drain import Drain

Clock = Callable[[], float]


def create_app(settings: Settings, backend: Backend, *, clock: Clock = time.monotonic) -> Flask:
    """Return the gateway as a WSGI application that upscales on `backend`. Raises TracingError."""
    app = Flask("gateway", static_folder=None)
    app.config.update(
        # `gateway.jobs.request_body` reads all bodies; these limits hold if other code ever reads one.
        MAX_CONTENT_LENGTH=settings.max_upload_bytes + FORM_OVERHEAD_BYTES,
        MAX_FORM_MEMORY_SIZE=MAX_FIELD_BYTES,
        MAX_FORM_PARTS=MAX_FORM_PARTS,
    )
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}
    register_language(app)
    register_html_compression(app)
    _create_services(app, settings, backend, clock).attach_to(app)
    hooks.register_hooks(app)
    for views in (form, api, job_views, webhooks, results, status, health, pages, api_description, files):
        app.register_blueprint(views.blueprint)
    app.wsgi_app = TrustedProxies(app.wsgi_app, settings.trusted_hops, settings.public_url)  # type: ignore[method-assign]
    return app


def _create_services(app: Flask, settings: Settings, backend: Backend, clock: Clock) -> Services:
    queue = JobQueue(
        Capacity(
            running=settings.max_concurrent_jobs,
            waiting=settings.queue_size,
            small_per_running=settings.small_jobs_per_slot,
            waiting_per_client=settings.queue_size_per_client,
            working_bytes=settings.max_job_memory_bytes,
        ),
        clock=clock,
    )
    result_cache = ResultCache(
        max_bytes=settings.cache_max_bytes,
        max_count=settings.cache_max_count,
        max_age_s=settings.cache_max_age_s,
        clock=clock,
    )
    usage_store = open_usage_store(settings.usage_path(), settings.redis_url)
    usage_meter = UsageMeter(
        backend.state_tracker.recent_states,
        usage_store,
        budget_s=settings.monthly_gpu_budget_s,
        unwritten=UnwrittenUsageFile.next_to(settings.usage_path()),
    )
    upload_memory = UploadMemory(settings.max_upload_memory_bytes)
    metrics = Metrics(
        Sources(
            backend=backend.state_tracker.current,
            queue=queue.state,
            cache=result_cache.stats,
            month=usage_meter.current_month,
            upload_bytes=upload_memory.reserved_bytes,
            gpu_budget_s=settings.monthly_gpu_budget_s,
            queue_size=settings.queue_size,
            deadline_s=settings.deadline_s,
        )
    )
    limiter = RateLimiter(app, settings)
    access_control = AccessControl(settings, limiter, CsrfTokens(settings.form_secret, settings.form_max_age_s))
    runner = JobRunner(
        backend,
        queue,
        deadline_s=settings.deadline_s,
        clock=clock,
        charge=usage_meter.record_work,
        cache_result=result_cache.put,
        observe_phases=metrics.observe_phases,
    )
    result_store = ResultStore(
        max_bytes=settings.results_max_bytes,
        max_count=settings.results_max_count,
        max_age_s=settings.results_max_age_s,
        clock=clock,
    )
    store, shared_results = open_job_store(settings, result_store, clock)
    sender = WebhookSender(
        WebhookKeys(settings.webhook_key, settings.webhook_key_path(), needs_setting=store.is_shared),
        parse_hosts(settings.webhook_hosts),
    )
    deliveries = WebhookDeliveries(
        store, sender, results_max_age_s=settings.results_max_age_s, count_attempt=metrics.count_webhook
    )

    def count_ended(state: JobState) -> None:
        metrics.count_async_job(state)
        deliveries.wake()

    def refund(record: JobRecord, problem: Problem) -> None:
        metrics.count_problem(problem.slug)
        limiter.refund_shared(hit for hit in record.charges if is_refunded(hit[0], problem))

    async_jobs = AsyncJobs(
        store, runner, queue, settings, count_ended=count_ended, refund=refund, forget_cached=result_cache.forget_keys
    )
    return Services(
        settings=settings,
        backend=backend,
        access_control=access_control,
        queue=queue,
        runner=runner,
        async_jobs=async_jobs,
        webhook_sender=sender,
        webhook_deliveries=deliveries,
        result_store=result_store,
        shared_results=shared_results,
        result_cache=result_cache,
        archive_threads=threading.Semaphore(_count_archive_threads(settings)),
        disconnects=DisconnectWatcher(),
        drain=Drain(
            settings.drain_s,
            count_running=lambda: (
                access_control.count_running() + async_jobs.count_running() + deliveries.count_running()
            ),
            cancel_all=runner.shut_down,
        ),
        usage_meter=usage_meter,
        upload_memory=upload_memory,
        metrics=metrics,
        tracing=open_tracing(settings.otlp_endpoint),
    )


def _count_archive_threads(settings: Settings) -> int:
    """Return how many threads are left by images in process and in the queue, pages and health checks; at least 1."""
    return max(1, min(settings.queue_size, settings.threads - settings.min_threads()))

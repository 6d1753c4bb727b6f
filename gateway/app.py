"""The application factory: takes settings and a backend, returns a Flask application. Opens and reads no files."""

from __future__ import annotations

import time
from collections.abc import Callable

from flask import Flask

from gateway.access.client_ip import TrustedProxies
from gateway.access.control import AccessControl
from gateway.access.csrf import CsrfTokens
from gateway.access.rate_limits import RateLimiter
from gateway.backend.interface import Backend
from gateway.config.settings import Settings
from gateway.jobs.queue import Capacity, JobQueue
from gateway.jobs.request_body import FORM_OVERHEAD_BYTES, MAX_FIELD_BYTES, MAX_FORM_PARTS
from gateway.jobs.result_cache import ResultCache
from gateway.jobs.result_store import ResultStore
from gateway.jobs.runner import JobRunner
from gateway.jobs.upload_memory import UploadMemory
from gateway.metrics import Metrics, Sources
from gateway.services import Services
from gateway.usage.meter import UsageMeter
from gateway.usage.store import open_usage_store
from gateway.views import api, files, form, health, hooks, pages, status
from gateway.wsgi.disconnects import DisconnectWatcher

Clock = Callable[[], float]


def create_app(settings: Settings, backend: Backend, *, clock: Clock = time.monotonic) -> Flask:
    """Return the gateway as a WSGI application that upscales on `backend`."""
    app = Flask("gateway", static_folder=None)
    app.config.update(
        # `gateway.jobs.request_body` reads all bodies; these limits hold if other code ever reads one.
        MAX_CONTENT_LENGTH=settings.max_upload_bytes + FORM_OVERHEAD_BYTES,
        MAX_FORM_MEMORY_SIZE=MAX_FIELD_BYTES,
        MAX_FORM_PARTS=MAX_FORM_PARTS,
    )
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}
    app.add_template_filter("{:,}".format, "thousands")
    app.add_template_filter(lambda number: f"{number / 1e6:.2g}" if number < 1e7 else f"{number / 1e6:.0f}", "millions")
    _create_services(app, settings, backend, clock).attach_to(app)
    hooks.register_hooks(app)
    for views in (form, api, status, health, pages, files):
        app.register_blueprint(views.blueprint)
    app.wsgi_app = TrustedProxies(app.wsgi_app, settings.trusted_hops, settings.public_url)  # type: ignore[method-assign]
    return app


def _create_services(app: Flask, settings: Settings, backend: Backend, clock: Clock) -> Services:
    queue = JobQueue(
        Capacity(
            running=settings.max_concurrent_jobs,
            waiting=settings.queue_size,
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
    usage_meter = UsageMeter(backend.state_tracker.recent_states, usage_store, budget_s=settings.monthly_gpu_budget_s)
    upload_memory = UploadMemory(settings.max_upload_memory_bytes)
    return Services(
        settings=settings,
        backend=backend,
        access_control=AccessControl(
            settings, RateLimiter(app, settings), CsrfTokens(settings.form_secret, settings.form_max_age_s)
        ),
        queue=queue,
        runner=JobRunner(
            backend,
            queue,
            deadline_s=settings.deadline_s,
            clock=clock,
            charge=usage_meter.record_work,
            cache_result=result_cache.put,
        ),
        result_store=ResultStore(
            max_bytes=settings.results_max_bytes,
            max_count=settings.results_max_count,
            max_age_s=settings.results_max_age_s,
            clock=clock,
        ),
        result_cache=result_cache,
        disconnects=DisconnectWatcher(),
        usage_meter=usage_meter,
        upload_memory=upload_memory,
        metrics=Metrics(
            Sources(
                backend=backend.state_tracker.current,
                queue=queue.state,
                cache=result_cache.stats,
                month=usage_meter.current_month,
                upload_bytes=upload_memory.reserved_bytes,
                gpu_budget_s=settings.monthly_gpu_budget_s,
            )
        ),
    )

"""The application factory: settings and a backend in, a Flask application out. Opens and reads nothing by itself."""

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


def create_app(settings: Settings, upscaler: Backend, *, clock: Callable[[], float] = time.monotonic) -> Flask:
    """Return the gateway as a WSGI application that sends its images to `upscaler`."""
    app = Flask("gateway", static_folder=None)
    app.config.update(
        # Bodies are read by `gateway.jobs.request_body` alone; these hold should anything else ever read one.
        MAX_CONTENT_LENGTH=settings.max_upload_bytes + FORM_OVERHEAD_BYTES,
        MAX_FORM_MEMORY_SIZE=MAX_FIELD_BYTES,
        MAX_FORM_PARTS=MAX_FORM_PARTS,
    )
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}
    app.add_template_filter("{:,}".format, "thousands")
    app.add_template_filter(lambda number: f"{number / 1e6:.2g}" if number < 1e7 else f"{number / 1e6:.0f}", "millions")
    places = JobQueue(
        Capacity(
            at_work=settings.max_concurrent_jobs,
            waiting=settings.queue_size,
            waiting_each=settings.queue_size_per_client,
            n_bytes=settings.max_job_memory_bytes,
        ),
        clock=clock,
    )
    cache = ResultCache(
        max_bytes=settings.cache_max_bytes,
        max_count=settings.cache_max_count,
        max_age_s=settings.cache_max_age_s,
        clock=clock,
    )
    ledger = open_usage_store(settings.path_of_meter(), settings.redis_url)
    meter = UsageMeter(upscaler.state_tracker.recent_states, ledger, budget_s=settings.monthly_gpu_budget_s)
    intake = UploadMemory(settings.max_upload_memory_bytes)
    parts = Services(
        settings=settings,
        doors=AccessControl(
            settings, RateLimiter(app, settings), CsrfTokens(settings.form_secret, settings.form_max_age_s)
        ),
        places=places,
        upscaling=JobRunner(
            upscaler, places, deadline_s=settings.deadline_s, clock=clock, charge=meter.record_work, keep=cache.keep
        ),
        results=ResultStore(
            max_bytes=settings.results_max_bytes,
            max_count=settings.results_max_count,
            max_age_s=settings.results_max_age_s,
            clock=clock,
        ),
        departures=DisconnectWatcher(),
        cache=cache,
        meter=meter,
        intake=intake,
        metrics=Metrics(
            Sources(
                backend=upscaler.state_tracker.current,
                queue=places.state,
                cache=cache.state,
                month=meter.current_month,
                upload_bytes=intake.taken,
                gpu_budget_s=settings.monthly_gpu_budget_s,
            )
        ),
    )
    parts.give_to(app)
    hooks.wrap(app)
    for views in (form, api, status, health, pages, files):
        app.register_blueprint(views.blueprint)
    app.wsgi_app = TrustedProxies(app.wsgi_app, settings.trusted_hops, settings.public_url)  # type: ignore[method-assign]
    return app

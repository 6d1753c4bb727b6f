"""The objects that a running gateway consists of. `gateway.app` creates them once; views get them from here."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import cast

from flask import Flask, current_app

from gateway.access.control import AccessControl
from gateway.async_jobs.deliveries import WebhookDeliveries
from gateway.async_jobs.jobs import AsyncJobs
from gateway.async_jobs.shared_results import SharedResults
from gateway.backend.interface import Backend
from gateway.config.settings import Settings
from gateway.jobs.queue import JobQueue
from gateway.jobs.result_cache import ResultCache
from gateway.jobs.result_store import ResultStore
from gateway.jobs.runner import JobRunner
from gateway.jobs.upload_memory import UploadMemory
from gateway.metrics import Metrics
from gateway.tracing.spans import Tracing
from gateway.usage.meter import UsageMeter
from gateway.webhooks.sender import WebhookSender
from gateway.wsgi.disconnects import DisconnectWatcher
from gateway.wsgi.drain import Drain

_EXTENSION = "superres"


@dataclass(frozen=True)
class Services:
    """The objects of one application."""

    settings: Settings
    backend: Backend
    access_control: AccessControl
    queue: JobQueue
    runner: JobRunner
    async_jobs: AsyncJobs
    webhook_sender: WebhookSender
    webhook_deliveries: WebhookDeliveries
    result_store: ResultStore
    shared_results: SharedResults | None
    """Results that other replicas can send; None without Redis."""
    result_cache: ResultCache
    archive_threads: threading.Semaphore
    """Worker threads that requests for several images may occupy, on top of those of queued images."""
    disconnects: DisconnectWatcher
    drain: Drain
    usage_meter: UsageMeter
    upload_memory: UploadMemory
    metrics: Metrics
    tracing: Tracing | None
    """What sends traces; None while they are off."""

    def attach_to(self, app: Flask) -> None:
        """Make these the services of an application."""
        app.extensions[_EXTENSION] = self


def services(app: Flask | None = None) -> Services:
    """Return the services of an application; without an argument, of the application that serves this request."""
    return cast("Services", (app or current_app).extensions[_EXTENSION])

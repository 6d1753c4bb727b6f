"""The objects that a running gateway consists of. `gateway.app` creates them once; views get them from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import Flask, current_app

from gateway.access.control import AccessControl
from gateway.backend.interface import Backend
from gateway.config.settings import Settings
from gateway.jobs.queue import JobQueue
from gateway.jobs.result_cache import ResultCache
from gateway.jobs.result_store import ResultStore
from gateway.jobs.runner import JobRunner
from gateway.jobs.upload_memory import UploadMemory
from gateway.metrics import Metrics
from gateway.usage.meter import UsageMeter
from gateway.wsgi.disconnects import DisconnectWatcher

_EXTENSION = "superres"


@dataclass(frozen=True)
class Services:
    """The objects of one application."""

    settings: Settings
    backend: Backend
    access_control: AccessControl
    queue: JobQueue
    runner: JobRunner
    result_store: ResultStore
    result_cache: ResultCache
    disconnects: DisconnectWatcher
    usage_meter: UsageMeter
    upload_memory: UploadMemory
    metrics: Metrics

    def attach_to(self, app: Flask) -> None:
        """Make these the services of an application."""
        app.extensions[_EXTENSION] = self


def services(app: Flask | None = None) -> Services:
    """Return the services of an application; without an argument, of the application that serves this request."""
    return cast("Services", (app or current_app).extensions[_EXTENSION])

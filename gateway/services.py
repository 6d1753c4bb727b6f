"""The parts that a running gateway is made of, made once by `gateway.app` and handed to the views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import Flask

from gateway.access.control import AccessControl
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
    """What views may use."""

    settings: Settings
    doors: AccessControl
    places: JobQueue
    upscaling: JobRunner
    results: ResultStore
    departures: DisconnectWatcher
    cache: ResultCache
    meter: UsageMeter
    intake: UploadMemory
    metrics: Metrics

    def give_to(self, app: Flask) -> None:
        """Make these the parts of an application."""
        app.extensions[_EXTENSION] = self


def services_of(app: Flask) -> Services:
    """Return the parts of an application."""
    return cast("Services", app.extensions[_EXTENSION])

"""The parts that a running gateway is made of, made once by `gateway.app` and handed to the views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import Flask

from gateway.access.control import Doors
from gateway.config.settings import Settings
from gateway.jobs.queue import Places
from gateway.jobs.result_cache import Cache
from gateway.jobs.result_store import Results
from gateway.jobs.runner import Upscaling
from gateway.jobs.upload_memory import Intake
from gateway.metrics import Metrics
from gateway.usage.meter import Meter
from gateway.wsgi.disconnects import Departures

_EXTENSION = "superres"


@dataclass(frozen=True)
class Parts:
    """What views may use."""

    settings: Settings
    doors: Doors
    places: Places
    upscaling: Upscaling
    results: Results
    departures: Departures
    cache: Cache
    meter: Meter
    intake: Intake
    metrics: Metrics

    def give_to(self, app: Flask) -> None:
        """Make these the parts of an application."""
        app.extensions[_EXTENSION] = self


def parts_of(app: Flask) -> Parts:
    """Return the parts of an application."""
    return cast("Parts", app.extensions[_EXTENSION])

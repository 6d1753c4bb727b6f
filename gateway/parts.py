"""The parts that a running gateway is made of, made once by `gateway.app` and handed to the views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import Flask

from gateway.cache import Cache
from gateway.departures import Departures
from gateway.doors import Doors
from gateway.intake import Intake
from gateway.meter import Meter
from gateway.metrics import Metrics
from gateway.places import Places
from gateway.results import Results
from gateway.settings import Settings
from gateway.upscaling import Upscaling

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

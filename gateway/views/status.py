"""How the backend is, and the wish to have it awake. Neither view waits for it; only the wish wakes it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, current_app

from gateway.services import services_of
from gateway.views.access import admit_to_wake
from gateway.views.jobs import find_spent

blueprint = Blueprint("status", __name__, url_prefix="/api/v1")


@blueprint.get("/status")
def status() -> dict[str, Any]:
    """Tell the backend's state, as far as it is known without asking it, how full the queue is, what the month cost."""
    parts = services_of(current_app)
    places = parts.places.state()
    return {
        "backend": parts.upscaling.upscaler.state_tracker.current().describe(),
        "queue": {
            "running": places.at_work,
            "waiting": places.waiting,
            "size": parts.settings.queue_size,
        },
        "month": parts.meter.describe(),
    }


@blueprint.post("/wake")
def wake() -> tuple[dict[str, str], int]:
    """Have the backend boot if it sleeps: a visitor has chosen a file, and the upload takes a while."""
    upscaler = services_of(current_app).upscaling.upscaler
    admit_to_wake(starts_a_boot=upscaler.state_tracker.current().name not in ("up", "booting"))
    if problem := find_spent():
        raise problem
    upscaler.wake()
    return {"state": upscaler.state_tracker.current().name}, 202

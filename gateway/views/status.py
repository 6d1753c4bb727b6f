"""Status of the backend, and a request to wake it. Neither view waits for the backend; only the second one wakes it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from gateway.services import services
from gateway.views.access import authorize_wake
from gateway.views.jobs import find_budget_problem, reject_while_draining

blueprint = Blueprint("status", __name__, url_prefix="/api/v1")


@blueprint.get("/status")
def status() -> dict[str, Any]:
    """Report the backend's last known state, the queue, the pace and this month's GPU usage. Contacts nobody."""
    queue = services().queue.state()
    return {
        "backend": services().backend.state_tracker.current().describe(),
        "queue": {"running": queue.running, "waiting": queue.waiting, "size": services().settings.queue_size},
        "estimate": {
            "queue_s": round(services().queue.estimate_wait_s(), 1),
            "s_per_megapixel": services().runner.pace.seconds_per_megapixel(),
        },
        "month": services().usage_meter.describe(),
    }


@blueprint.post("/wake")
def wake() -> tuple[dict[str, str], int]:
    """Start booting the backend if it sleeps: the user has chosen a file and will upload it soon."""
    backend = services().backend
    authorize_wake(starts_a_boot=backend.state_tracker.current().name not in ("up", "booting"))
    reject_while_draining()
    if problem := find_budget_problem():
        raise problem
    backend.wake()
    return {"state": backend.state_tracker.current().name}, 202

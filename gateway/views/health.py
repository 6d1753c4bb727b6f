"""Health checks of the gateway alone. They never contact the backend, because any request would wake it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from gateway.jobs.refusals import gateway_restarting, queue_full
from gateway.services import services

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> dict[str, Any]:
    """Report that the process responds."""
    return {"status": "ok"}


@blueprint.get("/readyz")
def readyz() -> dict[str, Any]:
    """Report whether the queue has a free slot; 503 if not, so that a load balancer chooses another replica.

    A failed backend is reported, but is not a 503: the next request is what makes it try again. A gateway that is
    being stopped responds with 503, while it finishes its images.
    """
    if services().drain.is_draining:
        raise gateway_restarting("It takes no more images.")
    state = services().queue.state()
    if state.is_full:
        raise queue_full(state.waiting, state.retry_after_s)
    backend = services().backend.state_tracker.current()
    return {
        "status": "ready",
        "running": state.running,
        "waiting": state.waiting,
        "backend": {"state": backend.name, "reason": backend.reason or None},
    }

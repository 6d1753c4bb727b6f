"""Health of the gateway alone. Never asks Triton anything: asking is waking."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, current_app

from gateway.problems import QueueFull, retry_later
from gateway.services import services_of

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> dict[str, Any]:
    """Say that the process answers."""
    return {"status": "ok"}


@blueprint.get("/readyz")
def readyz() -> dict[str, Any]:
    """Say whether another picture would be taken; 503 while none would, so that a balancer looks elsewhere."""
    state = services_of(current_app).places.state()
    if state.is_full:
        raise retry_later(
            QueueFull,
            f"Every place is taken and {state.waiting} pictures are waiting, as many as may.",
            state.retry_after_s,
        )
    return {"status": "ready", "running": state.at_work, "waiting": state.waiting}

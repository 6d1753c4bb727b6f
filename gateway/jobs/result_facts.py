"""The facts of a result as JSON members: of the `result` event and of an asynchronous job."""

from __future__ import annotations

from typing import Any

from gateway.jobs.choice import describe_choice
from gateway.jobs.job import Result
from gateway.jobs.options import UpscaleOptions


def describe_facts(result: Result, options: UpscaleOptions) -> dict[str, Any]:
    """Return the facts of a result."""
    choice = describe_choice(options)
    return {
        "filename": result.filename,
        "media_type": result.media_type,
        "width": result.width,
        "height": result.height,
        "bytes": len(result.data),
        "seconds": round(result.seconds, 3),
        "variant": options.variant.name,
        "strength": options.strength,
        "choice": choice.body() if choice else None,
        "notes": list(result.notes),
        "checks": None if result.checks is None else vars(result.checks),
        "cache": result.cache,
    }

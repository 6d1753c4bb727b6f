"""Problems of requests that the gateway does not take now: the queue is full, or the gateway restarts."""

from __future__ import annotations

from gateway import problems

# Retry-After while the gateway shuts down: usually another instance starts at once.
_RESTART_RETRY_S = 10.0


def gateway_restarting(detail: str) -> problems.Problem:
    """Return the problem of a request that a stopping gateway does not serve; `detail` is a sentence."""
    return problems.retry_later(
        problems.BackendUnavailable,
        f"The gateway is restarting. {detail} Try again in {_RESTART_RETRY_S:.0f} seconds.",
        _RESTART_RETRY_S,
    )


def queue_full(waiting: int, retry_after_s: float) -> problems.Problem:
    """Return the problem of a full queue."""
    return problems.retry_later(
        problems.QueueFull,
        f"The queue is full ({count_images(waiting)} waiting). Try again in {problems.describe_wait(retry_after_s)}.",
        retry_after_s,
    )


def count_images(count: int) -> str:
    """Return "1 image", "2 images", ..."""
    return "1 image" if count == 1 else f"{count} images"

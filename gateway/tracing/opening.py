"""Turns traces on if a setting names a collector. Only then are the packages of OpenTelemetry imported."""

from __future__ import annotations

from gateway.tracing.spans import Tracing


class TracingError(Exception):
    """Traces are on and cannot be made; the message says why and what to do."""


def open_tracing(endpoint: str) -> Tracing | None:
    """Return what sends traces to the collector at this URL; None without a URL. Raises TracingError."""
    if not endpoint:
        return None
    try:
        from gateway.tracing.otlp import OtlpTracing  # noqa: PLC0415 - an import that takes 0.3 s, for an extra
    except ImportError as error:
        raise TracingError(
            f"SUPERRES_OTLP_ENDPOINT is set, but OpenTelemetry is not installed ({error}). Install the extra: "
            "pip install 'serverless-superres[tracing]'. Or leave the setting empty."
        ) from error
    return OtlpTracing(endpoint)

"""What a trace consists of, and how the context of a trace reaches Triton. Imports nothing of OpenTelemetry.

A request has one span, and one below it for each phase. The context of a trace travels as the header `traceparent` (W3C
Trace Context): from a client or a proxy to the gateway, and from the gateway to Triton as gRPC metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

TRACEPARENT = "traceparent"

AttributeValue = str | int | float

_outgoing: ContextVar[str] = ContextVar("outgoing traceparent", default="")


@dataclass(frozen=True)
class TimedSpan:
    """A part of a request, such as a phase of its job."""

    name: str
    start_s: float
    """Seconds since the request began."""
    end_s: float
    attributes: Mapping[str, AttributeValue]
    events: Sequence[tuple[str, float]] = ()
    """Names, and seconds since the request began."""


class RequestTrace(Protocol):
    """The trace of one request."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        ...

    @property
    def traceparent(self) -> str:
        """The header for calls that the request makes; empty if this trace is not recorded."""
        ...

    def end(
        self, name: str, attributes: Mapping[str, AttributeValue], parts: Sequence[TimedSpan], *, is_error: bool
    ) -> None:
        """End the request's span with its parts below it. Returns at once; a thread sends them later."""
        ...


class Tracing(Protocol):
    """Starts traces and sends them to a collector. Safe to use from several threads."""

    def start(self, traceparent: str) -> RequestTrace:
        """Start the trace of a request, as part of its client's trace if it sent a valid `traceparent`."""
        ...

    def close(self) -> None:
        """Send what is left, for a short time at most."""
        ...


@contextmanager
def passed_on(traceparent: str) -> Iterator[None]:
    """Pass a trace on to Triton with the calls that this thread makes inside the block."""
    token = _outgoing.set(traceparent)
    try:
        yield
    finally:
        _outgoing.reset(token)


def trace_metadata() -> list[tuple[str, str]]:
    """Return the gRPC metadata that puts Triton's spans into the trace of the request; empty without one."""
    traceparent = _outgoing.get()
    return [(TRACEPARENT, traceparent)] if traceparent else []

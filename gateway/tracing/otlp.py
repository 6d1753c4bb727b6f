"""Traces in OpenTelemetry: spans are kept in a bounded queue and sent by one thread, over OTLP with HTTP.

While the collector does not respond, spans are dropped: no request waits for it. The log has one line when that begins
and one when it ends. The SDK reads the standard variables of OpenTelemetry, such as OTEL_SERVICE_NAME,
OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER and OTEL_EXPORTER_OTLP_HEADERS.
"""

from __future__ import annotations

import importlib.metadata
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, format_span_id, format_trace_id
from opentelemetry.trace.propagation import set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.tracing.spans import TRACEPARENT, AttributeValue, TimedSpan

SERVICE_NAME = "superres-gateway"

# Spans that wait to be sent; further ones are dropped. A request has at most seven.
MAX_QUEUED_SPANS = 2048
# An export that takes longer fails.
EXPORT_TIMEOUT_S = 10
# Time that a shutdown gives to the last spans.
CLOSE_LIMIT_S = 1.0
# Characters of a text in a span; one event per band of an image.
MAX_TEXT_LENGTH = 120
MAX_EVENTS = 128
# Characters of the reason of an outage in the log.
MAX_REASON_LENGTH = 500

_log = logging.getLogger(__name__)


class OtlpTracing:
    """A `gateway.tracing.spans.Tracing` that sends spans to a collector."""

    def __init__(self, endpoint: str) -> None:
        """`endpoint` is the URL of the collector, such as http://127.0.0.1:4318; spans go to its path /v1/traces."""
        resource = Resource.create(
            {"service.name": SERVICE_NAME, "service.version": importlib.metadata.version("serverless-superres")}
        )
        self._provider = TracerProvider(
            resource=resource.merge(OTELResourceDetector().detect()),  # so that OTEL_SERVICE_NAME counts
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_attribute_length=MAX_TEXT_LENGTH, max_events=MAX_EVENTS),
        )
        url = f"{endpoint.rstrip('/')}/v1/traces"
        self._provider.add_span_processor(
            BatchSpanProcessor(
                OutageExporter(OTLPSpanExporter(url, timeout=EXPORT_TIMEOUT_S), urlsplit(endpoint).hostname or ""),
                max_queue_size=MAX_QUEUED_SPANS,
            )
        )
        self._tracer = self._provider.get_tracer("gateway")

    def start(self, traceparent: str) -> OtlpRequestTrace:
        """Start the trace of a request, as part of its client's trace if it sent a valid `traceparent`."""
        context = TraceContextTextMapPropagator().extract({TRACEPARENT: traceparent}, Context())
        return OtlpRequestTrace(self._tracer, context)

    def close(self) -> None:
        """Send what is left, for a short time at most."""
        closing = threading.Thread(target=self._provider.shutdown, name="close-tracing", daemon=True)
        closing.start()
        closing.join(CLOSE_LIMIT_S)


class OtlpRequestTrace:
    """A `gateway.tracing.spans.RequestTrace` whose spans a collector gets."""

    def __init__(self, tracer: Tracer, context: Context) -> None:
        self._tracer = tracer
        self._started_ns = time.time_ns()
        self._span = tracer.start_span("request", context, SpanKind.SERVER, start_time=self._started_ns)

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return format_trace_id(self._span.get_span_context().trace_id)

    @property
    def traceparent(self) -> str:
        """The header for calls that the request makes; empty if this trace is not recorded."""
        if not self._span.is_recording():
            return ""
        context = self._span.get_span_context()
        return f"00-{self.trace_id}-{format_span_id(context.span_id)}-{context.trace_flags:02x}"

    def end(
        self, name: str, attributes: Mapping[str, AttributeValue], parts: Sequence[TimedSpan], *, is_error: bool
    ) -> None:
        """End the request's span with its parts below it. Returns at once; a thread sends them later."""
        if not self._span.is_recording():
            return
        self._span.update_name(name)
        for key, value in attributes.items():
            self._span.set_attribute(key, value)
        if is_error:
            self._span.set_status(Status(StatusCode.ERROR))
        below = set_span_in_context(self._span, Context())
        for part in parts:
            self._add(part, below)
        self._span.end()

    def _add(self, part: TimedSpan, context: Context) -> None:
        span: Span = self._tracer.start_span(
            part.name, context, attributes=dict(part.attributes), start_time=self._to_ns(part.start_s)
        )
        for name, at_s in part.events:
            span.add_event(name, timestamp=self._to_ns(at_s))
        span.end(self._to_ns(part.end_s))

    def _to_ns(self, seconds: float) -> int:
        return self._started_ns + round(1e9 * seconds)


class OutageExporter(SpanExporter):
    """An exporter that logs the beginning and the end of an outage of the collector, and nothing in between."""

    def __init__(self, exporter: SpanExporter, collector: str) -> None:
        self._exporter = exporter
        self._collector = collector
        self._is_away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; those that cannot be sent are dropped."""
        result, reason = self._exporter.export(spans), _last_messages.take()
        if (result is not SpanExportResult.SUCCESS) != self._is_away:
            self._is_away = not self._is_away
            if self._is_away:
                _log.warning(
                    "Traces cannot be sent to %s and are dropped until it responds. %s",
                    self._collector,
                    reason,
                )
            else:
                _log.info("Traces are sent to %s again.", self._collector)
        return result

    def shutdown(self) -> None:
        """Close the exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is left."""
        return self._exporter.force_flush(timeout_millis)


class LastMessages(logging.Filter):
    """Drops the records of a logger, and remembers the last two messages: why it failed, and that it was given up."""

    def __init__(self, logger_name: str) -> None:
        super().__init__()
        self._messages: deque[str] = deque(maxlen=2)
        logging.getLogger(logger_name).addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False: the record goes nowhere."""
        self._messages.append(record.getMessage())
        return False

    def take(self) -> str:
        """Return the last messages, and forget them."""
        text = " ".join(list(self._messages))[:MAX_REASON_LENGTH]
        self._messages.clear()
        return text


# OpenTelemetry logs each failed attempt and each dropped span, which would fill our log in an outage.
_last_messages = LastMessages("opentelemetry.exporter.otlp.proto.http.trace_exporter")
_dropped_messages = LastMessages("opentelemetry.sdk._shared_internal")

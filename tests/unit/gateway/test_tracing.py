"""Traces: one span per request and phase at a real OTLP receiver; no image waits for it or fails with it."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from flask import Flask
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from gateway.backend.interface import BackendFaultError, Band
from gateway.config.fields import http_url
from gateway.services import services
from gateway.tracing.opening import TracingError, open_tracing
from gateway.tracing.otlp import MAX_QUEUED_SPANS, OtlpTracing, OutageExporter
from gateway.tracing.spans import TimedSpan, trace_metadata
from preprocessing.codec import Pixels
from testing.backend import FakeBackend
from testing.fixtures import MakeApp
from testing.otlp_receiver import OtlpReceiver, receiving
from testing.raw_http import reserve_port
from testing.requests import post_image

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
PHASES = {"upload", "queue", "decode", "work", "encode"}


class TracedBackend(FakeBackend):
    """Remembers the metadata that calls to Triton would have."""

    metadata: list[tuple[str, str]] | None = None

    def upscale_bands(self, pixels: Pixels, variant: str, **others: Any) -> Iterator[Band]:
        self.metadata = trace_metadata()
        yield from super().upscale_bands(pixels, variant, **others)


@pytest.fixture
def upscaler() -> TracedBackend:
    return TracedBackend()


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def app(make_app: MakeApp, receiver: OtlpReceiver) -> Flask:
    return make_app(otlp_endpoint=receiver.url)


def send_spans(app: Flask) -> None:
    tracing = services(app).tracing
    assert tracing is not None
    tracing.close()


def test_request_and_its_phases_are_spans(
    app: Flask, key: str, receiver: OtlpReceiver, upscaler: TracedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gateway.request")
    post_image(app.test_client(), key, query="?variant=compact_x4", headers={"traceparent": SAMPLED}).close()
    send_spans(app)

    request = receiver.wait_for("POST /api/v1/upscale")
    assert (request.trace_id, request.parent_id, request.service) == (TRACE, PARENT, "superres-gateway")
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["superres.client"] == "tests"
    assert (request.attributes["superres.variant"], request.attributes["superres.bands"]) == ("compact_x4", 2)
    phases = receiver.children(request)
    assert phases.keys() == PHASES
    assert phases["work"].events == ("band", "band")
    for span in phases.values():
        assert request.start_ns <= span.start_ns <= span.end_ns <= request.end_ns
    assert phases["decode"].end_ns <= phases["work"].start_ns < phases["encode"].end_ns
    assert upscaler.metadata == [("traceparent", f"00-{TRACE}-{request.span_id}-01")]
    assert caplog.records[-1].fields["trace_id"] == TRACE  # type: ignore[attr-defined]


def test_event_stream_has_the_same_spans(app: Flask, key: str, receiver: OtlpReceiver) -> None:
    response = post_image(app.test_client(), key, headers={"Accept": "text/event-stream"})
    assert b"event: result" in response.data
    response.close()
    send_spans(app)

    assert receiver.children(receiver.wait_for("POST /api/v1/upscale")).keys() == PHASES


@pytest.mark.parametrize("header", ["", "00-0-0-01", f"00-{'0' * 32}-{PARENT}-01", "x" * 8_000, SAMPLED + "\x7f"])
def test_invalid_traceparent_starts_a_trace(app: Flask, receiver: OtlpReceiver, header: str) -> None:
    app.test_client().get("/", headers={"traceparent": header}).close()
    send_spans(app)

    span = receiver.wait_for("GET /")
    assert (span.parent_id, span.trace_id == TRACE) == ("", False)


def test_trace_that_the_client_does_not_record_is_not_sent(
    app: Flask, key: str, receiver: OtlpReceiver, upscaler: TracedBackend
) -> None:
    post_image(app.test_client(), key, headers={"traceparent": SAMPLED[:-1] + "0"}).close()
    send_spans(app)

    assert receiver.spans == []
    assert upscaler.metadata == []


def test_probes_have_no_trace_and_errors_are_marked(make_app: MakeApp, key: str, receiver: OtlpReceiver) -> None:
    failing = FakeBackend(failures=[BackendFaultError("odd")] * 2)
    app = make_app(otlp_endpoint=receiver.url, upscaler=failing)
    app.test_client().get("/healthz").close()
    post_image(app.test_client(), key).close()
    send_spans(app)

    [failed] = [span for span in receiver.spans if not span.parent_id]
    assert (failed.attributes["superres.problem"], failed.is_error) == ("backend-fault", True)


def test_images_are_served_while_the_collector_is_away(make_app: MakeApp, key: str) -> None:
    with reserve_port() as port:
        app = make_app(otlp_endpoint=f"http://127.0.0.1:{port}")
        statuses = [post_image(app.test_client(), key).status_code for _ in range(3)]
        send_spans(app)  # returns, although nothing can be sent

    assert statuses == [200] * 3


def test_collector_that_does_not_respond_fills_a_bounded_queue() -> None:
    gate = threading.Event()
    with receiving(gate) as receiver:
        tracing = OtlpTracing(receiver.url)
        for _ in range(2 * MAX_QUEUED_SPANS):
            tracing.start("").end("GET /", {"text": "x" * 10_000}, [], is_error=False)
        gate.set()
        tracing.close()
        receiver.wait_for("GET /")
        assert len(receiver.spans[0].attributes["text"]) == 120

    # The queue, and the batch that was on its way.
    assert 0 < len(receiver.spans) <= MAX_QUEUED_SPANS + 512


class FlakyExporter(SpanExporter):
    def __init__(self, results: Sequence[SpanExportResult]) -> None:
        self.results = list(results)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        result = self.results.pop(0)
        if result is SpanExportResult.FAILURE:
            logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter").error(
                "Failed: refused %d", len(self.results)
            )
        return result


def test_outage_has_one_line_at_its_beginning_and_one_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    failed, sent = SpanExportResult.FAILURE, SpanExportResult.SUCCESS
    exporter = OutageExporter(FlakyExporter([sent, failed, failed, failed, sent, sent]), "collector.example")
    for _ in range(6):
        exporter.export([])

    assert [record.getMessage() for record in caplog.records] == [
        "Traces cannot be sent to collector.example and are dropped until it responds. Failed: refused 4",
        "Traces are sent to collector.example again.",
    ]


def test_parts_keep_their_times() -> None:
    with receiving() as receiver:
        tracing = OtlpTracing(receiver.url)
        trace = tracing.start(SAMPLED)
        trace.end("POST /", {}, [TimedSpan("boot", 1.0, 3.5, {"a": 1}, [("band", 2.0)])], is_error=False)
        tracing.close()
        boot, request = receiver.wait_for("boot"), receiver.wait_for("POST /")

    assert boot.start_ns - request.start_ns == 1_000_000_000
    assert boot.end_ns - boot.start_ns == 2_500_000_000
    assert (trace.trace_id, boot.parent_id) == (TRACE, request.span_id)


def test_missing_extra_has_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gateway.tracing.otlp", None)
    with pytest.raises(TracingError, match=r"pip install 'serverless-superres\[tracing\]'"):
        open_tracing("http://127.0.0.1:4318")


def test_exporter_is_not_imported_while_traces_are_off() -> None:
    code = (
        "import sys, gateway.server, gateway.backend.triton_client; from gateway.tracing.opening import open_tracing; "
        "assert open_tracing('') is None; "
        "sys.exit(any(name.startswith(('opentelemetry.exporter', 'gateway.tracing.otlp')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("value", ["", "http://127.0.0.1:4318", "https://otel.example/otlp", "http://otel_collector"])
def test_valid_endpoints(value: str) -> None:
    assert http_url(value) == ""


@pytest.mark.parametrize(
    "value",
    ["127.0.0.1:4318", "grpc://a:4317", "http://", "http://a:99999", "http://u:p@a", "http://a/?key=1", "http://["],
)
def test_invalid_endpoints(value: str) -> None:
    assert "must be a URL" in http_url(value)

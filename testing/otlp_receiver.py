"""An OTLP receiver: takes spans over HTTP as an OpenTelemetry collector does, and keeps them for a test to read."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.json_format import ParseDict  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

LIMIT_S = 120.0
_ID_KEYS = ("traceId", "spanId", "parentSpanId")


@dataclass(frozen=True)
class ReceivedSpan:
    """One span as it arrived."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: tuple[str, ...]
    service: str
    is_error: bool


class OtlpReceiver:
    """The spans that arrived so far. With a `gate`, requests are answered once it is set."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.spans: list[ReceivedSpan] = []
        self.headers: list[dict[str, str]] = []
        self.gate = gate
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, name: str, trace_id: str = "") -> ReceivedSpan:
        """Return the first span with this name (and trace); fail if none arrives."""
        end = time.monotonic() + LIMIT_S
        while True:
            for span in list(self.spans):
                if span.name == name and trace_id in ("", span.trace_id):
                    return span
            assert time.monotonic() < end, f"no span {name!r} in {[span.name for span in self.spans]}"
            time.sleep(0.02)

    def children(self, parent: ReceivedSpan) -> dict[str, ReceivedSpan]:
        """Return the spans below a span by name."""
        return {span.name: span for span in self.spans if span.parent_id == parent.span_id}

    def receive(self, body: bytes, content_type: str) -> None:
        """Keep the spans of one request, in protobuf as the gateway sends them or in JSON as Triton does."""
        if content_type.startswith("application/json"):
            request = ParseDict(_with_bytes(json.loads(body)), ExportTraceServiceRequest(), ignore_unknown_fields=True)
        else:
            request = ExportTraceServiceRequest.FromString(body)
        for group in request.resource_spans:
            resource = _attributes(group.resource.attributes)
            for scope in group.scope_spans:
                self.spans += [_read_span(span, str(resource.get("service.name", ""))) for span in scope.spans]


@contextmanager
def receiving(gate: threading.Event | None = None) -> Iterator[OtlpReceiver]:
    """Receive spans on a free loopback port until the block ends."""
    receiver = OtlpReceiver(gate)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if receiver.gate is not None:
                receiver.gate.wait(LIMIT_S)
            receiver.headers.append({"path": self.path, **dict(self.headers)})
            receiver.receive(body, self.headers["Content-Type"])
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _with_bytes(node: Any) -> Any:
    """Return OTLP's JSON, in which ids are hexadecimal, as protobuf's JSON, in which all bytes are base64."""
    if isinstance(node, list):
        return [_with_bytes(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        key: base64.b64encode(bytes.fromhex(value)).decode() if key in _ID_KEYS else _with_bytes(value)
        for key, value in node.items()
    }


def _read_span(span: Any, service: str) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        events=tuple(event.name for event in span.events),
        service=service,
        is_error=span.status.code == 2,
    )


def _attributes(found: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in found}

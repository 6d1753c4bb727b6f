"""Triton's own spans of an image are part of the trace that the client began, below the gateway's span."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.backend.remote import RemoteBackend
from gateway.backend.state import BackendStateTracker
from gateway.backend.triton_client import TritonClient
from gateway.services import services
from testing.data import ROOT
from testing.fixtures import MakeApp
from testing.otlp_receiver import OtlpReceiver, receiving
from testing.requests import post_image
from testing.triton import TritonServer, run_server

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def traced_triton(tmp_path: Path, receiver: OtlpReceiver) -> Iterator[TritonServer]:
    """A Triton with the options that docs/how-to/operate.md names."""
    page = (ROOT / "docs/how-to/operate.md").read_text()
    block = page.partition("--trace-config=mode=opentelemetry")
    options = (block[1] + block[2].partition("\n```")[0]).replace("\\\n", " ").split()
    options = [option.replace("http://collector:4318", receiver.url) for option in options]
    with run_server(tmp_path, environ={}, options=options) as server:
        yield server


def test_spans_of_gateway_and_triton_form_one_trace(
    make_app: MakeApp, key: str, receiver: OtlpReceiver, traced_triton: TritonServer
) -> None:
    backend = RemoteBackend(TritonClient(traced_triton.grpc_address, [traced_triton.model_key]), BackendStateTracker())
    app = make_app(upscaler=backend, otlp_endpoint=receiver.url)
    try:
        header = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
        response = post_image(app.test_client(), key, query="?variant=compact_x4", headers=header)
        assert response.status_code == 200
        response.close()
        tracing = services(app).tracing
        assert tracing is not None
        tracing.close()
    finally:
        backend.close()

    request = receiver.wait_for("POST /api/v1/upscale", TRACE)
    call = receiver.wait_for("InferRequest", TRACE)
    model = receiver.wait_for("upscale_stream", TRACE)
    assert (call.parent_id, call.service) == (request.span_id, "triton-inference-server")
    assert model.attributes["triton.request_id"] == request.attributes["superres.request_id"]
    work = receiver.children(request)["work"]
    # Triton ends its span once the model returns, which may be after the gateway has the last band.
    assert work.start_ns <= model.start_ns <= work.end_ns

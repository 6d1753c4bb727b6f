"""Traces of the real server: sent before it ends, and a clear error without the extra."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.access.api_keys import ApiKeyStore
from testing.otlp_receiver import receiving
from testing.raw_http import connected, post_headers, read_response
from testing.requests import PHOTO
from testing.server import serving

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_last_spans_are_sent_at_shutdown(tmp_path: Path) -> None:
    key = ApiKeyStore(tmp_path / "keys.json").new("tests")
    with receiving() as receiver:
        with (
            serving(tmp_path, SUPERRES_OTLP_ENDPOINT=receiver.url, OTEL_SERVICE_NAME="upscaler") as server,
            connected(server) as sock,
        ):
            sock.sendall(post_headers(key, f"Content-Length: {len(PHOTO)}", f"traceparent: {TRACEPARENT}") + PHOTO)
            assert read_response(sock)[0] == 200
        span = receiver.wait_for("POST /api/v1/upscale")

        assert (span.parent_id, span.service) == ("b7ad6b7169203331", "upscaler")
        assert "work" in receiver.children(span)
    lines = [json.loads(line) for line in server.log().splitlines()]
    assert [line["trace_id"] for line in lines if line["logger"] == "gateway.request"] == [span.trace_id]


def test_invalid_endpoint_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="Invalid otlp_endpoint"), serving(tmp_path, SUPERRES_OTLP_ENDPOINT="a:1"):
        pass

"""The usage meter survives a restart of the real server, and metrics have their own port."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from gateway.access.api_keys import ApiKeyStore
from testing.raw_http import reserve_port
from testing.redis_server import RedisServer
from testing.requests import PHOTO
from testing.server import Served, serving

LIMIT_S = 120.0


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=LIMIT_S) as response:
        text: str = response.read().decode()
        return text


def format_month(server: Served) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(get(server.port, "/api/v1/status"))["month"]
    return read


def upscale_image(server: Served, key: str) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/api/v1/upscale", PHOTO, {"X-API-Key": key, "Content-Type": "image/png"}
    )
    with urllib.request.urlopen(request, timeout=LIMIT_S) as response:
        assert response.status == 200
        response.read()


@pytest.mark.parametrize("store", ["file", "redis"])
def test_month_survives_a_restart(tmp_path: Path, store: str, request: pytest.FixtureRequest) -> None:
    shared: dict[str, str] = {}
    if store == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        shared = {"SUPERRES_REDIS_URL": server.url}
    key = ApiKeyStore(tmp_path / "keys.json").new("tests")
    with serving(tmp_path, **shared) as first:
        upscale_image(first, key)
        upscale_image(first, key)
        before = format_month(first)

    with serving(tmp_path, **shared) as second:
        after = format_month(second)
        upscale_image(second, key)
        later = format_month(second)

    assert (before["images"], after["images"], later["images"]) == (2, 2, 3)
    assert after["gpu_s"] >= before["gpu_s"]
    assert (tmp_path / "meter.json").exists() == (store == "file")


def test_two_gateways_share_one_month_in_redis(tmp_path: Path, redis_server: RedisServer) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    keys = [ApiKeyStore(tmp_path / name / "keys.json").new("tests") for name in "ab"]
    with serving(tmp_path / "a", SUPERRES_REDIS_URL=redis_server.url) as one:
        upscale_image(one, keys[0])
    with serving(tmp_path / "b", SUPERRES_REDIS_URL=redis_server.url) as other:
        upscale_image(other, keys[1])

        assert format_month(other)["images"] == 2


def test_metrics_are_only_on_their_own_port(tmp_path: Path) -> None:
    with reserve_port() as port, serving(tmp_path, SUPERRES_METRICS_PORT=str(port)) as server:
        key = ApiKeyStore(tmp_path / "keys.json").new("tests")
        upscale_image(server, key)

        # A response is counted after it has been sent, so the client may be faster.
        counted = 'superres_gateway_requests_total{method="POST",route="/api/v1/upscale",status="200"} 1.0'
        deadline = time.monotonic() + LIMIT_S
        while counted not in (metrics := get(port, "/metrics")):
            assert time.monotonic() < deadline, metrics
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(server.port, "/metrics")

    assert refused.value.code == 404
    refused.value.close()
    assert 'superres_gateway_backend_state{state="up"} 1.0' in metrics
    for secret in (key, "tests", "127.0.0.1"):
        assert secret not in metrics


def test_metrics_port_in_use_ends_the_start(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(AssertionError) as caught, serving(tmp_path, SUPERRES_METRICS_PORT=str(port)):
            pass

    assert f"Cannot serve metrics on 127.0.0.1 port {port}" in str(caught.value)
    assert "SUPERRES_METRICS_PORT" in str(caught.value)

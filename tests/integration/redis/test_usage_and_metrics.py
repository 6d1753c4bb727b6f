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
from testing.raw_http import held_port
from testing.redis_server import RedisServer
from testing.requests import PHOTO
from testing.server import Served, serving

LIMIT_S = 30.0


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=LIMIT_S) as answer:
        text: str = answer.read().decode()
        return text


def month_of(server: Served) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(get(server.port, "/api/v1/status"))["month"]
    return read


def make_picture(server: Served, key: str) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/api/v1/upscale", PHOTO, {"X-API-Key": key, "Content-Type": "image/png"}
    )
    with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
        assert answer.status == 200
        answer.read()


@pytest.mark.parametrize("store", ["file", "redis"])
def test_the_month_survives_a_restart(tmp_path: Path, store: str, request: pytest.FixtureRequest) -> None:
    shared: dict[str, str] = {}
    if store == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        shared = {"SUPERRES_REDIS_URL": server.url}
    key = ApiKeyStore(tmp_path / "keys.json").new("tests")
    with serving(tmp_path, **shared) as first:
        make_picture(first, key)
        make_picture(first, key)
        before = month_of(first)

    with serving(tmp_path, **shared) as second:
        after = month_of(second)
        make_picture(second, key)
        later = month_of(second)

    assert (before["images"], after["images"], later["images"]) == (2, 2, 3)
    assert after["gpu_s"] >= before["gpu_s"]
    assert (tmp_path / "meter.json").exists() == (store == "file")


def test_two_gateways_on_one_redis_see_one_month(tmp_path: Path, redis_server: RedisServer) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    keys = [ApiKeyStore(tmp_path / name / "keys.json").new("tests") for name in "ab"]
    with serving(tmp_path / "a", SUPERRES_REDIS_URL=redis_server.url) as one:
        make_picture(one, keys[0])
    with serving(tmp_path / "b", SUPERRES_REDIS_URL=redis_server.url) as other:
        make_picture(other, keys[1])

        assert month_of(other)["images"] == 2


def test_metrics_have_a_port_of_their_own_and_the_public_one_has_none(tmp_path: Path) -> None:
    with held_port() as port, serving(tmp_path, SUPERRES_METRICS_PORT=str(port)) as server:
        key = ApiKeyStore(tmp_path / "keys.json").new("tests")
        make_picture(server, key)

        # A response is counted after it has been sent, so the client may be faster.
        counted = 'superres_gateway_requests_total{method="POST",route="/api/v1/upscale",status="200"} 1.0'
        deadline = time.monotonic() + 10
        while counted not in (told := get(port, "/metrics")):
            assert time.monotonic() < deadline, told
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(server.port, "/metrics")

    assert refused.value.code == 404
    refused.value.close()
    assert 'superres_gateway_backend_state{state="up"} 1.0' in told
    for secret in (key, "tests", "127.0.0.1"):
        assert secret not in told


def test_a_port_of_metrics_that_is_taken_ends_in_words(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(AssertionError) as caught, serving(tmp_path, SUPERRES_METRICS_PORT=str(port)):
            pass

    assert f"Cannot serve metrics on 127.0.0.1 port {port}" in str(caught.value)
    assert "SUPERRES_METRICS_PORT" in str(caught.value)

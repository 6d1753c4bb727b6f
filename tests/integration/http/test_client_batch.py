"""`upscale_batch` of both clients against the real gateway: several images in one request, a ZIP as the response."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import httpx
import pytest
from PIL import Image as PilImage

from gateway.access.api_keys import ApiKeyStore
from superres.client import AsyncClient, BatchItem, Client, ProblemError, RetryLimits, UpscaleProgress
from testing.image_files import draw_file
from testing.scripted_relay import Cut, relaying
from testing.server import Served

pytestmark = pytest.mark.slow

NO_JITTER = RetryLimits(jitter=0.0)


@pytest.fixture(scope="module")
def key(served: Served) -> str:
    return ApiKeyStore(served.state_dir / "keys.json").new("batch", requests="10000 per minute")


def open_client(port: int, key: str) -> Client:
    return Client(f"http://127.0.0.1:{port}", key, retries=NO_JITTER, sleep=lambda _: None)


def read_size(item: BatchItem) -> tuple[int, int]:
    assert item.result is not None
    with PilImage.open(io.BytesIO(item.result.data)) as image:
        image.load()
        return image.size


def test_each_image_has_its_result_or_its_problem(served: Served, key: str, tmp_path: Path) -> None:
    broken = tmp_path / "notes.txt"
    broken.write_text("no image")
    sources = [draw_file(tmp_path / "a.png", 51), broken, draw_file(tmp_path / "in" / "a.png", 52, side=16)]
    shown: list[UpscaleProgress] = []
    with open_client(served.port, key) as client:
        first, second, third = client.upscale_batch(sources, variant="compact_x4", on_progress=shown.append)

    assert (read_size(first), read_size(third)) == ((32, 32), (64, 64))
    assert first.result is not None
    assert third.result is not None
    assert [first.result.filename, third.result.filename] == ["a_compact_x4.png", "a_compact_x4-2.png"]
    assert (first.result.width, first.result.variant, first.result.path) == (32, "compact_x4", None)
    assert (second.upload, second.result) == ("notes", None)
    assert second.problem is not None
    assert (second.problem.slug, second.problem.status) == ("unknown-format", 415)
    assert {each.phase for each in shown} == {"uploading", "downloading"}


def test_results_are_files_of_a_folder(served: Served, key: str, tmp_path: Path) -> None:
    sources = [draw_file(tmp_path / "in" / name, 53) for name in ('say "hi".png', "über.v2.png")]
    target = tmp_path / "out"
    target.mkdir()
    with open_client(served.port, key) as client:
        items = client.upscale_batch(
            [*sources, sources[0].read_bytes()], to=target, variant="compact_x4", format="webp"
        )

    names = sorted(path.name for path in target.iterdir())
    assert names == sorted(item.result.filename for item in items if item.result)
    assert {"über.v2_compact_x4.webp", "image_compact_x4.webp"} <= set(names)
    assert len(names) == 3
    assert [item.result.path.parent for item in items if item.result and item.result.path] == [target] * 3
    assert {read_size(item) for item in items} == {(32, 32)}


@pytest.mark.parametrize("cut_bytes", [0, 200])
def test_request_whose_response_breaks_is_sent_again(served: Served, key: str, tmp_path: Path, cut_bytes: int) -> None:
    sources = [draw_file(tmp_path / f"{name}.png", 54 + cut_bytes) for name in "ab"]
    with relaying(served.port) as relay, open_client(relay.port, key) as client:
        relay.posts.append(Cut(cut_bytes))
        items = client.upscale_batch(sources, variant="compact_x4")

    assert len(relay.requests) == 2
    assert [read_size(item) for item in items] == [(32, 32)] * 2


def test_request_without_a_success_raises_its_problem(served: Served, key: str, tmp_path: Path) -> None:
    with open_client(served.port, key) as client:
        with pytest.raises(ProblemError) as failed:
            client.upscale_batch([b"no image", b"none either"])
        with pytest.raises(ProblemError) as many:
            client.upscale_batch([draw_file(tmp_path / "a.png", 55)] * 17)
        with pytest.raises(NotADirectoryError):
            client.upscale_batch([b"no image"], to=tmp_path / "missing")

    assert failed.value.slug == "unknown-format"
    assert "16" in many.value.detail


def test_asynchronous_client_returns_the_same(served: Served, key: str, tmp_path: Path) -> None:
    sources = [draw_file(tmp_path / f"{name}.png", 56) for name in "ab"]

    async def upscale() -> list[BatchItem]:
        async with AsyncClient(f"http://127.0.0.1:{served.port}", key) as client:
            return await client.upscale_batch([*sources, b"no image"], variant="compact_x4", to=tmp_path)

    items = asyncio.run(upscale())

    assert [item.result.filename for item in items if item.result] == ["a_compact_x4.png", "b_compact_x4.png"]
    assert [item.problem.status for item in items if item.problem] == [415]
    assert (tmp_path / "b_compact_x4.png").exists()


def test_silence_while_an_image_is_upscaled_is_no_error(key: str) -> None:
    waits: list[object] = []

    def respond(request: httpx.Request) -> httpx.Response:
        waits.append(request.extensions["timeout"]["read"])
        problem = b'{"type": "/problems/key-required", "status": 401, "detail": "A key is needed."}'
        headers = {"Content-Type": "application/problem+json"}
        return httpx.Response(401, headers=headers, stream=httpx.ByteStream(problem))

    with httpx.Client(transport=httpx.MockTransport(respond), timeout=20) as http:
        client = Client("http://127.0.0.1:1", key, http=http, retries=RetryLimits(attempts=1))
        for call in (lambda: client.upscale_batch([b"image"]), lambda: client.upscale(b"image")):
            with pytest.raises(ProblemError, match="A key is needed"):
                call()

    assert waits == [900, 20], "a ZIP has no heartbeat, unlike events"

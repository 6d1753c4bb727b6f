"""`superres.client.AsyncClient` against the real gateway: the same results, and cancelled tasks."""

from __future__ import annotations

import asyncio
import io
import json
import urllib.request
from pathlib import Path

import pytest
from PIL import Image as PilImage

from gateway.access.api_keys import ApiKeyStore
from superres.client import AsyncClient, ProblemError, RetryLimits, UpscaleProgress
from testing.image_files import draw_file
from testing.scripted_relay import Canned, Cut, relaying
from testing.server import Served
from testing.stack import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def key(served: Served) -> str:
    return ApiKeyStore(served.state_dir / "keys.json").new("async", requests="10000 per minute")


def count_running(url: str) -> int:
    with urllib.request.urlopen(f"{url}/api/v1/status", timeout=120) as response:
        return int(json.load(response)["queue"]["running"])


def test_upscale_with_retries_and_awaited_progress(served: Served, key: str, tmp_path: Path) -> None:
    source = draw_file(tmp_path / "a.png", 41, side=64)
    waits, shown = list[float](), list[UpscaleProgress]()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def show(progress: UpscaleProgress) -> None:
        await asyncio.sleep(0)
        shown.append(progress)

    async def upscale(port: int) -> Path | None:
        url = f"http://127.0.0.1:{port}"
        async with AsyncClient(url, key, retries=RetryLimits(jitter=0.0), sleep=sleep) as client:
            done = await client.upscale(source, variant="compact_x4", to=tmp_path / "out.png", on_progress=show)
            assert [each.name for each in await client.variants()]
            assert (await client.quote(source, variant="compact_x4")).width == 256
            return done.path

    with relaying(served.port) as relay:
        relay.posts.append(Canned(429, b"", {"Retry-After": "3"}))
        relay.downloads += [Cut(100), Cut(0)]
        path = asyncio.run(upscale(relay.port))

    assert (waits, path) == ([3, 1, 2], tmp_path / "out.png")
    with PilImage.open(tmp_path / "out.png") as image:
        image.load()
        assert image.size == (256, 256)
    assert shown[-1].share == 1.0


def test_images_are_upscaled_at_the_same_time(served: Served, key: str, tmp_path: Path) -> None:
    sources = [draw_file(tmp_path / f"{seed}.png", seed) for seed in (42, 43)]

    async def upscale() -> list[tuple[int, int]]:
        async with AsyncClient(f"http://127.0.0.1:{served.port}", key) as client:
            results = await asyncio.gather(*(client.upscale(each, variant="compact_x4") for each in sources))
        sizes = []
        for each in results:
            with PilImage.open(io.BytesIO(each.data)) as image:
                sizes.append(image.size)
        return sizes

    assert asyncio.run(upscale()) == [(32, 32), (32, 32)]


def test_cancelled_task_cancels_the_image_on_the_service(stuck: tuple[str, str], tmp_path: Path) -> None:
    url, key = stuck
    source = draw_file(tmp_path / "a.png", 44)

    async def cancel() -> None:
        async with AsyncClient(url, key) as client:
            task = asyncio.create_task(client.upscale(source, to=tmp_path / "out.png"))
            await asyncio.to_thread(wait_for, lambda: count_running(url) == 1, "the job to run")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel())

    wait_for(lambda: count_running(url) == 0, "the job to be cancelled")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_cancelled_task_deletes_its_job(stuck: tuple[str, str], tmp_path: Path) -> None:
    url, key = stuck
    source = draw_file(tmp_path / "a.png", 45)

    async def cancel() -> str:
        async with AsyncClient(url, key) as client:
            submitted: asyncio.Future[str] = asyncio.get_running_loop().create_future()

            async def work() -> None:
                async with await client.submit(source) as job:
                    submitted.set_result(job.id)
                    await job.result(poll_s=0.05)

            task = asyncio.create_task(work())
            job_id = await asyncio.wait_for(submitted, 120)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return (await client.job(job_id).wait(timeout_s=120)).state

    assert asyncio.run(cancel()) == "cancelled"


def test_problem_is_typed(served: Served, tmp_path: Path) -> None:
    async def upscale() -> None:
        async with AsyncClient(f"http://127.0.0.1:{served.port}", "wrong") as client:
            await client.upscale(draw_file(tmp_path / "a.png", 46))

    with pytest.raises(ProblemError) as caught:
        asyncio.run(upscale())
    assert caught.value.slug == "key-required"

"""Jobs of several images with both clients against the real gateway: the ZIP is the result of the job."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.access.api_keys import ApiKeyStore
from superres.client import (
    AsyncClient,
    BatchItem,
    Client,
    DownloadFailedError,
    ProblemError,
    RetryLimits,
    UnexpectedResponseError,
    UpscaleProgress,
)
from testing.image_files import draw_file
from testing.scripted_relay import Cut, relaying
from testing.server import Served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def key(served: Served) -> str:
    return ApiKeyStore(served.state_dir / "keys.json").new("batch jobs", requests="10000 per minute")


def open_client(port: int, key: str, *, attempts: int = 6) -> Client:
    retries = RetryLimits(attempts=attempts, jitter=0.0)
    return Client(f"http://127.0.0.1:{port}", key, retries=retries, sleep=lambda _: None)


def draw(folder: Path, seed: int) -> list[Path]:
    return [draw_file(folder / f"{name}.png", seed, side=64) for name in "ab"]


def names(items: list[BatchItem]) -> list[str]:
    return [item.result.filename for item in items if item.result]


def test_each_image_of_a_job_has_its_result_or_its_problem(served: Served, key: str, tmp_path: Path) -> None:
    out, shown = tmp_path / "out", list[UpscaleProgress]()
    out.mkdir()
    with open_client(served.port, key) as client:
        whole = client.upscale_batch(draw(tmp_path, 71), variant="compact_x4")
        with client.submit_batch([*draw(tmp_path, 71), b"no image"], variant="compact_x4") as job:
            items = client.batch_job(job.id).results(to=out, poll_s=0.01, on_progress=shown.append)
            in_memory = job.results()
        with pytest.raises(ProblemError) as gone:
            job.status()

    assert names(items) == names(in_memory) == ["a_compact_x4.png", "b_compact_x4.png"]
    assert [item.problem.status for item in items if item.problem] == [415]
    assert sorted(path.name for path in out.iterdir()) == ["a_compact_x4.png", "b_compact_x4.png"]
    for item, other, expected in zip(items, in_memory, whole, strict=False):
        assert item.result is not None
        assert other.result is not None
        assert expected.result is not None
        assert item.result.data == other.result.data == expected.result.data
    assert (shown[-1].phase, shown[-1].share) == ("downloading", 1.0)
    assert gone.value.status in (404, 410)


def test_archive_of_a_job_is_a_file_and_its_download_goes_on(served: Served, key: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with relaying(served.port) as relay, open_client(relay.port, key) as client:
        relay.posts.append(Cut(0))
        job = client.submit_batch(draw(tmp_path, 72), variant="compact_x4")
        relay.downloads += [Cut(0), Cut(1_000), Cut(500)]
        path = job.archive(out, poll_s=0.01)

    assert (len(relay.idempotency_keys), len(set(relay.idempotency_keys))) == (2, 1), "a lost response is one job"
    assert relay.ranges == ["bytes=1000-", "bytes=1500-"]
    assert list(out.iterdir()) == [path]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a_compact_x4.png", "b_compact_x4.png", "report.json"]
        assert json.loads(archive.read("report.json"))["succeeded"] == 2


def test_download_that_breaks_too_often_says_that_the_job_keeps_it(served: Served, key: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with relaying(served.port) as relay, open_client(relay.port, key, attempts=2) as client:
        job = client.submit_batch(draw(tmp_path, 73), variant="compact_x4")
        relay.downloads += [Cut(0)] * 2
        with pytest.raises(DownloadFailedError, match=f"The job {job.id} keeps its result for a while") as failed:
            job.archive(out / "several.zip", poll_s=0.01)
        assert str(failed.value).count(".") >= 2
        assert list(out.iterdir()) == []
        path = job.archive(out / "several.zip")

    assert list(out.iterdir()) == [path]


def test_jobs_of_one_image_and_of_several_are_told_apart(served: Served, key: str, tmp_path: Path) -> None:
    source = draw(tmp_path, 74)
    with open_client(served.port, key) as client:
        one, several = client.submit(source[0], variant="compact_x4"), client.submit_batch(source, variant="compact_x4")
        with pytest.raises(UnexpectedResponseError, match="has one image: read it with `job`"):
            client.batch_job(one.id).results(poll_s=0.01)
        with pytest.raises(UnexpectedResponseError, match="has several images: read it with `batch_job`"):
            client.job(several.id).result(poll_s=0.01)
        with pytest.raises(NotADirectoryError):
            several.results(to=tmp_path / "missing")
        with pytest.raises(FileNotFoundError):
            several.archive(tmp_path / "missing" / "several.zip")


def test_asynchronous_client_does_the_same(served: Served, key: str, tmp_path: Path) -> None:
    async def upscale() -> tuple[list[BatchItem], Path]:
        async with AsyncClient(f"http://127.0.0.1:{served.port}", key) as client:
            job = await client.submit_batch(draw(tmp_path, 75), variant="compact_x4")
            items = await client.batch_job(job.id).results(poll_s=0.01)
            return items, await job.archive(tmp_path / "several.zip")

    items, path = asyncio.run(upscale())

    assert names(items) == ["a_compact_x4.png", "b_compact_x4.png"]
    with zipfile.ZipFile(path) as archive:
        assert [archive.read(item.result.filename) for item in items if item.result] == [
            item.result.data for item in items if item.result
        ]


class _LargeArchive(httpx.SyncByteStream):
    """Makes the bytes of a ZIP as they are read."""

    chunks, chunk = 1_024, bytes(65_536)

    def __iter__(self) -> Iterator[bytes]:
        yield from (self.chunk for _ in range(self.chunks))


def test_archive_is_never_in_memory_as_a_whole(key: str, tmp_path: Path) -> None:
    size_bytes = _LargeArchive.chunks * len(_LargeArchive.chunk)

    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/result"):
            return httpx.Response(200, stream=_LargeArchive(), headers={"ETag": '"1"'})
        facts = {"bytes": size_bytes, "filename": "images.zip", "media_type": "application/zip"}
        status = {"state": "done", "images": {"count": 9, "done": 9}, "result": facts}
        return httpx.Response(200, stream=httpx.ByteStream(json.dumps(status).encode()))

    with httpx.Client(transport=httpx.MockTransport(respond)) as http:
        job = Client("http://127.0.0.1:1", key, http=http).batch_job("j")
        tracemalloc.start()
        path = job.archive(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert (path.name, path.stat().st_size) == ("images.zip", size_bytes)
    assert peak < size_bytes / 16

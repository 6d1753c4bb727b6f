"""`superres.client.Client` against the real gateway: results, retries, downloads that break, problems, jobs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PilImage

from gateway.access.api_keys import ApiKeyStore
from superres.client import Client, InvalidUrlError, ProblemError, RetryLimits, UpscaleProgress, WaitTimeoutError
from testing.image_files import draw_file
from testing.scripted_relay import Canned, Cut, relaying
from testing.server import Served

pytestmark = pytest.mark.slow

NO_JITTER = RetryLimits(jitter=0.0)
BUSY = b'{"type": "/problems/queue-full", "status": 503, "detail": "The queue is full.", "retry_after_s": 7}'


@pytest.fixture(scope="module")
def key(served: Served) -> str:
    return ApiKeyStore(served.state_dir / "keys.json").new("client", requests="10000 per minute")


def open_client(port: int, key: str, **options: Any) -> Client:
    return Client(f"http://127.0.0.1:{port}", key, **{"retries": NO_JITTER, **options})


def busy() -> Canned:
    return Canned(503, BUSY, {"Content-Type": "application/problem+json", "Retry-After": "7"})


def read_size(data: bytes) -> tuple[int, int]:
    with PilImage.open(io.BytesIO(data)) as image:
        image.load()
        return image.size


def test_result_has_bytes_and_facts(served: Served, key: str, tmp_path: Path) -> None:
    source = draw_file(tmp_path / "photo.png", 31)
    shown: list[UpscaleProgress] = []
    with open_client(served.port, key) as client:
        result = client.upscale(source, variant="compact_x4", format="webp", lossless=True, on_progress=shown.append)

    assert read_size(result.data) == (result.width, result.height) == (32, 32)
    assert (result.filename, result.media_type, result.variant) == ("photo_compact_x4.webp", "image/webp", "compact_x4")
    assert result.size_bytes == len(result.data)
    assert result.request_id
    assert result.save(tmp_path).read_bytes() == result.data
    phases = [each.phase for each in shown]
    assert (phases[0], phases[-1], shown[-1].share) == ("uploading", "downloading", 1.0)
    assert "working" in phases


def test_download_that_breaks_goes_on_where_it_stopped(served: Served, key: str, tmp_path: Path) -> None:
    source, waits = draw_file(tmp_path / "in" / "a.png", 32, side=64), list[float]()
    with open_client(served.port, key) as client:
        whole = client.upscale(source, variant="compact_x4").data
    with relaying(served.port) as relay, open_client(relay.port, key, sleep=waits.append) as client:
        relay.downloads += [Cut(0), Cut(1_000), Cut(1)]
        result = client.upscale(source, variant="compact_x4", to=tmp_path)

    assert waits == [1, 1, 1]
    assert [line.split()[0] for line in relay.requests] == ["POST", "GET", "GET", "GET", "GET", "DELETE"]
    assert result.path == tmp_path / "a_compact_x4.png"
    assert result.path.read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_compact_x4.png", "in"]


def test_retry_after_is_obeyed_and_shown(served: Served, key: str, tmp_path: Path) -> None:
    waits, shown = list[float](), list[UpscaleProgress]()
    with relaying(served.port) as relay, open_client(relay.port, key, sleep=waits.append) as client:
        relay.posts += [busy(), Cut(0)]
        client.upscale(draw_file(tmp_path / "a.png", 33), variant="compact_x4", on_progress=shown.append)

    assert waits == [7, 1]
    waiting = [each for each in shown if each.phase == "waiting"]
    assert str(waiting[0]) == "The queue is full. Trying again in 7 s."


def test_wait_that_is_too_long_raises_the_problem(served: Served, key: str, tmp_path: Path) -> None:
    limits = RetryLimits(max_wait_s=5.0)
    with relaying(served.port) as relay, open_client(relay.port, key, retries=limits) as client:
        relay.posts.append(busy())
        with pytest.raises(ProblemError, match="The queue is full") as caught:
            client.upscale(draw_file(tmp_path / "a.png", 34))

    assert (caught.value.slug, caught.value.retry_after_s, len(relay.requests)) == ("queue-full", 7, 1)


def test_problem_is_typed(served: Served, key: str, tmp_path: Path) -> None:
    source = draw_file(tmp_path / "a.png", 35)
    with open_client(served.port, "wrong") as client, pytest.raises(ProblemError) as refused:
        client.upscale(source)
    with open_client(served.port, key) as client, pytest.raises(ProblemError) as invalid:
        client.upscale(source, variant="compact_x5")

    assert (refused.value.status, refused.value.slug) == (401, "key-required")
    assert (invalid.value.status, invalid.value.members["parameter"]) == (400, "variant")
    assert invalid.value.request_id


def test_quote_and_variants(served: Served, key: str, tmp_path: Path) -> None:
    with open_client(served.port, key) as client:
        quote = client.quote(draw_file(tmp_path / "a.png", 36), variant="compact_x4")
        variants = {each.name: each.scale for each in client.variants()}

    assert (quote.variant, quote.width, quote.height, quote.megapixels, quote.fits) == ("compact_x4", 32, 32, 1, True)
    assert variants["compact_x4"] == 4


def test_submission_whose_response_is_lost_is_one_job(served: Served, key: str, tmp_path: Path) -> None:
    source = draw_file(tmp_path / "a.png", 37)
    with relaying(served.port) as relay, open_client(relay.port, key, sleep=lambda _: None) as client:
        relay.posts.append(Cut(0))
        relay.downloads.append(Cut(10))
        job = client.submit(source, variant="compact_x4")
        again = client.job(job.id, stem="again")
        result = again.result(poll_s=0.01)
        job.delete()
        with pytest.raises(ProblemError) as gone:
            job.status()

    assert len(relay.idempotency_keys) == 2
    assert len(set(relay.idempotency_keys)) == 1
    started = [line for line in served.log().splitlines() if f'"{job.id}"' in line]
    assert len(started) == 1, "the second request found the job of the first"
    assert (result.filename, read_size(result.data)) == ("again_compact_x4.png", (32, 32))
    assert gone.value.slug == "unknown-job"


def test_job_is_cancelled_at_the_end_of_its_block(stuck: tuple[str, str], tmp_path: Path) -> None:
    with Client(*stuck) as client:
        with client.submit(draw_file(tmp_path / "a.png", 38)) as job:
            assert not job.status().is_finished
            with pytest.raises(WaitTimeoutError):
                job.wait(timeout_s=0.0)
        assert job.wait(timeout_s=120.0).state == "cancelled"


@pytest.mark.parametrize("url", ["superres.example", "https://a.example:0x"])
def test_invalid_address(url: str) -> None:
    with pytest.raises(InvalidUrlError):
        Client(url)

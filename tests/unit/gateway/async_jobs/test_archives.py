"""Jobs of several images that were abandoned: run with all of their images, or lost in words."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO

import pytest
from flask import Flask

from gateway.async_jobs.archives import pack_uploads, unpack_uploads
from gateway.async_jobs.jobs import AsyncJobs
from gateway.async_jobs.memory_store import MemoryJobStore
from gateway.async_jobs.record import JobRecord, new_job_id
from gateway.async_jobs.store import JobLimits
from gateway.jobs.archive_job import ArchiveImage
from gateway.jobs.options import parse_options
from gateway.jobs.result_store import ResultStore
from gateway.services import services
from testing.images import draw_photo, encode_png
from testing.jobs import SETTINGS, upscale_request
from testing.redis_server import wait_for
from testing.requests import read_image

OPTIONS = {"variant": "compact_x4"}
REJECTED = {"status": 415, "type": "/problems/unknown-format"}


class AbandonedJobs(MemoryJobStore):
    """Has one abandoned job to take, as Redis does."""

    is_shared = True

    def __init__(self) -> None:
        results = ResultStore(max_bytes=1_000_000, max_count=100, max_age_s=600.0)
        super().__init__(JobLimits(max_count=9, max_per_client=9, max_age_s=600.0, result_max_age_s=600.0), results)
        self.abandoned: list[tuple[JobRecord, bytes | None]] = []

    def take_abandoned(self) -> tuple[JobRecord, bytes | None] | None:  # type: ignore[override]
        return self.abandoned.pop() if self.abandoned else None


def draw(seed: int) -> bytes:
    return encode_png(draw_photo(8, 12, seed=seed))


@pytest.fixture
def images() -> list[ArchiveImage]:
    return [
        ArchiveImage("a", upscale_request(draw(1), **OPTIONS)),
        ArchiveImage("b", None, REJECTED),
        ArchiveImage("c", upscale_request(draw(2), **OPTIONS)),
    ]


def test_uploads_survive_the_store(images: list[ArchiveImage]) -> None:
    options = parse_options(OPTIONS, SETTINGS)

    found = unpack_uploads(pack_uploads(images), options, SETTINGS, request_id="r", base_path="")

    assert [image.stem for image in found] == ["a", "b", "c"]
    assert [image.problem for image in found] == [None, REJECTED, None]
    assert [image.request and image.request.upload.data for image in found] == [draw(1), None, draw(2)]


def test_abandoned_job_is_run_with_all_of_its_images(app: Flask, images: list[ArchiveImage]) -> None:
    store, running = AbandonedJobs(), services(app)
    jobs = AsyncJobs(store, running.runner, running.queue, running.settings)
    job = JobRecord(new_job_id("0123abcd"), "client:a", "a", "r", 1.0, OPTIONS, "a", images=3, attempts=2)
    store.add(job, b"")
    store.abandoned.append((job, pack_uploads(images)))

    def is_finished() -> bool:
        found = jobs.find(job.id)
        return found is not None and found.is_finished

    jobs.start()
    try:
        wait_for(is_finished, "the end of the job", 60.0)
    finally:
        jobs.close()

    found = jobs.find(job.id)
    assert found is not None
    assert (found.state, found.images_done) == ("done", 3)
    data = store.read_result(found)
    assert data is not None
    with zipfile.ZipFile(BytesIO(data)) as archive:
        assert archive.namelist() == ["a_compact_x4.png", "c_compact_x4.png", "report.json"]
        assert json.loads(archive.read("report.json"))["images"][1]["problem"] == REJECTED
        for name, seed in (("a_compact_x4.png", 1), ("c_compact_x4.png", 2)):
            expected = draw_photo(8, 12, seed=seed).repeat(4, 0).repeat(4, 1)
            assert (read_image(archive.read(name)) == expected).all()

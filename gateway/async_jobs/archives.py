"""Asynchronous jobs of several images: how a store keeps their uploads, and the facts of their archive."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from gateway.config.settings import Settings
from gateway.jobs.archive_job import ArchiveImage, ArchiveJob
from gateway.jobs.job import Job, Result
from gateway.jobs.options import UpscaleOptions, make_request
from gateway.jobs.result_cache import cache_key
from gateway.jobs.result_facts import describe_facts
from gateway.problems import Problem

# Bytes of the length of the list that uploads begin with.
_LENGTH_BYTES = 4


def pack_uploads(images: Sequence[ArchiveImage]) -> bytes:
    """Return the uploads of images as one: a list with stems, lengths and problems, and their bytes."""
    uploads = [image.request.upload.data if image.request else b"" for image in images]
    entries = [[image.stem, len(data), image.problem] for image, data in zip(images, uploads, strict=True)]
    head = json.dumps(entries).encode()
    return b"".join([len(head).to_bytes(_LENGTH_BYTES, "big"), head, *uploads])


def unpack_uploads(
    packed: bytes, options: UpscaleOptions, settings: Settings, *, request_id: str, base_path: str
) -> list[ArchiveImage]:
    """Return the images that were packed. One that the settings no longer allow has its problem."""
    start = _LENGTH_BYTES + int.from_bytes(packed[:_LENGTH_BYTES], "big")
    images = []
    for stem, length, problem in json.loads(packed[_LENGTH_BYTES:start]):
        image = ArchiveImage(stem, None, problem)
        if problem is None:
            try:
                image.request = make_request(packed[start : start + length], f"{stem}.", options, settings)
            except Problem as refused:
                image.problem = refused.body(request_id, base_path)
        images.append(image)
        start += length
    return images


def max_archive_bytes(settings: Settings, *, is_shared: bool) -> int:
    """Return the maximum size of an archive that is stored: all of the store in Redis, half of the one in memory."""
    return settings.jobs_redis_max_bytes if is_shared else archive_memory_bytes(settings)


def archive_memory_bytes(settings: Settings) -> int:
    """Return the maximum memory for archives of all jobs that are not finished."""
    return max(1, settings.results_max_bytes // 2)


def describe_job_result(job: Job, result: Result) -> dict[str, Any]:
    """Return the facts of the result of a job, with one image or several."""
    if not isinstance(job, ArchiveJob):
        return describe_facts(result, job.request.options)
    facts = describe_facts(result, job.request.options)
    of_one_image = ("width", "height", "variant", "strength", "choice", "checks")
    return facts | dict.fromkeys(of_one_image)


def count_computed(job: Job, result: Result) -> int:
    """Return how many images of a finished job are charged: those that were not in the cache."""
    return job.count_misses if isinstance(job, ArchiveJob) else int(result.cache == "miss")


def find_cache_keys(job: Job) -> list[str]:
    """Return under which keys the result cache may have the results of a finished job."""
    return job.cache_keys if isinstance(job, ArchiveJob) else [cache_key(job.request)]

"""Builds upscale requests and a job runner."""

from __future__ import annotations

from gateway.config.settings import Settings
from gateway.jobs.options import UpscaleRequest, make_request, parse_options
from gateway.jobs.queue import Capacity, JobQueue
from gateway.jobs.runner import JobRunner
from testing.backend import FakeBackend
from testing.requests import PHOTO

SETTINGS = Settings(variants="compact_x4,real_x4,color_jpeg_10", default_variant="compact_x4")


def upscale_request(data: bytes = PHOTO, **parameters: str) -> UpscaleRequest:
    return make_request(data, "photo.png", parse_options(parameters, SETTINGS), SETTINGS)


def make_runner(backend: FakeBackend, queue: JobQueue | None = None, deadline_s: float = 120.0) -> JobRunner:
    return JobRunner(backend, queue or JobQueue(Capacity(running=1, waiting=1)), deadline_s=deadline_s)

"""A GPU that the model's process can no longer use: Triton is replaced, and the client still gets the image.

This machine has no GPU: the adapter injects the error, and what CUDA says afterwards.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from gateway.backend.embedded import EmbeddedBackend
from gateway.backend.triton_process import TritonProcess
from gateway.config.settings import Settings
from gateway.jobs.options import make_request, parse_options
from gateway.jobs.queue import Capacity, JobQueue
from gateway.jobs.runner import JobRunner
from testing.images import draw_photo, encode_png
from testing.triton import lay_out_faulty_repository

LIMIT_S = 120.0


def test_image_survives_a_lost_gpu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    faults = tmp_path / "faults"
    settings = Settings(
        state_dir=str(tmp_path / "state"),
        model_repository=str(lay_out_faulty_repository(tmp_path, faults)),
        engine="torch",
        deadline_s=LIMIT_S,
    )
    backend = EmbeddedBackend(settings)
    backend.start()
    try:
        first = await_server(backend)
        faults.write_text("lost GPU")
        request = make_request(encode_png(draw_photo(8, 8)), "a.png", parse_options({}, settings), settings)
        result = JobRunner(backend, JobQueue(Capacity(running=1, waiting=0)), deadline_s=LIMIT_S).run(request, "id")
        assert (result.width, result.height) == (32, 32)
        assert await_server(backend).pid != first.pid
    finally:
        backend.close()
    (error,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "replacing Triton" in error
    assert "the GPU can compute nothing more for this process, which ends" in error
    assert "an illegal memory access was encountered (injected)" in error


def await_server(backend: EmbeddedBackend) -> TritonProcess:
    backend.wait_until_ready(time.monotonic() + LIMIT_S)
    assert backend.process is not None
    return backend.process

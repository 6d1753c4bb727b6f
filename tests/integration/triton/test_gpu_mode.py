"""The model `swinir` as on a GPU, on a real Triton: without the queue of large jobs, every job runs within `execute`.

This machine has no GPU, so the test inverts the one condition that differs; docs/measurements/gpu.md has the results
of a real GPU.
"""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gateway.backend.triton_client import TritonClient
from gateway.cancellation import CancelToken
from swinir.zoo import DEFAULT_VARIANT
from testing.data import ROOT
from testing.images import draw_photo
from testing.triton import TritonServer, run_server
from testing.triton_clients import upscale

DEVICE_CHECK = 'on_cpu = self.engine.device_name == "cpu"'


def test_ensemble_and_stream_give_equal_images_on_gpu(triton_server: TritonServer, tmp_path: Path) -> None:
    repository = tmp_path / "model_repository"
    shutil.copytree(ROOT / "model_repository", repository, ignore=shutil.ignore_patterns("__pycache__"))
    model = repository / "swinir" / "1" / "model.py"
    assert model.read_text().count(DEVICE_CHECK) == 1
    model.write_text(model.read_text().replace(DEVICE_CHECK, "on_cpu = False"))
    images = [draw_photo(*sides, seed=sum(sides)) for sides in ((40, 64), (160, 200), (160, 200), (300, 280))]
    expected = [upscale(triton_server, image) for image in images]

    with run_server(tmp_path, environ={}, model_repository=repository) as server:
        with ThreadPoolExecutor(len(images)) as pool:
            batched = list(pool.map(lambda image: upscale(server, image), images))
        backend = TritonClient(server.grpc_address, [server.model_key])
        bands = backend.upscale_bands(
            images[-1], DEFAULT_VARIANT, deadline=time.monotonic() + 120, request_id="card", cancel_token=CancelToken()
        )
        streamed = np.concatenate([band.pixels for band in bands])
        backend.close()

    for actual, reference in zip([*batched, streamed], [*expected, expected[-1]], strict=True):
        assert np.abs(actual.astype(int) - reference).max() <= 1, "who shares a pass may move a rounding, no more"

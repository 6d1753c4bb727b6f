"""Triton's swinir step: the tiles of all waiting requests -> ``swinir.engine`` -> tiles for each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from swinir.batching import Job, run_jobs
from swinir.engine import Cancelled, Engine
from swinir.settings import read_settings
from swinir.weights import WeightsError
from swinir.zoo import UnknownVariant


class TritonPythonModel:
    """Answers a batch of requests; one that is bad fails alone."""

    def initialize(self, args: dict[str, str]) -> None:
        """Choose the device, load the default variant and run it once, all before Triton says ready."""
        settings = read_settings()
        gpu = args["model_instance_kind"] == "GPU"
        device = f"cuda:{args['model_instance_device_id']}" if gpu else "cpu"
        self.engine = Engine(settings.weights_dir, device, settings.threads)
        self.engine.warm_up(settings.default_variant)
        pb_utils.Logger.log_info(self.engine.describe())

    def execute(self, requests: list[Any]) -> list[Any]:
        """Concatenate what may share a forward pass, run it, and hand each request its own tiles."""
        jobs = [_job(request) for request in requests]
        run_jobs(self.engine, jobs)
        return [_response(job) for job in jobs]


def _job(request: Any) -> Job:
    tiles = pb_utils.get_input_tensor_by_name(request, "TILES").as_numpy()
    names = {
        name.decode(errors="replace") for name in pb_utils.get_input_tensor_by_name(request, "VARIANT").as_numpy().flat
    }
    return Job(tiles, names, request.is_cancelled)


def _response(job: Job) -> Any:
    if job.error is None:
        return pb_utils.InferenceResponse([pb_utils.Tensor("UPSCALED_TILES", np.ascontiguousarray(job.restored))])
    code = pb_utils.TritonError.INTERNAL
    for kind, its_code in (
        (UnknownVariant, pb_utils.TritonError.NOT_FOUND),
        (WeightsError, pb_utils.TritonError.UNAVAILABLE),
        (Cancelled, pb_utils.TritonError.CANCELLED),
        (ValueError, pb_utils.TritonError.INVALID_ARG),
    ):
        if isinstance(job.error, kind):
            code = its_code
            break
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(job.error), code))

"""Triton's swinir step: passes the tiles of all waiting requests to ``swinir.inference.engine``.

Small jobs run within `execute`, so that Triton batches the next requests meanwhile. Large jobs go to the
`LargeJobQueue`, and their responses follow later (a response sender in a model that is not decoupled needs Triton
24.08 or later).

On a GPU there is no such queue: all jobs run within `execute`. When Triton has a GPU, a response sent later to the
ensemble ends this process with a segmentation fault (seen with 2.51 on an H200), and a tile takes only milliseconds.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from preprocessing.depth import to_bytes
from swinir.errors import WeightsError
from swinir.inference.batching import TileJob, run_jobs
from swinir.inference.create_engine import create_engine
from swinir.inference.engine import EngineError, InferenceCancelledError
from swinir.inference.large_jobs import SMALL_PIXELS, LargeJobQueue
from swinir.inference.memory import keep_freed_memory
from swinir.inference.shared_memory import SharedMemoryBudget
from swinir.request_limits import check_tiles, read_samples
from swinir.settings import read_settings
from swinir.zoo import DEFAULT_VARIANT, UnknownVariantError

log = logging.getLogger(__name__)  # to standard error: Triton's own logger needs /dev/shm

# Counters in Triton's metrics, superres_NAME_total, with their help text.
METRICS = {
    "tiles": "Tiles restored",
    "seconds": "Seconds in the network and its checks",
    "reruns": "Tiles that were not finite and were run again in float32",
    "halvings": "Times a micro-batch was halved because memory ran out",
    "loads": "Variants loaded",
    "evictions": "Variants evicted because the memory for weights was full",
}


class TritonPythonModel:
    """Runs a batch of requests; a bad request fails alone."""

    def initialize(self, args: dict[str, str]) -> None:
        """Choose the device, load the default variant and run it once, before Triton reports ready."""
        settings, age_s, started = read_settings(), _process_age_s(), time.monotonic()
        keep_freed_memory()
        self.weights_dir = settings.weights_dir
        self.engine = create_engine(settings)
        self.families = {
            name: pb_utils.MetricFamily(
                name=f"superres_{name}_total", description=text, kind=pb_utils.MetricFamily.COUNTER
            )
            for name, text in METRICS.items()
        }
        labels = {"model": args["model_name"], "device": self.engine.device_name}
        self.metrics = {name: family.Metric(labels=labels) for name, family in self.families.items()}
        self.reported = dict.fromkeys(METRICS, 0.0)
        self.metrics_lock = threading.Lock()
        variant = self._load_first(settings.default_variant)
        loaded = time.monotonic()
        self.engine.warm_up(variant)
        warm = time.monotonic()
        self._report_metrics()
        self.engine.on_progress = self._try_to_report_metrics
        self.shm_budget = SharedMemoryBudget()
        on_cpu = self.engine.device_name == "cpu"
        self.large_jobs = LargeJobQueue(self._run, self.engine.micro_batch_pixels) if on_cpu else None
        pb_utils.Logger.log_info(
            f"{self.engine.describe()}; {variant}: imports {age_s:.2f} s, "
            f"weights {loaded - started:.2f} s, warm-up {warm - loaded:.2f} s"
        )

    def _load_first(self, default_variant: str) -> str:
        """Load the default variant and return its name; if its weights are gone or damaged, a bundled variant."""
        try:
            self.engine.load(default_variant)
        except (WeightsError, UnknownVariantError):
            log.exception("the default variant cannot be loaded; starting with %s", DEFAULT_VARIANT)
            self.engine.load(DEFAULT_VARIANT)
            return DEFAULT_VARIANT
        return default_variant

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the small jobs, which share forward passes, and queue the large ones."""
        responses: list[Any] = [None] * len(requests)
        small_jobs: dict[int, TileJob] = {}
        for index, request in enumerate(requests):
            try:
                job = _job(request)
                if job.error is None:
                    check_tiles(*job.tiles.shape[1:3], job.group[0], weights_dir=self.weights_dir)
                if job.error is not None or self.large_jobs is None or job.pixels <= SMALL_PIXELS:
                    small_jobs[index] = job
                else:
                    self.large_jobs.put(job, _send_later(request, self.shm_budget))
            except Exception as error:  # noqa: BLE001 - it must not fail the other requests
                responses[index] = _error_response(error)
        self._run(list(small_jobs.values()))
        batch_bytes = 0
        for index, job in small_jobs.items():
            batch_bytes += _check_size(job, self.shm_budget, other_bytes=batch_bytes)
            responses[index] = _response(job)
        self.shm_budget.record(batch_bytes)
        return responses

    def _run(self, jobs: list[TileJob]) -> None:
        run_jobs(self.engine, jobs)
        self._try_to_report_metrics()

    def _try_to_report_metrics(self) -> None:
        try:
            self._report_metrics()
        except Exception:  # a metric must not cost an image; the next call adds what is missing
            log.exception("the metrics could not be updated")

    def _report_metrics(self) -> None:
        """Set Triton's counters to the engine's totals."""
        with self.metrics_lock:
            totals = {
                **vars(self.engine.counters),
                "loads": self.engine.networks.loads,
                "evictions": self.engine.networks.evictions,
            }
            for name, metric in self.metrics.items():
                if totals[name] > self.reported[name]:
                    metric.increment(totals[name] - self.reported[name])
                    self.reported[name] = totals[name]


def _process_age_s() -> float:
    """Return the age of this process: the time of interpreter and imports (proc(5): starttime, field 22)."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def _check_size(job: TileJob, shm_budget: SharedMemoryBudget, other_bytes: int = 0) -> int:
    """Return the bytes of a job's response; 0 when it has an error, also when it does not fit in shared memory."""
    if job.restored is None:
        return 0
    size_bytes: int = job.restored.tiles.nbytes
    try:
        shm_budget.check(other_bytes + size_bytes)
    except MemoryError as error:
        job.restored, job.error = None, error
        return 0
    return size_bytes


def _send_later(request: Any, shm_budget: SharedMemoryBudget) -> Callable[[TileJob], None]:
    sender = request.get_response_sender()

    def send(job: TileJob) -> None:
        size_bytes = _check_size(job, shm_budget)
        try:
            sender.send(_response(job), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except BaseException:
            # The sender accepts nothing more, not even an error, so the client would wait without end (2.51). The
            # launcher and the health check notice when this process ends.
            log.critical("a response could not be sent: ending this process", exc_info=True)
            os._exit(1)
        shm_budget.record(size_bytes)

    return send


def _job(request: Any) -> TileJob:
    tiles = read_samples("TILES", pb_utils.get_input_tensor_by_name(request, "TILES").as_numpy())
    names = {
        name.decode(errors="replace") for name in pb_utils.get_input_tensor_by_name(request, "VARIANT").as_numpy().flat
    }
    return TileJob(tiles, names, request.is_cancelled)


def _response(job: TileJob) -> Any:
    try:
        if job.restored is None:
            return _error_response(job.error)
        restored = {
            "UPSCALED_TILES": to_bytes(job.restored.tiles),
            "CHECKS": job.restored.checks,
            "WORK_US": job.restored.work_us[:, np.newaxis],
        }
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in restored.items()]
        )
    except Exception as error:  # noqa: BLE001 - it must not fail the other requests
        return _error_response(EngineError(f"The response could not be created: {error}"))


def _error_response(error: Exception | None) -> Any:
    code = pb_utils.TritonError.INTERNAL
    for error_type, its_code in (
        (UnknownVariantError, pb_utils.TritonError.NOT_FOUND),
        (WeightsError, pb_utils.TritonError.UNAVAILABLE),
        (InferenceCancelledError, pb_utils.TritonError.CANCELLED),
        (ValueError, pb_utils.TritonError.INVALID_ARG),
    ):
        if isinstance(error, error_type):
            code = its_code
            break
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))

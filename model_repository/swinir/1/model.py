"""Triton's swinir step: the tiles of all waiting requests -> ``swinir.inference.engine`` -> tiles for each of them.

Small jobs are done within `execute`, so that Triton batches the next ones meanwhile; large ones go to the lane, whose
answers follow when they are ready (a response sender in a model that is not decoupled: 24.08 and later).

On a card there is no lane: all jobs are done within `execute`. Where Triton has a card, an answer that is sent later to
the ensemble ends this process with a segmentation fault (2.51 on an H200); and there a tile takes milliseconds.
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

from swinir.errors import WeightsError
from swinir.inference.batching import TileJob, run_jobs
from swinir.inference.engine import Engine, EngineError, InferenceCancelledError
from swinir.inference.large_jobs import SMALL_PIXELS, LargeJobQueue
from swinir.inference.memory import keep_freed_memory
from swinir.inference.shared_memory import SharedMemoryBudget
from swinir.request_limits import admit_tiles
from swinir.settings import read_settings
from swinir.zoo import UnknownVariantError

log = logging.getLogger(__name__)  # to standard error: Triton's own logger wants room in /dev/shm, too

METRICS = {
    "tiles": "Tiles restored",
    "seconds": "Seconds in the network and the checks around it",
    "reruns": "Tiles that were not finite and were run again in float32",
    "halvings": "Times a micro-batch was halved for want of memory",
    "loads": "Variants loaded",
    "evictions": "Variants put away for want of room",
}


class TritonPythonModel:
    """Answers a batch of requests; one that is bad fails alone."""

    def initialize(self, args: dict[str, str]) -> None:
        """Choose the device, load the default variant and run it once, all before Triton says ready."""
        settings, age_s, began = read_settings(), _age_s(), time.monotonic()
        keep_freed_memory()
        self.weights_dir = settings.weights_dir
        self.engine = Engine(
            settings.weights_dir, threads=settings.threads, max_weights_bytes=settings.max_weights_bytes
        )
        self.families = {
            name: pb_utils.MetricFamily(
                name=f"superres_{name}_total", description=text, kind=pb_utils.MetricFamily.COUNTER
            )
            for name, text in METRICS.items()
        }
        labels = {"model": args["model_name"], "device": str(self.engine.device)}
        self.metrics = {name: family.Metric(labels=labels) for name, family in self.families.items()}
        self.told = dict.fromkeys(METRICS, 0.0)
        self.telling = threading.Lock()
        self.engine.load(settings.default_variant)
        loaded = time.monotonic()
        self.engine.warm_up(settings.default_variant)
        warm = time.monotonic()
        self._tell_metrics()
        self.shared_memory = SharedMemoryBudget()
        on_cpu = self.engine.device.type == "cpu"
        self.large_jobs = LargeJobQueue(self._run, self.engine.micro_batch_pixels) if on_cpu else None
        pb_utils.Logger.log_info(
            f"{self.engine.describe()}; {settings.default_variant}: imports {age_s:.2f} s, "
            f"weights {loaded - began:.2f} s, warm-up {warm - loaded:.2f} s"
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the small jobs, which share forward passes, and leave the large ones to the lane."""
        answers: list[Any] = [None] * len(requests)
        at_once: dict[int, TileJob] = {}
        for index, request in enumerate(requests):
            try:
                job = _job(request)
                if job.error is None:
                    admit_tiles(*job.tiles.shape[1:3], job.group[0], weights_dir=self.weights_dir)
                if job.error is not None or self.large_jobs is None or job.pixels <= SMALL_PIXELS:
                    at_once[index] = job
                else:
                    self.large_jobs.put(job, _answer_later(request, self.shared_memory))
            except Exception as error:  # noqa: BLE001 - it must not fail the requests beside it
                answers[index] = _refuse(error)
        self._run(list(at_once.values()))
        together_bytes = 0
        for index, job in at_once.items():
            together_bytes += _fit(job, self.shared_memory, beside_bytes=together_bytes)
            answers[index] = _response(job)
        self.shared_memory.note(together_bytes)
        return answers

    def _run(self, jobs: list[TileJob]) -> None:
        run_jobs(self.engine, jobs)
        try:
            self._tell_metrics()
        except Exception:  # counters are worth no picture; the next call tells what is missing
            log.exception("the metrics could not be told")

    def _tell_metrics(self) -> None:
        """Move Triton's counters to where the engine's stand."""
        with self.telling:
            done = {
                **vars(self.engine.counters),
                "loads": self.engine.shelf.loads,
                "evictions": self.engine.shelf.evictions,
            }
            for name, metric in self.metrics.items():
                if done[name] > self.told[name]:
                    metric.increment(done[name] - self.told[name])
                    self.told[name] = done[name]


def _age_s() -> float:
    """Return how long ago this process began: the interpreter and the imports (proc(5): starttime, field 22)."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def _fit(job: TileJob, room: SharedMemoryBudget, beside_bytes: int = 0) -> int:
    """Return the bytes of a job's answer; one that shared memory has no room for becomes an error, of none."""
    if job.restored is None:
        return 0
    size_bytes: int = job.restored.tiles.nbytes
    try:
        room.check(beside_bytes + size_bytes)
    except MemoryError as error:
        job.restored, job.error = None, error
        return 0
    return size_bytes


def _answer_later(request: Any, room: SharedMemoryBudget) -> Callable[[TileJob], None]:
    sender = request.get_response_sender()

    def answer(job: TileJob) -> None:
        size_bytes = _fit(job, room)
        try:
            sender.send(_response(job), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        except BaseException:
            # The sender takes nothing more, an error neither, and the client would wait for ever (2.51): this process's
            # death is what the launcher and the health check see.
            log.critical("an answer could not be sent: ending this process", exc_info=True)
            os._exit(1)
        room.note(size_bytes)

    return answer


def _job(request: Any) -> TileJob:
    tiles = pb_utils.get_input_tensor_by_name(request, "TILES").as_numpy()
    names = {
        name.decode(errors="replace") for name in pb_utils.get_input_tensor_by_name(request, "VARIANT").as_numpy().flat
    }
    return TileJob(tiles, names, request.is_cancelled)


def _response(job: TileJob) -> Any:
    try:
        if job.restored is None:
            return _refuse(job.error)
        restored = {
            "UPSCALED_TILES": job.restored.tiles,
            "CHECKS": job.restored.checks,
            "WORK_US": job.restored.work_us[:, np.newaxis],
        }
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in restored.items()]
        )
    except Exception as error:  # noqa: BLE001 - one answer that cannot be made must not take the others along
        return _refuse(EngineError(f"the answer could not be made: {error}"))


def _refuse(error: Exception | None) -> Any:
    code = pb_utils.TritonError.INTERNAL
    for kind, its_code in (
        (UnknownVariantError, pb_utils.TritonError.NOT_FOUND),
        (WeightsError, pb_utils.TritonError.UNAVAILABLE),
        (InferenceCancelledError, pb_utils.TritonError.CANCELLED),
        (ValueError, pb_utils.TritonError.INVALID_ARG),
    ):
        if isinstance(error, kind):
            code = its_code
            break
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))

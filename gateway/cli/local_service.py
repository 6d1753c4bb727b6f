"""Upscales on this machine: with the Triton at `backend_address`, or an embedded one that ends with the command."""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.backend import embedded
from gateway.backend.interface import Backend, BackendError
from gateway.backend.triton_install import EmbeddedServerError
from gateway.cli.progress import ProgressReport
from gateway.cli.service import Facts, Save, ServiceError, UpscaleError
from gateway.config.settings import Settings
from gateway.jobs.choice import describe_choice
from gateway.jobs.job import Progress
from gateway.jobs.options import UpscaleRequest
from gateway.jobs.queue import Capacity, JobQueue
from gateway.jobs.runner import JobRunner
from gateway.problems import Problem

# Small images at once: enough for the backend to batch them while others are decoded and encoded.
_MAX_AT_ONCE = 8


class LocalService:
    """Starts the backend for the first image. A context manager that ends it."""

    name = "here"
    max_at_once = _MAX_AT_ONCE

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # Without the ports for Triton clients: they belong to a running `superres serve`.
        self._backend_settings = replace(settings, triton_grpc_port=0, triton_http_port=0)
        self._backend: Backend | None = None
        self._runner: JobRunner | None = None
        self._lock = threading.Lock()
        # A running `superres serve` may use the same folder, and must keep its own log.
        self._log_path = Path(settings.state_dir) / f"triton-{secrets.token_hex(4)}.log"
        self._keeps_log = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._runner is not None:
            self._runner.shut_down()  # after Ctrl-C small images may still be at work
        if self._backend is not None:
            self._backend.close()
        if not self._keeps_log:  # it says why something failed
            for path in (self._log_path, self._log_path.with_suffix(".previous.log")):
                path.unlink(missing_ok=True)

    def upscale(self, request: UpscaleRequest, save: Save, report: ProgressReport) -> Facts:
        """Upscale an image and write it to what `save` opens. Raises UpscaleError or ServiceError."""

        def show(progress: Progress) -> None:
            report.show_bands(progress.bands_done, progress.bands)

        try:
            job = self._start(report).submit(request, uuid.uuid4().hex[:16])
            result = job.run(show)
        except (BackendError, EmbeddedServerError) as error:  # it does not start, so the other images would fail too
            self._keeps_log = True
            raise ServiceError(str(error)) from error
        except Problem as problem:
            is_our_fault = problem.status >= 500
            self._keeps_log |= is_our_fault
            raise UpscaleError(problem.detail, is_service_fault=is_our_fault) from problem
        choice = describe_choice(job.request.options)
        phases = job.phases.seconds()
        facts = Facts(
            filename=job.request.filename,
            variant=job.request.options.variant.name,
            width=result.width,
            height=result.height,
            seconds=result.seconds,
            work_s=sum(seconds for phase, seconds in phases.items() if phase not in ("queue", "boot")),
            notes=((choice.sentence,) if choice else ()) + result.notes,
        )
        with save(facts) as sink:
            sink.write(result.data)
        return facts

    def _start(self, report: ProgressReport) -> JobRunner:
        with self._lock:
            if self._backend is None:
                self._backend = embedded.make_backend(self._backend_settings, self._log_path.name)
                if isinstance(self._backend, embedded.EmbeddedBackend):
                    report.say("Starting the embedded Triton ...")
                    self._backend.wait_until_ready(time.monotonic() + embedded.READY_LIMIT_S)
                    report.begin_work()
            if self._runner is None:
                queue = JobQueue(Capacity(running=1, waiting=_MAX_AT_ONCE, small_per_running=_MAX_AT_ONCE))
                self._runner = JobRunner(self._backend, queue, deadline_s=self.settings.deadline_s)
            return self._runner

"""The embedded backend: keeps one real Triton alive on this machine and asks it.

Owns the server's life: started in the background, replaced when it or one of its Python stubs dies (Triton itself
would call a dead stub ready for ever), ended with the gateway. A request waits for the boot within its own deadline.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from pathlib import Path

from gateway.backend import TritonBackend
from gateway.settings import Settings
from gateway.triton_process import (
    PROJECT_ROOT,
    EmbeddedServerError,
    TritonProcess,
    find_free_ports,
    find_triton,
)
from gateway.upscaler import BackendFault, BackendTimeout, BackendUnavailable, Upscaler
from preprocessing.image import Pixels

log = logging.getLogger(__name__)

BOOT_LIMIT_S = 120.0
"""A boot takes 3 to 6 s here; one that takes this long is taken for failed."""
WATCH_INTERVAL_S = 0.25
MAX_FAILED_BOOTS = 3
"""Boots that fail in a row before we stop trying until somebody asks again."""


def make_backend(settings: Settings) -> Upscaler:
    """Return the backend that the settings name: the Triton at ``backend_address``, else one of our own."""
    if settings.backend_address:
        return TritonBackend(settings.backend_address, settings.model_keys())
    backend = EmbeddedBackend(settings)
    backend.start()
    return backend


class EmbeddedBackend:
    """A Triton of our own behind the `Upscaler` protocol. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        find_triton()  # what cannot run here is said before anything is started
        self._settings = settings
        self.model_key = next(iter(settings.model_keys()), "") or secrets.token_urlsafe(24)
        self.api_key = settings.api_key or secrets.token_urlsafe(24)
        self._changed = threading.Condition()
        self._process: TritonProcess | None = None
        self._client: TritonBackend | None = None
        self._failure = ""
        self._wanted = True
        self._closed = False
        # The kernel's death signal follows the thread that starts the server, so one thread does it for life.
        self._keeper = threading.Thread(target=self._keep, name="triton-keeper", daemon=True)

    def start(self) -> None:
        """Begin to boot; returns at once."""
        self._keeper.start()

    @property
    def process(self) -> TritonProcess | None:
        """The server of this moment, once it is ready."""
        with self._changed:
            return self._process

    def wait_until_ready(self, deadline: float) -> TritonBackend:
        """Return a client of a ready server, waiting for its boot; raises BackendTimeout or BackendFault."""
        with self._changed:
            if self._failure and not self._closed:  # somebody asks: try once more
                self._failure, self._wanted = "", True
                self._changed.notify_all()
            while self._client is None:
                if self._closed:
                    raise BackendUnavailable("the server is being shut down")
                if self._failure:
                    raise BackendFault(f"Triton does not start: {self._failure}")
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    raise BackendTimeout("the deadline passed while the backend was booting")
                self._changed.wait(remaining_s)
            return self._client

    def upscale(self, pixels: Pixels, variant: str, *, deadline: float, request_id: str) -> Pixels:
        """Return [H * scale, W * scale, 3] uint8 for [H, W, 3] uint8 before `deadline`, boot included."""
        client = self.wait_until_ready(deadline)
        try:
            return client.upscale(pixels, variant, deadline=deadline, request_id=request_id)
        except (BackendFault, BackendUnavailable) as error:
            if self._retire_if_broken(client):
                raise BackendFault("Triton or a part of it died at work") from error
            raise

    def close(self) -> None:
        """End the server and wait until it is gone."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._keeper.is_alive():
            self._keeper.join()

    def _retire_if_broken(self, client: TritonBackend) -> bool:
        """Whether the server that just failed somebody is broken; if so it is handed out no more."""
        with self._changed:
            if self._closed:
                return False
            if client is self._client and self._process is not None and self._process.find_fault():
                self._client = None
                self._changed.notify_all()
            return client is not self._client

    def _keep(self) -> None:
        failed_boots = 0
        while self._wait_until_wanted():
            process = None
            try:
                process = self._boot()
                failed_boots = 0
                self._watch(process)
            except (EmbeddedServerError, OSError) as error:
                failed_boots += 1
                log.exception("Triton failed to boot (%d of %d)", failed_boots, MAX_FAILED_BOOTS)
                if failed_boots >= MAX_FAILED_BOOTS:
                    failed_boots = 0
                    self._give_up(str(error).splitlines()[0])
            finally:
                if process is not None:
                    self._retire(process)

    def _wait_until_wanted(self) -> bool:
        with self._changed:
            while not self._wanted and not self._closed:
                self._changed.wait()
            return not self._closed

    def _boot(self) -> TritonProcess:
        settings = self._settings
        process = TritonProcess(
            model_repository=Path(settings.model_repository or PROJECT_ROOT / "model_repository"),
            model_key=self.model_key,
            api_key=self.api_key,
            log_path=Path(settings.state_dir) / "triton.log",
            environ=_engine_environ(settings),
            ports=find_free_ports(settings.triton_grpc_port, settings.triton_http_port),
        )
        began = time.monotonic()
        try:
            process.wait_until_ready(began + BOOT_LIMIT_S, lambda: self._closed)
        except BaseException:
            process.kill()
            raise
        client = TritonBackend(process.grpc_address, [self.model_key])
        with self._changed:
            self._process, self._client = process, client
            self._changed.notify_all()
        log.info("Triton %d is up after %.1f s on %s", process.pid, time.monotonic() - began, process.grpc_address)
        return process

    def _watch(self, process: TritonProcess) -> None:
        """Return when the server must be replaced or ended."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._client is None, WATCH_INTERVAL_S)
                if self._closed:
                    return
            if fault := process.find_fault():
                log.error("replacing Triton: %s\n%s", fault, process.log_tail())
                return

    def _retire(self, process: TritonProcess) -> None:
        with self._changed:
            client, self._client, self._process = self._client, None, None
            orderly = self._closed
        if client is not None:
            client.close()
        if orderly:
            process.stop()
        else:
            process.kill()  # a server with a dead stub would use up its whole exit time-out

    def _give_up(self, reason: str) -> None:
        with self._changed:
            self._failure, self._wanted = reason, False
            self._changed.notify_all()


def _engine_environ(settings: Settings) -> dict[str, str]:
    environ = {
        "SUPERRES_WEIGHTS_DIR": str(settings.path_of_weights()),
        "SUPERRES_DEFAULT_VARIANT": settings.default_variant,
        # Waiting OpenMP threads that spin cost the engine 10x as soon as another process wants a core (measured: 72x72
        # in 2.2 s against 0.12 s beside two busy processes); sleeping ones cost it nothing on an idle machine.
        "OMP_WAIT_POLICY": "passive",
    }
    if settings.engine_threads:
        environ["SUPERRES_ENGINE_THREADS"] = str(settings.engine_threads)
    return environ

"""The embedded backend: keeps one real Triton on this machine, awake while it is used, and asks it.

Owns the server's life: started in the background, replaced when it or one of its Python stubs dies (Triton itself
would call a dead stub ready for ever), put to sleep after an idle time, woken when somebody asks, ended with the
gateway. A request waits for the boot within its own deadline.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.backend.interface import (
    Backend,
    BackendDiedError,
    BackendFaultError,
    BackendNotStartedError,
    BackendStillBootingError,
    BackendUnavailableError,
    Band,
)
from gateway.backend.remote import RemoteBackend
from gateway.backend.state import BOOT_LIMIT_S, BackendStateTracker
from gateway.backend.triton_client import TritonClient
from gateway.backend.triton_install import EmbeddedServerError, find_triton
from gateway.backend.triton_process import (
    PROJECT_ROOT,
    TritonProcess,
    find_free_ports,
)
from gateway.cancellation import CancelToken
from gateway.config.settings import Settings
from preprocessing.image import Pixels

log = logging.getLogger(__name__)

LOG_NAME = "triton.log"
WATCH_INTERVAL_S = 0.25
MAX_FAILED_BOOTS = 3
"""Boots that fail in a row before we stop trying until somebody asks again."""
DYING_S = 2.0
"""A process that is killed closes its sockets before it can be seen to have ended (under load by more than 70 ms)."""
READY_LIMIT_S = BOOT_LIMIT_S * MAX_FAILED_BOOTS
"""After which a first boot has surely failed."""


def make_backend(settings: Settings, log_name: str = LOG_NAME) -> Backend:
    """Return the backend that the settings name: the Triton at ``backend_address``, else one of our own."""
    if settings.backend_address:
        states = BackendStateTracker(settings.path_of_boots(), assume_asleep_after_s=settings.scale_to_zero_after_s)
        return RemoteBackend(TritonClient(settings.backend_address, settings.model_keys()), states)
    backend = EmbeddedBackend(settings, log_name)
    backend.start()
    return backend


class EmbeddedBackend:
    """A Triton of our own behind the `Backend` protocol. Safe to use from several threads."""

    def __init__(self, settings: Settings, log_name: str = LOG_NAME) -> None:
        """`log_name` is the log's in `state_dir`: no two servers at once may have the same."""
        self._model_repository = Path(settings.model_repository or PROJECT_ROOT / "model_repository")
        find_triton()  # raises now what every start of the server would raise
        if not (self._model_repository / "upscale" / "config.pbtxt").is_file():
            raise EmbeddedServerError(
                f"No Triton models in {self._model_repository}: upscale/config.pbtxt is missing. Set "
                "SUPERRES_MODEL_REPOSITORY to the folder model_repository of this project, or reinstall the package."
            )
        self._settings = settings
        self._log_path = Path(settings.state_dir) / log_name
        self.model_key = next(iter(settings.model_keys()), "") or secrets.token_urlsafe(24)
        self.api_key = settings.api_key or secrets.token_urlsafe(24)
        self._state_tracker = BackendStateTracker(settings.path_of_boots())
        self._changed = threading.Condition()
        self._process: TritonProcess | None = None
        self._client: TritonClient | None = None
        self._failure = ""
        self._wanted = True
        self._closed = False
        self._asking = 0
        """Requests that need the server now: while there are any, it does not sleep."""
        self._last_used = time.monotonic()
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

    @property
    def state_tracker(self) -> BackendStateTracker:
        """What is known of the server."""
        return self._state_tracker

    def wake(self) -> None:
        """Boot if it sleeps or failed to boot; returns at once. Counts as use: it does not fall asleep right after."""
        with self._changed:
            self._last_used = time.monotonic()
            if not self._wanted:
                self._failure, self._wanted = "", True
                self._state_tracker.begin_boot()
                self._changed.notify_all()

    def wait_until_ready(self, deadline: float, cancel_token: CancelToken | None = None) -> TritonClient:
        """Return a client of a ready server, waking it if need be.

        Raises BackendStillBooting, BackendNotStarted, BackendUnavailable or Stopped.
        """
        cancel_token = cancel_token or CancelToken()
        self.wake()
        with cancel_token.on_cancel(self._notify), self._changed:
            while self._client is None:
                cancel_token.raise_if_cancelled()
                if self._closed:
                    raise BackendUnavailableError("the server is being shut down")
                if self._failure:
                    raise BackendNotStartedError(f"Triton does not start: {self._failure}")
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    raise BackendStillBootingError("the deadline passed while the backend was booting")
                self._changed.wait(remaining_s)
            return self._client

    def upscale_bands(
        self, pixels: Pixels, variant: str, *, deadline: float, request_id: str, cancel_token: CancelToken
    ) -> Iterator[Band]:
        """Yield the bands of [H * scale, W * scale, 3] uint8 for [H, W, 3] uint8 before `deadline`, boot included."""
        with self._in_use():
            client = self.wait_until_ready(deadline, cancel_token)
            try:
                yield from client.upscale_bands(
                    pixels, variant, deadline=deadline, request_id=request_id, cancel_token=cancel_token
                )
            except (BackendFaultError, BackendUnavailableError) as error:
                if self._retire_if_broken(client, DYING_S if isinstance(error, BackendUnavailableError) else 0.0):
                    raise BackendDiedError("Triton or a part of it died at work") from error
                raise

    def close(self) -> None:
        """End the server and wait until it is gone."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._keeper.is_alive():
            self._keeper.join()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        with self._changed:
            self._asking += 1
        try:
            yield
        finally:
            with self._changed:
                self._asking -= 1
                self._last_used = time.monotonic()

    def _retire_if_broken(self, client: TritonClient, patience_s: float) -> bool:
        """Whether the server that just failed somebody is broken, or soon turns out so; then nobody gets it again."""
        deadline = time.monotonic() + patience_s
        with self._changed:
            while client is self._client and not self._closed:
                if self._process is not None and self._process.find_fault():
                    self._client = None
                    self._changed.notify_all()
                elif time.monotonic() > deadline:
                    return False
                else:
                    self._changed.wait(0.02)
            return not self._closed

    def _keep(self) -> None:
        failed_boots = 0
        while self._wait_until_wanted():
            try:
                self._keep_one()
                failed_boots = 0
            except Exception as error:  # whatever it is: with this thread's end nobody would ever boot or be told again
                failed_boots += 1
                log.exception("Triton failed to boot (%d of %d)", failed_boots, MAX_FAILED_BOOTS)
                if failed_boots >= MAX_FAILED_BOOTS:
                    failed_boots = 0
                    self._give_up((str(error).splitlines() or [type(error).__name__])[0])

    def _keep_one(self) -> None:
        """Boot one server, and end it when it must be replaced or nobody needs it."""
        process = self._boot()
        try:
            self._watch(process)
        finally:
            self._retire(process)

    def _wait_until_wanted(self) -> bool:
        with self._changed:
            while not self._wanted and not self._closed:
                self._changed.wait()
            return not self._closed

    def _boot(self) -> TritonProcess:
        began, settings = time.monotonic(), self._settings
        self._state_tracker.begin_boot()
        process = TritonProcess(
            model_repository=self._model_repository,
            model_key=self.model_key,
            api_key=self.api_key,
            log_path=self._log_path,
            environ=_engine_environ(settings),
            ports=find_free_ports(settings.triton_grpc_port, settings.triton_http_port),
        )
        try:
            process.wait_until_ready(began + BOOT_LIMIT_S, lambda: self._closed)
        except BaseException:
            process.kill()
            raise
        log.info("Triton %d is up after %.1f s on %s", process.pid, time.monotonic() - began, process.grpc_address)
        client = TritonClient(process.grpc_address, [self.model_key])
        with self._changed:
            self._process, self._client = process, client
            self._last_used = time.monotonic()
            self._state_tracker.mark_up()
            self._changed.notify_all()
        return process

    def _watch(self, process: TritonProcess) -> None:
        """Return when the server must be replaced or ended."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._client is None, WATCH_INTERVAL_S)
                if self._closed:
                    return
                if self._falls_asleep():
                    return
            if fault := process.find_fault():
                log.error("replacing Triton: %s\n%s", fault, process.log_tail())
                self._state_tracker.mark_asleep()
                return

    def _falls_asleep(self) -> bool:
        """Whether nobody has used it for so long; from here on, who asks waits for the next boot."""
        limit_s, idle_s = self._settings.scale_to_zero_after_s, time.monotonic() - self._last_used
        if not limit_s or self._asking or self._client is None or idle_s < limit_s:
            return False
        log.info("Triton goes to sleep after %.0f s without work", idle_s)
        self._client.close()
        self._client, self._wanted = None, False
        self._state_tracker.mark_asleep()
        return True

    def _retire(self, process: TritonProcess) -> None:
        with self._changed:
            client, self._client, self._process = self._client, None, None
            orderly = self._closed
        if client is not None:
            client.close()
        if orderly:
            process.stop()
        else:
            process.kill()  # at once: of a broken server, or one without work, nothing is worth waiting for

    def _give_up(self, reason: str) -> None:
        with self._changed:
            self._failure, self._wanted = reason, False
            self._state_tracker.mark_failed()
            self._changed.notify_all()


def _engine_environ(settings: Settings) -> dict[str, str]:
    environ = {
        "SUPERRES_WEIGHTS_DIR": str(settings.path_of_weights()),
        "SUPERRES_DEFAULT_VARIANT": settings.default_variant,
        # Waiting OpenMP threads that spin cost the engine 10x as soon as another process wants a core (measured: 72x72
        # in 2.2 s against 0.12 s beside two busy processes); sleeping ones cost it nothing on an idle machine.
        "OMP_WAIT_POLICY": "passive",
    }
    environ["SUPERRES_MAX_WEIGHTS_BYTES"] = str(settings.max_weights_bytes)
    if settings.engine_threads:
        environ["SUPERRES_ENGINE_THREADS"] = str(settings.engine_threads)
    return environ

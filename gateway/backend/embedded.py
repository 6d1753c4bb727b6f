"""The embedded backend: runs one real Triton on this machine and sends requests to it.

Owns the server's lifecycle, cold starts included. The server starts in the background, is replaced when it or one of
its Python stubs dies (Triton itself would report a dead stub as ready), is ended after an idle time, boots again on
demand, and ends with the gateway. A request waits for a boot within its own deadline.
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
from swinir.auto import AUTO, choose_warm_variant

_log = logging.getLogger(__name__)

LOG_NAME = "triton.log"
# Seconds between two checks that the server and its stubs are alive.
WATCH_INTERVAL_S = 0.25
# Failed boots in a row after which the backend waits for the next request before it tries again.
MAX_FAILED_BOOTS = 3
# Seconds in which a failed connection may turn out to be a dead process: a killed process closes its sockets before it
# is reported as ended (under load by more than 70 ms).
DEATH_GRACE_S = 2.0
# Seconds after which the first boots have failed for certain.
READY_LIMIT_S = BOOT_LIMIT_S * MAX_FAILED_BOOTS


def make_backend(settings: Settings, log_name: str = LOG_NAME) -> Backend:
    """Return a remote backend when `backend_address` is set, otherwise an embedded one that has started to boot."""
    if settings.backend_address:
        tracker = BackendStateTracker(settings.boots_path(), assume_asleep_after_s=settings.scale_to_zero_after_s)
        return RemoteBackend(TritonClient(settings.backend_address, settings.model_keys()), tracker)
    backend = EmbeddedBackend(settings, log_name)
    backend.start()
    return backend


class EmbeddedBackend:
    """The `Backend` for a Triton that this process runs. Safe to use from several threads."""

    def __init__(self, settings: Settings, log_name: str = LOG_NAME) -> None:
        """`log_name` is the file name of the server's log in `state_dir`. No two live servers may share it.

        Raises EmbeddedServerError when the server cannot run here.
        """
        self._model_repository = Path(settings.model_repository or PROJECT_ROOT / "model_repository")
        find_triton()  # raises now what every start of the server would raise
        if not (self._model_repository / "upscale" / "config.pbtxt").is_file():
            raise EmbeddedServerError(
                f"No Triton models in {self._model_repository}: upscale/config.pbtxt is missing. Set "
                "SUPERRES_MODEL_REPOSITORY to the folder model_repository of this project, or reinstall the package."
            )
        if settings.default_variant not in (AUTO, *settings.offered()):
            _log.warning(
                "default_variant %s has no weights here. Requests that name no variant are rejected until you fetch "
                "them: superres weights fetch %s",
                settings.default_variant,
                settings.default_variant,
            )
        self._settings = settings
        self._log_path = Path(settings.state_dir) / log_name
        self.model_key = next(iter(settings.model_keys()), "") or secrets.token_urlsafe(24)
        self.api_key = settings.api_key or secrets.token_urlsafe(24)
        self._state_tracker = BackendStateTracker(settings.boots_path())
        self._changed = threading.Condition()
        self._process: TritonProcess | None = None
        self._client: TritonClient | None = None
        self._failure = ""
        self._is_wanted = True  # false while the backend sleeps, or has given up booting
        self._is_closed = False
        self._running_requests = 0  # the server does not sleep while there are any
        self._last_used = time.monotonic()
        # The kernel sends the death signal when the thread that started the server ends, so one thread starts them all.
        self._supervisor = threading.Thread(target=self._supervise, name="triton-supervisor", daemon=True)

    def start(self) -> None:
        """Start to boot. Returns at once."""
        self._supervisor.start()

    @property
    def process(self) -> TritonProcess | None:
        """The current server, once it is ready."""
        with self._changed:
            return self._process

    @property
    def state_tracker(self) -> BackendStateTracker:
        """The state of the server, and how long boots take."""
        return self._state_tracker

    def wake(self) -> None:
        """Start to boot when the server is asleep or failed. Returns at once. Restarts the idle time."""
        with self._changed:
            self._last_used = time.monotonic()
            if not self._is_wanted:
                self._failure, self._is_wanted = "", True
                self._state_tracker.begin_boot()
                self._changed.notify_all()

    def wait_until_ready(self, deadline: float, cancel_token: CancelToken | None = None) -> TritonClient:
        """Return a client of a ready server, after a boot if necessary.

        Raises BackendStillBootingError, BackendNotStartedError, BackendUnavailableError or CancelledError.
        """
        cancel_token = cancel_token or CancelToken()
        self.wake()
        with cancel_token.on_cancel(self._notify), self._changed:
            while self._client is None:
                cancel_token.raise_if_cancelled()
                if self._is_closed:
                    raise BackendUnavailableError("the gateway is shutting down")
                if self._failure:
                    raise BackendNotStartedError(f"Triton did not start: {self._failure}")
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    raise BackendStillBootingError("the deadline passed while the backend was booting")
                self._changed.wait(remaining_s)
            return self._client

    def upscale_bands(
        self, pixels: Pixels, variant: str, *, deadline: float, request_id: str, cancel_token: CancelToken
    ) -> Iterator[Band]:
        """Yield the bands of the output [H * scale, W * scale, 3] uint8 for an image [H, W, 3] uint8.

        `deadline` includes a boot.
        """
        with self._in_use():
            client = self.wait_until_ready(deadline, cancel_token)
            try:
                yield from client.upscale_bands(
                    pixels, variant, deadline=deadline, request_id=request_id, cancel_token=cancel_token
                )
            except (BackendFaultError, BackendUnavailableError) as error:
                if self._retire_if_broken(client, DEATH_GRACE_S if isinstance(error, BackendUnavailableError) else 0.0):
                    raise BackendDiedError("Triton or one of its stubs died while it worked") from error
                raise

    def close(self) -> None:
        """End the server, and wait until it has ended."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._supervisor.is_alive():
            self._supervisor.join()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        with self._changed:
            self._running_requests += 1
        try:
            yield
        finally:
            with self._changed:
                self._running_requests -= 1
                self._last_used = time.monotonic()

    def _retire_if_broken(self, client: TritonClient, patience_s: float) -> bool:
        """Return whether the server of a failed call is dead or dies within `patience_s`.

        A dead server gets no more requests.
        """
        deadline = time.monotonic() + patience_s
        with self._changed:
            while client is self._client and not self._is_closed:
                if self._process is not None and self._process.find_fault():
                    self._client = None
                    self._changed.notify_all()
                elif time.monotonic() > deadline:
                    return False
                else:
                    self._changed.wait(0.02)
            return not self._is_closed

    def _supervise(self) -> None:
        failed_boots = 0
        while self._wait_until_wanted():
            try:
                self._run_one_server()
                failed_boots = 0
            except Exception as error:  # noqa: BLE001 - any error: without this thread nothing would boot again
                failed_boots += 1
                _log.exception("Triton failed to boot (%d of %d)", failed_boots, MAX_FAILED_BOOTS)
                if failed_boots >= MAX_FAILED_BOOTS:
                    failed_boots = 0
                    self._give_up((str(error).splitlines() or [type(error).__name__])[0])

    def _run_one_server(self) -> None:
        """Boot one server, and end it when it is dead, idle for too long, or the gateway closes."""
        process = self._boot()
        try:
            self._watch(process)
        finally:
            self._retire(process)

    def _wait_until_wanted(self) -> bool:
        with self._changed:
            while not self._is_wanted and not self._is_closed:
                self._changed.wait()
            return not self._is_closed

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
            process.wait_until_ready(began + BOOT_LIMIT_S, lambda: self._is_closed)
        except BaseException:
            process.kill()
            raise
        _log.info("Triton %d is up after %.1f s on %s", process.pid, time.monotonic() - began, process.grpc_address)
        client = TritonClient(process.grpc_address, [self.model_key])
        with self._changed:
            self._process, self._client = process, client
            self._last_used = time.monotonic()
            self._state_tracker.mark_up()
            self._changed.notify_all()
        return process

    def _watch(self, process: TritonProcess) -> None:
        """Return when the server is dead, idle for too long, or the gateway closes."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._client is None, WATCH_INTERVAL_S)
                if self._is_closed:
                    return
                if self._fall_asleep_if_idle():
                    return
            if fault := process.find_fault():
                _log.error("replacing Triton: %s\n%s", fault, process.log_tail())
                self._state_tracker.mark_asleep()
                return

    def _fall_asleep_if_idle(self) -> bool:
        """Put the server to sleep if it has been idle for too long, and return whether it was.

        Later requests wait for the next boot.
        """
        limit_s, idle_s = self._settings.scale_to_zero_after_s, time.monotonic() - self._last_used
        if not limit_s or self._running_requests or self._client is None or idle_s < limit_s:
            return False
        _log.info("Triton is put to sleep after %.0f s without requests", idle_s)
        self._client.close()
        self._client, self._is_wanted = None, False
        self._state_tracker.mark_asleep()
        return True

    def _retire(self, process: TritonProcess) -> None:
        with self._changed:
            client, self._client, self._process = self._client, None, None
            is_shutdown = self._is_closed
        if client is not None:
            client.close()
        if is_shutdown:
            process.stop()
        else:
            process.kill()  # at once: a dead or idle server has nothing to finish

    def _give_up(self, reason: str) -> None:
        with self._changed:
            self._failure, self._is_wanted = reason, False
            self._state_tracker.mark_failed()
            self._changed.notify_all()


def _engine_environ(settings: Settings) -> dict[str, str]:
    environ = {
        "SUPERRES_WEIGHTS_DIR": str(settings.weights_path()),
        "SUPERRES_DEFAULT_VARIANT": choose_warm_variant(settings.default_variant, settings.offered()),
        # OpenMP threads that spin while they wait slow the engine by 10x as soon as another process needs a core
        # (measured with two busy processes: 72x72 in 2.2 s instead of 0.12 s). Sleeping threads cost nothing.
        "OMP_WAIT_POLICY": "passive",
    }
    environ["SUPERRES_MAX_WEIGHTS_BYTES"] = str(settings.max_weights_bytes)
    if settings.engine_threads:
        environ["SUPERRES_ENGINE_THREADS"] = str(settings.engine_threads)
    return environ

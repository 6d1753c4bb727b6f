"""The embedded backend: runs one real Triton on this machine and sends requests to it.

Owns the server's lifecycle, cold starts included. The server starts in the background, is replaced when it or one of
its Python stubs dies or hangs (Triton itself would report it as ready), is ended after an idle time, boots again on
demand, and ends with the gateway. A request waits for a boot within its own deadline.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from gateway.backend.activity import ServerActivity
from gateway.backend.client_ports import ClientPorts
from gateway.backend.forwarded_connection import ConnectionLimits
from gateway.backend.hang_watch import Hangs, HangWatch, grace_s
from gateway.backend.interface import (
    Backend,
    BackendFaultError,
    BackendNotStartedError,
    BackendStillBootingError,
    BackendUnavailableError,
    Band,
)
from gateway.backend.model_environ import make_model_environ, warn_of_missing_default
from gateway.backend.remote import make_remote_backend
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

_log = logging.getLogger(__name__)

LOG_NAME = "triton.log"
# Seconds between two checks that the server is alive. Its stubs, whose state is in /proc, are checked with the
# counters: a request to a dead stub fails after a second anyway, and then they are checked at once.
WATCH_INTERVAL_S = 0.25
# Failed boots in a row, or hangs without a restored tile between them, after which the backend waits for the next
# request before it tries again.
MAX_FAILED_BOOTS = 3
# Seconds after which the first boots have failed for certain.
READY_LIMIT_S = BOOT_LIMIT_S * MAX_FAILED_BOOTS


def make_backend(settings: Settings, log_name: str = LOG_NAME) -> Backend:
    """Return a remote backend when `backend_address` is set, otherwise an embedded one that has started to boot."""
    if settings.backend_address:
        return make_remote_backend(settings)
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
        warn_of_missing_default(settings)
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
        self._hangs = Hangs(MAX_FAILED_BOOTS)
        self._last_used = time.monotonic()
        self._client_ports = ClientPorts(
            {"grpc": settings.triton_grpc_port, "http": settings.triton_http_port},
            self._wake_for_client,
            ConnectionLimits(silence_s=settings.deadline_s),
        )
        # The kernel sends the death signal when the thread that started the server ends, so one thread starts them all.
        self._supervisor = threading.Thread(target=self._supervise, name="triton-supervisor", daemon=True)

    def start(self) -> None:
        """Open the ports for Triton clients and start to boot. Returns at once.

        Raises EmbeddedServerError when a port cannot be opened.
        """
        self._client_ports.open()
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
                with closing(
                    client.upscale_bands(
                        pixels, variant, deadline=deadline, request_id=request_id, cancel_token=cancel_token
                    )
                ) as bands:
                    while (band := self._hangs.await_band(bands)) is not None:
                        yield band
            except (BackendFaultError, BackendUnavailableError) as error:
                if self._retire_if_broken(client, grace_s(error)):
                    raise self._hangs.error_of(client) from error
                raise

    def close(self) -> None:
        """End the server, and wait until it has ended."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._supervisor.is_alive():
            self._supervisor.join()
        self._client_ports.close()

    def _wake_for_client(self) -> None:
        if not self._is_wanted:
            _log.info("a request of a Triton client wakes Triton")
        self.wake()

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
                if self._hangs.were_too_many():
                    self._give_up("it hung after each of its last boots", self._state_tracker.current().reason)
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
            environ=make_model_environ(settings),
            ports=find_free_ports(),
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
        self._client_ports.connect(asdict(process.ports))
        return process

    def _watch(self, process: TritonProcess) -> None:
        """Return when the server is dead, hangs, is idle for too long, or the gateway closes."""
        activity = ServerActivity(process.ports.metrics, self._client_ports.has_open_request)
        hang_watch = HangWatch(process, self._settings, self._hangs.is_awaited)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._client is None, WATCH_INTERVAL_S)
                if self._is_closed:
                    return
            if is_due := activity.is_due():
                if activity.is_in_use():
                    self._note_use()
                elif self._fall_asleep_if_idle(process):
                    return
                if hang := hang_watch.check(activity.counters):
                    self._state_tracker.mark_failed(self._hangs.record(self._client, hang_watch))
                    _log.error("ending Triton, which hangs: %s\n%s", hang, process.log_tail())
                    return
            if fault := process.find_fault() if is_due else process.find_end():
                _log.error("replacing Triton: %s\n%s", fault, process.log_tail())
                self._state_tracker.mark_asleep()
                return

    def _note_use(self) -> None:
        with self._changed:
            self._last_used = time.monotonic()

    def _is_idle(self) -> bool:
        """Return whether the server has been idle for so long that it is to sleep. Called with the lock held."""
        limit_s, idle_s = self._settings.scale_to_zero_after_s, time.monotonic() - self._last_used
        return bool(limit_s) and idle_s >= limit_s and not self._running_requests and self._client is not None

    def _fall_asleep_if_idle(self, process: TritonProcess) -> bool:
        """Put the server to sleep if it has been idle for too long, and return whether it was.

        Later requests wait for the next boot, those of Triton clients too: their connections to this server are closed
        first, so that none of them begins while it is put to sleep.
        """
        with self._changed:
            if not self._is_idle():
                return False
        if not self._client_ports.disconnect_if_idle():  # without the lock: the ports' thread may wait for it
            self._note_use()
            return False
        with self._changed:
            if is_idle := self._is_idle():  # otherwise a request came meanwhile
                _log.info("Triton is put to sleep after %.0f s without use", time.monotonic() - self._last_used)
                client, self._client, self._is_wanted = self._client, None, False
                self._state_tracker.mark_asleep()
        if not is_idle:
            self._client_ports.connect(asdict(process.ports))
        elif client is not None:
            client.close()
        return is_idle

    def _retire(self, process: TritonProcess) -> None:
        with self._changed:
            client, self._client, self._process = self._client, None, None
            is_shutdown = self._is_closed
        if client is not None:
            client.close()
        if is_shutdown:
            self._client_ports.drain()
            process.stop()
        else:
            self._client_ports.disconnect()
            process.kill()  # at once: a dead or idle server has nothing to finish

    def _give_up(self, reason: str, public_reason: str = "") -> None:
        with self._changed:
            self._failure, self._is_wanted = reason, False
            self._state_tracker.mark_failed(public_reason)
            self._changed.notify_all()
        self._client_ports.refuse()

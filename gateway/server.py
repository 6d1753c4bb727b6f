"""`superres serve`: binds the port, forks one gunicorn worker with threads, and runs the application in it.

The backend is made after the fork (gRPC channels and the embedded server's death signal do not survive one) and closed
when the worker ends. The line with the URL is printed once the backend is ready.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import math
import mmap
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from gateway.app import create_app
from gateway.backend.interface import Backend
from gateway.config.settings import Settings
from gateway.logs import configure_log
from gateway.metrics import MetricsError
from gateway.services import Services, services
from gateway.storage.state_lock import StateLockedError, lock_state_dir
from gateway.tracing.opening import TracingError
from gateway.wsgi.arbiter import CLOSE_S, GatewayArbiter
from gateway.wsgi.drain import CANCELLED_RESPONSES_S, Drain
from gateway.wsgi.malloc import start_returning_memory, tune_malloc
from gateway.wsgi.timeouts import RequestBodyTimeout, ResponseTimeout, SocketDeadlines
from gateway.wsgi.worker import GatewayWorker, QuietLogger

MakeBackend = Callable[[Settings], Backend]
AwaitReady = Callable[[Backend], None]
"""Returns when the backend has been ready once. Raises, with the reason, when it does not start."""

# Seconds for connections without a running upload, once the drain has ended.
CONNECTIONS_GRACE_S = 1
# Connections that the kernel holds until they are accepted.
BACKLOG = 256
# Open connections, idle ones included.
MAX_CONNECTIONS = 512

_log = logging.getLogger(__name__)


class ServeError(Exception):
    """The gateway cannot serve; the message says why and what to do."""


def serve(settings: Settings, make_backend: MakeBackend, await_ready: AwaitReady = lambda _: None) -> int:
    """Serve until SIGINT or SIGTERM and return the exit code. Raises ServeError before any process starts."""
    try:
        configure_log(settings.log_path(), settings.log_level, settings.log_max_bytes)
    except OSError as error:
        raise ServeError(
            f"The log {settings.log_path()} cannot be written: {error.strerror}. "
            "Set SUPERRES_LOG_FILE (- for standard error) or SUPERRES_STATE_DIR."
        ) from error
    try:
        lock_state_dir(Path(settings.state_dir))  # held until the last process of this server ends
    except StateLockedError as error:
        raise ServeError(str(error)) from error
    except OSError as error:  # a read-only file system, or a full one: nobody writes there
        _log.warning("the state folder %s cannot be locked: %s", settings.state_dir, error.strerror)
    listener = bind(settings.host, settings.port)
    tune_malloc()
    try:
        GatewayArbiter(Server(settings, listener, make_backend, await_ready)).run()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    return 0


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket, or raise ServeError with what to do."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            advice = (
                f"the port is in use. Stop the other program, or choose another port: PORT={port + 1} superres serve"
            )
        elif error.errno == errno.EACCES:
            advice = "ports below 1024 need root. Choose a higher one: PORT=8080 superres serve"
        else:
            advice = f"{error.strerror or error}. Set SUPERRES_HOST to an address of this machine or to 0.0.0.0"
        raise ServeError(f"Cannot listen on {host} port {port}: {advice}.") from error
    return listener


def max_shutdown_s(drain_s: float) -> float:
    """Return the maximum of seconds from SIGTERM to the end of the server, which SIGKILL brings if need be."""
    return drain_s + CANCELLED_RESPONSES_S + CONNECTIONS_GRACE_S + CLOSE_S


def format_url(listener: socket.socket) -> str:
    """Return the URL of a listener, for clients on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{host}:{port}"


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """The application that gunicorn runs: its configuration, and in the worker the WSGI application."""

    def __init__(
        self, settings: Settings, listener: socket.socket, make_backend: MakeBackend, await_ready: AwaitReady
    ) -> None:
        self.settings = settings
        self.deadlines: SocketDeadlines
        self.drain: Drain | None = None
        """Stops the requests; None until the worker can serve them."""
        # Memory that arbiter and worker share: whether the current worker has begun to serve.
        self._started = mmap.mmap(-1, 1)
        self._listener = listener
        self._url = format_url(listener)
        self._make_backend = make_backend
        self._await_ready = await_ready
        self._backend: Backend | None = None
        self._services: Services | None = None
        self._exit_code = 0
        super().__init__()

    def load_config(self) -> None:
        """Configure gunicorn; called by it."""
        options = {
            "bind": f"fd://{self._listener.detach()}",
            "worker_class": GatewayWorker,
            "workers": 1,  # one queue, one result store, one embedded server; Knative scales out
            "threads": self.settings.threads,
            "worker_connections": MAX_CONNECTIONS,
            "backlog": BACKLOG,
            "keepalive": self.settings.keepalive_s,
            # Threads that serve requests do not show whether they hang, and a frozen process must not be killed.
            "timeout": 0,
            "graceful_timeout": math.ceil(max_shutdown_s(self.settings.drain_s)),
            "logger_class": QuietLogger,
            "control_socket_disable": True,
            "forwarded_allow_ips": "",  # only gateway.access.client_ip decides which proxies to trust
            "post_worker_init": self._after_start,
            "worker_exit": self._before_exit,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    @property
    def is_draining(self) -> bool:
        """Whether the worker is about to end: each response then closes its connection."""
        return self.drain is not None and self.drain.is_draining

    def has_started(self) -> bool:
        """Return whether the current worker has begun to serve."""
        return self._started[0] == 1

    def forget_start(self) -> None:
        """Wait for another worker to begin to serve."""
        self._started[0] = 0

    def load(self) -> ResponseTimeout:
        """Make the backend and the application; called by gunicorn in the worker."""
        self.deadlines = SocketDeadlines()
        try:
            self._backend = self._make_backend(self.settings)
        except Exception as error:  # noqa: BLE001 - any failure: its message goes to the operator
            _log.error("%s", error, exc_info=error)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        try:
            app = create_app(self.settings, self._backend)
        except TracingError as error:
            _log.error("%s", error)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        self._start_meter_and_metrics(services(app))
        bodies = RequestBodyTimeout(
            app,
            self.deadlines,
            body_timeout_s=self.settings.body_timeout_s,
            idle_timeout_s=self.settings.idle_timeout_s,
            # A browser shows no response before it has sent its whole body.
            max_linger_bytes=4 * self.settings.max_upload_bytes,
        )
        return ResponseTimeout(bodies, self.deadlines, idle_timeout_s=self.settings.idle_timeout_s)

    def _start_meter_and_metrics(self, running: Services) -> None:
        self._services, self.drain = running, running.drain
        start_returning_memory()
        running.usage_meter.start()
        running.async_jobs.start()
        running.webhook_deliveries.start()
        if self.settings.metrics_port:
            try:
                running.metrics.serve(self.settings.metrics_host, self.settings.metrics_port)
            except MetricsError as error:
                _log.error("%s", error)
                sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def _after_start(self, worker: Any) -> None:
        worker.cfg.set("graceful_timeout", CONNECTIONS_GRACE_S)  # in the worker only; the arbiter keeps the sum
        assert self.drain is not None  # noqa: S101 - load() has run
        self.drain.start(self.deadlines.expire_reads, worker.leave_loop)
        gc.freeze()  # what exists now stays: searching it for garbage held up a request for 50 ms (busy machine)
        self._started[0] = 1
        if worker.age == 1:  # printed once, not again when gunicorn replaces a dead worker
            threading.Thread(target=self._announce, name="announce", daemon=True).start()

    def _announce(self) -> None:
        assert self._backend is not None and self.drain is not None  # noqa: PT018, S101 - load() has run
        try:
            self._await_ready(self._backend)
        except Exception as error:  # noqa: BLE001 - as above
            _log.error("%s", error, exc_info=error)
            self._exit_code = Arbiter.WORKER_BOOT_ERROR  # tells the arbiter to exit as well
            self.drain.end_now()
            return
        with contextlib.suppress(OSError):  # standard output is closed, or on a full disk
            print(f"Serverless SuperRes is ready at {self._url}", flush=True)  # noqa: T201

    def _before_exit(self, _arbiter: Arbiter, worker: Any) -> None:
        if os.getpid() != worker.pid:
            return  # gunicorn calls this in the arbiter too
        try:
            with contextlib.ExitStack() as steps:  # all of them, in reverse order, even if one fails
                if self._backend is not None:
                    steps.callback(self._backend.close)
                if self._services is not None:
                    if self._services.tracing:
                        steps.callback(self._services.tracing.close)
                    steps.callback(self._services.usage_meter.close)
                    steps.callback(self._services.drain.cancel_requests)
                    steps.callback(self._services.async_jobs.close)
                    steps.callback(self._services.webhook_deliveries.close)
        except Exception as error:  # noqa: BLE001 - the process must end all the same
            _log.error("The server did not stop cleanly: %s", error, exc_info=error)
        logging.shutdown()
        if worker.booted:
            os._exit(self._exit_code)  # a normal exit would wait for every thread, and one may be waiting for a client

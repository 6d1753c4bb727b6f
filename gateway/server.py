"""`superres serve`: binds the port, forks one gunicorn worker with threads, and runs the application in it.

The backend is made after the fork (gRPC channels and the embedded server's death signal do not survive one) and closed
when the worker ends. The line with the URL is printed once the backend is ready.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from gateway.app import create_app
from gateway.backend.interface import Backend
from gateway.config.settings import Settings
from gateway.logs import configure_log
from gateway.metrics import MetricsError
from gateway.services import Services, services
from gateway.wsgi.malloc import return_large_blocks
from gateway.wsgi.timeouts import RequestBodyTimeout, ResponseTimeout, SocketDeadlines
from gateway.wsgi.worker import GatewayWorker, QuietLogger

MakeBackend = Callable[[Settings], Backend]
AwaitReady = Callable[[Backend], None]
"""Returns when the backend has been ready once. Raises, with the reason, when it does not start."""

# Seconds until the worker is killed: time to end its requests and to close the backend.
SHUTDOWN_S = 15
# Seconds to wait for running requests at shutdown.
REQUESTS_GRACE_S = 3
# Seconds left after that to send 503 to requests still running, and to refund them.
CANCELLED_RESPONSES_S = 2
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
        configure_log(settings.log_path(), settings.log_level)
    except OSError as error:
        raise ServeError(
            f"The log {settings.log_path()} cannot be written: {error.strerror}. "
            "Set SUPERRES_LOG_FILE (- for standard error) or SUPERRES_STATE_DIR."
        ) from error
    listener = bind(settings.host, settings.port)
    return_large_blocks()
    try:
        Arbiter(Server(settings, listener, make_backend, await_ready)).run()
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
            "keepalive": 15,
            "graceful_timeout": SHUTDOWN_S,
            "logger_class": QuietLogger,
            "control_socket_disable": True,
            "forwarded_allow_ips": "",  # only gateway.access.client_ip decides which proxies to trust
            "post_worker_init": self._after_start,
            "worker_exit": self._before_exit,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> ResponseTimeout:
        """Make the backend and the application; called by gunicorn in the worker."""
        self.deadlines = SocketDeadlines()
        try:
            self._backend = self._make_backend(self.settings)
        except Exception as error:  # noqa: BLE001 - any failure: its message goes to the operator
            _log.error("%s", error, exc_info=error)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        app = create_app(self.settings, self._backend)
        self._start_meter_and_metrics(services(app))
        bodies = RequestBodyTimeout(
            app,
            self.deadlines,
            body_timeout_s=self.settings.body_timeout_s,
            # A browser shows no response before it has sent its whole body.
            max_linger_bytes=4 * self.settings.max_upload_bytes,
        )
        return ResponseTimeout(bodies, idle_timeout_s=self.settings.idle_timeout_s)

    def _start_meter_and_metrics(self, running: Services) -> None:
        self._services = running
        running.usage_meter.start()
        if self.settings.metrics_port:
            try:
                running.metrics.serve(self.settings.metrics_host, self.settings.metrics_port)
            except MetricsError as error:
                _log.error("%s", error)
                sys.exit(Arbiter.WORKER_BOOT_ERROR)

    @staticmethod
    def _end_requests(running: Services) -> None:
        running.runner.shut_down()
        end = time.monotonic() + CANCELLED_RESPONSES_S
        while running.access_control.count_running() and time.monotonic() < end:
            time.sleep(0.01)

    def _after_start(self, worker: Any) -> None:
        worker.cfg.set("graceful_timeout", REQUESTS_GRACE_S)  # in the worker only; the arbiter keeps SHUTDOWN_S
        if worker.age == 1:  # printed once, not again when gunicorn replaces a dead worker
            threading.Thread(target=self._announce, name="announce", daemon=True).start()

    def _announce(self) -> None:
        assert self._backend is not None  # noqa: S101 - load() has run
        try:
            self._await_ready(self._backend)
        except Exception as error:  # noqa: BLE001 - as above
            _log.error("%s", error, exc_info=error)
            self._exit_code = Arbiter.WORKER_BOOT_ERROR  # tells the arbiter to exit as well
            os.kill(os.getpid(), signal.SIGTERM)
            return
        print(f"Serverless SuperRes is ready at {self._url}", flush=True)  # noqa: T201

    def _before_exit(self, _arbiter: Arbiter, worker: Any) -> None:
        if os.getpid() != worker.pid:
            return  # gunicorn calls this in the arbiter too
        if self._services is not None:
            self._end_requests(self._services)
            self._services.usage_meter.close()
        if self._backend is not None:
            self._backend.close()
        logging.shutdown()
        if worker.booted:
            os._exit(self._exit_code)  # a normal exit would wait for every thread, and one may be waiting for a client

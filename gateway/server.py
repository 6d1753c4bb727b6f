"""Serving: binds the port, forks one gunicorn worker with threads, and in it starts the backend and the application.

The backend is made after the fork (gRPC channels and the embedded server's death signal do not survive one) and closed
when the worker ends. The line with the address is printed when the backend is ready.
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
from gateway.services import Services, services_of
from gateway.wsgi.malloc import return_large_blocks
from gateway.wsgi.timeouts import RequestBodyTimeout, ResponseTimeout, SocketDeadlines
from gateway.wsgi.worker import GatewayWorker, QuietLogger

MakeBackend = Callable[[Settings], Backend]
AwaitReady = Callable[[Backend], None]
"""Returns when the backend has been ready once; raises, in words, when it never will be."""

SHUTDOWN_S = 15
"""For the worker to end its requests, close the backend and go; then it is killed."""
REQUESTS_GRACE_S = 3
"""Of that, for requests to end by themselves."""
ANSWERS_S = 2
"""Of that, for those that did not to be told so, and given back what they were charged."""
BACKLOG = 256
MAX_CONNECTIONS = 512

_log = logging.getLogger(__name__)


class ServeError(Exception):
    """Nothing can be served; the text says why and what to do."""


def serve(settings: Settings, make_backend: MakeBackend, await_ready: AwaitReady = lambda _: None) -> int:
    """Serve until SIGINT or SIGTERM and return the exit code. Raises ServeError before anything has started."""
    try:
        configure_log(settings.path_of_log(), settings.log_level)
    except OSError as error:
        raise ServeError(
            f"The log {settings.path_of_log()} cannot be written ({error.strerror}). "
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
    """Return a listening socket, or raise ServeError in words."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            advice = f"something listens there already. Stop it, or choose another port: PORT={port + 1} superres serve"
        elif error.errno == errno.EACCES:
            advice = "ports below 1024 are the system's. Choose a higher one, as in PORT=8080 superres serve"
        else:
            advice = f"{error.strerror or error}. Set SUPERRES_HOST to an address of this machine, or 0.0.0.0 for all"
        raise ServeError(f"Cannot listen on {host} port {port}: {advice}.") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the URL under which this machine reaches a listener."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{host}:{port}"


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """What gunicorn runs: its configuration, and in the worker our application."""

    def __init__(
        self, settings: Settings, listener: socket.socket, make_backend: MakeBackend, await_ready: AwaitReady
    ) -> None:
        self.settings = settings
        self.curfew: SocketDeadlines
        self._listener = listener
        self._url = address_of(listener)
        self._make_backend = make_backend
        self._await_ready = await_ready
        self._backend: Backend | None = None
        self._parts: Services | None = None
        self._exit_code = 0
        super().__init__()

    def load_config(self) -> None:
        """Configure gunicorn; called by it."""
        choices = {
            "bind": f"fd://{self._listener.detach()}",
            "worker_class": GatewayWorker,
            "workers": 1,  # one queue, one store of results, one embedded server; replicas are Knative's affair
            "threads": self.settings.threads,
            "worker_connections": MAX_CONNECTIONS,
            "backlog": BACKLOG,
            "keepalive": 15,
            "graceful_timeout": SHUTDOWN_S,
            "logger_class": QuietLogger,
            "control_socket_disable": True,
            "forwarded_allow_ips": "",  # gateway.access.client_ip alone decides whom to believe
            "post_worker_init": self._after_start,
            "worker_exit": self._before_exit,
        }
        for name, value in choices.items():
            self.cfg.set(name, value)

    def load(self) -> ResponseTimeout:
        """Make the backend and the application; called by gunicorn in the worker."""
        self.curfew = SocketDeadlines()
        try:
            self._backend = self._make_backend(self.settings)
        except Exception as error:  # noqa: BLE001 - whatever it is, its words go to the operator
            _log.error("%s", error, exc_info=error)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        app = create_app(self.settings, self._backend)
        self._start_counting(services_of(app))
        bodies = RequestBodyTimeout(
            app,
            self.curfew,
            body_timeout_s=self.settings.body_timeout_s,
            max_linger_bytes=4 * self.settings.max_upload_bytes,  # a browser shows nothing before it has sent all
        )
        return ResponseTimeout(bodies, idle_timeout_s=self.settings.idle_timeout_s)

    def _start_counting(self, parts: Services) -> None:
        self._parts = parts
        parts.meter.start()
        if self.settings.metrics_port:
            try:
                parts.metrics.serve(self.settings.metrics_host, self.settings.metrics_port)
            except MetricsError as error:
                _log.error("%s", error)
                sys.exit(Arbiter.WORKER_BOOT_ERROR)

    @staticmethod
    def _end_requests(parts: Services) -> None:
        parts.upscaling.end()
        end = time.monotonic() + ANSWERS_S
        while parts.doors.count_running() and time.monotonic() < end:
            time.sleep(0.01)

    def _after_start(self, worker: Any) -> None:
        worker.cfg.set("graceful_timeout", REQUESTS_GRACE_S)  # the worker's copy: the arbiter keeps its own
        if worker.age == 1:  # said once, not when gunicorn replaces a worker that died
            threading.Thread(target=self._announce, name="announce", daemon=True).start()

    def _announce(self) -> None:
        assert self._backend is not None  # noqa: S101 - load() has run
        try:
            self._await_ready(self._backend)
        except Exception as error:  # noqa: BLE001 - as above
            _log.error("%s", error, exc_info=error)
            self._exit_code = Arbiter.WORKER_BOOT_ERROR  # which makes the arbiter give up, too
            os.kill(os.getpid(), signal.SIGTERM)
            return
        print(f"Serverless SuperRes is ready at {self._url}", flush=True)  # noqa: T201

    def _before_exit(self, _arbiter: Arbiter, worker: Any) -> None:
        if os.getpid() != worker.pid:
            return  # gunicorn calls this in its master too
        if self._parts is not None:
            self._end_requests(self._parts)
            self._parts.meter.close()
        if self._backend is not None:
            self._backend.close()
        logging.shutdown()
        if worker.booted:
            os._exit(self._exit_code)  # an ordinary exit would wait for every thread, and one may wait for a client

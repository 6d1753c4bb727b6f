"""gunicorn's arbiter, the process that starts the worker: what signals do, and how the server stops.

SIGTERM and SIGINT let requests finish (`gateway.wsgi.drain`); a second one ends them. SIGHUP does nothing, as the log
file is followed without it, except at the end of the terminal that the server was started from: that stops the server.
The other signals of gunicorn would start a second worker, with a queue and a Triton of its own, and are ignored.
"""

from __future__ import annotations

import logging
import os
import signal
from typing import Any

from gunicorn import sock
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from gateway.wsgi.running_clock import RunningClock

# Seconds from the end of all requests to SIGKILL: time to write the usage and to close the backend.
CLOSE_S = 20
# Signals this close together are one: a terminal and a program such as `make` both pass on one Ctrl-C.
SAME_SIGNAL_S = 0.5
# A worker that dies this often before it serves ends the server.
MAX_FAILED_STARTS = 3

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

_log = logging.getLogger(__name__)


class GatewayArbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """Runs one worker of a `gateway.server.Server`, and another one after it dies."""

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self._had_terminal = _has_terminal()
        self._failed_starts = 0
        self._is_stopping = False

    def init_signals(self) -> None:
        """Set the signal handlers. A SIGHUP that was ignored at the start, as by nohup, stays ignored."""
        is_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        super().init_signals()
        if is_ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def handle_hup(self) -> None:
        """Go on; stop if the terminal was closed."""
        if self._had_terminal and not _has_terminal():
            raise StopIteration

    def handle_int(self) -> None:
        """Stop as with SIGTERM."""
        raise StopIteration

    def handle_quit(self) -> None:
        """Stop without waiting for requests."""
        self.stop(graceful=False)
        raise StopIteration

    def handle_ttin(self) -> None:
        """Do nothing: there is one worker."""

    def handle_ttou(self) -> None:
        """Do nothing: there is one worker."""

    def handle_usr2(self) -> None:
        """Do nothing: a second server could not bind the port."""

    def handle_winch(self) -> None:
        """Do nothing: the terminal's size changed."""

    def stop(self, graceful: bool = True) -> None:  # noqa: FBT001, FBT002 - called by gunicorn
        """Stop the worker. A signal during the drain ends the drain; SIGKILL comes last."""
        self._is_stopping = True
        sock.close_sockets(self.LISTENERS)  # the worker has its own
        self.LISTENERS: list[Any] = []
        clock = RunningClock()  # no SIGKILL because this process was frozen, or because the time was set
        began, end = clock(), clock() + self.cfg.graceful_timeout
        while self.WORKERS and clock() < end:
            # Again and again: a worker that has just been forked does not have its handlers yet.
            self.kill_workers(signal.SIGTERM if graceful else signal.SIGQUIT)
            signals = self.wait_for_signals(timeout=0.5)
            if graceful and set(signals) & set(_STOP_SIGNALS) and clock() - began > SAME_SIGNAL_S:
                graceful, end = False, min(end, clock() + CLOSE_S)
            self._reap_at_stop()
        self.kill_workers(signal.SIGKILL)
        self._reap_at_stop()

    def _reap_at_stop(self) -> None:
        try:
            self.reap_workers()
        except HaltServer:
            _log.info("the worker could not start; the server stops anyway")

    def reap_workers(self) -> None:
        """Notice dead workers. Raises HaltServer if they keep dying before they serve."""
        before = len(self.WORKERS)
        super().reap_workers()
        if len(self.WORKERS) == before or self._is_stopping:
            return
        self._failed_starts = 0 if self.app.has_started() else self._failed_starts + 1
        if self._failed_starts >= MAX_FAILED_STARTS:
            reason = (
                f"The worker process died {self._failed_starts} times before it could serve. The log says by which "
                "signal; after SIGKILL give the server more memory."
            )
            _log.error(reason)
            raise HaltServer(reason)

    def spawn_worker(self) -> int:
        """Start a worker and return its process id."""
        self.app.forget_start()
        pid: int = super().spawn_worker()
        return pid


def _has_terminal() -> bool:
    """Return whether this process has a controlling terminal that is still open."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True

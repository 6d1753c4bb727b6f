"""One real tritonserver, from nvidia-pytriton's wheel, as a child process on loopback.

Owns the command line, the ports, the log file, readiness and the end of the process. `embedded` decides when a server
starts and when another replaces it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.backend.channel import SERVER_KEEPALIVE_OPTIONS
from gateway.backend.runtime_folder import RuntimeFolder
from gateway.backend.triton_install import EmbeddedServerError, TritonPaths, find_triton
from gateway.backend.triton_log import explain_failed_start, open_log, read_log_tail
from gateway.backend.triton_stubs import (
    RECORD_SUFFIX,
    StoppedStubs,
    Stub,
    end_orphaned_stubs,
    end_stubs,
    find_stubs,
    record_regions,
)

PROJECT_ROOT = Path(__file__).resolve().parents[2]
# Passed to Triton: seconds for requests that run when it is asked to end.
EXIT_TIMEOUT_S = 10
# Seconds in which the stubs follow a server that ended normally (seen: 1.5 s).
STUBS_GRACE_S = 2.0
# Triton's groups of restricted APIs, one group per secret. Health is in neither: it stays open.
MODEL_APIS = "inference,metadata"
ADMIN_APIS = "shared-memory,model-config,model-repository,statistics,trace,logging"
_READY_POLL_S = 0.03


@dataclass(frozen=True)
class TritonPorts:
    """Loopback ports of one server."""

    grpc: int
    http: int
    metrics: int


def find_free_ports() -> TritonPorts:
    """Return loopback ports that are free now."""
    sockets = [socket.socket() for _ in range(3)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        found = [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
    return TritonPorts(*found)


class TritonProcess:
    """A running tritonserver. It ends by `stop` or `kill`, or when the thread that started it ends."""

    def __init__(
        self,
        *,
        model_repository: Path,
        model_key: str,
        api_key: str,
        log_path: Path,
        environ: Mapping[str, str],
        ports: TritonPorts,
    ) -> None:
        """Start the server; returns at once. `environ` holds further variables for its models.

        No two live servers may share `log_path`. An older log there is renamed to `.previous.log`. A file next to it
        with the suffix `.stubs` records the server's shared memory. Raises EmbeddedServerError when the server
        cannot run here.
        """
        paths = find_triton()
        self.ports = ports
        self.log_path = log_path
        self._region_record = log_path.with_suffix(RECORD_SUFFIX)
        end_orphaned_stubs(log_path.parent)
        self._folder = RuntimeFolder(paths, model_repository)
        command = _command(paths, ports, self._folder)
        command += _restrictions("grpc-restricted-protocol", model_key, api_key)
        command += _restrictions("http-restricted-api", model_key, api_key)
        with open_log(log_path) as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                _with_death_signal(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=PROJECT_ROOT,
                env={**environ, **_environ(paths)},
                start_new_session=True,  # Ctrl-C in the terminal must reach the gateway alone, which then ends this
            )
        self._stubs: list[Stub] = []
        self._stopped_stubs = StoppedStubs()

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    @property
    def grpc_address(self) -> str:
        """host:port for gRPC clients."""
        return f"127.0.0.1:{self.ports.grpc}"

    def is_ready(self) -> bool:
        """Return whether every model is loaded. Asks Triton's open health endpoint on loopback."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports.http, timeout=1.0)
        try:
            connection.request("GET", "/v2/health/ready")
            ready = connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()  # one idle connection would delay Triton's shutdown by its whole timeout
        if ready and not self._stubs:
            self._stubs = find_stubs(self.pid)
            record_regions(self._region_record, self._stubs)
        return ready

    def wait_until_ready(self, deadline: float, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        """Return when the server is ready.

        Raises EmbeddedServerError, with the end of the log, when the server ends or `deadline` passes before that.
        """
        while not self.is_ready():
            if is_cancelled():
                raise EmbeddedServerError("The start of Triton was cancelled before it was ready.")
            if (status := self._process.poll()) is not None:
                reason = explain_failed_start(self.log_path, status)
                raise EmbeddedServerError(
                    f"Triton ended with status {status} while starting. {reason}\n{self.log_tail()}"
                )
            if time.monotonic() > deadline:
                raise EmbeddedServerError(f"Triton was not ready before the deadline.\n{self.log_tail()}")
            time.sleep(_READY_POLL_S)

    def find_end(self) -> str:
        """Return that the server itself has ended, or an empty string. Costs one system call."""
        status = self._process.poll()
        return "" if status is None else f"tritonserver ended with status {status}"

    def find_fault(self) -> str:
        """Return what died or stays stopped, or an empty string. Triton itself reports it as ready (2.51, measured).

        Call this once a second: a stub counts as stopped when every call for STOPPED_LIMIT_S has seen it so.
        """
        if end := self.find_end():
            return end
        if dead := [stub for stub in self._stubs if not stub.is_alive()]:
            return f"{len(dead)} of Triton's {len(self._stubs)} Python stubs died"
        if stopped := self._stopped_stubs.find(self._stubs):
            return f"a signal has stopped {len(stopped)} of Triton's {len(self._stubs)} Python stubs"
        return ""

    def cpu_s(self, model: str) -> float:
        """Return the processor time in seconds that the stubs of a model have used."""
        return sum(stub.cpu_s() for stub in self._stubs if stub.model == model)

    def log_tail(self) -> str:
        """Return the errors in the log and its last lines."""
        return read_log_tail(self.log_path)

    def stop(self, *, grace_s: float = EXIT_TIMEOUT_S + 2.0) -> None:
        """End the server and its stubs: by SIGTERM, and by SIGKILL when that takes longer than `grace_s`."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                pass
            else:
                self._clean_up(stubs_grace_s=STUBS_GRACE_S)
                return
        self.kill()

    def kill(self) -> None:
        """End the server and its stubs at once."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._clean_up(stubs_grace_s=0.0)

    def _clean_up(self, *, stubs_grace_s: float) -> None:
        end_stubs(self._folder.path, grace_s=stubs_grace_s, regions=[stub.region for stub in self._stubs])
        with contextlib.suppress(OSError):  # a disk that has become read-only
            self._region_record.unlink(missing_ok=True)
        self._folder.remove()


def _command(paths: TritonPaths, ports: TritonPorts, folder: RuntimeFolder) -> list[str]:
    return [
        str(paths.binary),
        f"--model-repository={folder.models}",
        f"--backend-directory={folder.backends}",
        "--disable-auto-complete-config",  # without it every model is imported twice
        "--model-control-mode=none",
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
        "--log-format=ISO8601",
        "--http-address=127.0.0.1",
        f"--http-port={ports.http}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={ports.grpc}",
        *SERVER_KEEPALIVE_OPTIONS,
        "--metrics-address=127.0.0.1",
        f"--metrics-port={ports.metrics}",
        "--allow-gpu-metrics=false",
    ]


def _restrictions(flag: str, model_key: str, api_key: str) -> list[str]:
    """Return the flags that restrict Triton's APIs.

    Triton reads its secrets from flags only, where `ps` shows them; the ports they open are on loopback.
    """
    return [f"--{flag}={MODEL_APIS}:model-key={model_key}", f"--{flag}={ADMIN_APIS}:api-key={api_key}"]


def _environ(paths: TritonPaths) -> dict[str, str]:
    """Return the environment in which Triton and its stubs find their libraries and Python packages.

    A stub ignores PYTHONPATH (isolated configuration, seen on 2.51). It finds the virtual environment through `python3`
    on PATH, next to pyvenv.cfg, and the project in its working directory.
    """
    return {
        "LD_LIBRARY_PATH": f"{sysconfig.get_config_var('LIBDIR')}:{paths.libraries}",
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # a __pycache__ in the repository would look like a changed model
    }


def _with_death_signal(command: list[str]) -> list[str]:
    """Have the kernel kill the server when this process dies, where util-linux provides `setpriv`."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else command

"""One real tritonserver, from nvidia-pytriton's wheel, as a child process on loopback.

Owns the command line, ports, log file, readiness and the end of the process. Who restarts it, and when, is `embedded`.
The wheel's server is 2.51 (container 24.10): it predates the 2025 security fixes and must never listen beyond loopback.
"""

from __future__ import annotations

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

from gateway.backend.runtime_folder import RuntimeFolder
from gateway.backend.triton_install import EmbeddedServerError, TritonPaths, find_triton
from gateway.backend.triton_stubs import (
    NOTE_SUFFIX,
    Stub,
    children,
    find_stubs,
    note,
    sweep,
    sweep_orphans,
)

PROJECT_ROOT = Path(__file__).resolve().parents[2]
EXIT_TIMEOUT_S = 10
STUBS_GRACE_S = 2.0
"""Within which stubs follow a server that ended politely (1.5 s seen)."""
# One group of APIs a secret. Health is in neither: it stays open.
MODEL_APIS = "inference,metadata"
ADMIN_APIS = "shared-memory,model-config,model-repository,statistics,trace,logging"


@dataclass(frozen=True)
class TritonPorts:
    """Loopback ports of one server."""

    grpc: int
    http: int
    metrics: int


def find_free_ports(grpc: int = 0, http: int = 0) -> TritonPorts:
    """Return loopback ports that are free now; a port given is kept."""
    sockets = [socket.socket() for _ in range(3)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        found = [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
    return TritonPorts(grpc or found[0], http or found[1], found[2])


class TritonProcess:
    """A tritonserver that was started. Its end: `stop`, or the death of the thread that started it."""

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
        """Start the server; returns at once. `environ` is what its models get beside what they need to run.

        `log_path` is its own: what lies there becomes `.previous.log`, and its stubs are noted beside it.
        """
        paths = find_triton()
        self.ports = ports
        self.log_path = log_path
        self._noted_stubs = log_path.with_suffix(NOTE_SUFFIX)
        sweep_orphans(log_path.parent)
        self._folder = RuntimeFolder(paths, model_repository)
        command = _command(paths, ports, self._folder)
        command += _restrictions("grpc-restricted-protocol", model_key, api_key)
        command += _restrictions("http-restricted-api", model_key, api_key)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        if log_path.exists():
            log_path.replace(log_path.with_suffix(".previous.log"))
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                _with_death_signal(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=PROJECT_ROOT,
                env={**environ, **_library_paths(paths)},
                start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on, in order
            )
        self._stubs: frozenset[Stub] = frozenset()

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    @property
    def grpc_address(self) -> str:
        """host:port for gRPC clients."""
        return f"127.0.0.1:{self.ports.grpc}"

    def is_ready(self) -> bool:
        """Whether every model is loaded; asks the open health endpoint on loopback."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports.http, timeout=1.0)
        try:
            connection.request("GET", "/v2/health/ready")
            ready = connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()  # one idle connection would hold up Triton's shutdown for its whole time-out
        if ready and not self._stubs:
            self._stubs = frozenset(stub for stub in find_stubs() if stub.server == self.pid)
            note(self._noted_stubs, self._stubs)
        return ready

    def wait_until_ready(self, deadline: float, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        """Return when ready; raise EmbeddedServerError with what the log says when it dies or is late."""
        while not self.is_ready():
            if is_cancelled():
                raise EmbeddedServerError("Triton was no longer wanted before it was ready.")
            if (status := self._process.poll()) is not None:
                raise EmbeddedServerError(f"Triton ended with status {status} while starting.\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise EmbeddedServerError(f"Triton was not ready in time.\n{self.log_tail()}")
            time.sleep(0.03)

    def find_fault(self) -> str:
        """Say what died, or nothing. Triton itself calls a dead stub ready and never restarts it (2.51, measured)."""
        if (status := self._process.poll()) is not None:
            return f"tritonserver ended with status {status}"
        if missing := {stub.pid for stub in self._stubs} - children(self.pid):
            return f"{len(missing)} of Triton's {len(self._stubs)} Python stubs died"
        return ""

    def log_tail(self, lines: int = 15) -> str:
        """Return the log's errors and its end, without Triton's tables."""
        try:
            text = self.log_path.read_text(errors="replace").splitlines()
        except OSError as error:
            return f"(no log: {error})"
        text = [line[:300] for line in text if line and line[0] not in "+|"]
        errors = [line for line in text[:-lines] if "Z E " in line or "Failed to" in line]
        return "\n".join(errors[-lines:] + text[-lines:] + [f"(whole log: {self.log_path})"])

    def stop(self, *, grace_s: float = EXIT_TIMEOUT_S + 2.0) -> None:
        """End the server: politely, then not; and its stubs with it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                pass
            else:
                self._clear_up(stubs_grace_s=STUBS_GRACE_S)
                return
        self.kill()

    def kill(self) -> None:
        """End the server at once: nothing it holds is worth waiting for."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._clear_up(stubs_grace_s=0.0)

    def _clear_up(self, *, stubs_grace_s: float) -> None:
        sweep(str(self._folder.path), grace_s=stubs_grace_s, regions=frozenset(stub.region for stub in self._stubs))
        self._noted_stubs.unlink(missing_ok=True)
        self._folder.remove()


def _command(paths: TritonPaths, ports: TritonPorts, folder: RuntimeFolder) -> list[str]:
    return [
        str(paths.binary),
        f"--model-repository={folder.models}",
        f"--backend-directory={folder.backends}",
        "--disable-auto-complete-config",  # else every model is imported twice
        "--model-control-mode=none",
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
        "--log-format=ISO8601",
        "--http-address=127.0.0.1",
        f"--http-port={ports.http}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={ports.grpc}",
        "--metrics-address=127.0.0.1",
        f"--metrics-port={ports.metrics}",
        "--allow-gpu-metrics=false",
    ]


def _restrictions(flag: str, model_key: str, api_key: str) -> list[str]:
    """Triton takes its secrets from flags alone; here they are made anew at each start and reach loopback only."""
    return [f"--{flag}={MODEL_APIS}:model-key={model_key}", f"--{flag}={ADMIN_APIS}:api-key={api_key}"]


def _library_paths(paths: TritonPaths) -> dict[str, str]:
    """The stub ignores PYTHONPATH (isolated configuration, seen on 2.51).

    It finds the virtual environment as `python3` on PATH, beside pyvenv.cfg, and the project in its working directory.
    """
    return {
        "LD_LIBRARY_PATH": f"{sysconfig.get_config_var('LIBDIR')}:{paths.libraries}",
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # a __pycache__ in the repository would look like a changed model
    }


def _with_death_signal(command: list[str]) -> list[str]:
    """Have the kernel kill the server when we die without saying so, where util-linux is there to arrange it."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else command

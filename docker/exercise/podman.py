"""A separate podman with configuration, storage, networks and socket in one folder, which is removed at the end.

The settings work with hybrid cgroups, low limits and without systemd (tested on Debian 12 as root).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PACKAGES = (
    "podman",
    "buildah",
    "crun",
    "runc",
    "netavark",
    "aardvark-dns",
    "debootstrap",
    "iptables",
    "nftables",
    "uidmap",
    "fuse-overlayfs",
    "catatonit",
)
HEALTH_INTERVAL_S = 1.0


class ExerciseError(Exception):
    """A step failed; the message says which one and why."""


class CommandFailedError(ExerciseError):
    """A command failed or did not end; while a container restarts, the next try may succeed."""


def run(*command: str | Path, environ: dict[str, str] | None = None, limit_s: float = 900) -> str:
    """Run a command and return its output; raises CommandFailedError with the end of the output."""
    shown = " ".join(map(str, command))[:200]
    try:
        done = subprocess.run(
            [str(word) for word in command], env=environ, text=True, capture_output=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CommandFailedError(f"{shown} did not end within {limit_s:.0f} s") from error
    if done.returncode:
        output = (done.stdout + done.stderr).strip()[-3000:]
        raise CommandFailedError(f"{shown} failed with exit code {done.returncode}:\n{output}")
    return done.stdout


def install_packages() -> None:
    """Install podman and the other packages that are missing."""
    missing = [name for name in PACKAGES if not _is_installed(name)]
    if missing:
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "update", "-qq", environ=environ)
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, environ=environ)


def _is_installed(package: str) -> bool:
    query = subprocess.run(["dpkg-query", "-W", "-f=${Status}", package], capture_output=True, text=True, check=False)
    return query.returncode == 0 and query.stdout == "install ok installed"


class Podman:
    """podman with all of its data in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._had_firewall_rules = bool(_firewall_rules())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            f'tmp_dir = "{folder}/temporary"\n'
            f'[network]\nnetwork_config_dir = "{folder}/networks"\n'
        )
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/storage"\nrunroot = "{folder}/run"\n'
        )
        self.environ = {
            **os.environ,
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "DOCKER_HOST": f"unix://{folder}/podman.sock",
        }

    def __call__(self, *arguments: str | Path, limit_s: float = 900) -> str:
        """Run podman."""
        return run("podman", *arguments, environ=self.environ, limit_s=limit_s)

    @contextlib.contextmanager
    def serve(self) -> Iterator[None]:
        """Serve Docker's API on the socket, and run the health checks, which podman leaves to systemd timers."""
        socket = self.folder / "podman.sock"
        log = (self.folder / "service.log").open("wb")
        command = ["podman", "system", "service", "--time=0", f"unix://{socket}"]
        service = subprocess.Popen(command, env=self.environ, stdout=log, stderr=log)
        done = threading.Event()
        checker = threading.Thread(target=self._check_health, args=(done,), name="health")
        try:
            deadline = time.monotonic() + 120
            while not socket.exists():
                if service.poll() is not None or time.monotonic() > deadline:
                    raise ExerciseError(f"podman's service did not start; see {log.name}")
                time.sleep(0.1)
            checker.start()
            yield
        finally:
            done.set()
            if checker.is_alive():
                checker.join()
            service.terminate()
            try:
                service.wait(20)
            except subprocess.TimeoutExpired:
                service.kill()
                service.wait()
            log.close()

    def _check_health(self, done: threading.Event) -> None:
        while not done.wait(HEALTH_INTERVAL_S):
            for name in self._run_unchecked("ps", "--format", "{{.Names}}").split():
                self._run_unchecked("healthcheck", "run", name)

    def _run_unchecked(self, *arguments: str) -> str:
        """Run podman, ignore its exit code and return its output."""
        done = subprocess.run(["podman", *arguments], env=self.environ, capture_output=True, text=True, check=False)
        return done.stdout

    def remove(self) -> None:
        """Remove all containers, images, networks and files of this podman."""
        self._run_unchecked("rm", "-fa", "-t", "2")
        self._run_unchecked("network", "prune", "-f")
        self._run_unchecked("rmi", "-fa")
        subprocess.run(["umount", "-l", self.folder / "storage" / "overlay"], capture_output=True, check=False)
        for line in Path("/proc").glob("[0-9]*/cmdline"):  # monitors of ended `exec`s stay for 300 s
            with contextlib.suppress(OSError):  # the process has ended
                words = line.read_bytes().decode(errors="replace").split("\0")
                if words[0].endswith("conmon") and any(word.startswith(f"{self.folder}/") for word in words):
                    os.kill(int(line.parent.name), signal.SIGKILL)
        shutil.rmtree(self.folder)
        if not self._had_firewall_rules:
            _remove_firewall_rules()


def _firewall_rules() -> list[list[str]]:
    """Return the rules and chains of podman's networks as arguments of iptables, with "-t TABLE" first."""
    found = []
    for table in ("filter", "nat"):
        output = subprocess.run(["iptables", "-t", table, "-S"], capture_output=True, text=True, check=False).stdout
        found += [["-t", table, *shlex.split(line)] for line in output.splitlines() if "NETAVARK" in line]
    return found


def _remove_firewall_rules() -> None:
    """Remove the firewall rules that netavark leaves behind after its last network."""
    rules = _firewall_rules()
    for kind, flag in (("-A", "-D"), ("-N", "-X")):  # every rule, then the chains
        for table, name, word, *rest in rules:
            if word == kind:
                subprocess.run(["iptables", table, name, flag, *rest], capture_output=True, check=False)

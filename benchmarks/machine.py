"""Describes the machine and the time of a measurement, and whether other processes were running."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

from swinir.inference.cpu_count import count_cpus
from swinir.network import fused

# OpenMP threads that spin while they wait take 10 times as long next to busy processes. The embedded backend sets the
# same.
OMP_WAIT_POLICY = "passive"
# Load average of the last minute from which a machine counts as busy.
BUSY_LOAD = 0.5


def restart_with_sleeping_threads(module: str, arguments: list[str]) -> None:
    """Replace this process by `python -m module`, with OpenMP threads that sleep while they wait.

    OpenMP reads its settings while torch is imported, so they cannot be changed afterwards.
    """
    command = ["env", f"OMP_WAIT_POLICY={OMP_WAIT_POLICY}", sys.executable, "-m", module, "--started", *arguments]
    os.execvp(command[0], command)  # noqa: S606 - no shell wanted


def now() -> str:
    """Return date and time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe_machine() -> dict[str, object]:
    """Return the facts about machine and software that belong to a measurement."""
    load = os.getloadavg()[0]
    return {
        "date": now(),
        "processor": _processor(),
        "cores": count_cpus(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "blocks": "fused" if fused.is_available() else "in PyTorch",
        "omp_wait_policy": OMP_WAIT_POLICY,
        "commit": _commit(),
        "load_before": round(load, 2),
        "quiet": load < BUSY_LOAD,
    }


class StolenTime:
    """Measures the share of CPU time that other virtual machines on this hardware took since the object was created.

    The load average does not include it (proc(5), /proc/stat: steal).
    """

    def __init__(self) -> None:
        self._began = self._read()

    def share(self) -> float:
        """Return the share from 0 to 1."""
        stolen, total = (now - then for now, then in zip(self._read(), self._began, strict=True))
        return stolen / max(total, 1)

    @staticmethod
    def _read() -> tuple[int, int]:
        ticks = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
        return ticks[7], sum(ticks)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _commit() -> str:
    """Return the measured commit, with a plus if the working tree differs from it."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"

"""On what and when something was measured, and whether the machine was quiet enough to believe it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

from swinir.inference.cpu_count import count_processors
from swinir.network import fused

# Waiting OpenMP threads that spin cost 10x beside busy processes; gateway/backend/embedded.py sets the same.
OMP_WAIT_POLICY = "passive"
BUSY_LOAD = 0.5
"""Processes of others, on average over the minute before, from which on a machine is called busy."""


def restart_with_sleeping_threads(module: str, arguments: list[str]) -> None:
    """Replace this process by `python -m module`, with OpenMP's threads told to sleep while they wait.

    OpenMP reads its settings when torch is loaded, so it is too late to change them here.
    """
    command = ["env", f"OMP_WAIT_POLICY={OMP_WAIT_POLICY}", sys.executable, "-m", module, "--started", *arguments]
    os.execvp(command[0], command)  # noqa: S606 - no shell wanted


def now() -> str:
    """Date and time, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe_machine() -> dict[str, object]:
    """Return the facts that a figure needs beside it."""
    load = os.getloadavg()[0]
    return {
        "date": now(),
        "processor": _processor(),
        "cores": count_processors(),
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
    """The share of the processors' time that others on the same hardware took, since this was made.

    What neighbours outside a virtual machine take shows in no load figure (proc(5), /proc/stat: steal).
    """

    def __init__(self) -> None:
        self._began = self._read()

    def share(self) -> float:
        """From 0 to 1."""
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
    """Return the commit measured, with a plus where the tree differs from it."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"

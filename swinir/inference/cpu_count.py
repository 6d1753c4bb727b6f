"""The number of threads that this process can run at once: its cores, limited by the quota of its container."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def count_cpus(cgroup: Path = CGROUP) -> int:
    """Return the number of cores that this process may use, at least 1.

    A container limited to 2 CPUs on a 64-core machine still sees 64 cores; 64 threads there would wait for each other.
    """
    cores = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return max(1, min(cores, math.ceil(quota))) if quota else cores


def _quota(cgroup: Path) -> float:
    """Return the CPUs granted by the container's cgroup (version 2, else 1); 0 for no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return 0.0
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else 0.0

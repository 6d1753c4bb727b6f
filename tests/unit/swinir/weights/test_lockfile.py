"""The lock file with several concurrent writers; its contents are tested with fetching."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from swinir.weights.lockfile import LockedWeights, LockFile

EACH = 40


def write_many(folder: Path, writer: str) -> None:
    for number in range(EACH):
        LockFile(folder).record(f"{writer}_{number}", LockedWeights("a.pth", "0" * 64, 1, "first use", "0" * 64))


def test_fetches_at_once_lose_no_entry(tmp_path: Path) -> None:
    """Removing the entry also removes the trusted hash."""
    processes = [
        multiprocessing.get_context("spawn").Process(target=write_many, args=(tmp_path, writer)) for writer in "abc"
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]

    kept = [f"{writer}_{number}" for writer in "abc" for number in range(EACH)]
    assert [name for name in kept if LockFile(tmp_path).find(name) is None] == []

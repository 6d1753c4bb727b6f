"""A file for usage that the store did not take before the gateway stopped. The next start writes it to the store."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path

from gateway.storage.reloading_file import ReloadingFile
from gateway.usage.records import AwakeSpan, ClientUsage, UsageBatch, UsageStoreError

Batches = tuple[UsageBatch, ...]


class UnwrittenUsageFile:
    """Batches in a small JSON file. Raises UsageStoreError. Safe for several processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: ReloadingFile[Batches] = ReloadingFile(
            path, "unwritten usage", _parse, empty=(), error=UsageStoreError
        )

    @classmethod
    def next_to(cls, usage_path: Path) -> UnwrittenUsageFile:
        """Return the file in the folder of the usage file, also when Redis is used instead of the latter."""
        return cls(usage_path.with_name("meter-unwritten.json"))

    def read(self) -> Batches:
        """Return the batches in the file, oldest first."""
        return self._file.read()

    def add(self, batches: Sequence[UsageBatch]) -> None:
        """Add batches, except those that the file has already."""
        with self._file.lock():
            known = self._file.read()
            ids = {batch.id for batch in known}
            self._file.replace(_format((*known, *(batch for batch in batches if batch.id not in ids))))

    def remove(self, ids: Collection[str]) -> None:
        """Remove batches by their IDs, and the file with the last one."""
        if not self.path.exists():
            return
        with self._file.lock():
            left = tuple(batch for batch in self._file.read() if batch.id not in ids)
            if left:
                self._file.replace(_format(left))
            else:
                self.path.unlink(missing_ok=True)


def describe_batches(batches: Sequence[UsageBatch]) -> str:
    """Return the sums of batches in words."""
    awake_s, images = sum(one.awake_s for one in batches), sum(one.images for one in batches)
    return f"{awake_s:,.1f} GPU seconds and {images:,} image{'s' * (images != 1)}"


def _format(batches: Batches) -> bytes:
    rows = [
        {
            "id": batch.id,
            "spans": [asdict(span) for span in batch.spans],
            "uses": [{"month": month, "client": client, **asdict(use)} for (month, client), use in batch.uses.items()],
        }
        for batch in batches
    ]
    return json.dumps({"version": 1, "batches": rows}, indent=1).encode()


def _parse(data: bytes) -> Batches:
    return tuple(
        UsageBatch(
            tuple(
                AwakeSpan(span["month"], span["kind"], float(span["begin"]), float(span["end"]))
                for span in row["spans"]
            ),
            {
                (str(use["month"]), str(use["client"])): ClientUsage(int(use["images"]), float(use["work_s"]))
                for use in row["uses"]
            },
            str(row["id"]),
        )
        for row in json.loads(data)["batches"]
    )

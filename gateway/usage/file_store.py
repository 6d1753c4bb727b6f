"""Stores usage in a small JSON file in state_dir, for the processes of one machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gateway.storage.reloading_file import ReloadingFile
from gateway.usage.records import (
    CLOCK_TOLERANCE_S,
    MAX_MONTHS,
    ClientUsage,
    MonthlyUsage,
    UsageBatch,
    UsageStoreError,
    add_usage,
)

# IDs of batches that are stored, so that a batch that is sent again counts once.
_MAX_IDS = 32


@dataclass(frozen=True)
class _Content:
    until: float = 0.0
    """Unix time up to which awake time has been counted."""
    ids: tuple[str, ...] = ()
    """IDs of the batches written last, newest last."""
    months: Mapping[str, MonthlyUsage] = field(default_factory=dict)


class FileUsageStore:
    """Usage in one small JSON file, which every write replaces as a whole."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._file: ReloadingFile[_Content] = ReloadingFile(
            path, "meter", _parse, empty=_Content(), error=UsageStoreError
        )

    def now(self) -> float:
        """Return the time of the machine's clock."""
        return self._clock()

    def add(self, batch: UsageBatch) -> None:
        """Write a batch."""
        with self._file.lock():
            content = self._file.read()
            if batch.id not in content.ids:
                self._file.replace(_format(_apply(content, batch, self._clock())))

    def read(self) -> dict[str, MonthlyUsage]:
        """Return all stored months by name."""
        return dict(self._file.read().months)


def _apply(content: _Content, batch: UsageBatch, now: float) -> _Content:
    months = dict(content.months)
    until = content.until if content.until <= now + CLOCK_TOLERANCE_S else 0.0  # the clock was set back
    for span in batch.spans:
        begin = max(span.begin, until)
        if span.end > begin:
            until = span.end
            month = months.get(span.month, MonthlyUsage(span.month))
            seconds = {"boot_s": month.boot_s, "up_s": month.up_s}
            seconds[span.kind] += span.end - begin
            months[span.month] = MonthlyUsage(month.name, **seconds, clients=month.clients)
    for (name, client), use in batch.uses.items():
        month = months.get(name, MonthlyUsage(name))
        months[name] = MonthlyUsage(name, month.boot_s, month.up_s, add_usage(month.clients, client, use))
    latest = sorted(months)[-MAX_MONTHS:]
    return _Content(until, (*content.ids, batch.id)[-_MAX_IDS:], {name: months[name] for name in latest})


def _format(content: _Content) -> bytes:
    months = {
        name: {
            "boot_s": round(month.boot_s, 3),
            "up_s": round(month.up_s, 3),
            "clients": {client: asdict(use) for client, use in month.clients.items()},
        }
        for name, month in content.months.items()
    }
    last = content.ids[-1] if content.ids else ""  # all that earlier releases read
    written = {"version": 1, "until": content.until, "last": last, "ids": content.ids, "months": months}
    return json.dumps(written, indent=1).encode()


def _parse(data: bytes) -> _Content:
    read = json.loads(data)
    months = {
        str(name): MonthlyUsage(
            str(name),
            float(row["boot_s"]),
            float(row["up_s"]),
            {
                str(client): ClientUsage(int(use["images"]), float(use["work_s"]))
                for client, use in row["clients"].items()
            },
        )
        for name, row in read["months"].items()
    }
    return _Content(float(read["until"]), tuple(map(str, read.get("ids", [read["last"]]))), months)

"""Records of usage: the GPU seconds of each calendar month (UTC), and the batches in which they are written.

They consist of spans of time in which the backend was awake (booting or up), and the compute seconds of each client.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from gateway.storage.reloading_file import FileError

SpanKind = Literal["boot_s", "up_s"]

# Clients with an own entry per month. Usage of further ones is added up under OTHER_CLIENTS.
MAX_CLIENTS = 1_000
OTHER_CLIENTS = "(others)"
# Months that are stored: a year, and the current one to compare.
MAX_MONTHS = 13
# If a store has counted awake time up to a moment later than this many seconds from now, its clock was set back since,
# and the moment means nothing. The clocks of two masters of one Redis may differ by less.
CLOCK_TOLERANCE_S = 2.0


class UsageStoreError(FileError):
    """The usage cannot be read or written now. The caller keeps the batch that was not written."""


@dataclass(frozen=True)
class ClientUsage:
    """Images and compute seconds of one client in one month."""

    images: int = 0
    work_s: float = 0.0


@dataclass(frozen=True)
class MonthlyUsage:
    """The GPU seconds of one month."""

    name: str
    """Year and month, as in 2026-11."""
    boot_s: float = 0.0
    up_s: float = 0.0
    clients: Mapping[str, ClientUsage] = field(default_factory=dict)

    @property
    def work_s(self) -> float:
        """Compute seconds of all clients."""
        return sum(use.work_s for use in self.clients.values())

    @property
    def idle_s(self) -> float:
        """Seconds in which the backend was up without work: between images, and before it fell asleep."""
        return max(0.0, self.up_s - self.work_s)

    @property
    def gpu_s(self) -> float:
        """All seconds that cost money: boot, work and idle."""
        return self.boot_s + self.work_s + self.idle_s


@dataclass(frozen=True)
class AwakeSpan:
    """A span of time in which the backend was awake, within one month.

    `begin` and `end` are Unix times by the store's clock; until it is written, times by the meter's monotonic clock.
    """

    month: str
    kind: SpanKind
    begin: float
    end: float


@dataclass(frozen=True)
class UsageBatch:
    """Usage that is written in one step. A batch that is sent twice counts once, by its `id`."""

    spans: tuple[AwakeSpan, ...] = ()
    uses: Mapping[tuple[str, str], ClientUsage] = field(default_factory=dict)
    """Usage by (month, client)."""
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def awake_s(self) -> float:
        """Seconds of all spans."""
        return sum(span.end - span.begin for span in self.spans)

    @property
    def images(self) -> int:
        """Images of all clients."""
        return sum(use.images for use in self.uses.values())


def add_usage(clients: Mapping[str, ClientUsage], client: str, use: ClientUsage) -> dict[str, ClientUsage]:
    """Return the clients with usage added, under OTHER_CLIENTS when MAX_CLIENTS are present."""
    name = client if client in clients or len(clients) < MAX_CLIENTS else OTHER_CLIENTS
    before = clients.get(name, ClientUsage())
    return {**clients, name: ClientUsage(before.images + use.images, before.work_s + use.work_s)}


def format_month(moment: float) -> str:
    """Return the month (UTC) of a Unix time, as in 2026-11."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m")

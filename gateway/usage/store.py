"""Stores the GPU seconds of each calendar month (UTC): in a file in state_dir, or in Redis for several gateways.

It stores spans of time in which the backend was awake (booting or up), and the compute seconds of each client. Gateways
that share a store share one backend: a second in which two of them saw it awake counts once.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import redis

from gateway.storage.redis import connect
from gateway.storage.reloading_file import FileError, ReloadingFile

SpanKind = Literal["boot_s", "up_s"]

# Clients with an own entry per month. Usage of further ones is added up under OTHER_CLIENTS.
MAX_CLIENTS = 1_000
OTHER_CLIENTS = "(others)"
# Months that are stored: a year, and the current one to compare.
MAX_MONTHS = 13
# Expiry of a month in Redis: 13 months and some days.
_EXPIRY_S = 400 * 86_400
_REDIS_PREFIX = "superres:meter:"


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
    """A span of time in which the backend was awake, within one month. `begin` and `end` are Unix times."""

    month: str
    kind: SpanKind
    begin: float
    end: float


@dataclass(frozen=True)
class UsageBatch:
    """Usage that is written in one step. A batch that is sent twice counts once, by its `id`."""

    spans: tuple[AwakeSpan, ...] = ()
    uses: Mapping[tuple[str, str], ClientUsage] = field(default_factory=dict)
    """Keys are (month, client)."""
    id: str = field(default_factory=lambda: secrets.token_hex(8))


class UsageStore(Protocol):
    """Storage for monthly usage. Safe to use from several threads and processes."""

    def add(self, batch: UsageBatch) -> None:
        """Write a whole batch, or raise UsageStoreError and write nothing."""
        ...

    def read(self) -> dict[str, MonthlyUsage]:
        """Return all stored months by name."""
        ...


@dataclass(frozen=True)
class _Content:
    until: float = 0.0
    """Unix time up to which awake time has been counted."""
    last: str = ""
    """ID of the batch written last."""
    months: Mapping[str, MonthlyUsage] = field(default_factory=dict)


class FileUsageStore:
    """Usage in one small JSON file, which every write replaces as a whole."""

    def __init__(self, path: Path) -> None:
        self._file: ReloadingFile[_Content] = ReloadingFile(
            path, "meter", _parse, empty=_Content(), error=UsageStoreError
        )

    def add(self, batch: UsageBatch) -> None:
        """Write a batch."""
        with self._file.lock():
            content = self._file.read()
            if content.last != batch.id:
                self._file.replace(_format(_apply(content, batch)))

    def read(self) -> dict[str, MonthlyUsage]:
        """Return all stored months by name."""
        return dict(self._file.read().months)


def _apply(content: _Content, batch: UsageBatch) -> _Content:
    months, until = dict(content.months), content.until
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
    return _Content(until, batch.id, {name: months[name] for name in latest})


def add_usage(clients: Mapping[str, ClientUsage], client: str, use: ClientUsage) -> dict[str, ClientUsage]:
    """Return the clients with usage added, under OTHER_CLIENTS when MAX_CLIENTS are present."""
    name = client if client in clients or len(clients) < MAX_CLIENTS else OTHER_CLIENTS
    before = clients.get(name, ClientUsage())
    return {**clients, name: ClientUsage(before.images + use.images, before.work_s + use.work_s)}


def _format(content: _Content) -> bytes:
    months = {
        name: {
            "boot_s": round(month.boot_s, 3),
            "up_s": round(month.up_s, 3),
            "clients": {client: asdict(use) for client, use in month.clients.items()},
        }
        for name, month in content.months.items()
    }
    return json.dumps({"version": 1, "until": content.until, "last": content.last, "months": months}, indent=1).encode()


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
    return _Content(float(read["until"]), str(read["last"]), months)


_ADD = """
local batch = cjson.decode(ARGV[1])
if redis.call('set', KEYS[1] .. 'batch:' .. batch.id, '1', 'NX', 'EX', 86400) == false then return 0 end
for _, span in ipairs(batch.spans) do
  local from = math.max(span.begin, tonumber(redis.call('get', KEYS[1] .. 'until') or '0'))
  if span['end'] > from then
    redis.call('set', KEYS[1] .. 'until', string.format('%.6f', span['end']))
    redis.call('hincrbyfloat', KEYS[1] .. span.month, span.kind, string.format('%.6f', span['end'] - from))
    redis.call('expire', KEYS[1] .. span.month, batch.expiry_s)
  end
end
for _, use in ipairs(batch.uses) do
  local month, client = KEYS[1] .. use.month, use.client
  if redis.call('hexists', month, 'work_s:' .. client) == 0 and redis.call('hlen', month) >= 2 * batch.max_clients then
    client = batch.others
  end
  redis.call('hincrby', month, 'images:' .. client, use.images)
  redis.call('hincrbyfloat', month, 'work_s:' .. client, string.format('%.6f', use.work_s))
  redis.call('expire', month, batch.expiry_s)
end
return 1
"""


class RedisUsageStore:
    """Usage in Redis, in one hash per month."""

    def __init__(self, url: str) -> None:
        self._client = connect(url)
        self._add = self._client.register_script(_ADD)

    def add(self, batch: UsageBatch) -> None:
        """Write a batch in one step."""
        uses = [{"month": month, "client": client, **asdict(use)} for (month, client), use in batch.uses.items()]
        arguments = {
            "id": batch.id,
            "spans": [asdict(span) for span in batch.spans],
            "uses": uses,
            "expiry_s": _EXPIRY_S,
            "max_clients": MAX_CLIENTS,
            "others": OTHER_CLIENTS,
        }
        try:
            self._add(keys=[_REDIS_PREFIX], args=[json.dumps(arguments)])
        except (redis.RedisError, OSError) as error:
            raise _redis_error(error) from error

    def read(self) -> dict[str, MonthlyUsage]:
        """Return all stored months by name."""
        try:
            names = sorted(self._client.scan_iter(f"{_REDIS_PREFIX}????-??", count=1000))[-MAX_MONTHS:]
            return {month.name: month for name in names for month in [self._read_one(name.decode())]}
        except (redis.RedisError, OSError) as error:
            raise _redis_error(error) from error

    def _read_one(self, key: str) -> MonthlyUsage:
        row: Any = self._client.hgetall(key)
        fields = {name.decode(): float(value) for name, value in row.items()}
        clients: dict[str, ClientUsage] = {}
        for name, value in fields.items():
            if name.startswith("work_s:"):
                client = name.removeprefix("work_s:")
                clients[client] = ClientUsage(int(fields.get(f"images:{client}", 0)), value)
        return MonthlyUsage(
            key.removeprefix(_REDIS_PREFIX), fields.get("boot_s", 0.0), fields.get("up_s", 0.0), clients
        )


def _redis_error(error: Exception) -> UsageStoreError:
    return UsageStoreError(f"Redis, which stores the GPU usage, cannot be reached ({type(error).__name__}).")


def open_usage_store(path: Path, redis_url: str) -> UsageStore:
    """Return a store in Redis when `redis_url` is set, otherwise in the file at `path`."""
    return RedisUsageStore(redis_url) if redis_url else FileUsageStore(path)

"""The store: the GPU seconds of each calendar month (UTC), in a file of state_dir or in a Redis that gateways share.

Two things are written down: spans of time in which the backend was awake (booting or up), and what each client's
pictures took of it. Gateways that share a store share one backend: an awake second that two of them saw counts once.
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

MAX_CLIENTS = 1_000
"""Named in a month; what further ones use is written down under OTHER_CLIENTS."""
OTHER_CLIENTS = "(others)"
MAX_MONTHS = 13
_KEPT_S = 400 * 86_400
_REDIS_PREFIX = "superres:meter:"


class UsageStoreError(FileError):
    """The store cannot be read or written now; what was to be written is kept by whoever wanted to."""


@dataclass(frozen=True)
class ClientUsage:
    """What one client used."""

    pictures: int = 0
    work_s: float = 0.0


@dataclass(frozen=True)
class MonthlyUsage:
    """A month's GPU seconds."""

    name: str
    """As in 2026-11."""
    boot_s: float = 0.0
    up_s: float = 0.0
    clients: Mapping[str, ClientUsage] = field(default_factory=dict)

    @property
    def work_s(self) -> float:
        """Seconds in the network, of all clients."""
        return sum(use.work_s for use in self.clients.values())

    @property
    def idle_s(self) -> float:
        """Up without work: between pictures, and the tail before it sleeps."""
        return max(0.0, self.up_s - self.work_s)

    @property
    def gpu_s(self) -> float:
        """What is paid for: boot, work and idle."""
        return self.boot_s + self.work_s + self.idle_s


@dataclass(frozen=True)
class AwakeSpan:
    """Time in which the backend was awake: from one moment of time.time to another, within one month."""

    month: str
    kind: SpanKind
    begin: float
    end: float


@dataclass(frozen=True)
class UsageBatch:
    """What is written down at once. `id` keeps a batch that is sent twice from counting twice."""

    spans: tuple[AwakeSpan, ...] = ()
    uses: Mapping[tuple[str, str], ClientUsage] = field(default_factory=dict)
    """By (month, client)."""
    id: str = field(default_factory=lambda: secrets.token_hex(8))


class UsageStore(Protocol):
    """Where months are kept. Safe to use from several threads and processes."""

    def add(self, batch: UsageBatch) -> None:
        """Write a batch down, all of it or, with a LedgerError, none."""
        ...

    def read(self) -> dict[str, MonthlyUsage]:
        """Return the months there are, by name."""
        ...


@dataclass(frozen=True)
class _Pages:
    until: float = 0.0
    """Moment up to which awake time has been written down."""
    last: str = ""
    months: Mapping[str, MonthlyUsage] = field(default_factory=dict)


class FileUsageStore:
    """A store in one small file, replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self._file: ReloadingFile[_Pages] = ReloadingFile(path, "meter", _parse, empty=_Pages(), error=UsageStoreError)

    def add(self, batch: UsageBatch) -> None:
        """Write a batch down."""
        with self._file.lock():
            pages = self._file.read()
            if pages.last != batch.id:
                self._file.replace(_format(_apply(pages, batch)))

    def read(self) -> dict[str, MonthlyUsage]:
        """Return the months there are."""
        return dict(self._file.read().months)


def _apply(pages: _Pages, batch: UsageBatch) -> _Pages:
    months, until = dict(pages.months), pages.until
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
    kept = sorted(months)[-MAX_MONTHS:]
    return _Pages(until, batch.id, {name: months[name] for name in kept})


def add_usage(clients: Mapping[str, ClientUsage], client: str, use: ClientUsage) -> dict[str, ClientUsage]:
    """Return the clients with a use added, under OTHER_CLIENTS when there are MAX_CLIENTS already."""
    name = client if client in clients or len(clients) < MAX_CLIENTS else OTHER_CLIENTS
    before = clients.get(name, ClientUsage())
    return {**clients, name: ClientUsage(before.pictures + use.pictures, before.work_s + use.work_s)}


def _format(pages: _Pages) -> bytes:
    months = {
        name: {
            "boot_s": round(month.boot_s, 3),
            "up_s": round(month.up_s, 3),
            "clients": {client: asdict(use) for client, use in month.clients.items()},
        }
        for name, month in pages.months.items()
    }
    return json.dumps({"version": 1, "until": pages.until, "last": pages.last, "months": months}, indent=1).encode()


def _parse(content: bytes) -> _Pages:
    read = json.loads(content)
    months = {
        str(name): MonthlyUsage(
            str(name),
            float(row["boot_s"]),
            float(row["up_s"]),
            {str(who): ClientUsage(int(use["pictures"]), float(use["work_s"])) for who, use in row["clients"].items()},
        )
        for name, row in read["months"].items()
    }
    return _Pages(float(read["until"]), str(read["last"]), months)


_ADD = """
local batch = cjson.decode(ARGV[1])
if redis.call('set', KEYS[1] .. 'batch:' .. batch.id, '1', 'NX', 'EX', 86400) == false then return 0 end
for _, span in ipairs(batch.spans) do
  local from = math.max(span.begin, tonumber(redis.call('get', KEYS[1] .. 'until') or '0'))
  if span['end'] > from then
    redis.call('set', KEYS[1] .. 'until', string.format('%.6f', span['end']))
    redis.call('hincrbyfloat', KEYS[1] .. span.month, span.kind, string.format('%.6f', span['end'] - from))
    redis.call('expire', KEYS[1] .. span.month, batch.kept_s)
  end
end
for _, use in ipairs(batch.uses) do
  local month, client = KEYS[1] .. use.month, use.client
  if redis.call('hexists', month, 'work_s:' .. client) == 0 and redis.call('hlen', month) >= 2 * batch.max_clients then
    client = batch.others
  end
  redis.call('hincrby', month, 'pictures:' .. client, use.pictures)
  redis.call('hincrbyfloat', month, 'work_s:' .. client, string.format('%.6f', use.work_s))
  redis.call('expire', month, batch.kept_s)
end
return 1
"""


class RedisUsageStore:
    """A store in Redis: a hash a month."""

    def __init__(self, url: str) -> None:
        self._client = connect(url)
        self._add = self._client.register_script(_ADD)

    def add(self, batch: UsageBatch) -> None:
        """Write a batch down, in one step."""
        uses = [{"month": month, "client": client, **asdict(use)} for (month, client), use in batch.uses.items()]
        content = {
            "id": batch.id,
            "spans": [asdict(span) for span in batch.spans],
            "uses": uses,
            "kept_s": _KEPT_S,
            "max_clients": MAX_CLIENTS,
            "others": OTHER_CLIENTS,
        }
        try:
            self._add(keys=[_REDIS_PREFIX], args=[json.dumps(content)])
        except (redis.RedisError, OSError) as error:
            raise UsageStoreError(f"Redis, which keeps the meter, is away ({type(error).__name__}).") from error

    def read(self) -> dict[str, MonthlyUsage]:
        """Return the months there are."""
        try:
            names = sorted(self._client.scan_iter(f"{_REDIS_PREFIX}????-??", count=1000))[-MAX_MONTHS:]
            return {month.name: month for name in names for month in [self._read_one(name.decode())]}
        except (redis.RedisError, OSError) as error:
            raise UsageStoreError(f"Redis, which keeps the meter, is away ({type(error).__name__}).") from error

    def _read_one(self, key: str) -> MonthlyUsage:
        row: Any = self._client.hgetall(key)
        fields = {name.decode(): float(value) for name, value in row.items()}
        clients: dict[str, ClientUsage] = {}
        for name, value in fields.items():
            if name.startswith("work_s:"):
                client = name.removeprefix("work_s:")
                clients[client] = ClientUsage(int(fields.get(f"pictures:{client}", 0)), value)
        return MonthlyUsage(
            key.removeprefix(_REDIS_PREFIX), fields.get("boot_s", 0.0), fields.get("up_s", 0.0), clients
        )


def open_usage_store(path: Path, redis_url: str) -> UsageStore:
    """Return the store that gateways share, in Redis when there is one, else in a file."""
    return RedisUsageStore(redis_url) if redis_url else FileUsageStore(path)

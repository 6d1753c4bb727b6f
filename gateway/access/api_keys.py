"""Keys of the API: made once, shown once, kept as hashes in one file that is read again whenever it changes.

A key is 32 random bytes, so a single SHA-256 is a sound hash of it: no dictionary can hold it, and a slow hash would
only slow down every request. A client is a name: all keys of one name share its allowance, so that a key can be rotated
(a new one made, the old one kept for a while) without starting the count anew.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from gateway.config.rates import parse_rates
from gateway.storage.reloading_file import FileError, ReloadingFile

PREFIX = "ssr_"
"""Lets people and secret scanners tell our keys from other strings."""
MAX_NAME_LENGTH = 80

Now = Callable[[], datetime]


class ApiKeyFileError(FileError):
    """The keys cannot be read or changed; the text says why and what to do."""


@dataclass(frozen=True)
class Client:
    """Whom a key identifies. The key itself is nowhere; `sha256` is its hash in hex."""

    id: str
    name: str
    created: str
    """ISO 8601, UTC."""
    sha256: str
    requests: str = ""
    """An allowance of its own ("60 per minute"); empty for the one that the settings give every client."""
    megapixels: str = ""
    expires: str = ""
    """ISO 8601, UTC: from then on the key is none; empty for never."""

    def has_expired(self, now: datetime) -> bool:
        """Whether the key is none any more."""
        return bool(self.expires) and datetime.fromisoformat(self.expires) <= now


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


class ApiKeyStore:
    """The file of keys. Safe to use from several threads and processes."""

    def __init__(self, path: Path, *, now: Now = _utc_now) -> None:
        self._now = now
        self._file = ReloadingFile[tuple[Client, ...]](path, "keys", _parse, empty=(), error=ApiKeyFileError)

    def new(self, name: str, *, requests: str = "", megapixels: str = "", now: Now | None = None) -> str:
        """Make a key for a client of that name and return it: the only time that it can be seen."""
        name = name.strip()
        if not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
            raise ApiKeyFileError(f"A name has 1 to {MAX_NAME_LENGTH} printable characters, on one line.")
        key, client = _make(name, requests, megapixels, (now or self._now)())
        with self._file.changing():
            self._write((*self._file.read(), client))
        return key

    def rotate(self, id_or_name: str, keep: timedelta) -> str:
        """Make a key in place of another, or of all of a name, which count on for the time `keep`; return it."""
        now = self._now()
        with self._file.changing():
            clients = self._file.read()
            old = _select(clients, id_or_name)
            key, client = _make(old[-1].name, old[-1].requests, old[-1].megapixels, now)
            until = (now + keep).isoformat(timespec="seconds")
            ended = tuple(replace(one, expires=min(one.expires or until, until)) for one in old)
            by_id = {one.id: one for one in ended}
            self._write((*(by_id.get(one.id, one) for one in clients), client))
        return key

    def allow(self, id_or_name: str, *, requests: str | None, megapixels: str | None) -> tuple[Client, ...]:
        """Give the key with that id, or every key of that name, another allowance; None leaves a part as it is."""
        changes = {
            name: text for name, text in (("requests", requests), ("megapixels", megapixels)) if text is not None
        }
        _check_amounts(*changes.values())
        with self._file.changing():
            clients = self._file.read()
            changed = {one.id: replace(one, **changes) for one in _select(clients, id_or_name)}
            self._write(tuple(changed.get(one.id, one) for one in clients))
        return tuple(changed.values())

    def clients(self) -> tuple[Client, ...]:
        """Return all clients, oldest first, as the file has them now. Raises KeysError when it cannot be read."""
        return self._file.read()

    def revoke(self, id_or_name: str) -> tuple[Client, ...]:
        """Revoke the key with that id, or every key of that name, and return them."""
        with self._file.changing():
            clients = self._file.read()
            gone = _select(clients, id_or_name)
            self._write(tuple(client for client in clients if client not in gone))
        return gone

    def identify(self, key: str) -> Client | None:
        """Return whom a key identifies; None for one that is empty, unknown, revoked or expired, in the same time."""
        presented = _hash(key)
        found = None
        for client in self._file.current():
            if hmac.compare_digest(client.sha256, presented):
                found = client  # no break: the time must not tell the place in the list
        return None if found is None or found.has_expired(self._now()) else found

    def _write(self, clients: tuple[Client, ...]) -> None:
        """Write the file without the keys that are none any more."""
        now = self._now()
        rows = [asdict(client) for client in clients if not client.has_expired(now)]
        self._file.replace((json.dumps({"version": 1, "keys": rows}, indent=1) + "\n").encode())


def _make(name: str, requests: str, megapixels: str, now: datetime) -> tuple[str, Client]:
    key = PREFIX + secrets.token_urlsafe(32)
    _check_amounts(requests, megapixels)
    created = now.isoformat(timespec="seconds")
    return key, Client(secrets.token_hex(4), name, created, _hash(key), requests.strip(), megapixels.strip())


def _check_amounts(*texts: str) -> None:
    try:
        for text in texts:
            parse_rates(text)
    except ValueError as error:
        raise ApiKeyFileError(f"{error}.") from None


def _select(clients: tuple[Client, ...], id_or_name: str) -> tuple[Client, ...]:
    """Return the key of that id, or all of that name; raise KeysError when there is none."""
    found = tuple(client for client in clients if id_or_name in (client.id, client.name))
    if not found:
        raise ApiKeyFileError(f"There is no key with the id or name {id_or_name!r}. `superres keys list` shows all.")
    return found


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _parse(content: bytes) -> tuple[Client, ...]:
    try:
        return tuple(_client_of(row) for row in json.loads(content)["keys"])
    except KeyError as error:
        raise ValueError(f"there is no {error}") from None


def _client_of(row: Any) -> Client:
    optional = {name: row[name] for name in ("requests", "megapixels", "expires") if name in row}
    client = Client(id=row["id"], name=row["name"], created=row["created"], sha256=row["sha256"], **optional)
    if not all(isinstance(value, str) for value in asdict(client).values()):
        raise TypeError("every member of a key is a string")
    if len(client.sha256) != 64 or not client.sha256.isascii():
        raise ValueError(f"the hash of key {client.id} has not 64 characters")
    parse_rates(client.requests)
    parse_rates(client.megapixels)
    if client.expires and datetime.fromisoformat(client.expires).tzinfo is None:
        raise ValueError(f"the end of key {client.id} has no time zone")
    return client

"""API keys: created once, shown once, and stored as hashes in a file that is read again whenever it changes.

A key is 32 random bytes, so a single SHA-256 is a safe hash of it: no dictionary contains such a key, and a slow hash
would only slow down every request.

A client is identified by its name. All keys of one name share their rate limits, so a client whose key is rotated does
not get a second allowance while the old key remains valid.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.config.rates import parse_rates
from gateway.storage.reloading_file import FileError, ReloadingFile

# Lets people and secret scanners recognize our keys.
_PREFIX = "ssr_"
_MAX_NAME_LENGTH = 80

Now = Callable[[], datetime]


class ApiKeyFileError(FileError):
    """The API keys cannot be read or changed. The message says why and what to do."""


@dataclass(frozen=True)
class ApiKey:
    """One stored key. The key itself is stored nowhere, only its hash."""

    id: str
    name: str
    """The client's name. Several keys may have the same."""
    created: str
    """ISO 8601, UTC."""
    sha256: str
    """Hash of the key in hexadecimal."""
    requests: str = ""
    """Request rate of this key's client, such as "60 per minute". Empty: the setting client_requests applies."""
    megapixels: str = ""
    """Megapixel rate of this key's client. Empty: the setting client_megapixels applies."""
    expires: str = ""
    """ISO 8601, UTC. The key is invalid from then on. Empty: it does not expire."""

    def has_expired(self, now: datetime) -> bool:
        """Return whether the key is no longer valid."""
        return bool(self.expires) and datetime.fromisoformat(self.expires) <= now


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ApiKeyStore:
    """The file of API keys. Safe for several threads and processes."""

    def __init__(self, path: Path, *, now: Now = _utc_now) -> None:
        self._now = now
        self._file = ReloadingFile[tuple[ApiKey, ...]](path, "keys", _parse, empty=(), error=ApiKeyFileError)

    def new(self, name: str, *, requests: str = "", megapixels: str = "", now: Now | None = None) -> str:
        """Create a key for the client `name` and return it. It cannot be shown again later."""
        name = name.strip()
        if not name or len(name) > _MAX_NAME_LENGTH or not name.isprintable():
            raise ApiKeyFileError(
                f"Invalid name: use 1 to {_MAX_NAME_LENGTH} printable characters without a line break."
            )
        key, record = _create(name, requests, megapixels, (now or self._now)())
        with self._file.lock():
            self._write((*self._file.read(), record))
        return key

    def rotate(self, id_or_name: str, keep: timedelta) -> str:
        """Create and return a key that replaces the key with this id, or all keys of this name.

        The replaced keys stay valid for the time `keep`.
        """
        now = self._now()
        with self._file.lock():
            records = self._file.read()
            old = _select(records, id_or_name)
            key, record = _create(old[-1].name, old[-1].requests, old[-1].megapixels, now)
            end = (now + keep).isoformat(timespec="seconds")
            ending = {one.id: replace(one, expires=min(one.expires or end, end)) for one in old}
            self._write((*(ending.get(one.id, one) for one in records), record))
        return key

    def set_rates(self, id_or_name: str, *, requests: str | None, megapixels: str | None) -> tuple[ApiKey, ...]:
        """Change the rates of the key with this id, or of all keys of this name; None keeps a rate unchanged."""
        changes = {
            name: text for name, text in (("requests", requests), ("megapixels", megapixels)) if text is not None
        }
        _check_rates(*changes.values())
        with self._file.lock():
            records = self._file.read()
            changed = {one.id: replace(one, **changes) for one in _select(records, id_or_name)}
            self._write(tuple(changed.get(one.id, one) for one in records))
        return tuple(changed.values())

    def entries(self) -> tuple[ApiKey, ...]:
        """Return all keys as the file has them now, oldest first. Raises ApiKeyFileError if it cannot be read."""
        return self._file.read()

    def revoke(self, id_or_name: str) -> tuple[ApiKey, ...]:
        """Delete the key with this id, or all keys of this name, and return them."""
        with self._file.lock():
            records = self._file.read()
            revoked = _select(records, id_or_name)
            self._write(tuple(record for record in records if record not in revoked))
        return revoked

    def identify(self, key: str) -> ApiKey | None:
        """Return the stored key that matches, or None if the key is empty, unknown, revoked or expired.

        Takes the same time in every case.
        """
        presented = _hash(key)
        found = None
        for record in self._file.current():
            if hmac.compare_digest(record.sha256, presented):
                found = record  # no break: the time must not reveal the position in the list
        return None if found is None or found.has_expired(self._now()) else found

    def _write(self, records: tuple[ApiKey, ...]) -> None:
        """Write the file, leaving out expired keys."""
        now = self._now()
        rows = [asdict(record) for record in records if not record.has_expired(now)]
        self._file.replace((json.dumps({"version": 1, "keys": rows}, indent=1) + "\n").encode())


def _create(name: str, requests: str, megapixels: str, now: datetime) -> tuple[str, ApiKey]:
    key = _PREFIX + secrets.token_urlsafe(32)
    _check_rates(requests, megapixels)
    created = now.isoformat(timespec="seconds")
    return key, ApiKey(secrets.token_hex(4), name, created, _hash(key), requests.strip(), megapixels.strip())


def _check_rates(*texts: str) -> None:
    try:
        for text in texts:
            parse_rates(text)
    except ValueError as error:
        raise ApiKeyFileError(f"{error}.") from None


def _select(records: tuple[ApiKey, ...], id_or_name: str) -> tuple[ApiKey, ...]:
    """Return the key with this id, or all keys of this name. Raises ApiKeyFileError if none matches."""
    found = tuple(record for record in records if id_or_name in (record.id, record.name))
    if not found:
        raise ApiKeyFileError(
            f"Unknown key {id_or_name!r}: no key has this id or name. `superres keys list` shows all keys."
        )
    return found


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _parse(content: bytes) -> tuple[ApiKey, ...]:
    try:
        return tuple(_parse_row(row) for row in json.loads(content)["keys"])
    except KeyError as error:
        raise ValueError(f"the member {error} is missing") from None


def _parse_row(row: Any) -> ApiKey:
    optional = {name: row[name] for name in ("requests", "megapixels", "expires") if name in row}
    record = ApiKey(id=row["id"], name=row["name"], created=row["created"], sha256=row["sha256"], **optional)
    if not all(isinstance(value, str) for value in asdict(record).values()):
        raise TypeError("every member of a key must be a string")
    if len(record.sha256) != 64 or not record.sha256.isascii():
        raise ValueError(f"the hash of key {record.id} must have 64 characters")
    parse_rates(record.requests)
    parse_rates(record.megapixels)
    if record.expires and datetime.fromisoformat(record.expires).tzinfo is None:
        raise ValueError(f"the expiry of key {record.id} needs a time zone")
    return record

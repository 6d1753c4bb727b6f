"""Keys of the API: made once, shown once, kept as hashes in one file that is read again whenever it changes.

A key is 32 random bytes, so a single SHA-256 is a sound hash of it: no dictionary can hold it, and a slow hash would
only slow down every request. The file (mode 0600, or a mounted Secret) is replaced as a whole under a lock; one that
cannot be read keeps the last good list in force.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

PREFIX = "ssr_"
"""Lets people and secret scanners tell our keys from other strings."""
MAX_NAME_LENGTH = 80
MAX_FILE_BYTES = 4_194_304

_log = logging.getLogger(__name__)


class KeysError(Exception):
    """The keys cannot be read or changed; the text says why and what to do."""


@dataclass(frozen=True)
class Client:
    """Whom a key identifies. The key itself is nowhere; `sha256` is its hash in hex."""

    id: str
    name: str
    created: str
    """ISO 8601, UTC."""
    sha256: str


class KeyFile:
    """The file of keys. Safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._clients: tuple[Client, ...] = ()

    def new(self, name: str, *, now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)) -> str:
        """Make a key for a client of that name and return it: the only time that it can be seen."""
        name = name.strip()
        if not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
            raise KeysError(f"A name has 1 to {MAX_NAME_LENGTH} printable characters, on one line.")
        key = PREFIX + secrets.token_urlsafe(32)
        client = Client(
            id=secrets.token_hex(4), name=name, created=now().isoformat(timespec="seconds"), sha256=_hash(key)
        )
        with self._changing():
            self._write((*self._read(), client))
        return key

    def clients(self) -> tuple[Client, ...]:
        """Return all clients, oldest first, as the file has them now. Raises KeysError when it cannot be read."""
        return self._read()

    def revoke(self, id_or_name: str) -> tuple[Client, ...]:
        """Remove the key with that id, or every key of that name, and return what was removed."""
        with self._changing():
            clients = self._read()
            revoked = tuple(client for client in clients if id_or_name in (client.id, client.name))
            if not revoked:
                raise KeysError(f"There is no key with the id or name {id_or_name!r}. `superres keys list` shows them.")
            self._write(tuple(client for client in clients if client not in revoked))
        return revoked

    def identify(self, key: str) -> Client | None:
        """Return whom a key identifies; None for one that is empty, unknown or revoked, all in the same time."""
        presented = _hash(key)
        found = None
        for client in self._current():
            if hmac.compare_digest(client.sha256, presented):
                found = client  # no break: the time must not tell the place in the list
        return found

    def _current(self) -> tuple[Client, ...]:
        """Return the clients, read again when the file has another time, size or inode than when it was last read."""
        with self._lock:
            try:
                stat = self._path.stat()
                seen: tuple[int, ...] = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
            except OSError:
                seen = (0,)
            if seen != self._seen:
                self._seen = seen
                try:
                    self._clients = self._read()
                except KeysError as error:
                    _log.error("%s The keys read before stay in force.", error)
            return self._clients

    def _read(self) -> tuple[Client, ...]:
        try:
            with self._path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise KeysError(f"The keys file {self._path} cannot be read: {error.strerror}.") from error
        if len(content) > MAX_FILE_BYTES:
            raise KeysError(
                f"The keys file {self._path} has more than {MAX_FILE_BYTES:,} bytes, which is no keys file."
            )
        try:
            rows = json.loads(content)["keys"]
            return tuple(_client_of(row) for row in rows)
        except (ValueError, KeyError, TypeError) as error:
            raise KeysError(f"The keys file {self._path} is damaged ({type(error).__name__}: {error}).") from error

    def _write(self, clients: tuple[Client, ...]) -> None:
        content = json.dumps({"version": 1, "keys": [asdict(client) for client in clients]}, indent=1)
        try:
            handle, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")  # mode 0600
            try:
                with os.fdopen(handle, "w") as file:
                    file.write(content + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).replace(self._path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise KeysError(f"The keys file {self._path} cannot be written: {error.strerror}.") from error

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Keep other processes from changing the file between our reading and our writing it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self._path.with_name(self._path.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise KeysError(f"The keys in {self._path.parent} cannot be changed: {error.strerror}.") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _client_of(row: Any) -> Client:
    client = Client(id=row["id"], name=row["name"], created=row["created"], sha256=row["sha256"])
    if not all(isinstance(value, str) for value in asdict(client).values()):
        raise TypeError("every member of a key is a string")
    if len(client.sha256) != 64 or not client.sha256.isascii():
        raise ValueError(f"the hash of key {client.id} has not 64 characters")
    return client

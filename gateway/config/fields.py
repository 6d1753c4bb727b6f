"""A row of the table of settings: its default, its help, the check that a value has to pass, how it is shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

PREFIX = "SUPERRES_"
MAX_SECRET_BYTES = 4_096
_PUBLIC = re.compile(r"https?://([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?")

Value: TypeAlias = str | int | float
Check: TypeAlias = Callable[[Any], str]
"""Takes a value and returns what is wrong with it, as the end of a sentence; empty when nothing is."""


class SettingsError(ValueError):
    """One or more settings are wrong; the text has a line for each."""


def between(least: float, most: float) -> Check:
    """Check that a number lies between two others, both allowed."""
    return lambda value: "" if least <= value <= most else f"must be between {least:,} and {most:,}"


def one_of(allowed: tuple[str, ...]) -> Check:
    """Check that a value is one of a few."""
    return lambda value: "" if value in allowed else f"must be one of: {', '.join(allowed)}"


def one_line(value: str) -> str:
    """Check that a value is a list of CSP sources: a semicolon would start a directive, a comma a policy of its own."""
    is_one = value.isascii() and value.isprintable() and not {";", ","} & set(value)
    return "" if is_one else "must be one line of origins, with spaces between them"


def redis_address(value: str) -> str:
    """Check that a value is empty or the URL of a Redis; does not repeat it, for it may hold a password."""
    known = ("redis://", "rediss://", "unix://")
    if not value:
        return ""
    if not value.startswith(known):
        return f"must begin with {', '.join(known)}"
    import redis  # noqa: PLC0415 - most have none, and it takes 70 ms to import

    try:
        redis.ConnectionPool.from_url(value).make_connection()  # makes an object, and connects to nothing
    except (ValueError, TypeError, redis.RedisError):
        return "must be as redis://:password@host:6379/0, with a port and options that Redis' client knows"
    return ""


def public_address(value: str) -> str:
    """Check that a value is empty or an origin: scheme, host, and a port where it has one of its own."""
    return "" if not value or _PUBLIC.fullmatch(value) else "must be as https://superres.example, without a path"


def one_key_or_two(value: str) -> str:
    """Check that a value is empty, a key, or two with a comma between, as while a key is rotated."""
    keys = value.split(",")
    is_sound = len(keys) <= 2 and all(key.strip() for key in keys)
    return "" if is_sound or not value else "must be one key, or two with a comma between, none of them empty"


def split_list(value: str) -> list[str]:
    """Return the parts of a comma-separated value."""
    return [part for raw in value.split(",") if (part := raw.strip())]


def setting(
    default: Value,
    help: str,  # noqa: A002 - the word of the table
    *,
    check: Check | None = None,
    is_secret: bool = False,
    also: str = "",
) -> Any:  # a dataclass field, whose type is that of the annotation beside it
    """Write a row of the table. `also` names a second environment variable that counts when the first is unset."""
    about = {"help": help, "check": check, "is_secret": is_secret, "also": also}
    return field(default=default, repr=not is_secret, metadata=about)


@dataclass(frozen=True)
class Setting:
    """A row of the table, as documentation and the environment see it."""

    name: str
    kind: type[str] | type[int] | type[float]
    default: Value
    help: str
    check: Check | None
    is_secret: bool
    also: str

    @property
    def variable(self) -> str:
        """Name in the environment."""
        return PREFIX + self.name.upper()

    def parse(self, text: str) -> Value:
        """Return the value that a text means, or raise SettingsError."""
        try:
            return self.kind(text.replace("_", "") if self.kind is int else text)
        except ValueError:
            what = {int: "a whole number", float: "a number"}[self.kind]
            raise SettingsError(f"{self.name} must be {what}, not {text[:80]!r}.") from None

    def complain(self, value: Value) -> str:
        """Return what is wrong with a value, as a sentence; empty when nothing is."""
        wrong = self.check(value) if self.check else ""
        return f"{self.name} is {self.show(value) if self.is_secret else repr(value)}: it {wrong}." if wrong else ""

    def show(self, value: Value) -> str:
        """Return the value as it may be shown to anyone: of a secret, only whether it is set."""
        if self.is_secret:
            return "(set)" if value else "(not set)"
        return str(value)


def read_secret(variable: str, path: Path) -> str:
    """Return the one line that a file holds; raise SettingsError, which names the variable and shows nothing of it."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{variable} names {str(path)!r}, which cannot be read: {error.strerror}.") from error
    secret = content.decode("utf-8", "replace").strip()
    if not secret or len(content) > MAX_SECRET_BYTES or not secret.isprintable():
        raise SettingsError(
            f"{variable} names {str(path)!r}, which must hold one line of 1 to {MAX_SECRET_BYTES:,} bytes."
        )
    return secret

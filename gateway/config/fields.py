"""A field of the settings table: its default, its help text, the check of its value, and how it is shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

PREFIX = "SUPERRES_"

_ORIGIN = re.compile(r"https?://([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?")
_REDIS_SCHEMES = ("redis://", "rediss://", "unix://")

Value: TypeAlias = str | int | float

# Takes a value and returns what is wrong with it, as the second half of an error message; empty if the value is valid.
Check: TypeAlias = Callable[[Any], str]


class SettingsError(ValueError):
    """One or more settings are invalid. The message has one line for each."""


def between(minimum: float, maximum: float) -> Check:
    """Check that a number lies between two others, both included."""
    return lambda value: "" if minimum <= value <= maximum else f"must be between {minimum:,} and {maximum:,}"


def one_of(allowed: tuple[str, ...]) -> Check:
    """Check that a value is one of a fixed list."""
    return lambda value: "" if value in allowed else f"must be one of: {', '.join(allowed)}"


def csp_sources(value: str) -> str:
    """Check that a value is a list of CSP sources. A semicolon would start a directive, a comma another policy."""
    is_valid = value.isascii() and value.isprintable() and not {";", ","} & set(value)
    return "" if is_valid else "must be one line of origins, separated by spaces"


def redis_connection_url(value: str) -> str:
    """Check that a value is empty or a URL of Redis. The message never repeats it, because it may hold a password."""
    if not value:
        return ""
    if not value.startswith(_REDIS_SCHEMES):
        return f"must begin with {', '.join(_REDIS_SCHEMES)}"
    import redis  # noqa: PLC0415 - takes 70 ms to import, and most installations do not use Redis

    try:
        redis.ConnectionPool.from_url(value).make_connection()  # creates an object and does not connect
    except (ValueError, TypeError, redis.RedisError):
        return "must look like redis://:password@host:6379/0, with a valid port and options that redis-py supports"
    return ""


def origin_url(value: str) -> str:
    """Check that a value is empty or an origin: scheme, host and optional port."""
    return "" if not value or _ORIGIN.fullmatch(value) else "must look like https://superres.example, without a path"


def one_or_two_keys(value: str) -> str:
    """Check that a value is empty, one key, or two keys separated by a comma, as during a rotation."""
    keys = value.split(",")
    is_valid = len(keys) <= 2 and all(key.strip() for key in keys)
    return "" if is_valid or not value else "must be one key, or two keys separated by a comma, none of them empty"


def split_list(value: str) -> list[str]:
    """Return the parts of a comma-separated value."""
    return [part for raw in value.split(",") if (part := raw.strip())]


def setting(
    default: Value,
    help: str,  # noqa: A002 - the word that documentation and command line use
    *,
    check: Check | None = None,
    is_secret: bool = False,
    fallback_variable: str = "",
) -> Any:  # a dataclass field, whose type is that of its annotation
    """Declare a setting. `fallback_variable` is an environment variable that is read if the setting's own is unset."""
    metadata = {"help": help, "check": check, "is_secret": is_secret, "fallback_variable": fallback_variable}
    return field(default=default, repr=not is_secret, metadata=metadata)


@dataclass(frozen=True)
class Setting:
    """A setting as the environment, the command line and the documentation see it."""

    name: str
    kind: type[str] | type[int] | type[float]
    default: Value
    help: str
    check: Check | None
    is_secret: bool
    fallback_variable: str

    @property
    def variable(self) -> str:
        """Name of the environment variable."""
        return PREFIX + self.name.upper()

    def parse(self, text: str) -> Value:
        """Return the value of a text. Raises SettingsError if it has the wrong type."""
        try:
            return self.kind(text.replace("_", "") if self.kind is int else text)
        except ValueError:
            expected = {int: "a whole number", float: "a number"}[self.kind]
            raise SettingsError(f"Invalid {self.name} {text[:80]!r}: must be {expected}.") from None

    def find_error(self, value: Value) -> str:
        """Return an error message for an invalid value, or an empty string for a valid one."""
        error = self.check(value) if self.check else ""
        if not error:
            return ""
        return f"Invalid {self.name}: {error}." if self.is_secret else f"Invalid {self.name} {value!r}: {error}."

    def show(self, value: Value) -> str:
        """Return the value as it may be shown to anyone. Of a secret, only whether it is set."""
        if self.is_secret:
            return "(set)" if value else "(not set)"
        return str(value)

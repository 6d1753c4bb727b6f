"""A field of the settings table: its default, its help text, the check of its value, and how it is shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlsplit

PREFIX = "SUPERRES_"

_PASSWORD = re.compile(r"//[^/\s]*@")
_MAX_SHOWN_CHARS = 120
# By the ending of a setting's name.
_UNITS = {"_s": "seconds", "_bytes": "bytes", "_pixels": "pixels"}

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


def each_of(allowed: tuple[str, ...]) -> Check:
    """Check that every part of a comma-separated value is one of a fixed list."""
    return lambda value: "" if {*split_list(value)} <= {*allowed} else f"each part must be one of: {', '.join(allowed)}"


def csp_sources(value: str) -> str:
    """Check that a value is a list of CSP sources. A semicolon would start a directive, a comma another policy."""
    is_valid = value.isascii() and value.isprintable() and not {";", ","} & set(value)
    return "" if is_valid else "must be one line of origins, separated by spaces"


def redis_connection_url(value: str) -> str:
    """Check that a value is empty or a URL of Redis. The message never repeats it, because it may hold a password."""
    if not value:
        return ""
    if not value.isascii():
        return "must consist of ASCII characters; write others of a password in percent-encoding (%C3%A9 for é)"
    # Imported here because redis takes 70 ms, and most installations do not use it.
    from gateway.storage.redis_url import RedisUrlError, parse_redis_url  # noqa: PLC0415

    try:
        parse_redis_url(value)
    except RedisUrlError as error:
        return str(error)
    return ""


def one_or_two_keys(value: str) -> str:
    """Check that a value is empty, one key, or two keys separated by a comma, as during a rotation."""
    keys = value.split(",")
    if value and not (len(keys) <= 2 and all(key.strip() for key in keys)):
        return "must be one key, or two keys separated by a comma, none of them empty"
    return next((error for key in keys if (error := header_secret(key.strip()))), "")


def header_secret(value: str) -> str:
    """Check that a secret can be sent in a header. The message never repeats it."""
    is_valid = value.isascii() and value.isprintable() and " " not in value
    return "" if is_valid else "must consist of ASCII letters, digits and punctuation, without spaces"


def ascii_secret(value: str) -> str:
    """Check that a secret has the same bytes in every replica and locale. The message never repeats it."""
    return "" if value.isascii() and value.isprintable() else "must consist of ASCII letters, digits and punctuation"


def split_list(value: str) -> list[str]:
    """Return the parts of a comma-separated value."""
    return [part for raw in value.split(",") if (part := raw.strip())]


def http_url(value: Value) -> str:
    """Check the URL of an HTTP service; empty is valid."""
    try:
        parts = urlsplit(str(value))
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # such as port 99999
        is_valid = False
    if not value or (is_valid and not (parts.query or parts.fragment or "@" in parts.netloc)):
        return ""
    return "must be a URL such as http://127.0.0.1:4318, without name, password and query"


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


def quote(value: Value) -> str:
    """Return a value for an error message: shortened, and without the password of a URL."""
    if not isinstance(value, str):
        return str(value)
    shown = _PASSWORD.sub("//***@", value)
    return repr(shown if len(shown) <= _MAX_SHOWN_CHARS else f"{shown[:_MAX_SHOWN_CHARS]}...")


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
        if not text.isprintable():  # bytes that are not UTF-8 arrive as lone surrogates
            shown = "" if self.is_secret else f" {text[:_MAX_SHOWN_CHARS]!a}"
            raise SettingsError(f"Invalid {self.name}{shown}: must be one line of UTF-8 text.")
        if self.kind is str:
            return text
        digits = text.replace("_", "") if self.kind is int else text
        try:
            return self.kind(digits.encode("ascii"))  # as bytes: Python also reads digits of other scripts
        except ValueError:
            expected = {int: "a whole number", float: "a number"}[self.kind]
            unit = next((unit for ending, unit in _UNITS.items() if self.name.endswith(ending)), "")
            form = f" of {unit}, without a unit" if unit else ""
            raise SettingsError(f"Invalid {self.name} {quote(text)}: must be {expected}{form}.") from None

    def find_error(self, value: Value) -> str:
        """Return an error message for an invalid value, or an empty string for a valid one."""
        error = self.check(value) if self.check else ""
        if not error:
            return ""
        return f"Invalid {self.name}: {error}." if self.is_secret else f"Invalid {self.name} {quote(value)}: {error}."

    def show(self, value: Value) -> str:
        """Return the value as it may be shown to anyone. Of a secret, only whether it is set."""
        if self.is_secret:
            return "(set)" if value else "(not set)"
        return str(value)

"""The API key for a service elsewhere: from a file, the environment, or a prompt; never from the argument list.

Every user of a machine can read the arguments of running programs, and shells store them in their history.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from gateway.config.environment import CLIENT_KEY_VARIABLE, read_client_key_variable

_MAX_KEY_BYTES = 4_096
# What `superres keys new` prints.
_LOOKS_LIKE_A_KEY = re.compile(r"ssr_[A-Za-z0-9_-]{20,}")


def read_client_key(key_file: Path | None, *, ask: bool, environ: Mapping[str, str] | None = None) -> str:
    """Return the key from the file, the prompt, or the value of the variable. Raises click.UsageError."""
    if key_file is not None:
        try:
            with key_file.open("rb") as file:
                data = file.read(_MAX_KEY_BYTES + 1)
        except OSError as error:
            raise click.UsageError(f"The key file {key_file} cannot be read: {error.strerror}.") from error
        return _check(data.decode("utf-8", "replace").strip(), f"The key file {key_file}")
    if ask:
        return _check(click.prompt("API key", hide_input=True, err=True).strip(), "The prompt")
    if key := read_client_key_variable(environ):
        return _check(key, CLIENT_KEY_VARIABLE)
    raise click.UsageError(
        f"The service needs an API key. Set {CLIENT_KEY_VARIABLE}, or use --key-file FILE, or --key, which asks for "
        "it. Its operator creates keys with: superres keys new NAME"
    )


def reject_keys_in_arguments(arguments: Sequence[str]) -> None:
    """Raise click.UsageError if an argument looks like a key. The message does not repeat it."""
    if any(_LOOKS_LIKE_A_KEY.search(argument) for argument in arguments):
        raise click.UsageError(
            "An argument looks like an API key. Other users of this machine can see it, and the shell stores it: "
            f"replace the key (superres keys rotate). Then set {CLIENT_KEY_VARIABLE}, or use --key-file FILE, or "
            "--key, which asks for the key."
        )


def _check(key: str, source: str) -> str:
    if not key or len(key) > _MAX_KEY_BYTES or not key.isascii() or not key.isprintable() or " " in key:
        raise click.UsageError(f"{source} does not hold an API key: expected one line of printable ASCII.")
    return key

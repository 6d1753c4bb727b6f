"""Checks of the settings of webhooks: the keys that sign them, and the hosts that are trusted.

A check returns what is wrong as the second half of an error message, or an empty string.
"""

from __future__ import annotations

import base64
import binascii
import re

KEY_PREFIX = "whsk_"
"""How a private key begins (Standard Webhooks)."""
SEED_BYTES = 32
"""Bytes of an Ed25519 seed (RFC 8032 section 5.1.5), from which both keys are derived."""

_HOST = re.compile(r"([a-z0-9_.-]{1,253}|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_MAX_KEYS = 2


def parse_signing_keys(value: str) -> list[bytes]:
    """Return the seeds of one or two keys, separated by a comma. Raises ValueError, which never repeats a key."""
    keys = [part.strip() for part in value.split(",")]
    if len(keys) > _MAX_KEYS:
        raise ValueError(f"must be at most {_MAX_KEYS} keys, separated by a comma")
    return [_parse_key(key) for key in keys]


def signing_keys(value: str) -> str:
    """Check that a value is empty, or one or two keys."""
    try:
        if value:
            parse_signing_keys(value)
    except ValueError as error:
        return str(error)
    return ""


def parse_hosts(value: str) -> frozenset[str]:
    """Return the hosts, `host` or `host:port`, in lower case."""
    return frozenset(part.strip().lower() for part in value.split(",") if part.strip())


def webhook_hosts(value: str) -> str:
    """Check that a value is a list of hosts with or without a port."""
    wrong = [host for host in parse_hosts(value) if not _HOST.fullmatch(host)]
    if not wrong:
        return ""
    return f"must be hosts such as receiver.internal or 127.0.0.1:9000, separated by commas; {min(wrong)[:80]!r} is not"


def _parse_key(key: str) -> bytes:
    form = f"must be {KEY_PREFIX} and {SEED_BYTES} bytes in base64, such as whsk_$(openssl rand -base64 32)"
    if not key.startswith(KEY_PREFIX):
        raise ValueError(form)
    try:
        decoded = base64.b64decode(key.removeprefix(KEY_PREFIX), validate=True)
    except (ValueError, binascii.Error):
        raise ValueError(form) from None
    if len(decoded) not in (SEED_BYTES, 2 * SEED_BYTES):  # libsodium appends the public key
        raise ValueError(f"{form}; it has {len(decoded)} bytes")
    return decoded[:SEED_BYTES]

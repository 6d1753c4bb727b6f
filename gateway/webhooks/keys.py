"""The Ed25519 keys that sign webhooks: those of the setting, or one in a file that is made at the first use.

Signatures are those of Standard Webhooks (`v1a`), which has libraries for receivers in many languages. Each key signs,
so a receiver that knows one of two keys can check every message during a rotation. The public keys are published as a
JSON Web Key Set (RFC 7517, RFC 8037).
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import secrets
import tempfile
import threading
from pathlib import Path
from typing import Any

from gateway.config.webhook_checks import KEY_PREFIX, SEED_BYTES, parse_signing_keys

PUBLIC_PREFIX = "whpk_"
"""How a public key begins (Standard Webhooks)."""

# A file with two keys has 100 bytes.
_MAX_FILE_BYTES = 4_096


class WebhookKeyError(Exception):
    """Nothing can be signed. The message says why."""


class WebhookKeys:
    """The keys of one gateway. Safe to use from several threads."""

    def __init__(self, setting: str, path: Path, *, needs_setting: bool) -> None:
        """`path` is used without a setting, unless several gateways must have the same key (`needs_setting`)."""
        self._setting = setting
        self._path = path
        self._needs_setting = needs_setting
        self._lock = threading.Lock()
        self._seeds: list[bytes] = []

    def sign(self, message_id: str, timestamp: int, body: bytes) -> str:
        """Return the value of `webhook-signature`. Raises WebhookKeyError."""
        from nacl.signing import SigningKey  # noqa: PLC0415 - of the extra `webhooks`; loads 4 MB

        signed = f"{message_id}.{timestamp}.".encode() + body
        signatures = (SigningKey(seed).sign(signed).signature for seed in self.load())
        return " ".join(f"v1a,{base64.b64encode(signature).decode()}" for signature in signatures)

    def public_keys(self) -> list[dict[str, Any]]:
        """Return the public keys as JSON Web Keys. Raises WebhookKeyError."""
        from nacl.signing import SigningKey  # noqa: PLC0415 - as above

        return [_describe(bytes(SigningKey(seed).verify_key)) for seed in self.load()]

    def load(self) -> list[bytes]:
        """Return the seeds of the keys, the newest first. Raises WebhookKeyError."""
        if importlib.util.find_spec("nacl") is None:
            raise WebhookKeyError("the extra `webhooks` is not installed")
        with self._lock:
            if not self._seeds:
                self._seeds = parse_signing_keys(self._setting) if self._setting else self._read_file()
            return self._seeds

    def _read_file(self) -> list[bytes]:
        if self._needs_setting:
            raise WebhookKeyError("gateways that share jobs need the same webhook_key")
        try:
            if not self._path.exists():
                _create(self._path)
            with self._path.open("rb") as file:
                content = file.read(_MAX_FILE_BYTES)
        except OSError as error:
            raise WebhookKeyError(f"the key file {self._path} cannot be used: {error.strerror}") from error
        try:
            return parse_signing_keys(content.decode("ascii", "replace").strip())
        except ValueError as error:
            raise WebhookKeyError(f"the key file {self._path} is invalid: {error}") from error


def _create(path: Path) -> None:
    """Write a new key, unless another process has just written one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(f"{KEY_PREFIX}{base64.b64encode(secrets.token_bytes(SEED_BYTES)).decode()}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(temporary)  # fails if the file exists, and never shows half of one
        except FileExistsError:
            return
    finally:
        Path(temporary).unlink(missing_ok=True)


def _describe(public_key: bytes) -> dict[str, Any]:
    x = base64.urlsafe_b64encode(public_key).decode().rstrip("=")
    thumbprint = hashlib.sha256(json.dumps({"crv": "Ed25519", "kty": "OKP", "x": x}, separators=(",", ":")).encode())
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": x,
        "kid": base64.urlsafe_b64encode(thumbprint.digest()).decode().rstrip("="),  # RFC 7638
        "use": "sig",
        "alg": "EdDSA",
        "standard_webhooks": f"{PUBLIC_PREFIX}{base64.b64encode(public_key).decode()}",
    }

"""Who may come in. Asked before anything of a request's body is read.

So far one door: the API's key. Blocked networks and limits come before and after it (design.md: the order of doors).
"""

from __future__ import annotations

from gateway.keys import Client, KeyFile
from gateway.problems import KeyRequired

MAX_KEY_LENGTH = 256


class Doors:
    """Lets requests in, or raises the problem that keeps them out."""

    def __init__(self, keys: KeyFile) -> None:
        self._keys = keys

    def admit_to_api(self, x_api_key: str | None, authorization: str | None) -> Client:
        """Return the client that a request's headers identify; raise KeyRequired, always in the same words."""
        presented = x_api_key or _bearer(authorization) or ""
        client = self._keys.identify(presented if len(presented) <= MAX_KEY_LENGTH else "")
        if client is None:
            raise KeyRequired(
                "Send a valid key in the header X-API-Key, or as Authorization: Bearer. "
                "Whoever runs this service makes one with `superres keys new NAME`.",
                headers={"WWW-Authenticate": 'Bearer realm="superres"'},  # RFC 6750 section 3
            )
        return client


def _bearer(authorization: str | None) -> str | None:
    scheme, _, credentials = (authorization or "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else None

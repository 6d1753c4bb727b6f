"""Form tokens: show that a form was opened here, not long ago, without a cookie.

Signed and dated (itsdangerous), not kept: any replica with the same secret knows them. They identify nobody. A token
shows that somebody opened the form; that the browser is not sent here by another site is shown by `csrf`.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable

from itsdangerous import BadData, TimestampSigner

MAX_TOKEN_LENGTH = 200
_SALT = "superres form"


class CsrfTokens:
    """Makes and checks tokens. An empty secret stands for one made now, which ends with this process."""

    def __init__(self, secret: str, max_age_s: float, *, clock: Callable[[], float] = time.time) -> None:
        self._max_age_s = max_age_s
        self._signer = _Signer(secret or secrets.token_urlsafe(32), clock)

    def make(self) -> str:
        """Return a fresh token."""
        return self._signer.sign(secrets.token_urlsafe(9)).decode("ascii")

    def is_good(self, token: str) -> bool:
        """Whether a token is ours and not too old."""
        if not token.isascii() or len(token) > MAX_TOKEN_LENGTH:
            return False
        try:
            self._signer.unsign(token, max_age=int(self._max_age_s))
        except BadData:
            return False
        return True


class _Signer(TimestampSigner):
    def __init__(self, secret: str, clock: Callable[[], float]) -> None:
        super().__init__(secret, salt=_SALT, key_derivation="hmac", digest_method=hashlib.sha256)
        self._clock = clock

    def get_timestamp(self) -> int:
        """Return the time by our clock."""
        return int(self._clock())

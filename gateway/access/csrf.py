"""Cross-site request forgery (CSRF): rejects forms that another site makes a browser send. Uses no cookies.

`is_cross_site` checks two request headers. Browsers set Sec-Fetch-Site themselves, so no page can forge it; it is
"same-origin" for our form inside the front page's iframe too. Browsers from before 2023 do not send it, and then Origin
decides. Programs such as curl send neither header, and no other site can make them send a request.

`CsrfTokens` signs a dated token for the form (itsdangerous), which shows that the form was opened here and not too long
ago. Tokens are not stored: every replica with the same secret accepts them. They identify nobody.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from itsdangerous import BadData, TimestampSigner

# A token has some 45 characters. The limit bounds the work on a forged one.
_MAX_TOKEN_LENGTH = 200
_SALT = "superres form"
_DEFAULT_PORTS = {"http": 80, "https": 443}


def allowed_origins(frame_ancestors: str) -> frozenset[str]:
    """Return the origins that a list of CSP sources names in full; 'self', wildcards and bare schemes name none."""
    return frozenset(origin for source in frame_ancestors.split() if (origin := _normalize_origin(source)))


def is_cross_site(sec_fetch_site: str, origin: str, host: str, allowed: frozenset[str]) -> bool:
    """Return whether a form was sent by a site that is neither ours nor in `allowed`.

    `host` is the gateway's own host. A missing header is passed as an empty string.
    """
    site = sec_fetch_site.strip().lower()
    if site in ("same-origin", "none"):  # none: the user typed the URL or reloaded the page
        return False
    if _normalize_origin(origin) in allowed:
        return False
    if site:
        return True  # same-site or cross-site
    # Both schemes: behind a proxy that terminates TLS, the scheme we see may differ from the browser's.
    own_origins = {_normalize_origin(f"{scheme}://{host}") for scheme in _DEFAULT_PORTS}
    return bool(origin) and _normalize_origin(origin) not in own_origins


class CsrfTokens:
    """Creates and verifies form tokens. An empty secret is replaced by a random one that ends with this process."""

    def __init__(self, secret: str, max_age_s: float, *, clock: Callable[[], float] = time.time) -> None:
        self._max_age_s = max_age_s
        self._signer = _Signer(secret or secrets.token_urlsafe(32), clock)

    def create(self) -> str:
        """Return a new token."""
        return self._signer.sign(secrets.token_urlsafe(9)).decode("ascii")

    def is_valid(self, token: str) -> bool:
        """Return whether a token carries our signature and is not too old."""
        if not token.isascii() or len(token) > _MAX_TOKEN_LENGTH:
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
        """Return the time of our clock, which tests can set."""
        return int(self._clock())


def _normalize_origin(text: str) -> str:
    """Return an origin as scheme://host:port, or an empty string if the text is not an origin."""
    try:
        parts = urlsplit(text.strip().lower())
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return ""
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "*" in parts.hostname:
        return ""
    return f"{parts.scheme}://{parts.hostname}:{port}"

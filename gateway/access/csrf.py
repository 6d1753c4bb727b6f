"""Cross-site request forgery (CSRF): rejects forms that another site makes a browser send. Uses no cookies.

`is_cross_site` checks two request headers. Browsers set Sec-Fetch-Site themselves, so no page can forge it; it is
"same-origin" for our form inside the front page's iframe too. Browsers from before 2023 do not send it, and then Origin
decides. Programs such as curl send neither header, and no other site can make them send a request.

`CsrfTokens` signs a dated token for the form (itsdangerous), which shows that the form was opened here and not too long
ago. Tokens are not stored: every replica with the same secret accepts them. They identify nobody. The replicas' clocks
may differ, and a clock may be set back, by less than the maximum age of a form.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from itsdangerous import BadData, TimestampSigner

from gateway.config.origins import is_origin

# A token has some 45 characters. The limit bounds the work on a forged one.
_MAX_TOKEN_LENGTH = 200
_SALT = "superres form"
_DEFAULT_PORTS = {"http": 80, "https": 443}


def allowed_origins(frame_ancestors: str) -> frozenset[str]:
    """Return the origins that a list of CSP sources names in full; 'self', wildcards and bare schemes name none."""
    return frozenset(origin for source in frame_ancestors.split() if (origin := _normalize_origin(source)))


@dataclass(frozen=True)
class Sender:
    """The headers that say which page sent a request, and the gateway's own address. A missing header is empty."""

    sec_fetch_site: str
    origin: str
    own_origin: str
    """This gateway, as scheme://host."""
    own_hosts: tuple[str, ...]
    """Values of the header Host under which browsers know this gateway."""


def is_cross_site(sender: Sender, allowed: frozenset[str]) -> bool:
    """Return whether a form was sent by a site that is neither ours nor in `allowed`."""
    site, origin = sender.sec_fetch_site.strip().lower(), _normalize_origin(sender.origin)
    if site in ("same-origin", "none"):  # none: the user typed the URL or reloaded the page
        return False
    if origin in allowed:
        return False
    if site:
        return True  # same-site or cross-site
    # Both schemes: behind a proxy that terminates TLS, the scheme we see may differ from the browser's.
    own = {_normalize_origin(f"{scheme}://{host}") for scheme in _DEFAULT_PORTS for host in sender.own_hosts}
    return bool(sender.origin) and origin not in own - {""}


def describe_cross_site(sender: Sender) -> str:
    """Return why a cross-site request is rejected and what visitor and operator can do, with both origins."""
    advice = "Open the form on this site and send it from there."
    if not is_origin(sender.origin):
        return f"A page of another site sent this request. {advice}"
    own = sender.own_origin if is_origin(sender.own_origin) else "at another address"
    both = f"A page of {sender.origin} sent this request, and this service is {own}. {advice}"
    if sender.sec_fetch_site:  # the browser compared the origins itself, so no proxy is the cause
        return f"{both} Other sites may send it only if the operator lists them in SUPERRES_FRAME_ANCESTORS."
    return (
        f"{both} If both are this site, the operator must set SUPERRES_PUBLIC_URL={sender.origin}, "
        "or make the proxy pass on the header Host (nginx: proxy_set_header Host $http_host)."
    )


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
            _, signed_at = self._signer.unsign(token, return_timestamp=True)
        except BadData:
            return False
        return abs(self._signer.get_timestamp() - signed_at.timestamp()) <= int(self._max_age_s)


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

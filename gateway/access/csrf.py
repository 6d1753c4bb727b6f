"""Origins: whether a browser was led here by our own page, or by one that may frame it, and not by a stranger's.

Sec-Fetch-Site is the browser's own word, which no page can forge, and is "same-origin" for our form inside the front's
iframe too; where it is missing (browsers before 2023) Origin tells. A program sends neither and is no browser.
"""

from __future__ import annotations

from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


def allowed_origins(frame_ancestors: str) -> frozenset[str]:
    """Return the origins that a list of CSP sources names whole; 'self', wildcards and bare schemes name none."""
    return frozenset(origin for source in frame_ancestors.split() if (origin := _normalise(source)))


def is_cross_site(sec_fetch_site: str, origin: str, host: str, allowed: frozenset[str]) -> bool:
    """Whether a form comes from a site that has no business here. `host` is that of our own address.

    A header that was not sent is an empty text.
    """
    site = sec_fetch_site.strip().lower()
    if site in ("same-origin", "none"):  # none: typed, or sent again by the person in front of the browser
        return False
    if _normalise(origin) in allowed:
        return False
    if site:
        return True  # same-site or cross-site
    # Either scheme: behind a proxy that ends TLS, the one that we see may not be the browser's.
    own = {_normalise(f"{scheme}://{host}") for scheme in _PORTS}
    return bool(origin) and _normalise(origin) not in own


def _normalise(text: str) -> str:
    """Return an origin as scheme://host:port; empty when it is none."""
    try:
        parts = urlsplit(text.strip().lower())
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return ""
    if parts.scheme not in _PORTS or not parts.hostname or "*" in parts.hostname:
        return ""
    return f"{parts.scheme}://{parts.hostname}:{port}"

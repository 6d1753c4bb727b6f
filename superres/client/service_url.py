"""The address of a service, as a user types it."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass

from superres.client.errors import InvalidUrlError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class ServiceUrl:
    """The address of a gateway: https://host, or https://host:port/prefix."""

    scheme: str
    host: str
    port: int
    prefix: str

    @property
    def is_private(self) -> bool:
        """Whether nobody between here and the service can read the requests."""
        return self.scheme == "https" or self.host in _LOOPBACK

    @property
    def netloc(self) -> str:
        """Host and port, as a URL has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.prefix}"


def parse_service_url(text: str) -> ServiceUrl:
    """Return the address that a user typed. Raises InvalidUrlError."""
    advice = "Give the address of the service's page, such as https://superres.example."
    try:
        parts = urllib.parse.urlsplit(text.strip())
        port = parts.port
    except ValueError as error:
        raise InvalidUrlError(f"Invalid URL ({error}). {advice}") from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise InvalidUrlError(f"Invalid URL: it must begin with http:// or https://. {advice}")
    if parts.username is not None or parts.query or parts.fragment:
        raise InvalidUrlError(f"Invalid URL: it must have no user, ? or #. {advice} A key is never part of it.")
    prefix = parts.path.rstrip("/")
    for ending in ("/api/v1/upscale", "/api/v1", "/api"):
        prefix = prefix.removesuffix(ending)
    return ServiceUrl(parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme], prefix)

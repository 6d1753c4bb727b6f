"""Addresses of services as users type them."""

from __future__ import annotations

import pytest

from superres.client.errors import InvalidUrlError
from superres.client.service_url import parse_service_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://superres.example", "https://superres.example"),
        ("https://superres.example/", "https://superres.example"),
        ("http://127.0.0.1:8080/api/v1/upscale", "http://127.0.0.1:8080"),
        ("https://example.org:443/superres/", "https://example.org/superres"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    assert str(parse_service_url(text)) == url


@pytest.mark.parametrize(
    "text",
    ["superres.example", "ftp://a", "https://", "https://k:ssr@a", "https://a?key=1", "https://a:99999", "http://[x"],
)
def test_invalid_addresses(text: str) -> None:
    with pytest.raises(InvalidUrlError, match="Invalid URL"):
        parse_service_url(text)


def test_only_tls_and_loopback_are_private() -> None:
    urls = ("https://a.example", "http://127.0.0.1:1", "http://localhost", "http://a.example", "http://10.0.0.1")

    assert [parse_service_url(url).is_private for url in urls] == [True, True, True, False, False]

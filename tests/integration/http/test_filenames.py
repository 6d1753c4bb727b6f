"""File names in every script, through the real server: headers must be ASCII, and gunicorn enforces it."""

from __future__ import annotations

import re
import unicodedata
import urllib.parse
from http.client import HTTPConnection, HTTPResponse
from typing import Any, cast

import pytest
from flask import Flask
from werkzeug.test import EnvironBuilder

from gateway.access.api_keys import ApiKeyStore
from gateway.config.settings import Settings
from gateway.jobs.options import make_request, parse_options
from gateway.services import services
from testing.raw_http import multipart
from testing.requests import PHOTO, api_form
from testing.server import Served

NAMES = {
    "фото.png": "фото",
    "漢字.png": "漢字",
    unicodedata.normalize("NFD", "été à la mer.png"): "été_à_la_mer",
    "plain.png": "plain",
    "मेरी फोटो.png": "मेरी_फोटो",
    "😀.png": "😀",
}


def part(name: str, value: bytes, filename: str = "") -> bytes:
    of_file = f'; filename="{filename}"' if filename else ""
    return f'Content-Disposition: form-data; name="{name}"{of_file}\r\n\r\n'.encode() + value


def ask(server: Served, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response, data


def read_filename(response: HTTPResponse) -> str:
    """Return the file name that a browser uses: filename* if present (RFC 6266 section 4.3)."""
    disposition = response.headers["Content-Disposition"]
    assert disposition.isascii()
    if found := re.search(r"filename\*=UTF-8''(\S+)", disposition):
        return urllib.parse.unquote(found[1])
    return re.search(r'filename="?([^";]+)', disposition)[1]  # type: ignore[index]


@pytest.mark.parametrize("sent", NAMES)
def test_api_keeps_any_file_name(served: Served, sent: str) -> None:
    key = ApiKeyStore(served.state_dir / "keys.json").new(f"client {list(NAMES).index(sent)}")
    path, body, headers = multipart(part("image", PHOTO, sent))

    response, data = ask(served, "POST", path, body, X_API_Key=key, **headers)

    assert response.status == 200, data
    assert read_filename(response) == f"{NAMES[sent]}_compact_x4.png"


@pytest.mark.parametrize("sent", NAMES)
def test_form_keeps_any_file_name(served: Served, sent: str) -> None:
    page = ask(served, "GET", "/")[1].decode()
    token = re.search(r'name="token" value="([^"]+)"', page)
    assert token is not None
    _, body, headers = multipart(part("token", token[1].encode()), part("image", PHOTO, sent))

    response, data = ask(served, "POST", "/", body, Sec_Fetch_Site="same-origin", **headers)

    assert response.status == 303, data
    _, data = ask(served, "GET", response.headers["Location"])
    found = set(re.findall(r'"(/results/[^"]+)"', data.decode()))
    addresses = {address for address in found if not address.endswith("lang=de")}  # the page in another language
    assert len(addresses) >= 2, "before and after"
    for address in addresses:
        download, _ = ask(served, "GET", address.replace("&amp;", "&"))
        assert download.status == 200
        assert NAMES[sent] in read_filename(download)


def test_name_fits_into_a_file_system() -> None:
    upscale_request = make_request(PHOTO, "漢" * 200 + ".png", parse_options({}, Settings()), Settings())

    assert len(upscale_request.filename.encode()) <= 255


def test_response_that_cannot_start_frees_its_slot(app: Flask, key: str) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("a header that is none")  # as gunicorn's start_response does

    parts = services(app)
    builder = EnvironBuilder("/api/v1/upscale", method="POST", headers=[("X-API-Key", key)], **api_form())

    with pytest.raises(ValueError, match="none"):
        app.wsgi_app(builder.get_environ(), cast("Any", refuse))

    assert parts.access_control.count_running() == 0
    assert parts.upload_memory.reserved_bytes() == 0

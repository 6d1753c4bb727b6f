"""File names in every script, through the real server: headers must be ASCII, and gunicorn enforces it."""

from __future__ import annotations

import re
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

NAMES = {"фото.png": "фото", "漢字.png": "漢字", "été à la mer.png": "été_à_la_mer", "plain.png": "plain"}


def part(name: str, value: bytes, filename: str = "") -> bytes:
    of_file = f'; filename="{filename}"' if filename else ""
    return f'Content-Disposition: form-data; name="{name}"{of_file}\r\n\r\n'.encode() + value


def ask(server: Served, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer, data


def name_of(answer: HTTPResponse) -> str:
    """Return the file name that a browser uses: filename* if present (RFC 6266 section 4.3)."""
    said = answer.headers["Content-Disposition"]
    assert said.isascii()
    if found := re.search(r"filename\*=UTF-8''(\S+)", said):
        return urllib.parse.unquote(found[1])
    return re.search(r'filename="?([^";]+)', said)[1]  # type: ignore[index]


@pytest.mark.parametrize("sent", NAMES)
def test_an_upload_of_any_name_comes_back_by_it_from_the_api(served: Served, sent: str) -> None:
    key = ApiKeyStore(served.state_dir / "keys.json").new(f"client {list(NAMES).index(sent)}")
    path, body, headers = multipart(part("image", PHOTO, sent))

    answer, data = ask(served, "POST", path, body, X_API_Key=key, **headers)

    assert answer.status == 200, data
    assert name_of(answer) == f"{NAMES[sent]}_compact_x4.png"


@pytest.mark.parametrize("sent", NAMES)
def test_an_upload_of_any_name_comes_back_by_it_from_the_form(served: Served, sent: str) -> None:
    page = ask(served, "GET", "/")[1].decode()
    token = re.search(r'name="token" value="([^"]+)"', page)
    assert token is not None
    _, body, headers = multipart(part("token", token[1].encode()), part("image", PHOTO, sent))

    answer, data = ask(served, "POST", "/", body, Sec_Fetch_Site="same-origin", **headers)

    assert answer.status == 200, data
    addresses = set(re.findall(r'"(/results/[^"]+)"', data.decode()))
    assert len(addresses) >= 2, "before and after"
    for address in addresses:
        picture, _ = ask(served, "GET", address.replace("&amp;", "&"))
        assert picture.status == 200
        assert NAMES[sent] in name_of(picture)


def test_a_name_fits_into_a_file_system() -> None:
    order = make_request(PHOTO, "漢" * 200 + ".png", parse_options({}, Settings()), Settings())

    assert len(order.filename.encode()) <= 255


def test_an_answer_that_the_server_cannot_begin_gives_its_room_back(app: Flask, key: str) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("a header that is none")  # as gunicorn's start_response does

    parts = services(app)
    builder = EnvironBuilder("/api/v1/upscale", method="POST", headers=[("X-API-Key", key)], **api_form())

    with pytest.raises(ValueError, match="none"):
        app.wsgi_app(builder.get_environ(), cast("Any", refuse))

    assert parts.access_control.count_running() == 0
    assert parts.upload_memory.reserved_bytes() == 0

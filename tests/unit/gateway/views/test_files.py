"""The page's static files: cached for a year under a versioned URL, and never mixed between releases."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path
from urllib.robotparser import RobotFileParser

import pytest
from flask.testing import FlaskClient

from gateway.views import files
from swinir.preview_weights import PREVIEW_VARIANTS, pack_preview_weights
from testing.requests import read_problem


def addresses(client: FlaskClient) -> list[str]:
    return re.findall(r'(?:src|href|data-url)="(/static/[^"]+)"', client.get("/").get_data(as_text=True))


def test_files_of_a_page_are_cached_for_a_year(client: FlaskClient) -> None:
    named = addresses(client)

    assert len(named) > 10
    for address in named:
        response = client.get(address, buffered=True)
        assert (response.status_code, response.headers["Cache-Control"]) == (200, "public, max-age=31536000, immutable")


def test_scripts_import_files_of_their_own_release(client: FlaskClient) -> None:
    scripts = [address for address in addresses(client) if address.endswith(".js")]
    imported = [
        name
        for path in scripts
        for name in re.findall(r'from "([^"]+)"', client.get(path, buffered=True).get_data(as_text=True))
    ]

    assert imported
    assert all(name.startswith("./") for name in imported)


def test_file_that_changes_has_another_address(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [old, *_] = addresses(client)
    shutil.copytree(files.FOLDER, tmp_path / "static")
    with (tmp_path / "static" / "format.js").open("a") as script:
        script.write("// changed")
    monkeypatch.setattr(files, "FOLDER", tmp_path / "static")
    monkeypatch.setattr(files, "static_version", files.static_version.__wrapped__)

    [new, *_] = addresses(client)
    assert (new.split("/")[3], new.split("/")[2]) == (old.split("/")[3], files.static_version())
    assert new != old
    response = client.get(old, buffered=True)
    assert (response.status_code, response.headers["Cache-Control"]) == (200, "no-cache")


def test_text_is_compressed_for_clients_that_accept_it(client: FlaskClient) -> None:
    [style] = [address for address in addresses(client) if address.endswith("/page.css")]
    plain = client.get(style, buffered=True)
    packed = client.get(style, headers={"Accept-Encoding": "gzip, br"}, buffered=True)

    assert gzip.decompress(packed.data) == plain.data
    assert len(packed.data) < len(plain.data) / 2
    assert (plain.headers.get("Content-Encoding"), packed.headers["Content-Encoding"]) == (None, "gzip")
    assert plain.headers["ETag"] != packed.headers["ETag"]
    for response in (plain, packed):
        assert response.headers["Vary"] == "Accept-Encoding"
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert response.mimetype == "text/css"
    unchanged = client.get(style, headers={"Accept-Encoding": "gzip", "If-None-Match": packed.headers["ETag"]})
    assert unchanged.status_code == 304


@pytest.mark.parametrize("path", ["/", "/docs", "/problems/queue-full"])
def test_pages_are_compressed_for_clients_that_accept_it(client: FlaskClient, path: str) -> None:
    plain = client.get(path)
    packed = client.get(path, headers={"Accept-Encoding": "gzip, br"})
    refused = client.get(path, headers={"Accept-Encoding": "gzip;q=0"})

    assert len(packed.data) < 0.6 * len(plain.data)
    assert packed.headers["Content-Length"] == str(len(packed.data))
    title = b"Serverless SuperRes"
    assert title in gzip.decompress(packed.data)
    assert title in plain.data
    assert title in refused.data
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert "Accept-Encoding" in plain.headers["Vary"]


def test_images_are_not_compressed_again(client: FlaskClient) -> None:
    [image] = {address for address in addresses(client) if address.endswith("/hero-after.webp")}

    assert "Content-Encoding" not in client.get(image, headers={"Accept-Encoding": "gzip"}, buffered=True).headers


def test_robots_keep_out_of_results(client: FlaskClient) -> None:
    response = client.get("/robots.txt")

    assert response.mimetype == "text/plain"
    rules = RobotFileParser()
    rules.parse(response.get_data(as_text=True).splitlines())
    assert not rules.can_fetch("*", "/results/x/after")
    assert rules.can_fetch("*", "/static/x/page.css")


def test_part_beyond_the_end_of_a_file_is_416(client: FlaskClient) -> None:
    [address, *_] = addresses(client)
    response = client.get(address, headers={"Range": "bytes=9999999-", "Accept": "application/json"}, buffered=True)

    assert read_problem(response) == (416, "range-not-satisfiable")
    assert response.headers["Content-Range"].startswith("bytes */")


@pytest.mark.parametrize("path", ["nothing.js", "../app.py", "%2e%2e/app.py", "..%2fapp.py", "/etc/passwd"])
def test_nothing_else_is_sent(client: FlaskClient, path: str) -> None:
    response = client.get(f"/static/{files.static_version()}/{path}", buffered=True)

    assert response.status_code in (308, 404)
    assert response.headers["Cache-Control"] == "no-store"


def test_only_the_worker_of_the_preview_may_compile_webassembly(client: FlaskClient) -> None:
    version = files.static_version()
    policies = {
        path.name: client.get(f"/static/{version}/{path.name}", buffered=True).headers["Content-Security-Policy"]
        for path in files.FOLDER.iterdir()
    }

    assert policies.pop("preview-worker.js") == "default-src 'none'; script-src 'wasm-unsafe-eval'"
    assert not [name for name, policy in policies.items() if "unsafe" in policy]


def test_weights_of_the_preview_are_cached_for_a_year_and_change_the_address(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    version = files.static_version()
    response = client.get(f"/static/{version}/compact_x4.f16")
    again = client.get(f"/static/{version}/compact_x4.f16", headers={"If-None-Match": response.headers["ETag"]})

    assert (response.status_code, response.mimetype) == (200, "application/octet-stream")
    assert response.data == pack_preview_weights("compact_x4")
    assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert again.status_code == 304
    assert client.get(f"/static/{version}/lightweight_x4.f16").status_code == 404

    other = tmp_path / "other.safetensors"
    other.write_bytes(b"other weights")
    monkeypatch.setattr(files, "preview_weights_file", dict.fromkeys(PREVIEW_VARIANTS, other).__getitem__)
    assert files.static_version.__wrapped__() != version

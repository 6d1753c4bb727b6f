"""The page's static files: cached for a year under a versioned URL, and never mixed between releases."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from gateway.views import files
from testing.requests import problem_of


def addresses(client: FlaskClient) -> list[str]:
    return re.findall(r'(?:src|href|data-url)="(/static/[^"]+)"', client.get("/").get_data(as_text=True))


def test_what_a_page_names_exists_and_may_be_kept_for_a_year(client: FlaskClient) -> None:
    named = addresses(client)

    assert len(named) > 10
    for address in named:
        answer = client.get(address, buffered=True)
        assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "public, max-age=31536000, immutable")


def test_scripts_import_their_neighbours_of_the_same_release(client: FlaskClient) -> None:
    scripts = [address for address in addresses(client) if address.endswith(".js")]
    imported = [
        name
        for path in scripts
        for name in re.findall(r'from "([^"]+)"', client.get(path, buffered=True).get_data(as_text=True))
    ]

    assert imported
    assert all(name.startswith("./") for name in imported)


def test_a_file_that_changes_has_another_address(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [old, *_] = addresses(client)
    shutil.copytree(files.FOLDER, tmp_path / "static")
    with (tmp_path / "static" / "words.js").open("a") as script:
        script.write("// changed")
    monkeypatch.setattr(files, "FOLDER", tmp_path / "static")
    monkeypatch.setattr(files, "static_version", files.static_version.__wrapped__)

    [new, *_] = addresses(client)
    assert (new.split("/")[3], new.split("/")[2]) == (old.split("/")[3], files.static_version())
    assert new != old
    answer = client.get(old, buffered=True)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-cache")


def test_a_part_beyond_the_end_of_a_file_is_416(client: FlaskClient) -> None:
    [address, *_] = addresses(client)
    answer = client.get(address, headers={"Range": "bytes=9999999-", "Accept": "application/json"}, buffered=True)

    assert problem_of(answer) == (416, "range-not-satisfiable")
    assert answer.headers["Content-Range"].startswith("bytes */")


@pytest.mark.parametrize("path", ["nothing.js", "../app.py", "%2e%2e/app.py", "..%2fapp.py", "/etc/passwd"])
def test_nothing_else_is_sent(client: FlaskClient, path: str) -> None:
    answer = client.get(f"/static/{files.static_version()}/{path}", buffered=True)

    assert answer.status_code in (308, 404)
    assert answer.headers["Cache-Control"] == "no-store"

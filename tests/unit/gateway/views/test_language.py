"""The language of a page: by `?lang`, by Accept-Language, and in every link; the API stays in English."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from gateway.app import create_app
from gateway.config.settings import Settings
from gateway.views.form import TOKEN_FIELD
from testing import images
from testing.backend import FakeBackend

GERMAN = {"Accept-Language": "de-DE,de;q=0.9,en;q=0.5"}
NOISY = images.encode_png(images.draw_photo(20, 30))


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    return create_app(Settings(state_dir=str(tmp_path)), FakeBackend())


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("de", "de"),
        ("de-AT, en;q=0.8", "de"),
        ("en-US,en;q=0.9,de;q=0.8", "en"),
        ("en;q=0.3, de;q=0.7", "de"),
        ("fr, de;q=0.1", "de"),
        ("fr", "en"),
        ("de;q=0", "en"),
        ("", "en"),
    ],
)
def test_page_is_in_the_preferred_language(client: FlaskClient, accepted: str, language: str) -> None:
    response = client.get("/", headers={"Accept-Language": accepted})

    assert response.headers["Content-Language"] == language
    assert "Accept-Language" in response.headers["Vary"]
    assert f'<html lang="{language}"' in response.get_data(as_text=True)


def test_chosen_language_wins_and_stays_in_links(client: FlaskClient) -> None:
    page = client.get("/?lang=de", headers={"Accept-Language": "en"})
    unknown = client.get("/?lang=tlh", headers=GERMAN)

    assert page.headers["Content-Language"] == unknown.headers["Content-Language"] == "de"
    text = page.get_data(as_text=True)
    assert '<form class="card" id="form" method="post" action="/?lang=de"' in text
    assert 'data-status-url="/api/v1/status"' in text
    assert '<a href="/?lang=en" hreflang="en" lang="en">English</a>' in text


def test_description_of_the_api_is_in_english(client: FlaskClient) -> None:
    response = client.get("/docs", headers=GERMAN)

    assert response.headers["Content-Language"] == "en"
    assert "hreflang" not in response.get_data(as_text=True)


def upload(client: FlaskClient, path: str, *, data: bytes = NOISY, headers: dict[str, str], **fields: Any) -> Any:
    page = client.get(path).get_data(as_text=True)
    token = page.partition('name="token" value="')[2].partition('"')[0]
    form = {TOKEN_FIELD: token, "image": (BytesIO(data), "photo.png"), **fields}
    return client.post(path, data=form, headers={"Sec-Fetch-Site": "same-origin", **headers})


def test_result_without_a_script_is_in_the_chosen_language(client: FlaskClient) -> None:
    response = upload(client, "/?lang=de", headers={"Accept": "text/html"}, format="jpeg", variant="auto")
    page = client.get(response.location).get_data(as_text=True)

    assert response.status_code == 303
    assert response.location.endswith("?lang=de")
    for sentence in (
        "Ihr Ergebnis",
        "Von 30 × 20 auf 120 × 80\N{NO-BREAK SPACE}Pixel",
        "Sieht aus wie",
        "Weiteres Bild vergrößern",
    ):
        assert sentence in page


def test_problems_of_the_page_are_translated_and_those_of_the_api_are_not(client: FlaskClient) -> None:
    page = client.get("/nowhere", headers={**GERMAN, "Accept": "text/html"}).get_data(as_text=True)
    of_form = upload(client, "/", data=b"", headers={**GERMAN, "Accept": "text/event-stream"}).get_json()
    of_api = client.post("/api/v1/upscale", data=NOISY, headers=GERMAN).get_json()
    about = client.get("/problems/queue-full", headers=GERMAN).get_data(as_text=True)

    assert "Seite nicht gefunden" in page
    assert "Die Warteschlange ist voll." in about
    assert of_form["title"] in ("Leere Datei", "Kein Bild")
    assert of_api["title"] == "API key required"


def test_events_of_the_form_are_translated(client: FlaskClient) -> None:
    response = upload(
        client, "/", headers={**GERMAN, "Accept": "text/event-stream"}, variant="auto", width="100", strength="1"
    )
    events = response.get_data(as_text=True)

    assert "Sieht aus wie" in events
    assert "vergr\\u00f6\\u00dfert mit" in events
    assert "Looks like" not in events

"""How much the page weighs, and that its first visit is no slower for it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from tests.browser.conftest import MakePage
from tests.browser.scripted import ScriptedGateway
from tests.conftest import ROOT

MAX_BYTES = 100_000


def test_a_first_visit_fetches_less_than_100_kb_without_pictures(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page("about:blank")
    asked: list[tuple[str, str]] = []
    page.on("request", lambda request: asked.append((request.resource_type, request.url)))
    page.goto(gateway.url)
    page.wait_for_load_state("networkidle")

    client = gateway.app.test_client()
    sizes = {
        url: len(client.get(urlsplit(url).path, buffered=True).data)
        for kind, url in asked
        if kind in ("document", "stylesheet", "script", "font")
    }

    assert {Path(url).suffix for url in sizes} >= {".js", ".css"}
    assert sum(sizes.values()) < MAX_BYTES, sizes


def test_the_front_weighs_less_as_well() -> None:
    sizes = {path.name: path.stat().st_size for path in (ROOT / "front").iterdir()}

    assert {"index.html", "front.js", "front.css", "icon.svg"} == set(sizes)
    assert sum(sizes.values()) < MAX_BYTES, sizes

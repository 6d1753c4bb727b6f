"""The page's size in bytes and in requests."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from testing.browser.chromium import DESKTOP, MakePage
from testing.browser.scripted_gateway import ScriptedGateway
from testing.data import ROOT

MAX_BYTES = 75_000
MAX_BYTES_WITH_IMAGES = 100_000
"""Issue 15: the page without the preview. Headers do not count."""


PACKED = {"Accept-Encoding": "gzip, deflate, br"}


@pytest.mark.parametrize("state", ["up", "asleep"])
def test_first_visit_fetches_under_100_kb(make_page: MakePage, gateway: ScriptedGateway, state: str) -> None:
    gateway.script.state = state
    page = make_page("about:blank", viewport={**DESKTOP, "height": 3_000})  # high enough for all that is lazy
    requests: list[tuple[str, str]] = []
    page.on("request", lambda request: requests.append((request.resource_type, request.url)))
    page.goto(gateway.url)
    page.wait_for_load_state("networkidle")

    client = gateway.app.test_client()
    sizes = {url: len(client.get(urlsplit(url).path, headers=PACKED, buffered=True).data) for _, url in requests}
    without_images = {
        url: sizes[url]
        for kind, url in requests
        if kind in ("document", "stylesheet", "script", "font") or url.endswith(".json")
    }

    assert {Path(url).suffix for url in sizes} >= {".js", ".css", ".json", ".webp", ".svg"}
    assert sum(url.rpartition("/")[2].startswith("thumb-") for url in sizes) == 3
    assert not [url for url in sizes if url.endswith((".wasm", ".f16", "preview-tile.js"))], "the preview is not loaded"
    assert sum(without_images.values()) < MAX_BYTES, sizes
    assert sum(sizes.values()) < MAX_BYTES_WITH_IMAGES, sizes


def test_front_weighs_less_as_well() -> None:
    front = ROOT / "front"
    sizes = {str(path.relative_to(front)): path.stat().st_size for path in front.glob("**/*") if path.is_file()}
    images = {"hero-before.webp", "hero-after.webp", "share.jpg", "touch-icon.png"}

    assert {"index.html", "de/index.html", "front.js", "front.css", "icon.svg", "robots.txt"} | images == set(sizes)
    assert sum(size for name, size in sizes.items() if name not in images) < MAX_BYTES, sizes
    assert sizes["hero-before.webp"] + sizes["hero-after.webp"] < MAX_BYTES, "the images that a visit loads"


def test_cost_on_the_front_matches_the_bill() -> None:
    shown_prices = re.findall(r"<b>(\$[\d.]+)</b>", (ROOT / "front" / "index.html").read_text())
    german_prices = re.findall(r"<b>([\d,]+)\s\$</b>", (ROOT / "front" / "de" / "index.html").read_text())
    bill = (ROOT / "docs/how-to/plan-costs.md").read_text()

    of_four_visitors = re.search(r"^\| 4 \| [^|]+\| (\$[\d.]+) \|", bill, re.MULTILINE)
    never_asleep = re.search(r"^\| `min-scale` 1 \| (\$[\d.]+) \|", bill, re.MULTILINE)
    assert of_four_visitors is not None
    assert never_asleep is not None
    assert shown_prices == [of_four_visitors[1], never_asleep[1]]
    assert german_prices == [price[1:].replace(".", ",") for price in shown_prices]


def test_screenshots_in_the_docs_are_small() -> None:
    large = {
        path.name: path.stat().st_size
        for path in (ROOT / "docs" / "images").glob("page-*.webp")
        if path.stat().st_size >= 200_000
    }

    assert not large

"""A German visitor meets no English sentence, and the switch between the languages is remembered."""

from __future__ import annotations

import re

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from testing import images
from testing.browser.chromium import REFUSALS, MakePage
from testing.browser.labels import broken_labels
from testing.browser.page_states import HARBOUR, STATES, await_state, choose, file, start
from testing.browser.scripted_gateway import ScriptedGateway

GERMAN = {"locale": "de-DE"}

SHOWN = """() => {
  const found = [document.title];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    if (!parent.closest("code, cite, script, .job-name, [hreflang], .brand")) found.push(walker.currentNode.data);
  }
  for (const element of document.body.querySelectorAll("[aria-label], [alt], [title]")) {
    if (element.closest("[hreflang]")) continue;
    for (const name of ["aria-label", "alt", "title"]) found.push(element.getAttribute(name) ?? "");
  }
  return found.filter((text) => text.trim());
}"""
"""All texts and labels of a page, also the hidden ones. Names, files and commands are the same in every language."""

ENGLISH = re.compile(
    r"\b(the|is|are|of|your|with|and|for|image|images|this|that|not|it|to|from|upscaled?|download|remove|try|server|"
    r"before|after|ready|size|width|choose|result|again|pixels|seconds|asleep|up|done|sending|receiving)\b",
    re.IGNORECASE,
)
NAMES = re.compile(r"„[a-z-]+“|\b\w+_x\d\w*|\bServer\b|[\w -]+\.(png|jpe?g)")


def english(page: Page) -> list[str]:
    """Return the texts on a page that have an English word."""
    return [text.strip() for text in page.evaluate(SHOWN) if ENGLISH.search(NAMES.sub("", text))]


@pytest.fixture
def german(make_page: MakePage, gateway: ScriptedGateway) -> Page:
    """The page of the application itself, without a script, for a German visitor."""
    gateway.script.is_live = True
    return make_page(**GERMAN, refusals=REFUSALS)


def test_german_visitor_meets_no_english_sentence(german: Page) -> None:
    assert german.locator("html").get_attribute("lang") == "de"
    german.evaluate(
        """() => {
          window.heard = [];
          const hear = () => {
            for (const state of document.querySelectorAll(".job-state")) window.heard.push(state.textContent);
          };
          new MutationObserver(hear).observe(document.getElementById("jobs"), { childList: true, subtree: true });
        }"""
    )
    assert english(german) == []

    transparent = np.dstack([images.draw_photo(111, 149), np.full((111, 149), 200, np.uint8)])
    choose(german, file("hafen.png", images.encode_png(transparent)), file("notizen.txt", b"kein Bild", "text/plain"))
    await_state(german, "rejected", 1)
    await_state(german, "ready")
    assert english(german) == []

    german.get_by_role("radio", name=re.compile("^JPEG: ")).check()
    start(german)
    await_state(german, "done")
    expect(german.locator(".job-state").first).to_have_text(re.compile(r"^Fertig in .* mit \w+\.$"))
    expect(german.locator(".job-notes").first).to_contain_text("JPEG kennt keine Transparenz")
    german.locator(".zoom-in").click()
    assert english(german) == []
    heard = german.evaluate("window.heard")
    assert len(heard) > 3
    assert not [text for text in heard if ENGLISH.search(NAMES.sub("", text))]

    german.locator(".job-retry").first.click()
    expect(german.locator(".job-state").first).to_have_text(re.compile(r"^Sofort fertig: \w+ hat"))
    assert english(german) == []


def test_images_that_are_too_large_are_explained_in_german(german: Page) -> None:
    large = images.encode_png(images.draw_photo(600, 640))
    choose(german, file("scan.png", large))
    await_state(german, "rejected")
    expect(german.get_by_role("button", name="Zuschneiden")).to_be_visible()
    assert english(german) == []

    german.get_by_role("button", name="Zuschneiden").click()
    assert english(german) == []
    german.get_by_role("button", name="Diesen Teil verwenden").click()
    await_state(german, "ready")
    assert english(german) == []


def test_page_without_javascript_is_german(make_page: MakePage, gateway: ScriptedGateway) -> None:
    gateway.script.is_live = True
    page = make_page(**GERMAN, refusals=REFUSALS)
    page.route("**/*.js", lambda route: route.fulfill(body="", content_type="text/javascript"))
    page.reload()
    page.get_by_role("radio", name=re.compile("^JPEG: ")).check()
    choose(page, file("hafen.png", HARBOUR))
    start(page)
    expect(page.locator("h1")).to_have_text("Ihr Ergebnis")
    assert english(page) == []

    page.goto(f"{gateway.url}nirgendwo")
    expect(page.locator("h1")).to_have_text("Seite nicht gefunden")
    assert english(page) == []


def test_states_of_the_server_are_german(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page(**GERMAN)
    for state, reason in (("asleep", None), ("booting", None), ("failed", None), ("failed", "It hung."), ("up", None)):
        gateway.script.state, gateway.script.reason, gateway.script.since_s = state, reason, 20.0
        page.reload()
        expect(page.locator("#backend")).to_have_attribute("data-state", state)
        assert english(page) == []
    gateway.script.month = {"is_spent": True, "name": "2026-11"}
    page.reload()
    expect(page.locator("#backend")).to_have_text("Pause bis 1. Dez.")
    assert english(page) == []


def test_switch_is_remembered(page: Page, gateway: ScriptedGateway) -> None:
    page.get_by_role("link", name="Deutsch").click()
    expect(page.locator("#go")).to_have_text("Vergrößern")

    page.goto(gateway.url)  # an address without a language
    expect(page.locator("#go")).to_have_text("Vergrößern")
    choose(page, file("hafen.png", HARBOUR))
    await_state(page, "ready")
    expect(page.locator(".job-state")).to_contain_text("Pixel groß.")

    page.goto(gateway.url)
    page.get_by_role("link", name="English").click()
    expect(page.locator("#go")).to_have_text("Upscale")
    page.goto(gateway.url)
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.locator("#go")).to_have_text("Upscale")


@pytest.mark.parametrize("state", ["chosen", "done", "several"])
def test_german_labels_fit_on_the_smallest_phone(make_page: MakePage, gateway: ScriptedGateway, state: str) -> None:
    page = make_page(viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True, **GERMAN)
    STATES[state](page, gateway)

    assert broken_labels(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

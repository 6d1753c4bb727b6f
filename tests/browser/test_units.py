"""No line ends between a number and its unit: on the page in any state, without a script, and on the front."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Frame, Page, expect

from testing import images
from testing.browser.chromium import PHONE, REFUSALS, MakePage
from testing.browser.front import FrontServer
from testing.browser.page_states import BUTTERFLY, HARBOUR, STATES, await_state, choose, file, start
from testing.browser.scripted_gateway import ScriptedGateway

SHOWN = """() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode;
    if (!text.parentElement.closest("code, script, svg")) found.push(text.data);
  }
  return found;
}"""
WITH_UNIT = re.compile(
    r"\d(\s+)(?:[kMG]?B|bytes?|pixels?|megapixels?|s|seconds?|min|minutes?|h|hours?|days?|dB|bits?|%|"
    r"Bytes?|Pixel|Megapixel|Sekunden?|Minuten?|Stunden?|Tage?n?|Bit|\$)(?!\w)"
)


def check(page: Page | Frame, least: int = 1) -> None:
    """Fail with the texts in which a line may end after a number, or if fewer than `least` have a unit at all."""
    found = [one for text in page.evaluate(SHOWN) for one in WITH_UNIT.finditer(text)]
    assert len(found) >= least, "the page must show numbers with units"
    assert not [one.string.strip() for one in found if one[1] != "\N{NO-BREAK SPACE}"]


@pytest.mark.parametrize("state", STATES)
def test_number_and_unit_stay_together_in_any_state(make_page: MakePage, gateway: ScriptedGateway, state: str) -> None:
    page = make_page(viewport=PHONE, has_touch=True, is_mobile=True)
    STATES[state](page, gateway)

    check(page, 3)


def test_german_page_keeps_them_together_too(make_page: MakePage, gateway: ScriptedGateway) -> None:
    gateway.script.is_live = True
    page = make_page(locale="de-DE", refusals=REFUSALS)
    check(page, 3)
    choose(page, file("hafen.png", HARBOUR), file("scan.png", images.encode_png(images.draw_photo(600, 640))))
    await_state(page, "rejected", 1)
    check(page, 5)
    start(page)
    await_state(page, "done")
    check(page, 5)


def test_sentences_of_the_gateway_keep_them_together(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page(refusals=REFUSALS)
    problem = {"title": "Too many images", "detail": "The maximum is 12 megapixels per hour. Try again in 90 seconds."}
    gateway.script.refusals.append((429, problem, {"Retry-After": "90"}))
    choose(page, file("butterfly.png"))
    start(page)
    await_state(page, "failed")
    expect(page.locator(".job-state")).to_contain_text("12 megapixels per hour")

    check(page, 5)


@pytest.mark.parametrize("locale", ["en-GB", "de-DE"])
def test_pages_without_a_script_keep_them_together(make_page: MakePage, gateway: ScriptedGateway, locale: str) -> None:
    gateway.script.is_live = True
    page = make_page(java_script_enabled=False, locale=locale, refusals=REFUSALS)
    assert locale[:2] == page.locator("html").get_attribute("lang")
    check(page, 3)
    choose(page, file("butterfly.png", BUTTERFLY))
    start(page)
    expect(page.locator(".pair")).to_be_visible()

    check(page, 3)


@pytest.mark.parametrize("path", ["/", "/de/"])
def test_front_keeps_them_together(make_page: MakePage, front: FrontServer, path: str) -> None:
    page = make_page(front.origin + path)
    expect(page.locator("#frame")).to_have_attribute("data-state", "here")

    for frame in page.frames:
        check(frame, 3)

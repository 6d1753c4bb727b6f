"""axe finds no violation of WCAG 2.2 A and AA in any state of page and front: light, dark and with forced colours."""

from __future__ import annotations

from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from testing.browser.axe import check_axe
from testing.browser.chromium import PHONE, MakePage
from testing.browser.front import FrontServer
from testing.browser.page_states import STATES, choose, file, start
from testing.browser.scripted_gateway import ScriptedGateway

Scheme = Literal["light", "dark"]
Forced = Literal["none", "active"]
MODES: tuple[tuple[Scheme, Forced], ...] = (("light", "none"), ("dark", "none"), ("dark", "active"))
"""Colour schemes, and whether the system's own colours replace the page's."""


def check_all_modes(page: Page) -> None:
    """Fail with the violations that axe finds in any of the modes."""
    for scheme, forced in MODES:
        page.emulate_media(color_scheme=scheme, forced_colors=forced)
        check_axe(page, has_own_colours=forced == "none")


@pytest.mark.parametrize("state", STATES)
def test_no_violation_in_any_state_and_mode(make_page: MakePage, gateway: ScriptedGateway, state: str) -> None:
    page = make_page()
    STATES[state](page, gateway)

    check_all_modes(page)


@pytest.mark.parametrize("way", ["the page on a phone", "the front", "the front on a phone"])
def test_no_violation_on_a_phone_or_in_the_front(
    make_page: MakePage, gateway: ScriptedGateway, front: FrontServer, way: str
) -> None:
    phone = {"viewport": PHONE, "has_touch": True, "is_mobile": True} if "phone" in way else {}
    page = make_page(front.origin if "front" in way else gateway.url, **phone)
    if "front" in way:
        expect(page.locator("#frame")).to_have_attribute("data-state", "here")

    check_all_modes(page)


def test_pages_without_javascript_have_no_violation(make_page: MakePage, gateway: ScriptedGateway) -> None:
    """Block only the page's own scripts, because axe is a script too."""
    page = make_page("about:blank")
    page.route("**/*.js", lambda route: route.fulfill(body="", content_type="text/javascript"))
    page.goto(gateway.url)
    choose(page, file("butterfly.png"))
    start(page)
    expect(page.locator("h1")).to_have_text("Your result")

    check_axe(page)


def test_docs_have_no_violation_on_the_narrowest_phone(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page(f"{gateway.url}/docs", viewport={"width": 320, "height": 640})
    page.locator("summary").first.click()
    expect(page.locator("details[open] a[href='#schema-Quote']")).to_be_visible()

    check_all_modes(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    assert page.locator("script[src]").count() == 0


def test_axe_finds_a_planted_violation(page: Page) -> None:
    page.evaluate("document.querySelector('#go').textContent = ''")

    with pytest.raises(AssertionError, match="button-name"):
        check_axe(page)

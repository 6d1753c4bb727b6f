"""axe finds no violation of WCAG 2.2 A and AA in any state of the page and the front, in light and dark mode."""

from __future__ import annotations

from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from testing.browser.chromium import PHONE, MakePage
from testing.browser.front import FrontServer
from testing.browser.page_states import STATES, choose, file, start
from testing.browser.scripted_gateway import ScriptedGateway

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
AXE = Axe()
SCHEMES: tuple[Literal["light"], Literal["dark"]] = ("light", "dark")


def check(page: Page) -> None:
    """Fail with the violations that axe finds."""
    found = AXE.run(page, options={"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]})
    violations = [
        f"{one['id']}: {one['help']}\n  " + "\n  ".join(node["html"][:160] for node in one["nodes"])
        for one in found.response["violations"]
    ]
    assert not violations, "\n".join(violations)


@pytest.mark.parametrize("state", STATES)
def test_no_violation_in_any_state_in_light_or_dark(make_page: MakePage, gateway: ScriptedGateway, state: str) -> None:
    page = make_page()
    STATES[state](page, gateway)

    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        check(page)


@pytest.mark.parametrize("way", ["the page on a phone", "the front", "the front on a phone"])
def test_no_violation_on_a_phone_or_in_the_front(
    make_page: MakePage, gateway: ScriptedGateway, front: FrontServer, way: str
) -> None:
    phone = {"viewport": PHONE, "has_touch": True, "is_mobile": True} if "phone" in way else {}
    page = make_page(front.origin if "front" in way else gateway.url, **phone)
    if "front" in way:
        expect(page.locator("#frame")).to_have_attribute("data-state", "here")

    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        check(page)


def test_pages_without_javascript_have_no_violation(make_page: MakePage, gateway: ScriptedGateway) -> None:
    """Block only the page's own scripts, because axe is a script too."""
    page = make_page("about:blank")
    page.route("**/*.js", lambda route: route.fulfill(body="", content_type="text/javascript"))
    page.goto(gateway.url)
    choose(page, file("butterfly.png"))
    start(page)
    expect(page.locator("h1")).to_have_text("Your result")

    check(page)


def test_axe_finds_a_planted_violation(page: Page) -> None:
    page.evaluate("document.querySelector('#go').textContent = ''")

    with pytest.raises(AssertionError, match="button-name"):
        check(page)

"""The front in English and German, by the browser's languages or by a link, and its frame in the same language."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from scripts.front_page.pages import read_texts
from testing.browser.chromium import MakePage
from testing.browser.front import FrontServer


def expect_language(page: Page, language: str) -> None:
    """Wait until front and frame are in a language."""
    expect(page.locator("html")).to_have_attribute("lang", language)
    expect(page.locator("h1")).to_have_text(read_texts(language)["hero.title"])
    expect(page.frame_locator("#gateway").locator("html")).to_have_attribute("lang", language)


def test_german_browser_gets_the_german_front(make_page: MakePage, front: FrontServer) -> None:
    page = make_page(f"{front.origin}/#cost", locale="de-DE")

    expect_language(page, "de")
    assert page.url == f"{front.origin}/de/#cost"
    expect(page.locator("#frame")).to_have_attribute("data-state", "here")
    expect(page.get_by_role("slider", name=read_texts("de")["hero.range"])).to_be_attached()


def test_link_to_english_holds_in_a_german_browser(make_page: MakePage, front: FrontServer) -> None:
    page = make_page(f"{front.origin}/de/", locale="de-DE")
    page.get_by_role("link", name="English").press("Enter")

    expect_language(page, "en")
    page.reload()
    expect_language(page, "en")
    page.get_by_role("link", name="Deutsch").press("Enter")
    expect_language(page, "de")


@pytest.mark.parametrize("path", ["/", "/de/"])
def test_other_browsers_stay_on_the_page_of_the_address(path: str, make_page: MakePage, front: FrontServer) -> None:
    page = make_page(front.origin + path, locale="fr-FR")

    expect_language(page, "de" if path == "/de/" else "en")
    links = page.eval_on_selector_all("link[hreflang]", "links => links.map((link) => link.attributes.href.value)")
    assert links == [f"{front.origin}/", f"{front.origin}/de/", f"{front.origin}/"]


def test_both_languages_work_without_javascript(make_page: MakePage, front: FrontServer) -> None:
    page = make_page(front.origin, locale="de-DE", java_script_enabled=False)
    expect_language(page, "en")
    page.get_by_role("link", name="Deutsch").click()

    expect_language(page, "de")
    expect(page.frame_locator("#gateway").locator("#go")).to_be_visible()


def test_silent_gateway_is_reported_in_german(make_page: MakePage, front: FrontServer) -> None:
    page = make_page("about:blank")
    page.clock.install()
    page.route("**/?lang=de", lambda route: route.fulfill(body="<p>a proxy's words</p>", content_type="text/html"))
    page.goto(f"{front.origin}/de/")
    expect(page.locator("#words")).to_have_text(read_texts("de")["frame.loading"])
    page.clock.run_for(30_000)
    expect(page.locator("#words")).to_have_text(read_texts("de")["frame.lost"])
    page.get_by_role("button", name=read_texts("de")["frame.again"]).click()
    expect(page.locator("#words")).to_have_text(read_texts("de")["frame.loading"])

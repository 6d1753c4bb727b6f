"""Closing or reloading the page: the browser asks only while an image would be lost."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from testing.browser import scripted_gateway
from testing.browser.chromium import REFUSALS, MakePage
from testing.browser.page_states import await_state, choose, file, start
from testing.browser.scripted_gateway import Bands, Gate, ScriptedGateway, Whole


def asks_before_it_closes(page: Page) -> bool:
    """Reload the page, leave it if the browser asks, and return whether it asked."""
    page.locator("h2").first.click()  # browsers ask only users who have used the page
    asked: list[str] = []

    def leave(dialog: object) -> None:
        asked.append(dialog.type)  # type: ignore[attr-defined]
        dialog.accept()  # type: ignore[attr-defined]

    page.on("dialog", leave)
    page.reload()
    page.remove_listener("dialog", leave)
    assert asked in ([], ["beforeunload"])
    return bool(asked)


def test_page_without_an_image_to_lose_closes_at_once(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page(refusals=REFUSALS)
    assert not asks_before_it_closes(page)

    choose(page, file("a.png"), file("notes.txt", b"no image", "text/plain"))
    await_state(page, "ready")
    assert not asks_before_it_closes(page), "nothing was uploaded"

    problem = {"title": "The backend failed", "detail": "Try again once."}
    gateway.script.refusals.append((502, problem, {}))
    choose(page, file("a.png"))
    start(page)
    await_state(page, "failed")
    assert not asks_before_it_closes(page), "nothing was made"

    page.locator(".example").first.click()
    await_state(page, "done")
    assert not asks_before_it_closes(page), "an example is in the cache"


def test_page_asks_while_an_image_is_upscaled(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.plays.append((scripted_gateway.UP, Bands(1, 1, 2), Gate("end"), Bands(2, 2, 2), Whole()))
    choose(page, file("a.png"))
    start(page)
    await_state(page, "working")

    assert asks_before_it_closes(page)


def test_page_asks_until_the_result_is_downloaded_or_removed(page: Page) -> None:
    choose(page, file("a.png"), file("b.png"))
    start(page)
    await_state(page, "done", 1)
    page.once("dialog", lambda dialog: dialog.dismiss())  # stay
    with page.expect_event("dialog"):
        page.evaluate("setTimeout(() => location.reload())")
    await_state(page, "done", 0)

    with page.expect_download():
        page.locator(".job-save").nth(0).click()
    page.locator(".job-remove").nth(1).click()
    expect(page.locator(".job")).to_have_count(1)

    assert not asks_before_it_closes(page)


def test_page_asks_for_the_result_that_was_not_downloaded(page: Page) -> None:
    choose(page, file("a.png"), file("b.png"))
    start(page)
    await_state(page, "done", 1)
    with page.expect_download():
        page.locator(".job-save").nth(0).click()

    assert asks_before_it_closes(page)


def test_page_asks_again_after_a_redo(page: Page) -> None:
    choose(page, file("a.png"))
    start(page)
    await_state(page, "done")
    with page.expect_download():
        page.locator(".job-save").click()
    page.locator(".job-retry").click()
    await_state(page, "done")
    expect(page.locator("#go")).to_be_enabled()

    assert asks_before_it_closes(page)

"""Pressing a button: the layout may move before the release, and what the page loads on demand may not arrive."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Route, expect

from testing.browser.chromium import REFUSALS, MakePage
from testing.browser.page_states import await_state, choose, file, start
from testing.browser.scripted_gateway import ScriptedGateway


def press(page: Page, selector: str) -> tuple[float, float]:
    """Press the mouse button in the middle of an element that is ready and visible; return where."""
    page.locator(selector).click(trial=True)  # waits until it stays where it is
    box = page.locator(selector).bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    return x, y


@pytest.mark.parametrize("button", [".job-go", "#go"])
def test_click_counts_although_the_button_moves_before_the_release(page: Page, button: str) -> None:
    choose(page, file("a.png"))
    await_state(page, "ready")
    x, y = press(page, button)
    page.evaluate("document.querySelector('main').style.paddingTop = '9rem'; scrollBy(0, 40)")
    assert not page.evaluate(
        "([selector, x, y]) => document.elementFromPoint(x, y).matches(selector)", [button, x, y]
    ), "the button has moved away from the pointer"
    page.mouse.up()

    await_state(page, "done")


def test_page_stays_where_the_user_scrolled_while_images_are_checked(page: Page) -> None:
    held: list[Route] = []
    page.route("**/refit.js", lambda route: held.append(route))  # noqa: PLW0108 - Playwright sets attributes on it
    with page.expect_request("**/refit.js"):
        choose(page, file("a.png"), file("notes.txt", b"no image", "text/plain"))
    await_state(page, "ready", 0)
    page.locator("#go").scroll_into_view_if_needed()
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    expect(page.locator("html.is-row-seen")).to_have_count(0)
    at = page.evaluate("scrollY")
    assert at > 300, "the button is far below the images"
    held[0].continue_()

    await_state(page, "rejected", 1)
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    assert page.evaluate("scrollY") >= at


def test_release_away_from_the_button_upscales_nothing(page: Page, gateway: ScriptedGateway) -> None:
    choose(page, file("a.png"))
    await_state(page, "ready")
    x, y = press(page, ".job-go")
    page.mouse.move(x, y + 90)
    page.mouse.up()
    page.reload()
    expect(page.locator("#go")).to_be_enabled()

    assert gateway.script.uploads == []


def test_image_upscales_although_the_tools_for_another_cannot_be_loaded(
    make_page: MakePage, gateway: ScriptedGateway
) -> None:
    page = make_page(refusals=REFUSALS)
    page.route("**/refit.js", lambda route: route.abort())
    choose(page, file("notes.txt", b"no image", "text/plain"), file("a.png"))
    await_state(page, "rejected", 0)
    await_state(page, "ready", 1)
    start(page)
    await_state(page, "done", 1)

    choose(page, file("b.png"))
    await_state(page, "ready", 2)
    assert len(gateway.script.uploads) == 1

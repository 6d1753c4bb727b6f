"""Phones: the button that upscales is in the row of the chosen image and on the screen, and no label breaks in two."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Frame, Page, expect

from testing.browser.chromium import PHONE_WIDTHS, MakePage
from testing.browser.front import FrontServer
from testing.browser.labels import broken_labels
from testing.browser.page_states import HARBOUR, STATES, file, press_in_front
from testing.browser.scripted_gateway import PLAIN, ScriptedGateway


def options(width: int) -> dict[str, Any]:
    return {"viewport": {"width": width, "height": 640}, "has_touch": True, "is_mobile": True}


def framed(page: Page) -> Frame:
    expect(page.locator("#frame")).to_have_attribute("data-state", "here")
    frame = page.frame(url=lambda url: "127.0.0.1" in url)
    assert frame is not None
    return frame


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", PHONE_WIDTHS)
def test_upscale_button_is_in_the_row_and_on_the_screen(width: int, scheme: str, make_page: MakePage) -> None:
    page = make_page(**options(width), color_scheme=scheme)
    page.locator("#image").scroll_into_view_if_needed()

    page.set_input_files("#image", [file("a holiday photo with a long name.png", HARBOUR)])

    button = page.locator(".job .job-go")
    expect(button).to_be_in_viewport(ratio=1)
    assert page.evaluate("scrollX") == 0
    button.tap()
    expect(page.locator(".job")).to_have_attribute("data-state", "done")


@pytest.mark.parametrize("width", PHONE_WIDTHS)
def test_upscale_button_is_on_the_screen_in_the_front(width: int, make_page: MakePage, front: FrontServer) -> None:
    page = make_page(front.origin, **options(width), color_scheme="dark")
    frame = framed(page)
    page.locator("#gateway").scroll_into_view_if_needed()

    frame.set_input_files("#image", [file("harbour.png", HARBOUR)])

    expect(frame.locator(".job .job-go")).to_be_in_viewport(ratio=1)
    assert broken_labels(frame) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("state", ["idle", "chosen", "done", "grows", "several"])
@pytest.mark.parametrize("width", PHONE_WIDTHS)
def test_no_label_breaks_and_no_button_stands_alone(
    width: int, state: str, make_page: MakePage, gateway: ScriptedGateway
) -> None:
    page = make_page(**options(width))
    STATES[state](page, gateway)

    assert broken_labels(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for remove in page.locator(".job-remove:visible").all():
        box, name = remove.bounding_box(), remove.locator("xpath=ancestor::li//h2").bounding_box()
        assert box is not None
        assert name is not None
        assert box["y"] < name["y"] + name["height"], "the button that removes an image is next to its name"


@pytest.mark.parametrize("locale", ["en-GB", "de-DE"])
@pytest.mark.parametrize("width", PHONE_WIDTHS)
def test_tools_of_the_result_are_one_row_in_the_front(
    width: int, locale: str, make_page: MakePage, gateway: ScriptedGateway, front: FrontServer
) -> None:
    gateway.script.plays.append(PLAIN)
    page = make_page(front.origin + ("/de/" if locale == "de-DE" else ""), **options(width), locale=locale)
    frame = framed(page)
    frame.set_input_files("#image", [file("harbour.png", HARBOUR)])
    expect(frame.locator(".job")).to_have_attribute("data-state", "ready")
    press_in_front(frame, ".job-go")
    expect(frame.locator(".compare")).to_be_visible()

    tools = frame.locator(".compare-tools > .tool:visible")
    expect(tools).to_have_count(5)
    assert len({box["y"] for tool in tools.all() if (box := tool.bounding_box())}) == 1


def test_one_button_upscales_all_chosen_images(page: Page, gateway: ScriptedGateway) -> None:
    page.set_input_files("#image", [file("a.png"), file("b.png")])
    expect(page.locator(".job-go:visible")).to_have_text("Upscale 2 images")

    page.click(".job-go:visible")

    expect(page.locator(".job").nth(1)).to_have_attribute("data-state", "done")
    assert len(gateway.script.uploads) == 2
    expect(page.locator(".job-go:visible")).to_have_count(0)

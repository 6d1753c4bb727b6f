"""Forced colours (high contrast): controls, focus, the handles of sliders and progress stay visible."""

from __future__ import annotations

from io import BytesIO
from typing import Literal

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from testing.browser.chromium import MakePage, press_until
from testing.browser.front import FrontServer
from testing.browser.page_states import STATES
from testing.browser.scripted_gateway import ScriptedGateway

SCHEMES: tuple[Literal["light"], Literal["dark"]] = ("light", "dark")

UNSEEN = """all => all.filter((one) => one.offsetWidth).filter((one) => {
  const { borderTopStyle, borderTopWidth, borderTopColor, backgroundColor } = getComputedStyle(one);
  const isBordered = borderTopStyle !== "none" && parseFloat(borderTopWidth) >= 1;
  const page = getComputedStyle(document.body).backgroundColor;
  return !(isBordered && borderTopColor !== page) && backgroundColor === page;
}).map((one) => one.textContent.trim())"""
"""Controls that have neither a border nor a background that differs from the page's."""

HANDLE = """line => {
  const style = getComputedStyle(line, "::after");
  return [style.borderTopStyle, style.borderTopColor !== style.backgroundColor, style.color !== style.backgroundColor];
}"""

OUTLINE = """() => {
  const { outlineStyle, outlineWidth, outlineColor } = getComputedStyle(document.activeElement);
  const page = getComputedStyle(document.body).backgroundColor;
  return [outlineStyle, parseFloat(outlineWidth) >= 2, outlineColor !== page];
}"""


def open_forced(make_page: MakePage, scheme: str, url: str | None = None) -> Page:
    page = make_page(*([url] if url else []), color_scheme=scheme, forced_colors="active")
    assert page.evaluate("matchMedia('(forced-colors: active)').matches")
    return page


def colours(element: Locator) -> set[tuple[int, ...]]:
    """Return the colours that cover at least one in a hundred pixels of an element."""
    with Image.open(BytesIO(element.screenshot())) as image:
        pixels = image.convert("RGB")
    counted = pixels.getcolors(pixels.width * pixels.height) or []
    return {colour for count, colour in counted if 100 * count >= pixels.width * pixels.height}  # type: ignore[misc]


@pytest.mark.parametrize("state", ["chosen", "strength", "done", "lens", "several"])
def test_every_control_has_an_edge(make_page: MakePage, gateway: ScriptedGateway, state: str) -> None:
    page = open_forced(make_page, "dark")
    STATES[state](page, gateway)

    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme, forced_colors="active")
        assert page.eval_on_selector_all("button, .button, .drop, select, .tool", UNSEEN) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_progress_handle_and_focus_are_visible(make_page: MakePage, gateway: ScriptedGateway, scheme: str) -> None:
    page = open_forced(make_page, scheme)
    STATES["grows"](page, gateway)
    bar = page.locator(".job-progress")
    expect(bar).to_have_attribute("value", "0.6")
    assert len(colours(bar)) >= 3, "the border, the part that is done, and the rest"

    gateway.script.open("end")
    expect(page.locator(".job")).to_have_attribute("data-state", "done")
    assert page.locator(".compare .line").evaluate(HANDLE) == ["solid", True, True]
    for control in (".job-save", ".compare-view", ".zoom-in", "#go"):
        page.locator(control).focus()
        press_until(page, control)  # by keyboard, so that the focus is shown
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        assert page.evaluate(OUTLINE) == ["solid", True, True], control
    pressed, free = page.locator(".zoom-fit"), page.locator(".zoom-true")
    assert colours(pressed) != colours(free), "a pressed button looks different"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_front_stays_visible(make_page: MakePage, front: FrontServer, scheme: str) -> None:
    page = open_forced(make_page, scheme, front.origin)
    expect(page.locator("#frame")).to_have_attribute("data-state", "here")

    assert page.locator("#slide .line").evaluate(HANDLE) == ["solid", True, True]
    for drawing in page.locator(".drawing").all():
        seen = colours(drawing)
        assert len(seen) >= 2
        assert (0, 0, 0) in seen
        assert (255, 255, 255) in seen
    page.keyboard.press("Tab")
    assert page.evaluate(OUTLINE) == ["solid", True, True]

"""Before and after: the divider, zoom and the lens, each by mouse, touch and keyboard."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from testing.browser.chromium import PHONE, MakePage
from testing.browser.page_states import HARBOUR, await_state, choose, file, start
from testing.browser.scripted_gateway import ScriptedGateway

Box = dict[str, float]


def show(page: Page) -> Box:
    """Upscale an image; return the position of its before/after comparison on the screen."""
    choose(page, file("harbour.png", HARBOUR))
    start(page)
    await_state(page, "done")
    page.locator(".compare-view").scroll_into_view_if_needed()
    box = page.locator(".compare-view").bounding_box()
    assert box is not None
    return {**box}


@pytest.fixture
def view(page: Page) -> Box:
    return show(page)


def divided_at(page: Page) -> float:
    return float(
        page.eval_on_selector(".compare-view", "view => parseFloat(view.style.getPropertyValue('--at')) || 50")
    )


def zoom_level(page: Page) -> int:
    return int((page.locator(".zoom-level").text_content() or "").removesuffix("%"))


def left_of_plane(page: Page) -> float:
    return float(page.eval_on_selector(".plane", "plane => plane.getBoundingClientRect().left"))


def at(view: Box, x: float, y: float) -> tuple[float, float]:
    return view["x"] + view["width"] * x, view["y"] + view["height"] * y


def test_both_images_overlap_exactly(page: Page, view: Box) -> None:
    boxes = page.eval_on_selector_all(
        ".plane", "planes => planes.map(({ clientWidth, clientHeight }) => [clientWidth, clientHeight])"
    )

    assert boxes[0] == boxes[1]
    assert abs(boxes[0][0] / boxes[0][1] - 4 / 3) < 0.01
    assert abs(view["width"] - boxes[0][0]) <= 1


def test_divider_follows_click_drag_and_keys(page: Page, view: Box) -> None:
    page.mouse.click(*at(view, 0.25, 0.5))
    assert abs(divided_at(page) - 25) < 1

    page.mouse.move(*at(view, 0.25, 0.5))
    page.mouse.down()
    page.mouse.move(*at(view, 0.8, 0.4), steps=4)
    page.mouse.up()
    assert abs(divided_at(page) - 80) < 1

    page.locator(".divider").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert abs(divided_at(page) - 77) < 1.5
    page.keyboard.press("Home")
    assert page.eval_on_selector(".compare-view", "view => view.style.getPropertyValue('--at')") == "0%"


def test_zoom_keeps_the_point_under_the_pointer(page: Page, view: Box) -> None:
    fitted = zoom_level(page)
    page.click(".zoom-true")
    assert zoom_level(page) == 100
    page.click(".zoom-in")
    assert zoom_level(page) == 150
    page.click(".zoom-fit")
    assert zoom_level(page) == fitted

    page.locator(".compare-view").focus()
    page.keyboard.press("1")
    assert zoom_level(page) == 100
    page.keyboard.press("0")
    assert zoom_level(page) == fitted

    page.mouse.dblclick(*at(view, 0, 0.5))
    assert zoom_level(page) >= 200
    assert abs(left_of_plane(page) - view["x"]) < 2, "the left edge was under the pointer and must stay there"


def test_zoomed_view_moves_by_drag_keys_and_buttons(page: Page, view: Box) -> None:
    page.click(".zoom-true")
    before = left_of_plane(page)
    page.mouse.move(*at(view, 0.75, 0.5))
    page.mouse.down()
    page.mouse.move(*at(view, 0.65, 0.5), steps=3)
    page.mouse.up()
    dragged = left_of_plane(page)
    assert abs(before - dragged - 0.1 * view["width"]) < 3
    assert divided_at(page) == 50, "a drag of the image leaves the divider alone"

    page.locator(".compare-view").focus()
    page.keyboard.press("ArrowLeft")
    moved = left_of_plane(page)
    assert moved > dragged
    page.get_by_role("button", name="Right", exact=True).click()
    assert left_of_plane(page) < moved


def test_lens_shows_one_spot_of_both_images(page: Page, view: Box) -> None:
    page.click(".lens-switch")
    page.mouse.move(*at(view, 0.5, 0.7))
    expect(page.locator(".lens")).to_be_visible()
    spots = page.eval_on_selector_all(
        ".lens-glass", "all => all.map(({ style }) => [style.backgroundPosition, style.backgroundSize])"
    )
    assert spots[0] == spots[1]
    backgrounds = page.eval_on_selector_all(".lens-glass", "all => all.map(({ style }) => style.backgroundImage)")
    assert len(set(backgrounds)) == 2

    page.locator(".compare-view").focus()
    page.keyboard.press("ArrowRight")
    assert spots[0] != page.eval_on_selector(
        ".lens-after", "({ style }) => [style.backgroundPosition, style.backgroundSize]"
    )
    page.keyboard.press("Escape")
    expect(page.locator(".lens")).to_be_hidden()


def test_touch_divides_and_pinches(make_page: MakePage, gateway: ScriptedGateway) -> None:
    del gateway
    page = make_page(viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    view = show(page)
    x, y = at(view, 0.3, 0.5)
    page.touchscreen.tap(x, y)
    assert abs(divided_at(page) - 30) < 1.5

    fitted = zoom_level(page)
    devtools = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        numbered = [{"x": px, "y": py, "id": index} for index, (px, py) in enumerate(points)]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": numbered})

    touch("touchStart", at(view, 0.4, 0.5))
    touch("touchStart", at(view, 0.4, 0.5), at(view, 0.6, 0.5))
    for part in (0.3, 0.2, 0.1):
        touch("touchMove", at(view, part, 0.5), at(view, 1 - part, 0.5))
    touch("touchEnd")
    assert zoom_level(page) > 2 * fitted

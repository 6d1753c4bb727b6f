"""Images that are too large or of another format: the browser shrinks, crops or converts them before the upload."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from testing.browser.page_states import await_state, choose, file, start
from testing.browser.scripted_gateway import ScriptedGateway

WIDTH, HEIGHT = 800, 400
"""320,000 pixels; the scripted gateway takes 250,000."""


def quarters(size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """Return an image whose left half is red and right half is blue."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, : size[0] // 2] = (200, 0, 0)
    pixels[:, size[0] // 2 :] = (0, 0, 200)
    return Image.fromarray(pixels)


def saved(image: Image.Image, format_: str, **changes: object) -> bytes:
    target = BytesIO()
    image.save(target, format_, **changes)
    return target.getvalue()


def sent(gateway: ScriptedGateway) -> Image.Image:
    """Return the image that the page has uploaded last."""
    image = Image.open(BytesIO(gateway.script.uploads[-1]))
    image.load()
    return image


@pytest.mark.parametrize(("format_", "uploaded"), [("PNG", "PNG"), ("JPEG", "JPEG")])
def test_shrinking_keeps_the_proportions(page: Page, gateway: ScriptedGateway, format_: str, uploaded: str) -> None:
    choose(page, file(f"large.{format_.lower()}", saved(quarters(), format_), f"image/{format_.lower()}"))
    await_state(page, "rejected")
    expect(page.locator(".job-state")).to_contain_text(
        "= 320,000 pixels; the maximum is 250,000. Shrink it or crop it."
    )

    page.get_by_role("button", name="Shrink to 707 × 353").click()
    await_state(page, "ready")
    expect(page.locator(".job-go")).to_be_focused()
    start(page)
    await_state(page, "done")

    image = sent(gateway)
    assert (image.format, image.size) == (uploaded, (707, 353))
    pixels = np.asarray(image.convert("RGB"), np.int16)
    assert np.abs(pixels[:, :340] - (200, 0, 0)).max() < 12
    assert np.abs(pixels[:, 366:] - (0, 0, 200)).max() < 12
    expect(page.locator(".job-notes")).to_contain_text("Shrunk from 800 × 400 pixels in your browser")


def test_cropping_by_keyboard_takes_the_chosen_part(page: Page, gateway: ScriptedGateway) -> None:
    choose(page, file("large.png", saved(quarters(), "PNG")))
    await_state(page, "rejected")
    page.get_by_role("button", name="Crop").press("Enter")
    expect(page.locator(".crop-box")).to_be_focused()
    for _ in range(14):
        page.keyboard.press("-")  # to 30 %
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".crop-facts")).to_have_text("212 × 105 of 800 × 400 pixels.")
    assert not Axe().run(page).response["violations"]

    page.get_by_role("button", name="Use this part").press("Enter")
    await_state(page, "ready")
    start(page)
    await_state(page, "done")

    image = sent(gateway)
    assert image.size == (212, 105)
    assert np.asarray(image.convert("RGB")).reshape(-1, 3).tolist() == [[0, 0, 200]] * (212 * 105)


def test_cropping_by_pointer_moves_the_part_and_cancel_returns_to_the_offers(page: Page) -> None:
    choose(page, file("large.png", saved(quarters(), "PNG")))
    await_state(page, "rejected")
    page.get_by_role("button", name="Crop").click()
    page.get_by_label("Size", exact=True).fill("20")
    box = page.locator(".crop-view").bounding_box()
    assert box is not None

    page.mouse.click(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.9)

    left = page.eval_on_selector(".crop-box", "box => parseFloat(box.style.left)")
    assert 75 < left < 90
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Shrink to 707 × 353")).to_be_focused()


SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20">'
    b'<rect width="40" height="20" fill="#00c800"/></svg>'
)


def test_svg_is_converted(page: Page, gateway: ScriptedGateway) -> None:
    choose(page, file("drawing.svg", SVG, "image/svg+xml"))
    page.get_by_role("button", name="Shrink to").click()  # drawn at 1,024 pixels, which this gateway does not take
    await_state(page, "ready")
    start(page)
    await_state(page, "done")

    image = sent(gateway)
    assert image.format == "PNG"
    assert image.convert("RGB").getpixel((9, 9)) == (0, 200, 0)
    assert abs(image.width - 2 * image.height) <= 1


@pytest.mark.parametrize(("format_", "uploaded"), [("GIF", "PNG"), ("BMP", "PNG"), ("AVIF", "JPEG")])
def test_other_formats_can_be_shrunk(page: Page, gateway: ScriptedGateway, format_: str, uploaded: str) -> None:
    choose(page, file(f"large.{format_.lower()}", saved(quarters(), format_), f"image/{format_.lower()}"))
    page.get_by_role("button", name="Shrink to 707 × 353").click()
    await_state(page, "ready")
    start(page)
    await_state(page, "done")

    assert (sent(gateway).format, sent(gateway).size) == (uploaded, (707, 353))


def test_large_file_that_the_browser_cannot_decode_is_rejected_with_its_size(page: Page) -> None:
    choose(page, file("large.tif", saved(quarters(), "TIFF"), "image/tiff"))

    await_state(page, "rejected")
    expect(page.locator(".job-state")).to_contain_text("The image has 800 × 400 = 320,000 pixels")
    expect(page.locator(".job-ways")).to_be_hidden()


def test_transparency_survives_the_conversion(page: Page, gateway: ScriptedGateway) -> None:
    glass = SVG.replace(b'fill="#00c800"', b'fill="#00c800" fill-opacity="0.5"')
    choose(page, file("glass.svg", glass, "image/svg+xml"))
    page.get_by_role("button", name="Shrink to").click()
    await_state(page, "ready")
    start(page)
    await_state(page, "done")

    image = sent(gateway)
    assert image.mode == "RGBA"
    assert 126 <= image.getpixel((9, 9))[3] <= 129  # type: ignore[index]

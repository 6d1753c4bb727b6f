"""Options of the result's file: lossless, the format of the upload, and colours under full transparency."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from testing.browser.page_states import BUTTERFLY, await_state, choose, file, start
from testing.browser.scripted_gateway import ScriptedGateway


def saved(format_: str, mode: str = "RGB") -> bytes:
    target = BytesIO()
    Image.new(mode, (16, 12), None).save(target, format_)
    return target.getvalue()


def test_lossless_is_offered_for_webp_only(page: Page, gateway: ScriptedGateway) -> None:
    lossless, quality = page.get_by_label("Lossless WebP"), page.get_by_label("Quality, 1 to 100")
    expect(lossless).to_be_hidden()
    page.get_by_label("WebP: small files").check()
    lossless.check()
    expect(quality).to_be_hidden()
    choose(page, file("butterfly.png", BUTTERFLY))
    start(page)
    await_state(page, "done")
    assert gateway.script.fields[-1]["lossless"] == "1"

    page.get_by_label("JPEG: small files").check()
    expect(lossless).to_be_hidden()
    expect(quality).to_be_visible()
    page.click(".job-retry")
    await_state(page, "done")

    assert "lossless" not in gateway.script.fields[-1]


@pytest.mark.parametrize(
    ("name", "format_", "suffix"), [("a.webp", "WEBP", "webp"), ("a.jpg", "JPEG", "jpeg"), ("a.bmp", "BMP", "png")]
)
def test_result_can_have_the_format_of_the_upload(
    page: Page, gateway: ScriptedGateway, name: str, format_: str, suffix: str
) -> None:
    page.get_by_label("Same format as the upload").check()
    choose(page, file(name, saved(format_)))
    start(page)
    await_state(page, "done")

    assert gateway.script.fields[-1]["format"] == "same"
    assert str(page.get_attribute(".job-save", "download")).endswith(f".{suffix}")


def test_limits_of_the_uploads_format_hold_for_the_same_format(page: Page) -> None:
    page.evaluate("document.querySelector('input[value=webp]').dataset.maxSide = 63")
    page.get_by_label("Same format as the upload").check()
    choose(page, file("a.webp", saved("WEBP")), file("a.bmp", saved("BMP")))
    start(page)

    await_state(page, "failed", 0)
    expect(page.locator(".job-state").first).to_contain_text("64 × 48 pixels; the maximum per side for WEBP is 63.")
    await_state(page, "done", 1)


def test_colours_under_transparency_are_kept_on_request(page: Page, gateway: ScriptedGateway) -> None:
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Keep colours under full transparency").check()
    choose(page, file("texture.png", saved("PNG", "RGBA")))
    start(page)
    await_state(page, "done")
    assert gateway.script.fields[-1]["transparent_colour"] == "keep"

    page.reload()

    expect(page.get_by_label("Keep colours under full transparency")).to_be_visible()
    expect(page.get_by_label("Keep colours under full transparency")).to_be_checked()

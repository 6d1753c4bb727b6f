"""The limit of pixels is that of the chosen variant and size: next to the file field, and before the upload."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from testing.browser.chromium import MakePage
from testing.browser.page_states import await_state, choose, choose_variant, file, start
from testing.browser.scripted_gateway import ScriptedGateway

MAX_PIXELS, MAX_OUTPUT_PIXELS = 250_000, 1_600_000
"""At 4x: 100,000 pixels; at 2x and 1x: 250,000."""


@pytest.fixture(scope="module")
def costly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedGateway]:
    """A gateway whose 4x variants take smaller images than the others."""
    gateway = ScriptedGateway(
        tmp_path_factory.mktemp("costly"),
        max_pixels=MAX_PIXELS,
        max_output_pixels=MAX_OUTPUT_PIXELS,
        anonymous_requests="",
    )
    yield gateway
    gateway.close()


@pytest.fixture
def page(make_page: MakePage, costly: ScriptedGateway) -> Page:
    costly.script.uploads.clear()
    return make_page(costly.url)


def medium() -> bytes:
    """Return an image of 150,000 pixels."""
    target = BytesIO()
    Image.new("RGB", (500, 300), (9, 99, 200)).save(target, "PNG")
    return target.getvalue()


def test_hint_names_the_limit_of_the_choice(page: Page) -> None:
    hint = page.locator("#limit-pixels")
    expect(hint).to_have_text("0.1 megapixels at 4× (such as 316 × 316)")

    choose_variant(page, "compact_x2")
    expect(hint).to_have_text("0.25 megapixels (such as 500 × 500)")

    choose_variant(page, "compact_color_denoise_25")
    expect(hint).to_have_text("0.25 megapixels (such as 500 × 500)")

    page.check("input[value=auto]")
    page.locator(".sizes").get_by_label("2×").check()
    expect(hint).to_have_text("0.25 megapixels (such as 500 × 500)")

    page.locator(".sizes").get_by_label("3×").check()
    expect(hint).to_have_text("0.1 megapixels at 4× (such as 316 × 316)")


def test_hint_without_javascript_names_every_limit(make_page: MakePage, costly: ScriptedGateway) -> None:
    page = make_page(costly.url, java_script_enabled=False)

    expect(page.locator("#limits")).to_contain_text(
        "0.1 megapixels at 4×, 0.25 at 2× and 1×, at most", use_inner_text=True
    )
    expect(page.locator("#limits")).to_contain_text("JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP or GIF, up to")


def test_image_over_the_limit_at_4x_is_offered_2x_and_sent_as_it_is(page: Page, costly: ScriptedGateway) -> None:
    choose(page, file("medium.png", medium()))
    await_state(page, "rejected")
    expect(page.locator(".job-state")).to_contain_text(
        "The image has 500 × 300 = 150,000 pixels; the maximum at 4× is 100,000. Shrink it or crop it."
    )
    expect(page.get_by_role("button", name="Shrink to 408 × 244")).to_be_visible()
    expect(page.get_by_role("button", name="Crop")).to_be_visible()

    page.get_by_role("button", name="Upscale to 2× instead").click()

    await_state(page, "ready")
    expect(page.locator(".job-state")).to_contain_text("Becomes 1,000 × 600 pixels.")
    expect(page.locator(".job-ways")).to_be_hidden()
    start(page)
    await_state(page, "done")
    assert costly.script.uploads == [medium()]
    assert (costly.script.fields[-1]["variant"], costly.script.fields[-1]["scale"]) == ("auto", "2")
    expect(page.locator(".job-size")).to_contain_text("1,000 × 600")


def test_changing_the_variant_checks_the_images_again(page: Page) -> None:
    choose_variant(page, "compact_x2")
    choose(page, file("medium.png", medium()))
    await_state(page, "ready")

    page.check("input[value=compact_x4]")
    await_state(page, "rejected")
    expect(page.locator(".job-ways button")).to_have_text(["Shrink to 408 × 244", "Crop", "Upscale to 2× instead"])

    page.check("input[value=compact_x2]")
    await_state(page, "ready")
    expect(page.locator(".job-ways")).to_be_hidden()


def test_shrunk_image_is_checked_again_for_a_larger_size(page: Page) -> None:
    choose_variant(page, "compact_x2")
    target = BytesIO()
    Image.new("RGB", (800, 400)).save(target, "PNG")
    choose(page, file("large.png", target.getvalue()))
    page.get_by_role("button", name="Shrink to 707 × 353").click()
    await_state(page, "ready")

    page.check("input[value=auto]")

    await_state(page, "rejected")
    expect(page.locator(".job-ways button").first).to_have_text("Shrink to 447 × 223")

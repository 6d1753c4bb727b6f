"""Taking results along: the menu of the result's image, Copy, Share, all as a ZIP, and remembered options."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from testing import images
from testing.browser.chromium import MakePage
from testing.browser.page_states import BUTTERFLY, HARBOUR, await_state, choose, choose_variant, file, start
from testing.browser.scripted_gateway import ScriptedGateway

SMALL_JPEG = images.encode_jpeg(images.draw_photo(30, 41))


def test_the_menu_of_the_result_is_that_of_an_image(page: Page) -> None:
    choose(page, file("harbour.png", HARBOUR))
    start(page)
    await_state(page, "done")
    page.locator(".compare-view").scroll_into_view_if_needed()
    box = page.locator(".compare-view").bounding_box()
    assert box is not None

    def under(part: float) -> str:
        point = [box["x"] + box["width"] * part, box["y"] + box["height"] * 0.3]
        return str(page.evaluate("([x, y]) => document.elementFromPoint(x, y).alt", point))

    assert under(0.8) == "The result, after"
    assert under(0.2) == "Your upload, before"


def test_copy_puts_the_result_into_the_clipboard(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page("about:blank")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=gateway.url.rstrip("/"))
    page.goto(gateway.url)
    choose(page, file("photo.jpg", SMALL_JPEG, "image/jpeg"))
    expect(page.locator("#format-hint")).to_contain_text("JPEG is selected because your upload is one.")
    start(page)
    await_state(page, "done")

    page.get_by_role("button", name="Copy photo.jpg").click()
    expect(page.locator(".job-state")).to_have_text("Copied.")

    copied = page.evaluate(
        """async () => {
          const [item] = await navigator.clipboard.read();
          const bitmap = await createImageBitmap(await item.getType("image/png"));
          return [bitmap.width, bitmap.height];
        }"""
    )
    assert copied == [164, 120]


def test_copy_that_is_not_allowed_says_so(page: Page) -> None:
    page.evaluate(
        "() => { navigator.clipboard.write = () => Promise.reject(new DOMException('no', 'NotAllowedError')); }"
    )
    choose(page, file("a.png"))
    start(page)
    await_state(page, "done")

    page.get_by_role("button", name="Copy a.png").click()

    expect(page.locator(".job-state")).to_contain_text("Download the image instead.")


def test_share_hands_over_the_file_under_its_name(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page("about:blank")
    page.add_init_script(
        """navigator.canShare = ({ files }) => files.every((one) => one instanceof File);
        navigator.share = async ({ files: [one] }) => { window.shared = [one.name, one.type, one.size]; };"""
    )
    page.goto(gateway.url)
    choose(page, file("butterfly.png"))
    start(page)
    await_state(page, "done")

    page.get_by_role("button", name="Share butterfly.png").click()
    expect(page.locator(".job-state")).to_have_text("Shared.")

    expected = ["butterfly_compact_x4.png", "image/png", len(gateway.api(BUTTERFLY))]
    assert page.evaluate("shared") == expected


def test_zip_has_every_result_byte_for_byte(page: Page, gateway: ScriptedGateway) -> None:
    choose(page, file("a.png"), file("b.png", HARBOUR), file("a.png", HARBOUR))
    expect(page.locator("#zip")).to_be_hidden()
    start(page)
    await_state(page, "done", 2)
    expect(page.locator("#zip")).to_be_visible()

    with page.expect_download() as download:
        page.click("#zip")

    with zipfile.ZipFile(Path(download.value.path())) as archive:
        assert archive.testzip() is None
        found = {name: archive.read(name) for name in archive.namelist()}
    harbour = gateway.api(HARBOUR)
    assert found == {
        "a_compact_x4.png": gateway.api(BUTTERFLY),
        "b_compact_x4.png": harbour,
        "a_compact_x4 (2).png": harbour,
    }


def test_options_are_remembered_and_quality_shows_only_where_it_counts(page: Page, gateway: ScriptedGateway) -> None:
    expect(page.locator("#quality")).to_be_hidden()
    page.get_by_label("WebP: small files").check()
    page.locator("#quality").fill("71")
    choose_variant(page, "compact_x2")

    page.reload()

    expect(page.get_by_label("WebP: small files")).to_be_checked()
    expect(page.locator("#quality")).to_have_value("71")
    expect(page.locator("input[value=compact_x2]")).to_be_checked()
    page.goto(f"{gateway.url}?variant=compact_x4")
    expect(page.locator("input[value=compact_x4]")).to_be_checked()


def test_jpeg_is_suggested_for_jpegs_only_until_a_format_is_chosen(page: Page, gateway: ScriptedGateway) -> None:
    choose(page, file("photo.jpg", SMALL_JPEG, "image/jpeg"))
    await_state(page, "ready")
    expect(page.locator("input[value=jpeg]")).to_be_checked()
    choose(page, file("drawing.png"))
    await_state(page, "ready", 1)
    expect(page.locator("input[value=png]")).to_be_checked()
    expect(page.locator("#format-hint")).to_be_hidden()

    page.get_by_label("JPEG: small files").check()
    page.locator(".job-remove").nth(0).click()
    start(page)
    await_state(page, "done")

    assert gateway.script.fields[-1]["format"] == "jpeg"
    with page.expect_download() as download:
        page.click(".job-save")
    with Image.open(BytesIO(Path(download.value.path()).read_bytes())) as image:
        assert image.format == "JPEG"

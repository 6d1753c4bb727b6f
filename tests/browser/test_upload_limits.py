"""The page rejects files before sending anything: by type, bytes, pixels, sides and size of the result."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from testing import images
from testing.browser.page_states import await_state, choose, file, start
from testing.browser.scripted_gateway import ScriptedGateway

PHOTO = images.draw_photo(30, 41)


def saved_as(format_: str, size: tuple[int, int], mode: str = "RGB", **options: object) -> bytes:
    target = BytesIO()
    Image.new(mode, size, None).save(target, format_, **options)
    return target.getvalue()


SIZES = {
    "PNG": images.encode_png(PHOTO),
    "JPEG": images.encode_jpeg(PHOTO),
    "JPEG, progressive": images.encode_jpeg(PHOTO, progressive=True),
    "JPEG behind 200 kB of metadata": images.encode_jpeg(PHOTO, exif=b"Exif\0\0" + bytes(60_000)),
    "WebP": saved_as("WEBP", (41, 30)),
    "WebP, lossless": saved_as("WEBP", (41, 30), lossless=True),
    "WebP with alpha": saved_as("WEBP", (41, 30), "RGBA"),
}


def test_size_is_read_from_each_formats_header(page: Page) -> None:
    choose(page, *(file(f"{kind}.bin", data, "application/octet-stream") for kind, data in SIZES.items()))

    for index in range(len(SIZES)):
        await_state(page, "ready", index)
    shown_sizes = page.locator(".job-size").all_text_contents()
    assert [text.partition("\N{NO-BREAK SPACE}pixels")[0] for text in shown_sizes] == [
        f"{kind.split(',')[0].split()[0]}, 41 × 30" for kind in SIZES
    ]


REFUSED = {
    "empty": (b"", "The file is empty. Choose another one."),
    "text": (b"words", "This is not a supported image. Save it as JPEG, PNG or WebP and choose it again."),
    "pdf": (b"%PDF-1.7", "This is a PDF. Save it as JPEG, PNG or WebP and choose it again."),
    "tiff": (saved_as("TIFF", (501, 500)), "The image has 501 × 500 = 250,500 pixels; the maximum is 250,000."),
    "bytes": (
        SIZES["PNG"] + bytes(400_000),
        "the maximum is 400,000 (400 kB). Make it smaller, or save it as JPEG or WebP.",
    ),
    "bytes and pixels": (
        images.encode_png(images.draw_grey(501, 500)) + bytes(400_000),
        "the maximum is 400,000 (400 kB). The image has 500 × 501 = 250,500 pixels; the maximum is 250,000.",
    ),
    "pixels": (
        images.encode_png(images.draw_grey(501, 500)),
        "The image has 500 × 501 = 250,500 pixels; the maximum is 250,000. Shrink it or crop it.",
    ),
    "side": (
        saved_as("PNG", (1_001, 2)),
        "The image has 1,001 × 2 pixels; the maximum per side is 1,000. Shrink it or crop it.",
    ),
}


def test_invalid_files_are_rejected_and_not_sent(page: Page, gateway: ScriptedGateway) -> None:
    choose(page, *(file(f"{kind}.jpg", data, "image/jpeg") for kind, (data, _) in REFUSED.items()))

    for index, (_, sentence) in enumerate(REFUSED.values()):
        await_state(page, "rejected", index)
        expect(page.locator(".job-state").nth(index)).to_contain_text(sentence)
    expect(page.locator("#announcements")).to_contain_text(".jpg: ")  # for screen readers
    assert gateway.script.uploads == []


def test_missing_file_is_reported_by_the_browser(page: Page, gateway: ScriptedGateway) -> None:
    start(page)

    assert page.evaluate("document.querySelector('#image').validity.valueMissing")
    expect(page.locator(".job")).to_have_count(0)
    assert gateway.script.uploads == []


@pytest.mark.parametrize(("mode", "kind"), [("RGB", "WEBP"), ("RGBA", "WEBP with transparency")])
def test_result_over_the_formats_memory_is_rejected(page: Page, mode: str, kind: str) -> None:
    name = "maxPixelsTransparent" if mode == "RGBA" else "maxPixels"
    page.evaluate(f"document.querySelector('input[value=webp]').dataset.{name} = 999")
    page.get_by_label("WebP: small files").check()
    choose(page, file("square.png", saved_as("PNG", (8, 8), mode)))
    start(page)

    await_state(page, "failed")
    expect(page.locator(".job-state")).to_have_text(
        f"The result would have 32 × 32 = 1,024 pixels; the maximum for {kind} is 999. Choose PNG."
    )


def test_result_over_the_formats_sides_is_rejected(page: Page) -> None:
    page.evaluate("document.querySelector('input[value=webp]').dataset.maxSide = 3999")
    page.get_by_label("WebP: small files").check()
    choose(page, file("wide.png", saved_as("PNG", (1_000, 2))))
    start(page)

    await_state(page, "failed")
    expect(page.locator(".job-state")).to_have_text(
        "The result would have 4,000 × 8 pixels; the maximum per side for WEBP is 3,999. Choose PNG."
    )
    page.get_by_label("PNG: lossless").check()
    page.click(".job-retry")
    await_state(page, "done")

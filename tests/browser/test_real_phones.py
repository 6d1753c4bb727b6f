"""Phones on a slow network, with the real Triton: the front in dark mode, its frame, and 200 kB/s each way."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Frame, Page, expect

from testing.browser.axe import check_axe
from testing.browser.chromium import REFUSALS, MakePage
from testing.browser.front import FrontServer
from testing.browser.labels import broken_labels
from testing.browser.page_states import file, press_in_front
from testing.images import draw_photo, encode_jpeg, encode_png
from testing.stack import Stack, await_up, start_stack, stop_stack

WIDTHS = (320, 360, 430)
BYTES_PER_S = 200_000
# An image of 90,000 bytes and its result of more than a megabyte: transfers of half a second and several seconds.
NOISE = encode_png(np.random.default_rng(5).integers(0, 256, (160, 180, 3), dtype=np.uint8))
# Under a load of 20 on two cores the real stack needs over 82 s for an image.
DONE_MS = 300_000
HEAR = """() => {
  window.heard = [];
  const hear = () => {
    for (const state of document.querySelectorAll(".job-state")) window.heard.push(state.textContent);
  };
  new MutationObserver(hear).observe(document.getElementById("jobs"), { childList: true, subtree: true });
}"""
SHARE = re.compile(r"(Sending|Receiving): [\d.]+ of [\d.]+\s[kM]B\.")


class FramedStack:
    """A running service and the front that embeds it."""

    def __init__(self, folder: Path) -> None:
        self.front = FrontServer(folder / "front")
        self.stack: Stack = start_stack(
            folder / "state", SUPERRES_FRAME_ANCESTORS=f"'self' {self.front.origin}", SUPERRES_ANONYMOUS_REQUESTS="none"
        )
        self.front.point_at(self.stack.url + "/")

    def api(self, upload: bytes, query: str = "") -> bytes:
        with self.stack.post(upload, f"?variant=auto{query}") as response:
            data: bytes = response.read()
            return data


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FramedStack]:
    running = FramedStack(tmp_path_factory.mktemp("phones"))
    await_up(running.stack)
    yield running
    running.front.close()
    assert stop_stack(running.stack) == 0, running.stack.log()


def framed(page: Page) -> Frame:
    expect(page.locator("#frame")).to_have_attribute("data-state", "here")
    frame = page.frame(url=lambda url: "127.0.0.1" in url)
    assert frame is not None
    expect(frame.locator("html")).to_have_class(re.compile(r"\bis-live\b"))
    return frame


def throttle(page: Page, target: Page | Frame) -> None:
    """Limit the network of a page, or of a frame of another site, which has a process of its own."""
    limits = {"downloadThroughput": BYTES_PER_S, "uploadThroughput": BYTES_PER_S}
    network = page.context.new_cdp_session(target)
    network.send("Network.enable")
    network.send("Network.emulateNetworkConditions", {"offline": False, "latency": 100, **limits})


@pytest.fixture(params=WIDTHS)
def phone(request: pytest.FixtureRequest, make_page: MakePage, service: FramedStack) -> tuple[Page, Frame]:
    """The front on a phone in dark mode, with a slow network, and its frame."""
    options: dict[str, Any] = {"viewport": {"width": request.param, "height": 640}, "has_touch": True}
    page = make_page("about:blank", is_mobile=True, color_scheme="dark", refusals=REFUSALS, **options)
    throttle(page, page)
    page.goto(service.front.origin)
    frame = framed(page)
    throttle(page, frame)
    return page, frame


def upload(frame: Frame, *files: Any) -> None:
    """Choose images, and upscale them by the button in the row."""
    frame.set_input_files("#image", list(files))
    for index in range(len(files)):
        expect(frame.locator(".job").nth(index)).to_have_attribute("data-state", "ready")
    expect(frame.locator(".job-go:visible")).to_be_in_viewport(ratio=1)
    press_in_front(frame, ".job-go:visible")
    for index in range(len(files)):
        expect(frame.locator(".job").nth(index)).to_have_attribute("data-state", "done", timeout=DONE_MS)


def check_phone(page: Page, frame: Frame) -> None:
    """Check labels, width and accessibility of the front and of its frame."""
    for one in (page, frame):
        assert broken_labels(one) == []
        assert one.evaluate("document.documentElement.scrollWidth <= innerWidth")
        check_axe(one)


def test_transfers_and_result(phone: tuple[Page, Frame], service: FramedStack) -> None:
    page, frame = phone
    expect(page.get_by_role("slider").first).to_be_attached()
    page.locator("#gateway").scroll_into_view_if_needed()
    check_phone(page, frame)
    frame.evaluate(HEAR)

    upload(frame, file("noise.png", NOISE))

    heard = frame.evaluate("window.heard")
    assert {one[1] for text in heard if (one := SHARE.fullmatch(text))} == {"Sending", "Receiving"}, heard
    assert not [text for text in heard if re.search("asleep|lost|slow", text)]
    check_phone(page, frame)
    with page.expect_download(timeout=DONE_MS) as download:
        press_in_front(frame, ".job-save")
    assert Path(download.value.path()).read_bytes() == service.api(NOISE)


@pytest.mark.parametrize("width", WIDTHS)
def test_reload_finds_the_result_until_it_is_removed(width: int, make_page: MakePage, service: FramedStack) -> None:
    """On the page itself: browsers may block the storage of a frame from another site."""
    viewport = {"width": width, "height": 640}
    page = make_page("about:blank", viewport=viewport, has_touch=True, is_mobile=True, color_scheme="dark")
    throttle(page, page)
    page.goto(service.stack.url)
    page.set_input_files("#image", [file("butterfly.png")])
    expect(page.locator(".job")).to_have_attribute("data-state", "ready")
    page.locator(".job-go:visible").press("Enter")
    expect(page.locator(".job")).to_have_attribute("data-state", "done", timeout=DONE_MS)
    check_axe(page)

    page.once("dialog", lambda dialog: dialog.accept())
    page.reload()
    expect(page.locator(".job")).to_have_attribute("data-state", "done", timeout=DONE_MS)
    expect(page.locator(".job-name")).to_have_text("butterfly.png")
    url = page.evaluate("JSON.parse(sessionStorage.getItem('superres.results'))[0].result.url")
    with page.expect_request_finished(lambda request: request.method == "DELETE", timeout=DONE_MS):
        page.locator(".job-remove").press("Enter")
    expect(page.locator(".job")).to_have_count(0)
    assert page.request.get(f"{service.stack.url}{url}").status in (404, 410)


def test_formats_sizes_and_all_results_as_zip(phone: tuple[Page, Frame]) -> None:
    page, frame = phone
    jpeg = encode_jpeg(draw_photo(60, 80))
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="48" height="32"><rect width="9" height="9"/></svg>'
    frame.set_input_files("#image", [file("photo.jpg", jpeg, "image/jpeg")])
    expect(frame.locator("#format-hint")).to_contain_text("JPEG is selected because your upload is one.")
    frame.locator("input[name=scale][value='2']").check()
    expect(frame.locator(".job-state")).to_contain_text("Becomes 160 × 120 pixels.")
    press_in_front(frame, ".job-go:visible")
    expect(frame.locator(".job")).to_have_attribute("data-state", "done", timeout=DONE_MS)

    frame.set_input_files("#image", [file("drawing.svg", svg, "image/svg+xml")])
    expect(frame.locator(".job").nth(1)).to_have_attribute("data-state", "ready")
    expect(frame.locator(".job-notes").nth(1)).to_contain_text("Converted from")
    press_in_front(frame, ".job-go:visible")
    expect(frame.locator(".job").nth(1)).to_have_attribute("data-state", "done", timeout=DONE_MS)
    check_phone(page, frame)

    with page.expect_download(timeout=DONE_MS) as download:
        press_in_front(frame, "#zip")
    with zipfile.ZipFile(Path(download.value.path())) as archive:
        assert archive.testzip() is None
        first, second = archive.namelist()
        assert (Path(first).suffix, Path(second).suffix) == (".jpeg", ".png")
        with Image.open(BytesIO(archive.read(first))) as image:
            assert (image.size, image.format) == ((160, 120), "JPEG")
        with Image.open(BytesIO(archive.read(second))) as image:
            assert image.size == (2048, 1366), "an SVG is drawn at 1024 pixels"


def test_too_large_image_is_shrunk_and_refusals_are_explained(phone: tuple[Page, Frame]) -> None:
    page, frame = phone
    large = encode_png(np.full((3_000, 4_000, 3), 128, np.uint8))
    frame.set_input_files("#image", [file("scan.png", large)])
    expect(frame.locator(".job")).to_have_attribute("data-state", "rejected")
    expect(frame.locator(".job-state")).to_contain_text("4,000 × 3,000 = 12,000,000 pixels; the maximum at 4× is")
    expect(frame.get_by_role("button", name="Crop")).to_be_visible()
    check_phone(page, frame)

    frame.get_by_role("button", name=re.compile("^Shrink to ")).press("Enter")
    expect(frame.locator(".job")).to_have_attribute("data-state", "ready")
    expect(frame.locator(".job-notes")).to_contain_text("Shrunk from 4,000 × 3,000 pixels")


def test_docs_of_the_api(make_page: MakePage, service: FramedStack) -> None:
    for width in WIDTHS:
        viewport = {"width": width, "height": 640}
        page = make_page("about:blank", viewport=viewport, has_touch=True, is_mobile=True, color_scheme="dark")
        throttle(page, page)
        page.goto(f"{service.stack.url}/docs")
        page.locator("summary").first.press("Enter")
        expect(page.locator("details[open]").first).to_be_visible()
        check_axe(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width

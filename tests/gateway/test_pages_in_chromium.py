"""The pages as people meet them, in a real Chromium: without JavaScript, by keyboard, on a phone, in a frame."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

from tests import builders
from tests.gateway.conftest import Served, serving
from tests.gateway.requests import PHOTO, read_picture

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
ENLARGED = builders.draw_photo(24, 32).repeat(4, 0).repeat(4, 1)
TIMES = "\N{MULTIPLICATION SIGN}"
OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with (
        socket.create_server(("127.0.0.1", 0)) as probe,
        serving(
            tmp_path_factory.mktemp("site"),
            SUPERRES_MAX_UPLOAD_BYTES="1000000", SUPERRES_MAX_PIXELS="100000",
            SUPERRES_FRAME_ANCESTORS=f"http://127.0.0.1:{probe.getsockname()[1]}",
        ) as server,
    ):  # fmt: skip
        server.front_port = probe.getsockname()[1]
        probe.close()
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser, site: Served) -> Iterator[OpenPage]:
    """Return a function that opens the form; what the console complains of fails the test at its end."""
    complaints: list[str] = []
    contexts = []

    def open_(**options: Any) -> Page:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"http://127.0.0.1:{site.port}/")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert [text for text in complaints if "responded with a status of 4" not in text] == []


def choose(page: Page, data: bytes = PHOTO, name: str = "photo.png") -> None:
    page.set_input_files("#image", {"name": name, "mimeType": "image/png", "buffer": data})


def make(page: Page) -> None:
    page.click("button[type=submit]")
    page.wait_for_selector("#compare")


@pytest.mark.parametrize("java_script_enabled", [True, False])
def test_a_picture_is_chosen_made_seen_and_saved(
    open_page: OpenPage, tmp_path: Path, *, java_script_enabled: bool
) -> None:
    page = open_page(java_script_enabled=java_script_enabled)

    choose(page)
    make(page)
    page.evaluate("Promise.all([...document.images].map((image) => image.decode()))")
    with page.expect_download() as download:
        page.click("a[download]")

    assert download.value.suggested_filename == "photo_compact_x4.png"
    download.value.save_as(tmp_path / "saved.png")
    assert np.array_equal(read_picture((tmp_path / "saved.png").read_bytes()), ENLARGED)
    assert page.locator("input[type=range]").count() == java_script_enabled
    assert page.get_by_text("Before").is_visible()
    assert page.get_by_text("After", exact=True).is_visible()


def test_the_slider_moves_by_keyboard_and_uncovers_the_result(open_page: OpenPage) -> None:
    page = open_page()
    choose(page)
    make(page)

    page.locator("input[type=range]").focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")

    assert page.locator("input[type=range]").get_attribute("aria-label")
    assert page.evaluate("document.getElementById('compare').style.getPropertyValue('--at')") == "40%"
    box, line = page.locator("#compare").bounding_box(), page.locator(".line").bounding_box()
    assert box is not None
    assert line is not None
    assert abs((line["x"] - box["x"]) / box["width"] - 0.4) < 0.02


def test_the_form_is_filled_and_sent_by_keyboard_alone(open_page: OpenPage) -> None:
    page = open_page()
    choose(page)

    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.id || document.activeElement.name || document.activeElement.type")
        )
        if reached[-1] == "submit":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("#compare")

    assert [name for name in reached if name in ("image", "variant", "format", "quality", "submit")] == [
        "image", "variant", "format", "quality", "submit",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes(1_000_001), "1,000,001 bytes; 1,000,000 is the limit"),
        (b"", "is empty"),
        (builders.encode_png(builders.draw_photo(400, 400)), f"400 {TIMES} 400 = 160,000 pixels; 100,000 is the limit"),
    ],
)
def test_limits_are_checked_before_the_upload(open_page: OpenPage, data: bytes, words: str) -> None:
    page = open_page()

    choose(page, data)

    page.locator("#chosen.is-wrong").wait_for()
    assert words in page.inner_text("#chosen")
    page.click("button[type=submit]")
    assert page.locator("#form").is_visible(), "a form that is wrong must not be sent"


def test_a_right_picture_after_a_wrong_one_is_described_and_counts(open_page: OpenPage) -> None:
    page = open_page()
    choose(page, b"")
    page.locator("#chosen.is-wrong").wait_for()

    choose(page)

    page.get_by_text(f"32 {TIMES} 24 pixels").wait_for()
    make(page)


def test_a_dropped_picture_is_taken(open_page: OpenPage) -> None:
    page = open_page()
    transfer = page.evaluate_handle(
        """(bytes) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], 'dropped.png', {type: 'image/png'}));
            return transfer;
        }""",
        list(PHOTO),
    )

    page.dispatch_event(".drop", "drop", {"dataTransfer": transfer})

    page.get_by_text(f"dropped.png, 32 {TIMES} 24").wait_for()
    make(page)


def test_without_javascript_an_upload_over_the_limit_ends_on_a_page_in_words(open_page: OpenPage) -> None:
    """The browser sends all of it before it reads an answer: the gateway must let it."""
    page = open_page(java_script_enabled=False)
    choose(page, bytes(1_900_000))

    page.click("button[type=submit]")

    page.get_by_text("The upload has too many bytes").wait_for()
    assert "1,000,000" not in page.inner_text("h1")
    assert "is the limit" in page.inner_text("main")


def test_what_the_server_refuses_is_a_page_in_words_with_a_way_back(open_page: OpenPage) -> None:
    page = open_page()
    choose(page, b"I am a picture, believe me.", "text.png")

    page.click("button[type=submit]")
    page.get_by_text("This is not a JPEG, PNG or WebP").wait_for()
    page.click("text=Back to the form")

    page.wait_for_selector("#form")


@pytest.mark.parametrize("width", [320, 390, 1_200])
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_nothing_is_cut_off_at_any_width(open_page: OpenPage, width: int, color_scheme: str) -> None:
    page = open_page(viewport={"width": width, "height": 800}, color_scheme=color_scheme)
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) == 0

    choose(page, name="a" * 120 + ".png")
    assert page.evaluate(overflow) == 0
    make(page)
    assert page.evaluate(overflow) == 0


class Front(BaseHTTPRequestHandler):
    """A page of another origin that shows the gateway in a sandboxed frame."""

    gateway_port = 0

    def do_GET(self) -> None:
        sandbox = "allow-scripts allow-forms allow-downloads allow-same-origin"
        frame = f'<iframe sandbox="{sandbox}" src="http://127.0.0.1:{self.gateway_port}/">'
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(f"<!doctype html>{frame}</iframe>".encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        del format, args


@pytest.mark.parametrize("is_allowed", [True, False])
def test_the_form_works_in_a_frame_of_the_front_and_of_nobody_else(
    browser: Browser, site: Served, *, is_allowed: bool
) -> None:
    front_port = site.front_port if is_allowed else 0
    Front.gateway_port = site.port
    with ThreadingHTTPServer(("127.0.0.1", front_port), Front) as front:
        threading.Thread(target=front.serve_forever, daemon=True).start()
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{front.server_address[1]}/")
        frame = page.frame_locator("iframe")
        try:
            if is_allowed:
                frame.locator("#image").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": PHOTO})
                frame.locator("button[type=submit]").click()
                frame.locator("#compare").wait_for()
            else:
                with pytest.raises(Error):
                    frame.locator("#form").wait_for(timeout=2_000)
        finally:
            context.close()
            front.shutdown()

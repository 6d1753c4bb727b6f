"""Takes the screenshots docs/images/page-*.webp: `python -m testing.browser.screenshots FOLDER [NAME...]`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

from gateway.backend.interface import Band
from gateway.cancellation import CancelToken
from preprocessing.codec import Pixels
from swinir.inference.torch_engine import TorchEngine
from swinir.inference.whole_image import restore_image
from swinir.zoo import find_variant
from testing.backend import FakeBackend, cut_in_two
from testing.browser.chromium import DESKTOP, FLAGS, PHONE, find_chromium
from testing.browser.front import FrontServer
from testing.browser.page_states import HARBOUR, STATES, file, previews
from testing.browser.scripted_gateway import Script, ScriptedGateway

DARK: dict[str, Any] = {"color_scheme": "dark"}
PHONE_OPTIONS: dict[str, Any] = {"viewport": PHONE, "has_touch": True, "is_mobile": True, "device_scale_factor": 1.5}
REACH = {**STATES, "preview": previews}
SHOTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in STATES if name != "asleep"},
    "phone-preview": ("preview", PHONE_OPTIONS),
    "dark-done": ("done", DARK),
    "dark-several": ("several", DARK),
    "phone-idle": ("asleep", PHONE_OPTIONS),
    "phone-grows": ("grows", PHONE_OPTIONS),
    "phone-done": ("done", PHONE_OPTIONS),
}
TALL = {"width": 1180, "height": 3_400}
"""Tall enough for the whole iframe: the browser paints only the part on the screen."""
QUALITY = 88
MAX_PX = 2_500
"""Maximum height of a screenshot; the rest of the page is the same in all of them."""


def save(shot: bytes, path: Path) -> None:
    """Write a screenshot as WebP, a fifth of the size of a PNG. A palette would change the page's colours."""
    with Image.open(BytesIO(shot)) as image:
        seen = image.convert("RGB").crop((0, 0, image.width, min(image.height, MAX_PX)))
        seen.save(path, quality=QUALITY, method=6)


class Restoring(FakeBackend):
    """Upscales with the shipped weights, so that the screenshots show real results."""

    def __init__(self) -> None:
        super().__init__()
        self._engine = TorchEngine()
        self._results: dict[tuple[bytes, str], Pixels] = {}

    def upscale_bands(
        self, pixels: Pixels, variant: str, *, deadline: float, request_id: str, cancel_token: CancelToken
    ) -> Iterator[Band]:
        """Yield the whole image as two bands."""
        del deadline, request_id, cancel_token
        if (result := self._results.get((pixels.tobytes(), variant))) is not None:
            yield from cut_in_two(result)
            return
        result = restore_image(self._engine, pixels, find_variant(variant))
        self._results[pixels.tobytes(), variant] = result
        yield from cut_in_two(result)


def take(folder: Path, names: list[str]) -> None:
    """Bring the page into each state and write a screenshot."""
    folder.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=60_000)  # the first result of each variant takes seconds on a busy machine
    with tempfile.TemporaryDirectory() as state, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        front = FrontServer(Path(state) / "front")
        gateway = ScriptedGateway(
            Path(state),
            frame_ancestors=f"'self' {front.origin}",
            max_pixels=250_000,
            max_side=1_000,
            anonymous_requests="",
            client_requests="",
            upscaler=Restoring(),
        )
        front.point_at(gateway.url)
        for name, (reach, options) in SHOTS.items():
            if not names or name in names:
                gateway.script = Script()
                page = _open(browser, gateway.url, options)
                REACH[reach](page, gateway)
                page.wait_for_timeout(400)
                save(page.screenshot(full_page=reach != "lens"), folder / f"page-{name}.webp")
                gateway.script.open("end")
                page.context.close()
        if not names or "no-script" in names:
            page = _open(browser, gateway.url, {"java_script_enabled": False})
            save(page.screenshot(full_page=True), folder / "page-no-script.webp")
            page.set_input_files("#image", [file("harbour.png", HARBOUR)])
            page.click("#go")
            page.wait_for_selector(".pair")
            save(page.screenshot(full_page=True), folder / "page-no-script-result.webp")
        for name, options in (
            ("front", {"viewport": TALL}),
            ("front-dark", {**DARK, "viewport": TALL}),
            ("front-de", {"viewport": {**TALL, "height": 2_200}, "locale": "de-DE"}),
            ("front-phone", {**PHONE_OPTIONS, "viewport": {**PHONE, "height": 1_700}}),
        ):
            if not names or name in names:
                gateway.script = Script()
                page = _open(browser, front.origin, options)
                page.frame_locator("iframe").locator("#go").wait_for()
                page.wait_for_timeout(800)
                save(page.screenshot(), folder / f"page-{name}.webp")  # full_page would change the layout of the iframe
        browser.close()
        gateway.close()
        front.close()


def _open(browser: Browser, url: str, options: dict[str, Any]) -> Any:
    context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.goto(url)
    return page


if __name__ == "__main__":
    take(Path(sys.argv[1]), sys.argv[2:])

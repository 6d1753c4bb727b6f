"""Takes the pictures of docs/images/page-*.png: `python -m tests.browser.screenshots FOLDER [NAME...]`."""

from __future__ import annotations

import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from tests.browser.conftest import DESKTOP, FLAGS, PHONE, FrontServer, find_chromium
from tests.browser.scripted import Script, ScriptedGateway
from tests.browser.states import HARBOUR, STATES, file

DARK: dict[str, Any] = {"color_scheme": "dark"}
PHONE_OPTIONS: dict[str, Any] = {"viewport": PHONE, "has_touch": True, "is_mobile": True, "device_scale_factor": 1.5}
SHOTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in STATES if name != "asleep"},
    "dark-done": ("done", DARK),
    "dark-several": ("several", DARK),
    "phone-idle": ("asleep", PHONE_OPTIONS),
    "phone-grows": ("grows", PHONE_OPTIONS),
    "phone-done": ("done", PHONE_OPTIONS),
}
TALL = {"width": 1180, "height": 3_400}
"""A frame's page is painted as far as it is on the screen."""
COLOURS = 128
MOST_PX = 2_500
"""Of a picture's height: what comes below is the same in all of them."""


def save(shot: bytes, path: Path) -> None:
    """Write a screenshot with a palette: a third of the size, no difference that matters in documentation."""
    with Image.open(BytesIO(shot)) as image:
        seen = image.convert("RGB").crop((0, 0, image.width, min(image.height, MOST_PX)))
        seen.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def take(folder: Path, wanted: list[str]) -> None:
    """Bring the page into each state and write what it looks like."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as state, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        front = FrontServer(Path(state) / "front")
        gateway = ScriptedGateway(
            Path(state), frame_ancestors=f"'self' {front.origin}", max_pixels=250_000, max_side=1_000,
            anonymous_requests="", client_requests="",
        )  # fmt: skip
        front.point_at(gateway.url)
        for name, (reach, options) in SHOTS.items():
            if not wanted or name in wanted:
                gateway.script = Script()
                page = _open(browser, gateway.url, options)
                STATES[reach](page, gateway)
                page.wait_for_timeout(400)
                save(page.screenshot(full_page=reach != "lens"), folder / f"page-{name}.png")
                gateway.script.open("end")
                page.context.close()
        if not wanted or "no-script" in wanted:
            page = _open(browser, gateway.url, {"java_script_enabled": False})
            save(page.screenshot(full_page=True), folder / "page-no-script.png")
            page.set_input_files("#image", [file("harbour.png", HARBOUR)])
            page.click("#go")
            page.wait_for_selector(".pair")
            save(page.screenshot(full_page=True), folder / "page-no-script-result.png")
        for name, options in (
            ("front", {"viewport": TALL}),
            ("front-dark", {**DARK, "viewport": TALL}),
            ("front-phone", {**PHONE_OPTIONS, "viewport": {**PHONE, "height": 1_700}}),
        ):
            if not wanted or name in wanted:
                gateway.script = Script()
                page = _open(browser, front.origin, options)
                page.frame_locator("iframe").locator("#go").wait_for()
                page.wait_for_timeout(800)
                save(page.screenshot(), folder / f"page-{name}.png")  # full_page would lay the frame out anew
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

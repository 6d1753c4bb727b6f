"""Brings the page into each of its states, for the accessibility tests and for the screenshots in docs/."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from PIL import Image
from playwright.sync_api import Frame, Page, expect

from testing import images
from testing.browser import scripted_gateway
from testing.browser.scripted_gateway import Bands, Event, Gate, ScriptedGateway, Whole
from testing.data import ROOT, SET5

HARBOUR = (ROOT / "gateway" / "static" / "example-harbour.png").read_bytes()
BUTTERFLY = (SET5 / "x4" / "butterfly.png").read_bytes()
BROKEN = {
    "title": "The backend failed",
    "detail": "The backend failed while it upscaled this image. The image is not the cause. Try again once.",
    "request_id": "9f1c52a07be34d16",
}


def file(name: str, data: bytes = BUTTERFLY, media_type: str = "image/png") -> Any:
    """Return a file in the form that playwright uploads."""
    return {"name": name, "mimeType": media_type, "buffer": data}


def choose(page: Page, *files: Any) -> None:
    """Select files in the form's file input."""
    page.set_input_files("#image", list(files))


def press_in_front(frame: Frame, selector: str) -> None:
    """Activate a button or a link in the front's iframe with the Enter key.

    A click goes to coordinates, which the browser resolves by the last painted layout. While the front resizes the
    iframe, clicks get lost (6 of 26).
    """
    frame.locator(selector).press("Enter")


def choose_variant(page: Page, name: str) -> None:
    """Select a variant, also one that is folded away."""
    choice = page.locator(f"input[value={name}]")
    if not choice.is_visible():
        page.locator(".more summary").click()
    choice.check()


def start(page: Page) -> None:
    """Submit the form with the Enter key once the chosen files are checked: each of them moves the button."""
    expect(page.locator(".job[data-state=checking]")).to_have_count(0)
    page.locator("#go").press("Enter")


def await_state(page: Page, state: str, index: int = 0) -> None:
    """Wait until an image in the list is in a state."""
    expect(page.locator(".job").nth(index)).to_have_attribute("data-state", state)


def idle(page: Page, gateway: ScriptedGateway) -> None:
    del gateway
    expect(page.locator("html")).to_have_class(re.compile(r"\bis-live\b"))
    expect(page.locator("#backend")).to_be_visible()


def asleep(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.state = "asleep"
    page.reload()
    expect(page.locator("#state")).to_contain_text("usually takes 12 s")


def chosen(page: Page, gateway: ScriptedGateway) -> None:
    idle(page, gateway)
    choose(page, file("harbour.png", HARBOUR))
    await_state(page, "ready")


def mixes(page: Page, gateway: ScriptedGateway) -> None:
    chosen(page, gateway)
    choose_variant(page, "compact_color_denoise_25")
    page.get_by_label("Clean-up strength").fill("0.6")
    page.locator("#strength-field").scroll_into_view_if_needed()


def boots(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.plays.append((scripted_gateway.ASLEEP, scripted_gateway.booting(7), Gate("end"), Whole()))
    choose(page, file("harbour.png", HARBOUR))
    start(page)
    await_state(page, "booting")


def previews(page: Page, gateway: ScriptedGateway) -> None:
    """Show the preview that the browser computes while the backend boots. It needs two processor cores."""
    gateway.script.state = "booting"
    page.reload()
    expect(page.locator("#backend")).to_have_attribute("data-state", "booting")
    gateway.script.plays.append((scripted_gateway.booting(4), Gate("end"), Whole()))
    choose(page, file("harbour.png", HARBOUR))
    await_state(page, "ready")
    start(page)
    expect(page.locator(".growing")).to_have_attribute("data-preview", re.compile("^(64x64|128x128)$"))
    await_state(page, "booting")


def queues(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.plays.append((scripted_gateway.queued(2), Gate("end"), Whole()))
    choose(page, file("harbour.png", HARBOUR))
    start(page)
    await_state(page, "waiting")


def grows(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.plays.append((scripted_gateway.UP, Bands(1, 3, 5), Gate("end"), Whole()))
    choose(page, file("harbour.png", HARBOUR))
    start(page)
    await_state(page, "working")
    expect(page.locator(".growing")).to_have_attribute("data-rows", "720")


def done(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.extra = better_result(HARBOUR, (1600, 1200))
    choose(page, file("harbour.png", HARBOUR))
    start(page)
    await_state(page, "done")
    expect(page.locator(".compare")).to_be_visible()


def magnified(page: Page, gateway: ScriptedGateway) -> None:
    done(page, gateway)
    page.click(".lens-switch")
    box = page.locator(".compare-view").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.46, box["y"] + box["height"] * 0.68)
    expect(page.locator(".lens")).to_be_visible()


def fails(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.plays.append((scripted_gateway.UP, Bands(1, 1, 5), Event("problem", {"status": 502, **BROKEN})))
    choose(page, file("harbour.png", HARBOUR))
    start(page)
    await_state(page, "failed")


def several(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.plays += [scripted_gateway.PLAIN, (scripted_gateway.UP, Bands(1, 2, 5), Gate("end"), Whole())]
    large = images.encode_png(images.draw_photo(600, 640))
    small = (SET5 / "x4" / "bird.png").read_bytes()
    choose(
        page,
        file("butterfly.png"),
        file("harbour.png", HARBOUR),
        file("bird.png", small),
        file("scan.png", large),
        file("notes.txt", b"no picture at all", "text/plain"),
    )
    start(page)
    await_state(page, "working", 1)
    await_state(page, "rejected", 4)


STATES: Mapping[str, Callable[[Page, ScriptedGateway], None]] = {
    "idle": idle,
    "asleep": asleep,
    "chosen": chosen,
    "strength": mixes,
    "boots": boots,
    "queues": queues,
    "grows": grows,
    "done": done,
    "lens": magnified,
    "fails": fails,
    "several": several,
}


def better_result(upload: bytes, size: tuple[int, int]) -> dict[str, Any]:
    """Return a result that differs visibly from the enlarged upload, for the before/after comparison."""
    with Image.open(BytesIO(upload)) as image:
        larger = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    target = BytesIO()
    larger.save(target, "PNG", compress_level=1)
    return {"url": None, "data": base64.b64encode(target.getvalue()).decode(), "bytes": len(target.getvalue())}


def words(page: Page, index: int = 0) -> Any:
    return expect(page.locator(".job-state").nth(index))

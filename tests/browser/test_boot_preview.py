"""While the backend boots, the browser upscales the middle of the image: when, with which result, and until when."""

from __future__ import annotations

import base64
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from swinir.inference.torch_engine import TorchEngine
from swinir.inference.whole_image import restore_image
from swinir.zoo import find_variant
from testing.browser import scripted_gateway
from testing.browser.chromium import MakePage
from testing.browser.page_states import HARBOUR, await_state, choose, choose_variant, file, start
from testing.browser.scripted_gateway import Bands, Event, Gate, ScriptedGateway, Whole
from testing.data import ROOT, SET5
from training.metrics import psnr

BIRD = SET5 / "x4" / "bird.png"
"""72 x 72 pixels: one tile shows all of it."""
PREVIEW = (ROOT / "gateway" / "static" / "preview-tile.js").read_text()
PARTS = ("preview-tile.js", "preview-worker.js", "preview.wasm", ".f16")
FAST = (
    "Object.defineProperties(Navigator.prototype, {hardwareConcurrency: {get: () => 4}, deviceMemory: {get: () => 8}})"
)


def give_budget(page: Page, milliseconds: int) -> None:
    """Replace the time that the preview may compute: the real one may not suffice on a busy machine."""
    script = PREVIEW.replace("BUDGET_MS = 6_000", f"BUDGET_MS = {milliseconds}")
    assert script != PREVIEW
    page.route("**/preview-tile.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))


def open_booting(
    make_page: MakePage, gateway: ScriptedGateway, *, device: str = FAST, budget_ms: int = 600_000, **options: Any
) -> Page:
    """Return a page whose backend boots, and whose preview has this time."""
    page = make_page("about:blank", **options)
    page.add_init_script(device)
    give_budget(page, budget_ms)
    gateway.script.state = "booting"
    page.goto(gateway.url)
    expect(page.locator("#backend")).to_have_attribute("data-state", "booting")
    return page


def loaded(page: Page) -> Callable[[], set[str]]:
    """Return a function that lists which files of the preview the page has requested since."""
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    return lambda: {part for part in PARTS for address in addresses if address.endswith(part)}


def upscale(page: Page, gateway: ScriptedGateway, upload: Any, *steps: scripted_gateway.Step) -> None:
    """Upload an image whose backend boots until the gate "up"."""
    gateway.script.plays.append((scripted_gateway.booting(1.0), *steps))
    choose(page, upload)
    await_state(page, "ready")
    start(page)


def await_decision(page: Page) -> None:
    """Wait until the page has loaded the preview's script, read the upload, and so decided what to load."""
    script = urljoin(page.locator("script[type=module]").first.get_attribute("src") or "", "preview-tile.js")
    page.evaluate("async (url) => { await import(url); await document.querySelector('.job-thumb').decode(); }", script)
    page.evaluate("() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)))")


def canvas_of(page: Page) -> npt.NDArray[np.uint8]:
    """Return the pixels painted over the upload: [H, W, 4]."""
    url = page.locator(".growing-canvas").evaluate("canvas => canvas.toDataURL()")
    with Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return np.array(image.convert("RGBA"))


def no_worker_runs(page: Page) -> None:
    for worker in page.workers:
        worker.wait_for_event("close")


def test_preview_equals_the_engines_result_and_is_not_the_result(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = open_booting(make_page, gateway)
    choose_variant(page, "compact_x4")
    upscale(
        page,
        gateway,
        file("bird.png", BIRD.read_bytes()),
        Gate("up"),
        scripted_gateway.UP,
        Bands(1, 2, 2),
        Gate("end"),
        Whole(),
    )

    expect(page.locator(".growing")).to_have_attribute("data-preview", "72x72")
    shown = canvas_of(page)
    with Image.open(BIRD) as image:
        expected = restore_image(TorchEngine(), np.asarray(image.convert("RGB")), find_variant("compact_x4"))
    assert psnr(np.ascontiguousarray(shown[..., :3]), expected) >= 60
    assert (shown[..., 3] == 255).all()
    expect(page.locator(".growing-note")).to_have_text(
        "This is a preview that your browser has computed. The server's result will replace it."
    )
    await_state(page, "booting")
    expect(page.locator(".job-save")).to_be_hidden()
    no_worker_runs(page)

    gateway.script.open("up")
    expect(page.locator(".growing")).to_have_attribute("data-rows", "288")
    assert not np.array_equal(canvas_of(page), shown), "the bands of the server cover the preview"
    gateway.script.open("end")
    await_state(page, "done")
    expect(page.locator(".compare")).to_be_visible()
    expect(page.locator(".growing-note")).to_have_count(0)


def test_part_of_a_larger_image_is_framed_and_described_in_german(
    make_page: MakePage, gateway: ScriptedGateway
) -> None:
    page = open_booting(make_page, gateway, locale="de-DE")
    upscale(page, gateway, file("harbour.png", HARBOUR), Gate("up"), Whole())

    expect(page.locator(".growing")).to_have_attribute("data-preview", "128x128")
    expect(page.locator(".growing-note")).to_have_text(
        "Der eingerahmte Teil ist eine Vorschau, die Ihr Browser berechnet hat. Das Ergebnis des Servers ersetzt sie."
    )
    expect(page.locator("#announcements")).to_contain_text("eine Vorschau")
    alpha = canvas_of(page)[..., 3]
    rows, columns = np.nonzero(alpha == 255)
    edges = [rows.min(), 1200 - 1 - rows.max(), columns.min(), 1600 - 1 - columns.max()]
    expected = [4 * (300 - 112) // 2, 4 * (300 - 112) // 2, 4 * (400 - 112) // 2, 4 * (400 - 112) // 2]
    assert np.abs(np.array(edges) - expected).max() <= 5, "the middle 112 x 112 pixels, and the frame around them"
    gateway.script.open("up")


def test_backend_that_is_up_loads_no_preview(page: Page) -> None:
    requested = loaded(page)
    page.reload()
    choose(page, file("butterfly.png"))
    start(page)
    await_state(page, "done")
    page.wait_for_load_state("networkidle")

    assert requested() == set()


@pytest.mark.parametrize(
    "device",
    [
        FAST.replace("() => 4", "() => 1"),
        FAST.replace("() => 8", "() => 1"),
        f"{FAST}; Object.defineProperty(navigator.connection, 'saveData', {{get: () => true}})",
        f"{FAST}; Object.defineProperty(navigator.connection, 'effectiveType', {{get: () => '2g'}})",
        FAST + "; const ask = matchMedia; matchMedia = (one) => /reduced-data/.test(one) ? {matches: true} : ask(one)",
    ],
    ids=["one core", "1 GB of memory", "Save-Data", "2G", "prefers-reduced-data"],
)
def test_slow_device_or_saved_data_computes_nothing(make_page: MakePage, gateway: ScriptedGateway, device: str) -> None:
    page = open_booting(make_page, gateway, device=device)
    requested = loaded(page)
    choose_variant(page, "compact_x4")
    upscale(page, gateway, file("bird.png", BIRD.read_bytes()), Gate("up"), Whole())
    await_state(page, "booting")
    await_decision(page)
    gateway.script.open("up")
    await_state(page, "done")

    assert requested() == {"preview-tile.js"}


def test_transparent_image_has_no_preview(make_page: MakePage, gateway: ScriptedGateway, tmp_path: Path) -> None:
    Image.new("RGBA", (40, 40), (200, 30, 30, 120)).save(tmp_path / "glass.png")
    page = open_booting(make_page, gateway)
    requested = loaded(page)
    choose_variant(page, "compact_x4")
    upscale(page, gateway, file("glass.png", (tmp_path / "glass.png").read_bytes()), Gate("up"), Whole())
    await_state(page, "booting")
    await_decision(page)
    gateway.script.open("up")
    await_state(page, "done")

    assert requested() == {"preview-tile.js"}


def test_server_that_chooses_another_variant_removes_the_preview(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = open_booting(make_page, gateway)
    choice = {"kind": "pixel art", "variant": "nearest_x4", "alternative": "compact_x4", "sentence": "Pixel art."}
    upscale(
        page, gateway, file("bird.png", BIRD.read_bytes()), Gate("chosen"), Event("choice", choice), Gate("up"), Whole()
    )
    expect(page.locator(".growing")).to_have_attribute("data-preview", "72x72")

    gateway.script.open("chosen")
    expect(page.locator(".job-choice")).to_be_visible()
    expect(page.locator(".job-stage > *")).to_have_count(0)
    gateway.script.open("up")
    await_state(page, "done")


def test_computation_ends_when_its_time_is_over(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = open_booting(make_page, gateway, budget_ms=0)
    upscale(page, gateway, file("harbour.png", HARBOUR), Gate("up"), scripted_gateway.UP, Gate("end"), Whole())
    await_decision(page)
    no_worker_runs(page)
    expect(page.locator(".growing")).to_have_count(0)
    gateway.script.open("up")
    gateway.script.open("end")
    await_state(page, "done")

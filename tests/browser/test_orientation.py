"""An upload whose orientation the browser ignores is shown as the gateway turned it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage
from playwright.sync_api import Page, expect

from preprocessing.codec import probe
from testing import images
from testing.browser.chromium import MakePage
from testing.browser.page_states import await_state, choose, file, start
from testing.browser.scripted_gateway import UP, Bands, Event, ScriptedGateway, Whole
from testing.decoding import LIMITS
from testing.orientation_images import AS_PILLOW, EXIF, jpeg

# Four colours in a 3 x 2 grid of 16-pixel squares, so that each orientation looks different.
UPRIGHT: images.Pixels = (
    np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 0], [0, 0, 0], [255, 255, 255]]], np.uint8)
    .repeat(16, axis=0)
    .repeat(16, axis=1)
)
POINTS = [[x, y] for y in (8, 24) for x in (8, 24, 40)]

PIXELS = """async points => {
  const image = document.querySelector(".pane-before .plane");
  await image.decode();
  const { naturalWidth: width, naturalHeight: height } = image;
  const canvas = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
  canvas.drawImage(image, 0, 0);
  const colours = points.map(([x, y]) => [...canvas.getImageData(x, y, 1, 1).data].slice(0, 3));
  return [[width, height], colours];
}"""


def with_xmp(orientation: int) -> bytes:
    return images.png_with_xmp(
        images.store_for_orientation(UPRIGHT, orientation), images.xmp_with_orientation(orientation)
    )


def webp_with_exif(orientation: int) -> bytes:
    stored = images.store_for_orientation(UPRIGHT, orientation)
    return images.encode_webp(stored, exif=images.exif_with_orientation(orientation))


def png_with_exif(orientation: int) -> bytes:
    stored = images.store_for_orientation(UPRIGHT, orientation)
    return images.encode_png(stored, exif=images.exif_with_orientation(orientation))


@pytest.mark.parametrize(
    ("build", "orientation"), [*((with_xmp, number) for number in range(2, 9)), (webp_with_exif, 6), (png_with_exif, 6)]
)
def test_before_is_turned_once(
    page: Page, gateway: ScriptedGateway, build: Callable[[int], bytes], orientation: int
) -> None:
    """Chromium turns the PNG with EXIF by itself, as another browser may turn the others."""
    event = Event("orientation", {"value": orientation, "width": 48, "height": 32})
    gateway.script.plays.append((UP, event, Bands(1, 2, 2), Whole()))
    choose(page, file("turned.png", build(orientation)))
    start(page)
    await_state(page, "done")
    expect(page.locator(".pane-before .plane")).to_be_visible()

    sides, seen = page.evaluate(PIXELS, POINTS)

    assert sides == [48, 32]
    assert seen == [UPRIGHT[y, x].tolist() for x, y in POINTS]


SIZES = """async files => {
  const sizes = {};
  for (const [name, base64] of Object.entries(files)) {
    const image = new Image();
    image.src = URL.createObjectURL(new Blob([Uint8Array.from(atob(base64), c => c.charCodeAt(0))]));
    await image.decode();
    sizes[name] = [image.naturalWidth, image.naturalHeight];
  }
  return sizes;
}"""
OTHERS = {
    **{f"byte {value} after Exif": jpeg(b"Exif\0" + bytes([value]) + EXIF(6)) for value in (0, 65, 255)},
    "big-endian": jpeg(b"Exif\0\0" + EXIF(6, byte_order=">")),
    "type LONG": jpeg(b"Exif\0\0" + EXIF(6).replace(b"\x12\x01\3\0", b"\x12\x01\4\0")),
    **{f"orientation {value}": jpeg(b"Exif\0\0" + EXIF(value)) for value in (0, 1, 2, 5, 7, 8, 9)},
    "cut EXIF": jpeg(b"Exif\0\0" + EXIF(6)[:-6]),
}


def test_every_upload_is_known_to_be_turned_by_chromium_or_not(page: Page) -> None:
    files = {**AS_PILLOW, **OTHERS}
    sizes = page.evaluate(SIZES, {name: base64.b64encode(data).decode() for name, data in files.items()})
    expected = {}
    for name, data in files.items():
        upload = probe(data, LIMITS)
        stored = [upload.container.width, upload.container.height]
        expected[name] = [upload.width, upload.height] if upload.is_turned_by_browsers else stored
    assert sizes == expected


@pytest.mark.parametrize(("build", "name"), [(with_xmp, "a.png"), (webp_with_exif, "a.webp")])
def test_before_is_turned_without_javascript(make_page: MakePage, build: Callable[[int], bytes], name: str) -> None:
    page: Any = make_page(java_script_enabled=False)
    choose(page, file(name, build(6)))
    start(page)

    box = page.locator(".turned").bounding_box()

    assert box["width"] / box["height"] == pytest.approx(1.5, rel=0.05)
    shot = np.asarray(PilImage.open(BytesIO(page.locator(".turned").screenshot())).convert("RGB"))
    height, width = shot.shape[:2]
    spots = {(x, y): shot[y * height // 32, x * width // 48] for x, y in POINTS}
    assert {spot: colour.tolist() for spot, colour in spots.items()} == {
        (x, y): UPRIGHT[y, x].tolist() for x, y in POINTS
    }

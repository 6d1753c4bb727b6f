"""Formats that the server reads are sent as they are, also those that the browser cannot show."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from preprocessing.codec import UploadLimits, probe
from testing.browser.chromium import MakePage
from testing.browser.page_states import await_state, choose, file, start
from testing.browser.scripted_gateway import ScriptedGateway
from testing.data import ROOT
from testing.stack import wait_for

SIDES = (60, 40)


def gradient() -> Image.Image:
    """Return an image without edges, from black to red and green."""
    rows, columns = np.mgrid[0 : SIDES[1], 0 : SIDES[0]]
    pixels = np.stack((columns * 4, rows * 6, np.zeros_like(rows)), axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def saved(format_: str, **options: object) -> bytes:
    target = BytesIO()
    gradient().save(target, format_, **options)
    return target.getvalue()


FILES = {
    "old.gif": saved("GIF"),
    "old.bmp": saved("BMP"),
    "new.avif": saved("AVIF"),
    "scan.tif": saved("TIFF"),
    "turned.tif": saved("TIFF", tiffinfo={274: 6}),
    "packed.tiff": saved("TIFF", compression="tiff_lzw"),
    "phone.heic": (ROOT / "tests" / "data" / "heic" / "plain.heic").read_bytes(),
    "turned.heic": (ROOT / "tests" / "data" / "heic" / "exif6.heic").read_bytes(),
}
SHOWN = ("old.gif", "old.bmp", "new.avif")
"""What Chromium decodes."""


RECORD_IMAGES = """() => {
    window.drawn = [];
    const create = URL.createObjectURL;
    URL.createObjectURL = (blob) => {
      if (blob.type === "image/svg+xml") drawn.push(blob);
      return create.call(URL, blob);
    };
}"""


@pytest.mark.parametrize("name", FILES)
def test_file_is_sent_as_it_is(page: Page, gateway: ScriptedGateway, name: str) -> None:
    upload = probe(FILES[name], UploadLimits(10**6, 10**6, 10**4))
    choose(page, file(name, FILES[name], "application/octet-stream"))
    await_state(page, "ready")
    kind = {"HEIF": "HEIC"}.get(upload.format, upload.format)
    expect(page.locator(".job-size")).to_contain_text(f"{kind}, {upload.width} × {upload.height} pixels")

    start(page)
    await_state(page, "done")

    assert gateway.script.uploads == [FILES[name]]
    assert page.eval_on_selector(".job-thumb", "thumb => thumb.naturalWidth") > 0
    widths = page.eval_on_selector_all(".compare-view img", "all => all.map((image) => image.naturalWidth)")
    assert len(widths) == 2
    assert min(widths) >= upload.width, "the result or the upload is not shown"
    at = page.eval_on_selector(".compare-view", "view => view.style.getPropertyValue('--at')")
    assert at == ("" if name in SHOWN else "0%"), "the placeholder does not cover the result"


def test_file_that_the_browser_cannot_show_gets_a_placeholder_with_its_name(page: Page) -> None:
    page.evaluate(RECORD_IMAGES)
    choose(page, file("a <b> & c.tif", FILES["scan.tif"], "image/tiff"))
    await_state(page, "ready")
    # Not wait_for_function, which the page's policy forbids to evaluate a text a second time.
    wait_for(lambda: page.evaluate("drawn.length === 1 && document.querySelector('.job-thumb').complete"), "a preview")

    drawn = page.evaluate("drawn[0].text()")

    assert ">TIFF</text>" in drawn
    assert ">a &#60;b&#62; &#38; c.tif</text>" in drawn
    assert page.eval_on_selector(".job-thumb", "thumb => [thumb.naturalWidth, thumb.naturalHeight]") == [*SIDES]


def test_heic_is_refused_with_advice_if_the_server_has_no_decoder(
    make_page: MakePage, gateway: ScriptedGateway
) -> None:
    def without_heic(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=response.text().replace(" HEIC TIFF", " TIFF"))

    page = make_page("about:blank")
    page.route(gateway.url, without_heic)
    page.goto(gateway.url)
    choose(page, file("phone.heic", FILES["phone.heic"], "image/heic"))

    await_state(page, "rejected")
    expect(page.locator(".job-state")).to_contain_text(
        "This is a HEIC. Neither this service nor this browser can read it"
    )


def test_file_dialog_offers_what_the_server_reads(page: Page) -> None:
    accepted = str(page.get_attribute("#image", "accept")).split(",")

    assert {"image/jpeg", "image/png", "image/webp", "image/avif", "image/gif", "image/bmp"} <= set(accepted)
    assert {"image/tiff", ".tif", "image/heic", ".heic", "image/svg+xml"} <= set(accepted)
    expect(page.locator("#limits")).to_contain_text("JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP or GIF, up to")

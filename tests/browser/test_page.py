"""The page during an upscale: upload, backend state, arriving bands, result, several images in turn."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from testing import images
from testing.browser import scripted_gateway
from testing.browser.chromium import REFUSALS, MakePage
from testing.browser.page_states import BROKEN, BUTTERFLY, HARBOUR, await_state, choose, file, start, words
from testing.browser.scripted_gateway import Bands, Broken, Event, Gate, ScriptedGateway, Whole
from testing.data import ROOT

CANVAS_PIXELS = """points => {
  const canvas = document.querySelector(".growing-canvas");
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  return points.map(([x, y]) => [...copy.getImageData(x, y, 1, 1).data]);
}"""


def saved(page: Page, index: int = 0) -> tuple[str, bytes]:
    """Press Download; return the file's name and bytes."""
    with page.expect_download() as download:
        page.locator(".job-save").nth(index).click()
    path = download.value.path()
    return download.value.suggested_filename, Path(path).read_bytes()


def test_upload_shows_boot_queue_bands_and_the_result(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.plays.append(
        (
            scripted_gateway.ASLEEP,
            Gate("asleep"),
            scripted_gateway.booting(7),
            Gate("booting"),
            scripted_gateway.UP,
            scripted_gateway.queued(2),
            Gate("queued"),
            Bands(1, 2, 4),
            Gate("half"),
            Bands(3, 4, 4),
            Whole(),
        )
    )
    choose(page, file("my holiday.png", HARBOUR))
    start(page)

    words(page).to_have_text("The server is asleep. The first image usually takes 12 s longer.")
    gateway.script.open("asleep")
    words(page).to_contain_text("The server is starting:")
    words(page).to_contain_text("s so far, usually 12 s.")
    expect(page.locator("#backend")).to_have_text("Starting")
    gateway.script.open("booting")
    words(page).to_have_text("In the queue: 2 images are ahead of yours.")
    gateway.script.open("queued")
    words(page).to_contain_text("2 of 4 bands done")
    words(page).to_contain_text("left.")
    expect(page.locator(".growing")).to_have_attribute("data-rows", "600")
    with_band, without = page.evaluate(CANVAS_PIXELS, [[800, 300], [800, 900]])
    assert with_band[3] == 255, "the upper half must be painted before the end"
    assert without == [0, 0, 0, 0], "the lower half must not be"
    gateway.script.open("half")
    await_state(page, "done")

    name, data = saved(page)
    assert name == "my_holiday_compact_x4.png"
    assert data == gateway.api(HARBOUR)


def test_result_shows_its_facts(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.extra = {
        "notes": ["The image is animated: only the first of its 2 frames was used."],
        "seconds": 3.24,
    }
    choose(page, file("butterfly.png"))
    start(page)
    await_state(page, "done")

    expect(page.locator(".job-size")).to_have_text("64 × 64 upscaled to 256 × 256 pixels, 17 kB")
    words(page).to_have_text("Done in 3.2 s with compact_x4.")
    expect(page.locator(".job-notes li")).to_have_text(
        [
            "The image is animated: only the first of its 2 frames was used.",
            "2 tiles checked: all values are finite. Scaled back down, the result matches your upload at 41.2 dB.",
        ]
    )


def test_result_kept_from_earlier_says_so(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.extra = {"cache": "hit"}
    choose(page, file("butterfly.png"))
    start(page)

    words(page).to_have_text("Done at once: compact_x4 upscaled the same image before.")


def test_stop_and_try_again(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.plays.append((scripted_gateway.UP, Bands(1, 1, 4), Gate("never"), Whole()))
    choose(page, file("harbour.png", HARBOUR))
    start(page)
    await_state(page, "working")

    page.click(".job-stop")

    await_state(page, "stopped")
    words(page).to_contain_text("Stopped after")
    assert gateway.script.cancelled.wait(120), "the gateway must see the connection close"
    page.click(".job-retry")
    await_state(page, "done")
    assert len(gateway.script.uploads) == 2


def test_several_images_are_upscaled_in_turn(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.plays += [
        (scripted_gateway.UP, Gate("first"), Whole()),
        (scripted_gateway.UP, Event("problem", {"status": 502, **BROKEN})),
    ]
    choose(page, file("a.png"), file("b.png"), file("c.png"))
    expect(page.locator("#go")).to_have_text("Upscale 3 images")
    start(page)
    await_state(page, "waiting", 0)
    await_state(page, "ready", 1)
    assert len(gateway.script.uploads) == 1

    gateway.script.open("first")

    for index, state in enumerate(("done", "failed", "done")):
        await_state(page, state, index)
    words(page, 1).to_have_text(f"{BROKEN['title']}. {BROKEN['detail']}")
    assert [saved(page, index)[0] for index in (0, 2)] == ["a_compact_x4.png", "c_compact_x4.png"]
    page.locator(".job-retry").nth(1).click()
    await_state(page, "done", 1)


HOLD_PREVIEWS = """{
  const { set, ...rest } = Object.getOwnPropertyDescriptor(HTMLImageElement.prototype, "src");
  window.held = [];
  Object.defineProperty(HTMLImageElement.prototype, "src", {
    ...rest,
    set(url) {
      const show = () => set.call(this, url);
      if (this.matches(".job-thumb")) held.push(show); else show();
    },
  });
}"""


@pytest.mark.parametrize("orientation", [1, 6])
def test_growing_image_has_the_exif_orientation(page: Page, gateway: ScriptedGateway, orientation: int) -> None:
    photo = images.encode_jpeg_with_orientation(images.draw_photo(120, 60), orientation)
    gateway.script.plays.append((scripted_gateway.UP, Bands(1, 1, 2), Gate("half"), Bands(2, 2, 2), Whole()))
    choose(page, file("phone.jpg", photo, "image/jpeg"))
    start(page)
    await_state(page, "working")

    assert page.eval_on_selector(".growing-canvas", "canvas => [canvas.width, canvas.height]") == [240, 480]
    gateway.script.open("half")
    await_state(page, "done")
    expect(page.locator(".job-size")).to_contain_text("60 × 120 upscaled to 240 × 480 pixels")


def test_late_preview_corrects_the_orientation(make_page: MakePage, gateway: ScriptedGateway) -> None:
    """A slow browser may decode the preview, which has the EXIF orientation, only after the upscale is done."""
    page = make_page("about:blank")
    page.add_init_script(HOLD_PREVIEWS)
    page.goto(gateway.url)
    photo = images.encode_jpeg_with_orientation(images.draw_photo(120, 60), 6)
    choose(page, file("phone.jpg", photo, "image/jpeg"))
    start(page)
    await_state(page, "done")
    expect(page.locator(".job-size")).to_contain_text("120 × 60 upscaled to 240 × 480 pixels")
    page.evaluate("held.forEach((show) => show())")

    expect(page.locator(".job-size")).to_contain_text("60 × 120 upscaled to 240 × 480 pixels")


def test_variant_of_scale_1_is_described_as_such(page: Page) -> None:
    page.locator(".more summary").click()
    page.check("input[value=compact_color_denoise_25]")
    choose(page, file("butterfly.png"))
    expect(page.locator("#go")).to_have_text("Clean up")
    start(page)
    await_state(page, "done")

    expect(page.locator(".job-size")).to_have_text(re.compile(r"^64 × 64\spixels, \d+\skB$"))
    expect(page.locator(".job-notes")).not_to_contain_text("Scaled back down")


def test_finished_image_can_be_upscaled_again(page: Page, gateway: ScriptedGateway) -> None:
    choose(page, file("butterfly.png"))
    start(page)
    await_state(page, "done")
    expect(page).to_have_title(re.compile("^Done: "))

    page.get_by_label("WebP: small files").check()
    page.get_by_role("button", name="Redo butterfly.png").click()
    await_state(page, "done")

    name, data = saved(page)
    assert name == "butterfly_compact_x4.webp"
    assert data == gateway.api(BUTTERFLY, format="webp")


def test_button_is_visible_once_an_image_is_ready(make_page: MakePage) -> None:
    page = make_page(viewport={"width": 320, "height": 640})
    choose(page, file("butterfly.png"))
    await_state(page, "ready")

    expect(page.locator(".job-go")).to_be_in_viewport(ratio=1)
    expect(page.locator("html")).to_have_class(re.compile("is-row-seen"))
    page.get_by_label("WebP: small files").scroll_into_view_if_needed()
    expect(page.locator(".job-go")).not_to_be_in_viewport()
    expect(page.locator("#go")).to_be_in_viewport(ratio=1)


def test_page_shows_how_long_images_are_kept(page: Page) -> None:
    expect(page.locator(".notes")).to_contain_text("stays in memory for at most 24 hours")


def test_error_that_affects_all_stops_the_list(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page(refusals=REFUSALS)
    problem = {"title": "Too many images", "detail": "The maximum is 12 megapixels per hour. Try again in 90 s."}
    gateway.script.refusals.append((429, problem, {"Retry-After": "90"}))
    choose(page, file("a.png"), file("b.png"))
    start(page)

    await_state(page, "failed", 0)
    await_state(page, "ready", 1)
    words(page).to_have_text("Too many images. The maximum is 12 megapixels per hour. Try again in 90 s.")
    expect(page.locator(".job-notes li").first).to_have_text("Try again in 90 s.")
    expect(page.locator("#go")).to_be_enabled()
    assert len(gateway.script.uploads) == 1


def test_expired_token_is_renewed_and_the_upload_resent(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page(refusals=REFUSALS)
    stale = {"title": "The form is too old", "detail": "Send it again.", "form_token": "a-fresh-token"}
    gateway.script.refusals.append((403, stale, {}))
    choose(page, file("butterfly.png"))
    start(page)

    await_state(page, "done")
    assert len(gateway.script.tokens) == 2
    assert gateway.script.tokens[0] not in ("", "a-fresh-token")
    assert gateway.script.tokens[1] == "a-fresh-token"


@pytest.mark.parametrize("steps", [(scripted_gateway.UP, Bands(1, 1, 2), Broken()), (Broken(),)])
def test_broken_connection_is_reported(page: Page, gateway: ScriptedGateway, steps: Any) -> None:
    gateway.script.plays.append(steps)
    choose(page, file("butterfly.png"))
    start(page)

    await_state(page, "failed")
    words(page).to_have_text("The connection was lost before the result arrived. Try again.")


def test_removed_image_is_cancelled(page: Page, gateway: ScriptedGateway) -> None:
    choose(page, file("a.png"), file("b.png"))
    expect(page.locator(".job")).to_have_count(2)

    page.get_by_role("button", name="Remove a.png").click()

    expect(page.locator(".job-name")).to_have_text(["b.png"])
    start(page)
    await_state(page, "done")
    assert len(gateway.script.uploads) == 1


def test_images_can_be_dropped_pasted_or_examples(page: Page, gateway: ScriptedGateway) -> None:
    give = """([kind, bytes]) => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], "image.png", { type: "image/png" }));
      const event = kind === "paste"
        ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
        : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
      document.body.dispatchEvent(event);
    }"""
    page.get_by_role("button", name="Fur").click()
    await_state(page, "done")
    page.evaluate(give, ["dragenter", list(BUTTERFLY)])
    expect(page.locator("#drop")).to_have_class("drop is-over")
    page.evaluate(give, ["drop", list(BUTTERFLY)])
    expect(page.locator("#drop")).to_have_class("drop")
    page.evaluate(give, ["paste", list(BUTTERFLY)])
    expect(page.locator(".job-name")).to_have_text(["cat.png", "image.png", "pasted.png"])

    start(page)

    for index in range(3):
        await_state(page, "done", index)
    assert saved(page, 0)[1] == gateway.api((ROOT / "gateway/static/example-cat.png").read_bytes())


def test_format_and_quality_are_sent(page: Page, gateway: ScriptedGateway) -> None:
    page.get_by_label("WebP: small files").check()
    page.get_by_label("Quality, 1 to 100").fill("70")
    choose(page, file("butterfly.png"))
    start(page)
    await_state(page, "done")

    name, data = saved(page)
    assert name == "butterfly_compact_x4.webp"
    assert data == gateway.api(BUTTERFLY, format="webp", quality=70)


def test_large_result_comes_whole(page: Page, gateway: ScriptedGateway) -> None:
    noise = images.encode_png(images.draw_photo(300, 320))
    choose(page, file("noise.png", noise))
    start(page)
    await_state(page, "done")

    assert saved(page)[1] == gateway.api(noise)

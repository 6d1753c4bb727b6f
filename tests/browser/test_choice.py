"""`Automatic`: the page says what the image looks like, and one click upscales it with the other variant."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from testing import images
from testing.browser.chromium import PHONE, MakePage
from testing.browser.page_states import await_state, choose, choose_variant, file, start, words
from testing.browser.scripted_gateway import Bands, Gate, ScriptedGateway, Whole
from testing.content_images import draw_clean_photo, draw_pixel_art

WORN = images.encode_jpeg(draw_clean_photo(), quality=30)
LINE = ".job-choice"
OTHER = ".job-other"


def test_one_click_upscales_the_same_image_with_the_other_variant(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.plays.append((Bands(1, 1, 2), Gate("half"), Bands(2, 2, 2), Whole()))
    expect(page.locator("input[value=auto]")).to_be_checked()
    choose(page, file("old.jpg", WORN, "image/jpeg"))
    expect(page.locator(LINE)).to_be_hidden()
    start(page)
    await_state(page, "working")
    expect(page.locator(f"{LINE} span")).to_have_text("Looks like a worn JPEG (JPEG quality 30): compact_real_x4.")
    expect(page.locator(OTHER)).to_be_hidden()
    gateway.script.open("half")
    await_state(page, "done")

    page.get_by_role("button", name="Try “Clean images, line art” for old.jpg").click()

    words(page).to_contain_text("with compact_x4.")
    await_state(page, "done")
    expect(page.locator(LINE)).to_be_hidden()
    expect(page.locator(".job-name")).to_be_focused()
    assert [fields["variant"] for fields in gateway.script.fields] == ["auto", "compact_x4"]
    assert gateway.script.uploads == [WORN, WORN]

    page.get_by_role("button", name="Redo old.jpg").click()  # with the form's option again
    words(page).to_contain_text("with compact_real_x4.")
    expect(page.locator(OTHER)).to_be_visible()


def test_strength_of_another_variant_is_not_sent_with_the_other_one(page: Page, gateway: ScriptedGateway) -> None:
    choose(page, file("old.jpg", WORN, "image/jpeg"))
    start(page)
    await_state(page, "done")
    choose_variant(page, "compact_color_denoise_25")
    page.get_by_label("Clean-up strength").fill("0.5")

    page.locator(OTHER).click()

    words(page).to_contain_text("with compact_x4.")
    assert "strength" not in gateway.script.fields[-1]


def test_variant_by_name_shows_no_choice(page: Page) -> None:
    page.check("input[value=compact_x4]")
    choose(page, file("butterfly.png"))
    start(page)
    await_state(page, "done")
    expect(page.locator(LINE)).to_be_hidden()


def test_line_fits_a_phone(make_page: MakePage) -> None:
    page = make_page(viewport=PHONE)
    choose(page, file("art.png", images.encode_png(draw_pixel_art())))
    start(page)
    await_state(page, "done")
    expect(page.locator(LINE)).to_contain_text("Looks like pixel art (6 colours and hard edges): nearest_x4.")
    expect(page.locator(OTHER)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_result_page_links_to_the_form_with_the_other_variant(make_page: MakePage) -> None:
    page = make_page(java_script_enabled=False)
    choose(page, file("old.jpg", WORN, "image/jpeg"))
    start(page)
    expect(page.locator(".choice-made")).to_contain_text("Looks like a worn JPEG (JPEG quality 30): compact_real_x4.")

    page.get_by_role("link", name="Use compact_x4 instead").click()

    expect(page.locator("input[value=compact_x4]")).to_be_checked()

"""The strength of denoising and JPEG repair: a slider with a script, a number without one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from testing.browser.chromium import PHONE, REFUSALS, MakePage, press_until
from testing.browser.page_states import BUTTERFLY, await_state, choose, choose_variant, file, start, words
from testing.browser.scripted_gateway import ScriptedGateway

DENOISER = "compact_color_denoise_25"


def saved(page: Page, index: int = 0) -> tuple[str, bytes]:
    """Press Download; return the file's name and bytes."""
    with page.expect_download() as download:
        page.locator(".job-save").nth(index).click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_slider_is_shown_only_for_variants_that_keep_the_size(page: Page) -> None:
    slider = page.get_by_label("Clean-up strength")
    expect(slider).to_be_hidden()

    choose_variant(page, DENOISER)
    expect(slider).to_be_visible()
    expect(page.locator(".strength-value")).to_have_text("automatic")
    expect(page.locator("#strength-hint")).to_have_text(
        "Less strength keeps more of your image as it is. Automatic: the less damage is found, the less changes.",
        use_inner_text=True,
    )

    choose_variant(page, "compact_x4")
    expect(slider).to_be_hidden()


def test_slider_works_by_keyboard_and_is_sent(page: Page, gateway: ScriptedGateway) -> None:
    choose_variant(page, DENOISER)
    press_until(page, "#strength")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("slider", name="Clean-up strength")).to_have_attribute(
        "aria-valuetext", "95\N{NO-BREAK SPACE}%"
    )
    page.keyboard.press("Home")
    expect(page.locator(".strength-value")).to_have_text("0 %")
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".strength-value")).to_have_text("30 %")
    choose(page, file("butterfly.png"))
    start(page)
    await_state(page, "done")

    words(page).to_have_text(re.compile(rf"^Done in .+ with {DENOISER} at 30\s%\.$"))
    name, data = saved(page)
    assert name == f"butterfly_{DENOISER}_x1_strength30.png"
    assert data == gateway.api(BUTTERFLY, variant=DENOISER, strength="0.3")
    assert gateway.script.fields[-1]["strength"] == "0.3"


def test_untouched_slider_leaves_the_strength_to_the_gateway(page: Page, gateway: ScriptedGateway) -> None:
    choose_variant(page, DENOISER)
    slider = page.get_by_role("slider", name="Clean-up strength")
    expect(slider).to_have_attribute("aria-valuetext", "automatic")
    choose(page, file("butterfly.png"))
    start(page)
    await_state(page, "done")

    assert "strength" not in gateway.script.fields[-1]
    assert saved(page)[1] == gateway.api(BUTTERFLY, variant=DENOISER)


def test_slider_can_be_automatic_again(page: Page, gateway: ScriptedGateway) -> None:
    choose_variant(page, DENOISER)
    reset = page.get_by_role("button", name="Automatic again")
    expect(reset).to_be_hidden()
    page.get_by_label("Clean-up strength").fill("0.5")
    expect(page.locator(".strength-value")).to_have_text("50 %")

    reset.click()

    expect(page.locator(".strength-value")).to_have_text("automatic")
    expect(reset).to_be_hidden()
    expect(page.get_by_label("Clean-up strength")).to_be_focused()
    choose(page, file("butterfly.png"))
    start(page)
    await_state(page, "done")
    assert "strength" not in gateway.script.fields[-1]


def test_each_image_gets_the_strength_chosen_when_it_starts(page: Page, gateway: ScriptedGateway) -> None:
    choose_variant(page, DENOISER)
    page.get_by_label("Clean-up strength").fill("0.5")
    choose(page, file("a.png"), file("b.png"))
    start(page)
    for index in (0, 1):
        await_state(page, "done", index)

    page.get_by_label("Clean-up strength").fill("1")
    page.get_by_role("button", name="Redo b.png").click()
    words(page, 1).to_have_text(re.compile(rf"with {DENOISER}\.$"))
    choose_variant(page, "compact_x4")
    page.get_by_role("button", name="Redo a.png").click()
    words(page, 0).to_have_text(re.compile(r"with compact_x4\.$"))

    sent = [fields.get("strength") for fields in gateway.script.fields]
    assert sent == ["0.5", "0.5", "1", None]
    assert [saved(page, index)[0] for index in (0, 1)] == ["a_compact_x4.png", f"b_{DENOISER}_x1.png"]


def test_slider_fits_a_phone(make_page: MakePage) -> None:
    page = make_page(viewport=PHONE, has_touch=True, is_mobile=True)
    choose_variant(page, DENOISER)

    box = page.locator("#strength").bounding_box()
    assert box is not None
    assert box["height"] >= 24
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0


def test_number_works_without_javascript(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page(java_script_enabled=False)
    expect(page.locator("#strength-hint")).to_contain_text("0 to 1, for the variants that keep the size.")
    choose_variant(page, DENOISER)
    page.get_by_label("Clean-up strength").fill("0.25")
    choose(page, file("butterfly.png"))
    start(page)

    expect(page.locator(".hero")).to_contain_text(f"with {DENOISER} at 25 %.")
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("^Download butterfly")).click()
    assert download.value.suggested_filename == f"butterfly_{DENOISER}_x1_strength25.png"
    assert Path(download.value.path()).read_bytes() == gateway.api(BUTTERFLY, variant=DENOISER, strength="0.25")


def test_empty_number_leaves_the_strength_to_the_gateway(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page(java_script_enabled=False)
    choose_variant(page, DENOISER)
    choose(page, file("butterfly.png"))
    start(page)

    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("^Download butterfly")).click()
    assert Path(download.value.path()).read_bytes() == gateway.api(BUTTERFLY, variant=DENOISER)


@pytest.mark.parametrize("value", ["1.5", "-0.1", "0.123"])
def test_browser_rejects_an_invalid_number_without_javascript(
    make_page: MakePage, gateway: ScriptedGateway, value: str
) -> None:
    page = make_page(java_script_enabled=False)
    choose(page, file("butterfly.png"))
    page.get_by_label("Clean-up strength").fill(value)

    start(page)

    assert page.locator("#strength:invalid").count() == 1
    expect(page.locator("#go")).to_be_visible()
    assert gateway.script.fields == []


def test_strength_for_a_variant_that_changes_the_size_is_explained(make_page: MakePage) -> None:
    page = make_page(java_script_enabled=False, refusals=REFUSALS)
    choose_variant(page, "compact_x4")
    page.get_by_label("Clean-up strength").fill("0.5")
    choose(page, file("butterfly.png"))
    start(page)

    expect(page.locator("h1")).to_have_text("Invalid parameter")
    expect(page.locator("main")).to_contain_text(f"Choose one that keeps it ({DENOISER}, ")

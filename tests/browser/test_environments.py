"""The page by keyboard only, on a phone, without JavaScript, and in the front's iframe without cookies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Frame, Page, Playwright, Route, expect

from testing.browser.chromium import (
    PHONE,
    PHONE_WIDTHS,
    REFUSALS,
    STORAGE,
    MakePage,
    frugal_page,
    press_until,
)
from testing.browser.front import FrontServer
from testing.browser.page_states import BUTTERFLY, HARBOUR, await_state, choose, file, press_in_front, start
from testing.browser.scripted_gateway import Bands, Gate, ScriptedGateway, Whole
from testing.stack import wait_for

# Not for wait_for_function, which the pages' policy forbids to evaluate a text a second time.
FITS = "document.documentElement.scrollHeight - document.documentElement.clientHeight <= 1"


def test_page_works_by_keyboard_only(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.plays.append((Bands(1, 1, 2), Gate("never"), Whole()))
    # Registered first: a listener that is added with the key press may miss the dialog.
    page.on("filechooser", lambda chooser: chooser.set_files([file("harbour.png", HARBOUR)]))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    press_until(page, "#image")
    page.keyboard.press("Enter")
    await_state(page, "ready")
    press_until(page, "input[value=png]")
    page.keyboard.press("ArrowDown")
    press_until(page, "#go")
    page.keyboard.press("Enter")
    await_state(page, "working")
    expect(page.locator(".job-name")).to_be_focused()

    press_until(page, ".job-stop")
    page.keyboard.press("Enter")
    await_state(page, "stopped")
    expect(page.locator(".job-name")).to_be_focused()  # the button that had the focus is gone
    press_until(page, ".job-retry")
    page.keyboard.press("Space")
    await_state(page, "done")
    press_until(page, ".divider")
    page.keyboard.press("ArrowRight")
    assert page.eval_on_selector(".compare-view", "view => view.style.getPropertyValue('--at')") == "51%"
    press_until(page, ".lens-switch")
    page.keyboard.press("Space")
    expect(page.locator(".lens")).to_be_visible()
    press_until(page, ".job-save", "Shift+Tab")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "harbour_compact_x4.jpeg"


def test_focus_is_always_visible(page: Page) -> None:
    for _ in range(10):
        page.keyboard.press("Tab")
        outlined = page.evaluate(
            """() => {
              const at = document.activeElement;
              const widths = [at, at.closest(".drop")].filter(Boolean).map((one) => getComputedStyle(one));
              return widths.some((style) => (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2));
            }"""
        )
        assert outlined, page.evaluate("document.activeElement.outerHTML")


def test_phone_needs_no_horizontal_scrolling(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page(viewport=PHONE, has_touch=True, is_mobile=True)

    def overflow() -> int:
        return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))

    assert overflow() == 0
    gateway.script.plays.append((Bands(1, 1, 3), Gate("half"), Bands(2, 3, 3), Whole()))
    choose(page, file("an image with a name that is long enough to need a second line.png", HARBOUR))
    start(page)
    await_state(page, "working")
    assert overflow() == 0
    gateway.script.open("half")
    await_state(page, "done")
    assert overflow() == 0
    small = page.eval_on_selector_all(
        "button:not([hidden]), .button, .choice",
        "all => all.filter((one) => one.offsetWidth && Math.min(one.offsetWidth, one.offsetHeight) < 24).length",
    )
    assert small == 0, "every target must be 24 px at least (WCAG 2.5.8)"


@pytest.mark.parametrize("width", PHONE_WIDTHS)
def test_buttons_of_a_result_fit_a_row_of_a_phone(width: int, make_page: MakePage) -> None:
    page = make_page(viewport={"width": width, "height": 800}, has_touch=True, is_mobile=True)
    choose(page, file("harbour.png", HARBOUR))
    start(page)
    await_state(page, "done")

    broken = page.eval_on_selector_all(
        ".job-actions :is(button, .button)",
        """all => all.filter((one) => one.offsetWidth).filter((one) => {
            const range = document.createRange();
            range.selectNodeContents(one);
            return new Set([...range.getClientRects()].map((line) => Math.round(line.top))).size > 1;
        }).map((one) => one.textContent.trim())""",
    )
    assert broken == []
    tops = page.eval_on_selector_all(
        ".job-actions :is(.job-copy, .job-retry, .job-show)", "all => all.map((one) => one.getBoundingClientRect().top)"
    )
    assert len(set(tops)) == 1, "the buttons below the download need more than one row"


def test_form_works_without_javascript(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page(java_script_enabled=False)
    expect(page.locator(".example").first).to_be_hidden()
    expect(page.get_by_text("Choose an image")).to_be_visible()
    expect(page.locator("#state")).to_contain_text(re.compile("The server is (ready|asleep)"))

    choose(page, file("butterfly.png"))
    start(page)

    expect(page.locator("h1")).to_have_text("Your result")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download butterfly_compact_x4.png").click()
    assert Path(download.value.path()).read_bytes() == gateway.api(BUTTERFLY)


def test_error_is_a_page_without_javascript(make_page: MakePage) -> None:
    page = make_page(java_script_enabled=False, refusals=REFUSALS)

    choose(page, file("words.png", b"no picture"))
    start(page)

    expect(page.locator("h1")).to_have_text("Unsupported image format")
    expect(page.get_by_role("link", name="Back to the form")).to_be_visible()


@pytest.fixture
def frugal(playwright: Playwright, tmp_path: Path, front: FrontServer, gateway: ScriptedGateway) -> Iterator[Page]:
    """The front in a browser that blocks cookies and storage."""
    del gateway
    with frugal_page(playwright, tmp_path, front.origin) as page:
        yield page


def inner(page: Page) -> Frame:
    frame = page.frame(url=lambda url: "127.0.0.1" in url)
    assert frame is not None
    return frame


def test_page_works_in_the_front_without_cookies(frugal: Page, gateway: ScriptedGateway, front: FrontServer) -> None:
    page = frugal
    expect(page.locator("#frame")).to_have_attribute("data-state", "here")
    frame = inner(page)
    assert frame.evaluate(STORAGE) == ["", "SecurityError"], (
        "the browser must block both for this test to mean anything"
    )
    assert frame.evaluate("self.origin") not in (front.origin, "null")
    gateway.script.plays.append((Bands(1, 1, 2), Gate("half"), Bands(2, 2, 2), Whole()))
    before = page.eval_on_selector("#gateway", "frame => frame.offsetHeight")

    frame.set_input_files("#image", [file("harbour.png", HARBOUR)])
    expect(frame.locator(".job")).to_have_attribute("data-state", "ready")
    press_in_front(frame, "#go")
    expect(frame.locator(".job")).to_have_attribute("data-state", "working")
    gateway.script.open("half")
    expect(frame.locator(".job")).to_have_attribute("data-state", "done")

    with page.expect_download() as download:
        press_in_front(frame, ".job-save")
    assert Path(download.value.path()).read_bytes() == gateway.api(HARBOUR)
    wait_for(lambda: page.evaluate("document.querySelector('#gateway').offsetHeight") > before, "a higher frame")
    # The iframe gets the height of the page in it.
    wait_for(lambda: frame.evaluate(FITS), "the frame to fit its content")


POST_LARGE_HEIGHT = "parent.postMessage({ type: 'superres:height', height: 9999 }, '*')"
RECORD_HEIGHTS = "window.heard = []; addEventListener('message', (event) => heard.push(event.data.height));"


@pytest.fixture
def framed(make_page: MakePage, front: FrontServer) -> Page:
    """The front with the gateway in its iframe, recording the messages that it gets."""
    page = make_page("about:blank")
    page.add_init_script(RECORD_HEIGHTS)
    page.goto(front.origin)
    expect(page.locator("#frame")).to_have_attribute("data-state", "here")
    expect(page.frame_locator("#gateway").locator(".is-live")).to_be_visible()
    wait_for(lambda: inner(page).evaluate(FITS), "the frame to fit its content")
    return page


def height_after_message(page: Page, height: object) -> str:
    """Return the iframe's height once the front has received a message with that height."""
    wait_for(lambda: page.evaluate("height => heard.includes(height)", height), "the message")
    return str(page.eval_on_selector("#gateway", "frame => frame.style.height"))


def test_front_ignores_heights_of_other_origins(framed: Page, front: FrontServer) -> None:
    frame = inner(framed)
    frame.goto(front.origin.replace("localhost", "127.0.0.1") + "/front.css")
    frame.evaluate(POST_LARGE_HEIGHT)

    assert height_after_message(framed, 9999) != "9999px"


def test_front_ignores_heights_of_other_frames(framed: Page, gateway: ScriptedGateway) -> None:
    framed.evaluate(
        "src => document.body.append(Object.assign(document.createElement('iframe'), { src }))", gateway.url
    )
    wait_for(lambda: framed.evaluate("frames.length === 2"), "two frames")
    framed.frames[-1].locator("#go").wait_for()
    framed.frames[-1].evaluate(POST_LARGE_HEIGHT)

    assert height_after_message(framed, 9999) != "9999px"


def test_front_ignores_invalid_heights(framed: Page) -> None:
    inner(framed).evaluate(POST_LARGE_HEIGHT.replace("9999", "'tall'"))

    assert height_after_message(framed, "tall") != "tallpx"


def test_front_applies_heights_of_its_gateway(framed: Page) -> None:
    inner(framed).evaluate(POST_LARGE_HEIGHT)

    assert height_after_message(framed, 9999) == "9999px"


def test_page_sends_its_height_only_to_allowed_sites(
    make_page: MakePage, front: FrontServer, gateway: ScriptedGateway
) -> None:
    page = make_page("about:blank")
    page.add_init_script(RECORD_HEIGHTS)

    def allow_any_frame(route: Route) -> None:
        response = route.fetch()
        policy = re.sub("frame-ancestors[^;]*", "", response.headers["content-security-policy"])
        route.fulfill(response=response, headers={**response.headers, "content-security-policy": policy})

    page.route(re.compile(re.escape(gateway.url) + r"\?lang="), allow_any_frame)
    page.goto(front.origin.replace("localhost", "127.0.0.1"))
    page.frame_locator("#gateway").locator(".is-live").wait_for()  # its script is at work
    page.frames[1].evaluate("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")

    assert page.evaluate("heard") == []


def test_front_reports_an_unreachable_gateway(
    make_page: MakePage, front: FrontServer, gateway: ScriptedGateway
) -> None:
    page = make_page("about:blank")
    page.clock.install()
    page.route(f"{gateway.url}**", lambda route: route.fulfill(body="<p>a proxy's words</p>", content_type="text/html"))
    page.goto(front.origin)
    expect(page.locator("#words")).to_have_text("Loading the gateway.")
    page.clock.run_for(7_000)
    expect(page.locator("#words")).to_contain_text("it may be starting")
    page.clock.run_for(20_000)
    expect(page.locator("#words")).to_contain_text("The gateway does not respond.")
    expect(page.locator(".cover .gateway-link")).to_have_attribute("href", f"{gateway.url}?lang=en")

    page.unroute(f"{gateway.url}**")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#frame")).to_have_attribute("data-state", "here")


def test_other_sites_may_not_frame_the_page(make_page: MakePage, front: FrontServer) -> None:
    page = make_page("about:blank", refusals=("Failed to load resource", "Framing"))
    other_origin = front.origin.replace("localhost", "127.0.0.1")
    with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
        page.goto(other_origin)
    assert all("#image" not in frame.content() for frame in page.frames[1:])


def test_front_shows_the_form_without_javascript(make_page: MakePage, front: FrontServer) -> None:
    page = make_page(front.origin, java_script_enabled=False)

    expect(page.frame_locator("#gateway").locator("#go")).to_be_visible()
    expect(page.locator(".cover")).to_be_hidden()


def test_page_loads_only_from_the_gateway_and_sets_no_cookie(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page("about:blank")
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto(gateway.url)
    page.wait_for_load_state("networkidle")

    assert all(url.startswith(gateway.url) for url in urls), urls
    assert page.context.cookies() == []
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0


def test_transparent_upload_keeps_its_alpha(page: Page, gateway: ScriptedGateway) -> None:
    target = BytesIO()
    Image.new("RGBA", (20, 20), (200, 30, 60, 120)).save(target, "PNG")
    choose(page, file("glass.png", target.getvalue()))
    start(page)
    await_state(page, "done")

    with page.expect_download() as download:
        page.click(".job-save")
    with Image.open(download.value.path()) as image:
        assert image.mode == "RGBA"
    assert Path(download.value.path()).read_bytes() == gateway.api(target.getvalue())

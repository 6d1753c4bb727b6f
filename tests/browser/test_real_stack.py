"""The page with `superres serve` and a real Triton that is asleep at the start."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Frame, Page, Playwright, expect

from testing.browser.chromium import PHONE, STORAGE, MakePage, frugal_page, press_until
from testing.browser.front import FrontServer
from testing.browser.page_states import BUTTERFLY, HARBOUR, choose, file, press_in_front, start
from testing.images import draw_photo, encode_png
from testing.stack import (
    Stack,
    await_up,
    count_tiles,
    start_stack,
    stop_stack,
    triton_metrics,
    wait_for,
    wait_until_no_job_runs,
    wait_until_quiet,
)
from testing.triton import tiles_in_flight

# A boot and an upscale: at load 20 on two cores they took 38 s and over 82 s.
BOOT_MS = 300_000
TILES, SECONDS = "superres_tiles_total", "superres_seconds_total"
WATCH_STATES = """() => {
  window.seen = [];
  const look = () => {
    const job = document.querySelector(".job");
    if (!job) return;
    const rows = Number(document.querySelector(".growing")?.dataset.rows ?? 0);
    const last = window.seen.at(-1);
    if (last?.[0] !== job.dataset.state || last?.[1] !== rows) window.seen.push([job.dataset.state, rows]);
  };
  const everything = { subtree: true, childList: true, attributes: true };
  new MutationObserver(look).observe(document.getElementById("jobs"), everything);
}"""


class SleepyStack:
    """A running service whose Triton sleeps after two seconds, and a front that embeds it."""

    def __init__(self, folder: Path) -> None:
        self.front = FrontServer(folder / "front")
        self.stack: Stack = start_stack(
            folder / "state",
            SUPERRES_SCALE_TO_ZERO_AFTER_S="2",
            SUPERRES_FRAME_ANCESTORS=f"'self' {self.front.origin}",
        )
        self.front.point_at(self.stack.url + "/")

    def status(self) -> Any:
        with urllib.request.urlopen(f"{self.stack.url}/api/v1/status", timeout=120) as response:
            return json.load(response)

    def await_status(self, section: str, name: str, value: object, limit_s: float = 120.0) -> None:
        deadline = time.monotonic() + limit_s
        while (now := self.status())[section][name] != value:
            assert time.monotonic() < deadline, (
                f"{section}.{name} must become {value!r}: {now}\n{self.stack.log()[-3000:]}"
            )
            time.sleep(0.1)

    def api(self, upload: bytes) -> bytes:
        with self.stack.post(upload, "?variant=auto") as response:
            data: bytes = response.read()
            return data


@pytest.fixture(scope="module")
def sleeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SleepyStack]:
    running = SleepyStack(tmp_path_factory.mktemp("sleepy"))
    yield running
    running.front.close()
    assert stop_stack(running.stack) == 0, running.stack.log()


def await_done(page: Page | Frame) -> None:
    expect(page.locator(".job")).to_have_attribute("data-state", "done", timeout=BOOT_MS)


def test_upload_boots_triton_and_downloads_the_result(make_page: MakePage, sleeping: SleepyStack) -> None:
    sleeping.await_status("backend", "state", "asleep")
    page = make_page(sleeping.stack.url)
    expect(page.locator("#backend")).to_have_text("Asleep")
    expect(page.locator("#state")).to_contain_text("usually takes")  # it has booted once, at the start
    assert sleeping.status()["backend"]["state"] == "asleep", "a view must not wake it"
    page.evaluate(WATCH_STATES)
    # The upload has to start the boot: selecting a file also does, and Triton may be up before a slow browser uploads.
    page.route("**/api/v1/wake", lambda route: route.fulfill(status=202, json={"state": "asleep"}))

    choose(page, file("harbour.png", HARBOUR))
    start(page)
    await_done(page)

    seen = page.evaluate("window.seen")
    assert "booting" in [state for state, _ in seen], seen
    rows = sorted({rows for state, rows in seen if state == "working" and rows})
    assert len(rows) >= 2, f"bands must be painted before the end: {seen}"
    assert rows[-1] == 1200
    expect(page.locator(".job-notes")).to_contain_text("all values are finite")
    page.locator(".divider").focus()
    page.keyboard.press("End")
    with page.expect_download() as download:
        page.click(".job-save")
    assert download.value.suggested_filename == "harbour_compact_x4.png"
    assert Path(download.value.path()).read_bytes() == sleeping.api(HARBOUR)


def test_same_inside_the_front_without_cookies(playwright: Playwright, tmp_path: Path, sleeping: SleepyStack) -> None:
    with frugal_page(playwright, tmp_path, sleeping.front.origin) as page:
        expect(page.locator("#frame")).to_have_attribute("data-state", "here")
        frame = page.frame(url=lambda url: url.startswith(sleeping.stack.url))
        assert frame is not None
        assert frame.evaluate(STORAGE) == ["", "SecurityError"], "cookies must be off"

        frame.set_input_files("#image", [file("butterfly.png")])
        expect(frame.locator(".job")).to_have_attribute("data-state", "ready")
        press_in_front(frame, "#go")
        await_done(frame)

        with page.expect_download() as download:
            press_in_front(frame, ".job-save")
        assert Path(download.value.path()).read_bytes() == sleeping.api(BUTTERFLY)


def test_same_by_keyboard_alone(make_page: MakePage, sleeping: SleepyStack) -> None:
    page = make_page(sleeping.stack.url)
    page.on("filechooser", lambda chooser: chooser.set_files([file("butterfly.png")]))
    press_until(page, "#image")
    page.keyboard.press("Enter")
    expect(page.locator(".job")).to_have_attribute("data-state", "ready")
    press_until(page, "#go")
    page.keyboard.press("Enter")
    await_done(page)

    press_until(page, ".divider")
    page.keyboard.press("End")
    assert page.eval_on_selector(".compare-view", "view => view.style.getPropertyValue('--at')") == "100%"
    press_until(page, ".job-save", "Shift+Tab")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert Path(download.value.path()).read_bytes() == sleeping.api(BUTTERFLY)


def test_same_on_a_phone(make_page: MakePage, sleeping: SleepyStack) -> None:
    page = make_page(sleeping.stack.url, viewport=PHONE, has_touch=True, is_mobile=True)
    choose(page, file("butterfly.png"))
    start(page)
    await_done(page)

    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0
    with page.expect_download() as download:
        page.tap(".job-save")
    assert Path(download.value.path()).read_bytes() == sleeping.api(BUTTERFLY)


def test_stop_ends_tritons_work_and_frees_the_slot(make_page: MakePage, stack: Stack) -> None:
    await_up(stack)
    before = triton_metrics(stack)
    page = make_page(stack.url)
    choose(page, file("long.png", encode_png(draw_photo(1300, 800, seed=3))))
    start(page)
    wait_for(lambda: count_tiles(stack) >= before[TILES] + 2, "its first tiles")
    page.click(".job-stop")

    expect(page.locator(".job")).to_have_attribute("data-state", "stopped")
    wait_until_no_job_runs(stack)  # when the gateway notices the disconnect depends on the machine
    at_cancel = count_tiles(stack)
    settled = wait_until_quiet(stack)
    tile_s = (triton_metrics(stack)[SECONDS] - before[SECONDS]) / (settled - before[TILES])
    assert settled - at_cancel <= tiles_in_flight(tile_s)
    assert settled - before[TILES] < 24, "all tiles of this image"


def test_same_without_javascript(make_page: MakePage, sleeping: SleepyStack) -> None:
    page = make_page(sleeping.stack.url, java_script_enabled=False)
    page.set_default_timeout(BOOT_MS)
    choose(page, file("butterfly.png"))
    start(page)

    expect(page.locator("h1")).to_have_text("Your result", timeout=BOOT_MS)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert Path(download.value.path()).read_bytes() == sleeping.api(BUTTERFLY)

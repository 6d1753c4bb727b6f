"""Uploads and downloads have progress of their own, a broken download is continued, and a reload finds the results."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, expect

from gateway.services import services
from testing import images
from testing.browser import scripted_gateway
from testing.browser.chromium import REFUSALS, MakePage
from testing.browser.page_states import await_state, choose, file, start, words
from testing.browser.scripted_gateway import ScriptedGateway, Whole
from testing.scripted_relay import Cut, relaying

SMALL_NOISE, NOISE = (
    images.encode_png(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)) for side in (150, 300)
)

HEAR = """() => {
  window.heard = [];
  const state = document.querySelector(".job-state");
  new MutationObserver(() => window.heard.push(state.textContent)).observe(state, { childList: true });
}"""
"""Collects all texts of the first image."""


def download(page: Page, index: int = 0) -> bytes:
    with page.expect_download() as saved:
        page.locator(".job-save").nth(index).click()
    return Path(saved.value.path()).read_bytes()


def leave_and_return(page: Page) -> None:
    """Reload the page, also if the browser asks."""
    page.once("dialog", lambda dialog: dialog.accept())
    page.reload()


def shares(heard: list[str], verb: str) -> list[tuple[float, float]]:
    """Return the parts and wholes as in "Sending: 40 of 68 kB."."""
    found = (re.fullmatch(rf"{verb}: ([\d.]+) of ([\d.]+)\skB\.", text) for text in heard)
    return [(float(one[1]), float(one[2])) for one in found if one]


def test_slow_network_is_shown_as_transfers_and_never_as_the_server(page: Page, gateway: ScriptedGateway) -> None:
    network = page.context.new_cdp_session(page)

    def throttle(bytes_per_s: int) -> None:
        limits = {"downloadThroughput": bytes_per_s, "uploadThroughput": bytes_per_s}
        network.send("Network.emulateNetworkConditions", {"offline": False, "latency": 20, **limits})

    gateway.script.plays.append((scripted_gateway.UP, Whole()))
    choose(page, file("noise.png", SMALL_NOISE))
    await_state(page, "ready")
    page.evaluate(HEAR)
    throttle(10_000)

    start(page)
    words(page).to_have_text(re.compile(r"Sending: \d+ of "))
    throttle(200_000)
    await_state(page, "done")

    heard = page.evaluate("window.heard")
    for verb, size in (("Sending", len(SMALL_NOISE)), ("Receiving", len(gateway.api(SMALL_NOISE)))):
        parts = shares(heard, verb)
        assert parts, heard
        assert parts == sorted(parts), "a transfer goes forward"
        assert {whole for _, whole in parts} == {round(size / 1000)}, heard
    wrong = [text for text in heard if re.search(r"almost|nearly|starting|asleep|slow", text)]
    assert not wrong


def test_download_that_breaks_midway_is_continued(make_page: MakePage, gateway: ScriptedGateway) -> None:
    seen = threading.Event()
    with relaying(gateway.server.port) as relay:
        relay.downloads.append(Cut(40_000, when=seen))
        page = make_page(f"http://127.0.0.1:{relay.port}/", refusals=REFUSALS)
        choose(page, file("noise.png", NOISE))
        start(page)
        words(page).to_contain_text("Receiving: 40 of ")
        seen.set()
        await_state(page, "done")
        saved = download(page)
        page.goto("about:blank")

    assert relay.ranges == ["bytes=40000-"]
    assert saved == gateway.api(NOISE)


def test_reload_finds_results_until_they_are_removed(page: Page, gateway: ScriptedGateway) -> None:
    choose(page, file("first.png"), file("second.png", NOISE))
    start(page)
    await_state(page, "done", 1)
    size = page.locator(".job-size").nth(1).inner_text()

    leave_and_return(page)

    await_state(page, "done", 1)
    expect(page.locator(".job-name")).to_have_text(["first.png", "second.png"])
    expect(page.locator(".job-size").nth(1)).to_have_text(size)
    expect(page.locator(".compare")).to_have_count(1)
    assert download(page, 1) == gateway.api(NOISE)
    page.locator(".job-retry").nth(1).click()  # the upload is there as well
    await_state(page, "done", 1)
    expect(page.locator("#go")).to_be_enabled()
    assert gateway.script.uploads[-1] == NOISE

    page.locator(".job-remove").nth(0).click()
    leave_and_return(page)
    await_state(page, "done")
    expect(page.locator(".job-name")).to_have_text(["second.png"])


def test_reload_forgets_results_that_are_no_longer_stored(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page(refusals=REFUSALS)
    choose(page, file("gone.png"), file("here.png", NOISE))
    start(page)
    await_state(page, "done", 1)
    urls = [one["result"]["url"] for one in page.evaluate("JSON.parse(sessionStorage.getItem('superres.results'))")]
    assert services(gateway.app).result_store.delete(urls[0].rpartition("/")[2])

    leave_and_return(page)

    await_state(page, "done")
    expect(page.locator(".job-name")).to_have_text(["here.png"])

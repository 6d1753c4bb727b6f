"""The page before the first band: what wakes the backend, what it shows meanwhile, and when it gives up."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from testing.browser import scripted_gateway
from testing.browser.chromium import MakePage
from testing.browser.page_states import HARBOUR, await_state, choose, file, start, words
from testing.browser.scripted_gateway import Bands, Event, Gate, ScriptedGateway, Whole


def test_choosing_a_file_wakes_the_backend(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.state = "asleep"
    page.reload()
    expect(page.locator("#state")).to_have_text("The server is asleep. The first image usually takes 12 s longer.")
    assert gateway.script.woken == 0

    choose(page, file("notes.txt", b"words"), file("butterfly.png"))

    expect(page.locator("#backend")).to_have_text("Starting")
    assert gateway.script.woken == 1
    assert gateway.script.uploads == []


def test_page_says_why_the_backend_failed(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.state, gateway.script.reason = "failed", "The backend did not respond for 30 s and was ended."
    page.reload()
    expect(page.locator("#state")).to_have_text(
        "The backend did not respond for 30 s and was ended. The next image tries again."
    )
    expect(page.locator("#backend")).to_have_text("Failed")

    gateway.script.state, gateway.script.reason = "failed", None
    page.reload()
    expect(page.locator("#state")).to_have_text("The server failed to start. The next image tries again.")

    reason = "The backend did not respond for 30 s and is being replaced."
    booting = {"state": "booting", "elapsed_s": 2.0, "usual_s": None, "reason": reason}
    gateway.script.plays.append((Event("state", booting), Gate("replaced")))
    choose(page, file("butterfly.png"))
    start(page)
    words(page).to_contain_text(f"{reason} The server is starting: ")
    gateway.script.open("replaced")


def pause_clock(page: Page) -> None:
    """Stop the page's clock a minute from now. Before that it runs in real time, also between two calls."""
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 60)


def test_wake_calls_are_throttled(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page("about:blank")
    page.clock.install()
    page.goto(gateway.url)
    with page.expect_response("**/api/v1/wake"):
        choose(page, file("first.png"))
    pause_clock(page)
    choose(page, file("second.png"))
    await_state(page, "ready", 1)
    page.clock.run_for(31_000)
    with page.expect_response("**/api/v1/wake"):
        choose(page, file("third.png"))

    assert gateway.script.woken == 2


def test_silent_stream_is_broken(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page("about:blank")
    page.clock.install()
    page.goto(gateway.url)
    gateway.script.plays.append((scripted_gateway.UP, Gate("silent", is_silent=True)))
    choose(page, file("butterfly.png"))
    await_state(page, "ready")
    pause_clock(page)
    start(page)
    await_state(page, "waiting")
    page.clock.run_for(29_000)
    await_state(page, "waiting")
    page.clock.run_for(2_000)

    words(page).to_contain_text("The connection was lost")
    gateway.script.open("silent")


def test_file_that_is_rejected_wakes_nothing(page: Page, gateway: ScriptedGateway) -> None:
    choose(page, file("notes.txt", b"words"))
    await_state(page, "rejected")

    page.wait_for_load_state("networkidle")
    assert gateway.script.woken == 0


def test_choosing_an_example_wakes_nothing(page: Page, gateway: ScriptedGateway) -> None:
    page.get_by_role("button", name="Fur").click()
    await_state(page, "done")

    page.wait_for_load_state("networkidle")
    assert gateway.script.woken == 0
    assert len(gateway.script.uploads) == 1


def test_status_text_follows_boot_queue_and_work(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.plays.append(
        (
            scripted_gateway.booting(3.0),
            scripted_gateway.queued(3),
            Gate("boots"),
            scripted_gateway.booting(4.0),
            Gate("up"),
            scripted_gateway.UP,
            Gate("turn"),
            Event("queue", {"position": 0, "ahead": 0}),
            Gate("bands"),
            Bands(1, 1, 2),
            scripted_gateway.booting(0.0),
            Gate("again"),
            scripted_gateway.UP,
            Gate("end"),
            Bands(1, 2, 2),
            Whole(),
        )
    )
    choose(page, file("harbour.png", HARBOUR))
    start(page)
    ahead = "In the queue: 3 images are ahead of yours."
    words(page).to_have_text(re.compile(rf"^The server is starting: .*{ahead}$"))
    gateway.script.open("boots")
    words(page).to_have_text(re.compile(rf"^The server is starting: ([4-9]|\d\d+)\ss so far, usually 12\ss\. {ahead}$"))
    gateway.script.open("up")
    words(page).to_have_text(ahead)
    gateway.script.open("turn")
    words(page).to_have_text(re.compile(r"^Upscaling your image, ([2-9]|\d\d+)\ss so far\.$"))  # also when it ticks
    gateway.script.open("bands")
    words(page).to_contain_text("The server is starting")  # after a band: it died, and another one boots
    gateway.script.open("again")
    words(page).to_have_text(re.compile(r"^Upscaling your image, ([2-9]|\d\d+)\ss so far\.$"))
    gateway.script.open("end")
    await_state(page, "done")

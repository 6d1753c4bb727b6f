"""What the page says about the backend before the click: a spent budget, a failed start, and the size of the result."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from testing.browser.chromium import REFUSALS, MakePage
from testing.browser.page_states import HARBOUR, await_state, choose, choose_variant, file, start
from testing.browser.scripted_gateway import ScriptedGateway


@pytest.mark.parametrize(
    ("month", "badge", "date"),
    [("2026-11", "Paused until 1 Dec", "1 December 2026"), ("2026-12", "Paused until 1 Jan", "1 January 2027")],
)
def test_spent_budget_says_the_date_everywhere(
    page: Page, gateway: ScriptedGateway, month: str, badge: str, date: str
) -> None:
    gateway.script.state = "asleep"
    gateway.script.month = {"name": month, "is_spent": True}
    page.reload()

    expect(page.locator("#backend")).to_have_text(badge)
    expect(page.locator("#state")).to_contain_text(f"from {date} (UTC)")
    choose(page, file("harbour.png", HARBOUR))
    await_state(page, "ready")
    expect(page.locator(".job-state")).to_contain_text(
        "Becomes 1,600 × 1,200 pixels. This month's GPU time is used up."
    )


def test_long_wait_is_a_date_and_a_short_one_a_duration(make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page(refusals=REFUSALS)
    problem = {"title": "Budget used up", "detail": "Try again later."}
    gateway.script.refusals += [(503, problem, {"Retry-After": "197651"}), (503, problem, {"Retry-After": "4000"})]
    choose(page, file("a.png"))
    start(page)
    await_state(page, "failed")
    expect(page.locator(".job-notes")).to_contain_text("Try again from ")
    expect(page.locator(".job-notes")).not_to_contain_text("min")

    page.click(".job-retry")

    expect(page.locator(".job-notes")).to_contain_text("Try again in 66 min 40 s.")


def test_failed_backend_is_reported_in_the_row_before_the_click(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.state = "failed"
    page.reload()
    expect(page.locator("#backend")).to_have_text("Failed to start")

    choose(page, file("harbour.png", HARBOUR))

    expect(page.locator(".job-state")).to_have_text(
        "Becomes 1,600 × 1,200 pixels. The server failed to start. The next image tries again."
    )


def test_row_follows_the_variant(page: Page) -> None:
    choose(page, file("harbour.png", HARBOUR))
    expect(page.locator(".job-state")).to_have_text("Becomes 1,600 × 1,200 pixels.")

    choose_variant(page, "compact_x2")

    expect(page.locator(".job-state")).to_have_text("Becomes 800 × 600 pixels.")


def test_row_estimates_the_time_before_the_click(page: Page, gateway: ScriptedGateway) -> None:
    gateway.script.estimate = {"queue_s": 4.0, "s_per_megapixel": {"compact_x4": 50.0, "compact_real_x4": 25.0}}
    page.reload()
    choose(page, file("harbour.png", HARBOUR))  # 0.12 megapixels
    expect(page.locator(".job-state")).to_have_text("Becomes 1,600 × 1,200 pixels. Takes about 10 s.")

    gateway.script.state = "asleep"
    page.reload()
    choose(page, file("harbour.png", HARBOUR))

    expect(page.locator(".job-state")).to_have_text(
        "Becomes 1,600 × 1,200 pixels. Takes about 22 s, of which the server needs 12 s to start."
    )

"""Nothing moves while page and front load: Cumulative Layout Shift (web.dev/cls) of the document and of its frame."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from testing.browser.chromium import DESKTOP, MakePage
from testing.browser.front import FrontServer
from testing.browser.scripted_gateway import ScriptedGateway
from testing.stack import wait_for

# Lighthouse calls 0.1 good. The header of a phone moved by one line when the badge appeared: 0.03.
MAX_SHIFT = 0.02
# With the content below the form on the screen, the rest of the reserved height counts too.
MAX_SHIFT_BELOW = 0.05

OBSERVE = """() => {
  self.shifts = [];
  const note = (list) => shifts.push(...list.getEntries().filter((entry) => !entry.hadRecentInput));
  new PerformanceObserver(note).observe({ type: "layout-shift", buffered: true });
}"""
SUM = """async () => {
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  const rect = ({ x, y, width, height }) => `${x},${y} ${width}x${height}`;
  const describe = ({ node, previousRect, currentRect }) =>
    `${node?.nodeName}#${node?.id} ${rect(previousRect)} -> ${rect(currentRect)}`;
  return shifts.map(({ value, sources }) => [value, sources.map(describe)]);
}"""
FITS = "() => Math.abs(document.body.getBoundingClientRect().height - innerHeight) <= 1"


def phone(width: int) -> dict[str, Any]:
    return {"viewport": {"width": width, "height": 800}, "has_touch": True, "is_mobile": True}


def check_shifts(page: Page, max_shift: float) -> None:
    """Check the sum of the shifts of each frame; report what moved."""
    for frame in page.frames:
        shifts = frame.evaluate(SUM)
        assert sum(value for value, _ in shifts) <= max_shift, shifts


@pytest.mark.parametrize("options", [phone(320), phone(412), {"viewport": DESKTOP}], ids=["320", "412", "desktop"])
def test_nothing_moves_on_the_page(options: dict[str, Any], make_page: MakePage, gateway: ScriptedGateway) -> None:
    page = make_page("about:blank", **options)
    page.add_init_script(f"({OBSERVE})()")
    with page.expect_response("**/api/v1/status"):
        page.goto(gateway.url)
    expect(page.locator("#state")).to_have_text("The server is ready. Images start at once.")

    check_shifts(page, MAX_SHIFT)


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize(
    ("options", "max_shift"),
    [
        (phone(320), MAX_SHIFT),
        (phone(412), MAX_SHIFT),
        ({"viewport": DESKTOP}, MAX_SHIFT),
        ({"viewport": {"width": 1180, "height": 3_400}}, MAX_SHIFT_BELOW),
    ],
    ids=["320", "412", "desktop", "tall"],
)
def test_nothing_moves_in_the_front(
    language: str, options: dict[str, Any], max_shift: float, make_page: MakePage, front: FrontServer
) -> None:
    page = make_page("about:blank", **options)
    page.add_init_script(f"({OBSERVE})()")
    with page.expect_response("**/api/v1/status"):
        page.goto(front.origin + ("/de/" if language == "de" else ""))
    expect(page.locator("#frame")).to_have_attribute("data-state", "here")
    wait_for(lambda: page.frames[1].evaluate(FITS), "the frame to fit its content")

    check_shifts(page, max_shift)

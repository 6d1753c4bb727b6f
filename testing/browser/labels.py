"""Finds labels of buttons that need more than one line."""

from __future__ import annotations

from playwright.sync_api import Frame, Page

# Examples have an image above the text.
_BROKEN = """all => all.filter((one) => one.offsetWidth).filter((one) => {
  const range = document.createRange();
  range.selectNodeContents(one);
  const style = getComputedStyle(one);
  const isOneLine = range.getBoundingClientRect().height < 1.7 * parseFloat(style.lineHeight);
  return !isOneLine && !one.querySelector("img");
}).map((one) => one.textContent.trim())"""


def broken_labels(page: Page | Frame) -> list[str]:
    """Return the labels of visible buttons that break into several lines."""
    found: list[str] = page.eval_on_selector_all("button, .button", _BROKEN)
    return found

"""Finds and starts Chromium, and drives pages in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, Playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


DESKTOP = {"width": 1180, "height": 900}


PHONE = {"width": 375, "height": 740}


PHONE_WIDTHS = (320, 360, 375, 430)
"""From the smallest phones in use to the largest, in CSS pixels."""


WAIT_MS = 120_000


LAUNCH_MS = 180_000


REFUSALS = ("Failed to load resource",)
"""Start of the console message for a response of 400 or more, which some tests cause on purpose."""


MakePage = Callable[..., Page]


def find_chromium() -> str:
    """Return the path of Chromium; fail with install instructions if it is missing."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.fail("Chromium not found. `make test` installs it, or run: apt-get install chromium")


STORAGE = """() => {
  document.cookie = "a=1; SameSite=None; Secure";
  try { return [document.cookie, typeof localStorage]; } catch (error) { return [document.cookie, error.name]; }
}"""


def press_until(page: Page, selector: str, key: str = "Tab", max_presses: int = 60) -> None:
    """Press a key until an element has the focus; fail after `max_presses` presses."""
    for _ in range(max_presses):
        if page.evaluate("selector => document.activeElement?.matches(selector)", selector):
            return
        page.keyboard.press(key)
    raise AssertionError(f"{max_presses} times {key} did not lead to {selector}")


@contextmanager
def frugal_page(playwright: Playwright, folder: Path, url: str) -> Iterator[Page]:
    """Open a page in a browser that blocks all cookies and storage."""
    profile = folder / "profile" / "Default"
    profile.mkdir(parents=True)
    blocked = '{"profile": {"default_content_setting_values": {"cookies": 2}, "block_third_party_cookies": true}}'
    (profile / "Preferences").write_text(blocked)
    context = playwright.chromium.launch_persistent_context(
        str(profile.parent),
        executable_path=find_chromium(),
        args=FLAGS,
        timeout=LAUNCH_MS,
        viewport=DESKTOP,
        accept_downloads=True,
        reduced_motion="reduce",
    )
    context.set_default_timeout(WAIT_MS)
    page = context.pages[0]
    page.goto(url)
    yield page
    context.close()

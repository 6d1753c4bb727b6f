"""How Chromium is found and started, and what tests do in it."""

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


WAIT_MS = 20_000


REFUSALS = ("Failed to load resource",)
"""What the console says of an answer of 400 and more, which some tests ask for."""


MakePage = Callable[..., Page]


def find_chromium() -> str:
    """Return the path of Chromium; fail with what to do where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.fail("There is no Chromium here. `make test` installs it; by hand: apt-get install chromium")


STORAGE = """() => {
  document.cookie = "a=1; SameSite=None; Secure";
  try { return [document.cookie, typeof localStorage]; } catch (error) { return [document.cookie, error.name]; }
}"""


def press_until(page: Page, selector: str, key: str = "Tab", most: int = 60) -> None:
    """Press a key until the focus is on an element; fail when it never gets there."""
    for _ in range(most):
        if page.evaluate("selector => document.activeElement?.matches(selector)", selector):
            return
        page.keyboard.press(key)
    raise AssertionError(f"{most} times {key} did not lead to {selector}")


@contextmanager
def frugal_page(playwright: Playwright, folder: Path, url: str) -> Iterator[Page]:
    """A page in a browser that keeps no cookie and no storage, of nobody."""
    profile = folder / "profile" / "Default"
    profile.mkdir(parents=True)
    blocked = '{"profile": {"default_content_setting_values": {"cookies": 2}, "block_third_party_cookies": true}}'
    (profile / "Preferences").write_text(blocked)
    context = playwright.chromium.launch_persistent_context(
        str(profile.parent),
        executable_path=find_chromium(),
        args=FLAGS,
        viewport=DESKTOP,
        accept_downloads=True,
        reduced_motion="reduce",
    )
    page = context.pages[0]
    page.goto(url)
    yield page
    context.close()

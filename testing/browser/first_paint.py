"""Measures a first visit ten times, each with an empty cache: `python -m testing.browser.first_paint [URL]`.

Prints the time from the navigation to First Contentful Paint, as the browser reports it, and to the moment when the
page's script has activated the form. This is not a test: the times are meaningful only on an idle machine.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from testing.browser.chromium import DESKTOP, FLAGS, find_chromium
from testing.browser.scripted_gateway import ScriptedGateway

VISITS = 10
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"


def measure(url: str) -> tuple[list[float], list[float]]:
    """Return (painted, live) in ms of each visit."""
    painted, live = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        for _ in range(VISITS):
            context = browser.new_context(viewport=DESKTOP)
            page = context.new_page()
            page.goto(url)
            page.wait_for_selector(".is-live")
            live.append(float(page.evaluate("performance.now()")))
            while not (first := float(page.evaluate(PAINTED))):
                page.wait_for_timeout(10)
            painted.append(first)
            context.close()
        browser.close()
    return painted, live


def main() -> None:
    """Print median and maximum of both times."""
    with tempfile.TemporaryDirectory() as folder:
        gateway = None if len(sys.argv) > 1 else ScriptedGateway(Path(folder), anonymous_requests="")
        painted, live = measure(sys.argv[1] if gateway is None else gateway.url)
        if gateway:
            gateway.close()
    for name, times in (("painted", painted), ("live", live)):
        print(f"{name}: median {statistics.median(times):.0f} ms, largest {max(times):.0f} ms of {VISITS} visits")


if __name__ == "__main__":
    main()

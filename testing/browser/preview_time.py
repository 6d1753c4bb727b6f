"""Measures how soon the browser's preview is there on a slow device: `python -m testing.browser.preview_time`.

The backend boots and never ends. Each visit has an empty cache and a network of 200 kB/s. All threads of the renderer,
those of workers included, stop for 3/4 of the time (SIGSTOP, periods of 40 ms): a CPU of a quarter of the speed. The
browser runs with real-time priority, so that other processes hardly matter; this needs root.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from playwright.sync_api import Browser, sync_playwright

from testing.browser import scripted_gateway
from testing.browser.chromium import FLAGS, PHONE, find_chromium
from testing.browser.page_states import HARBOUR, choose, file
from testing.browser.scripted_gateway import Gate, ScriptedGateway, Whole

VISITS = 5
SLOWDOWN = 4
PERIOD_S = 0.04
PRIORITY = os.sched_param(1)
BYTES_PER_S = 200_000
NETWORK = {"offline": False, "latency": 100, "downloadThroughput": BYTES_PER_S, "uploadThroughput": BYTES_PER_S}
FAST_DEVICE = "Object.defineProperties(Navigator.prototype, {hardwareConcurrency: {get: () => 8}})"


def renderers() -> list[psutil.Process]:
    """Return the processes of this process's Chromium that run pages and their workers."""
    children = psutil.Process().children(recursive=True)
    return [one for one in children if "--type=renderer" in one.cmdline()]


@contextmanager
def slowed(processes: list[psutil.Process], slowdown: int) -> Iterator[None]:
    """Let processes run for one part in `slowdown` of the time."""
    browser = [one for one in psutil.Process().children(recursive=True) if "chrom" in one.name()]
    for process in [psutil.Process(), *browser]:
        for thread in process.threads():
            os.sched_setscheduler(thread.id, os.SCHED_RR, PRIORITY)
    ends = threading.Event()

    def alternate() -> None:
        while not ends.is_set():
            for kind, part in ((signal.SIGSTOP, slowdown - 1), (signal.SIGCONT, 1)):
                for process in processes:
                    if process.is_running():
                        os.kill(process.pid, kind)
                time.sleep(PERIOD_S * part / slowdown)

    pauses = threading.Thread(target=alternate)
    if slowdown > 1:
        pauses.start()
    try:
        yield
    finally:
        ends.set()
        if slowdown > 1:
            pauses.join()


def visit(browser: Browser, gateway: ScriptedGateway, slowdown: int) -> dict[str, float]:
    """Return the seconds from the click to the first tile and to the last one."""
    gateway.script = scripted_gateway.Script(state="booting")
    gateway.script.plays.append((scripted_gateway.booting(1.0), Gate("never"), Whole()))
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.add_init_script(FAST_DEVICE)
    page.set_default_timeout(30_000)
    page.goto(gateway.url)
    page.wait_for_selector("#backend[data-state=booting]")
    choose(page, file("harbour.png", HARBOUR))
    page.wait_for_selector(".job[data-state=ready]")
    session = context.new_cdp_session(page)
    session.send("Network.emulateNetworkConditions", NETWORK)
    times = {}
    with slowed(renderers(), slowdown):
        started = time.monotonic()
        page.locator("#go").press("Enter")
        page.wait_for_selector("[data-preview]", state="attached")
        times["first tile"] = time.monotonic() - started
        page.wait_for_selector("[data-preview='128x128']", state="attached")
        times["128 x 128 pixels"] = time.monotonic() - started
    gateway.script.open("never")
    context.close()
    return times


def main() -> None:
    """Print median, minimum and maximum of both times, at full speed and at a quarter of it."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        gateway = ScriptedGateway(Path(folder), anonymous_requests="")
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        for slowdown in (1, SLOWDOWN):
            visits = [visit(browser, gateway, slowdown) for _ in range(int(sys.argv[1]) if sys.argv[1:] else VISITS)]
            for name in visits[0]:
                times = [times[name] for times in visits]
                spread = f"{min(times):.1f} to {max(times):.1f}"
                print(f"1/{slowdown} of the speed, {name}: median {statistics.median(times):.1f} s, {spread} s")
        browser.close()
        gateway.close()


if __name__ == "__main__":
    main()

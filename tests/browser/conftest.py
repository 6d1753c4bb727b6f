"""Fixtures of the browser tests: one Chromium, a gateway with scripted responses, and the front on another origin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, Playwright, expect, sync_playwright

from testing.browser.chromium import DESKTOP, FLAGS, LAUNCH_MS, WAIT_MS, MakePage, find_chromium
from testing.browser.front import FrontServer
from testing.browser.scripted_gateway import Script, ScriptedGateway

NO_SHARE_MENU = "Unrecognized feature: 'web-share'"
"""Chromium on Linux has no share menu, so it does not know the permission that the front gives to its frame."""

NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"
"""Chromium ends all requests when an interface of this machine comes or goes, as by podman or DHCP."""


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    launched = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS, timeout=LAUNCH_MS)
    yield launched
    launched.close()


@pytest.fixture(scope="package")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontServer]:
    server = FrontServer(tmp_path_factory.mktemp("front"))
    yield server
    server.close()


@pytest.fixture(scope="package")
def _gateway(tmp_path_factory: pytest.TempPathFactory, front: FrontServer) -> Iterator[ScriptedGateway]:
    gateway = ScriptedGateway(
        tmp_path_factory.mktemp("scripted"),
        frame_ancestors=f"'self' {front.origin}",
        max_upload_bytes=400_000,
        max_pixels=250_000,
        max_side=1_000,
        anonymous_requests="",
        anonymous_megapixels="",
        client_requests="",
        client_megapixels="",
    )
    front.point_at(gateway.url)
    yield gateway
    gateway.close()


@pytest.fixture
def gateway(_gateway: ScriptedGateway) -> ScriptedGateway:
    """The scripted gateway with a new script."""
    _gateway.script = Script()
    return _gateway


@pytest.fixture
def make_page(browser: Browser, gateway: ScriptedGateway) -> Iterator[MakePage]:
    """Open pages in browser contexts with these options; fail at the end if a console has an error or a warning.

    Messages that start with one of `refusals` are expected.
    """
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def make(url: str = gateway.url, *, refusals: tuple[str, ...] = (), **options: Any) -> Page:
        context = browser.new_context(
            **{"viewport": DESKTOP, "accept_downloads": True, "reduced_motion": "reduce", **options}
        )
        contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()

        def hear(kind: str, text: str) -> None:
            is_expected = text.startswith((*refusals, NO_SHARE_MENU)) or text.endswith(NETWORK_CHANGED)
            if kind in ("error", "warning") and not is_expected:
                complaints.append(text)

        page.on("console", lambda message: hear(message.type, message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        try:
            page.goto(url)
        except Error as error:
            if NETWORK_CHANGED not in str(error):
                raise
            page.goto(url)
        return page

    yield make
    for context in contexts:
        context.close()
    assert not complaints, "the browser complained:\n" + "\n".join(complaints)


@pytest.fixture
def page(make_page: MakePage) -> Page:
    return make_page()

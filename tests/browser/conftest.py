"""What tests in a browser share: one Chromium, a gateway that plays scripts, the front on another port and host."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

from tests.browser.scripted import Script, ScriptedGateway
from tests.conftest import ROOT

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


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    launched = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
    yield launched
    launched.close()


class _Front(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        del format, args


class FrontServer:
    """The folder front/ as any static host serves it, on `localhost`: another site than 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "front", folder, dirs_exist_ok=True)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Front, directory=str(folder)))
        self.origin = f"http://localhost:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def point_at(self, gateway_url: str) -> None:
        """Set the one setting, as an operator would: the address in the iframe."""
        page = self.folder / "index.html"
        text, found = re.subn(r'(<iframe[^>]*\ssrc=")[^"]*"', rf'\g<1>{gateway_url}"', page.read_text())
        assert found == 1, "front/index.html must have one iframe with the gateway's address"
        page.write_text(text)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


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
    """The gateway with a fresh script."""
    _gateway.script = Script()
    return _gateway


@pytest.fixture
def make_page(browser: Browser, gateway: ScriptedGateway) -> Iterator[MakePage]:
    """Open pages, by options of a browser context; at the end none of them may have complained.

    `refusals` are beginnings of the complaints that a test means to provoke.
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
            if kind in ("error", "warning") and not text.startswith(refusals):
                complaints.append(text)

        page.on("console", lambda message: hear(message.type, message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    yield make
    for context in contexts:
        context.close()
    assert not complaints, "the browser complained:\n" + "\n".join(complaints)


@pytest.fixture
def page(make_page: MakePage) -> Page:
    return make_page()

"""The page behind a real nginx: its error pages, and a path that it shares with other services."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from testing import images
from testing.browser.chromium import REFUSALS, MakePage
from testing.browser.page_states import BUTTERFLY, await_state, choose, file, start, words
from testing.browser.scripted_gateway import ScriptedGateway
from testing.nginx import running_nginx
from testing.ports import find_free_ports
from testing.server import serving

NOISE = images.encode_png(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))

# Only uploads fail: the page itself comes from the gateway.
ERRORS = """
map $request_method $upload {{ default ""; POST all; }}
map $request_method $dead {{ default 127.0.0.1:{gateway}; POST 127.0.0.1:1; }}
limit_req_zone $upload zone=uploads:1m rate=1r/m;
server {{ listen 127.0.0.1:{p413}; client_max_body_size 100k; location / {{ proxy_pass http://127.0.0.1:{gateway}; }} }}
server {{ listen 127.0.0.1:{p502}; location / {{ proxy_pass http://$dead; }} }}
server {{
    listen 127.0.0.1:{p504};
    error_page 418 = @silent;
    location / {{ if ($request_method = POST) {{ return 418; }} proxy_pass http://127.0.0.1:{gateway}; }}
    location @silent {{ proxy_read_timeout 200ms; proxy_pass http://127.0.0.1:{silent}; }}
}}
server {{
    listen 127.0.0.1:{p429};
    location / {{ proxy_pass http://127.0.0.1:{gateway}; }}
    location = / {{ limit_req zone=uploads; limit_req_status 429; proxy_pass http://127.0.0.1:{gateway}; }}
}}
"""

PATH = """
server {{
    listen 127.0.0.1:{port};
    location /superres/ {{
        proxy_pass http://127.0.0.1:{gateway}{uri};
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
}}
"""


@pytest.fixture
def proxies(gateway: ScriptedGateway, tmp_path: Path) -> Iterator[dict[str, int]]:
    """An nginx with one port for each status with which it refuses uploads."""
    names = ("p413", "p502", "p504", "p429")
    ports = dict(zip(names, find_free_ports(len(names)), strict=True))
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:  # accepts connections and never responds
        there = {"gateway": gateway.server.port, "silent": silent.getsockname()[1]}
        with running_nginx(tmp_path, ERRORS.format(**ports, **there), list(ports.values())):
            yield ports


def open_and_upload(make_page: MakePage, port: int, upload: bytes, *more: bytes) -> Page:
    page = make_page(f"http://127.0.0.1:{port}/", refusals=REFUSALS)
    choose(page, *(file(f"{number}.png", data) for number, data in enumerate((upload, *more))))
    start(page)
    return page


def test_proxys_413_names_its_sender_and_the_size_of_the_file(make_page: MakePage, proxies: dict[str, int]) -> None:
    page = open_and_upload(make_page, proxies["p413"], NOISE, BUTTERFLY)

    await_state(page, "failed", 0)
    words(page).to_have_text(
        "Upload too large. A server in front of this service refused it for its size: your file has "
        f"{len(NOISE):,} bytes ({round(len(NOISE) / 1000)} kB). Make it smaller, or save it as JPEG or WebP. "
        "The operator of this service can raise that limit."
    )
    await_state(page, "done", 1)  # a smaller one passes


@pytest.mark.parametrize(
    ("port", "text"),
    [
        ("p502", "Service not reachable. A server in front of this service could not reach it (status 502)."),
        ("p504", "No response in time. A server in front of this service stopped waiting for the result (status 504)."),
    ],
)
def test_proxys_error_page_is_explained_and_stops_the_list(
    make_page: MakePage, proxies: dict[str, int], port: str, text: str
) -> None:
    page = open_and_upload(make_page, proxies[port], BUTTERFLY, BUTTERFLY)

    await_state(page, "failed", 0)
    words(page).to_contain_text(text)
    await_state(page, "ready", 1)
    expect(page.locator("#go")).to_be_enabled()


def test_proxys_429_is_explained(make_page: MakePage, proxies: dict[str, int]) -> None:
    page = open_and_upload(make_page, proxies["p429"], BUTTERFLY, BUTTERFLY)

    await_state(page, "done", 0)
    await_state(page, "failed", 1)
    words(page, 1).to_have_text(
        "Too many requests. A server in front of this service limits them. Wait a while, then try again."
    )


@pytest.mark.parametrize("uri", ["", "/"], ids=["path kept", "path removed"])
def test_page_works_below_a_path(make_page: MakePage, tmp_path: Path, uri: str) -> None:
    [port] = find_free_ports(1)
    origin = f"http://127.0.0.1:{port}"
    with (
        serving(tmp_path / "gateway", SUPERRES_PUBLIC_URL=f"{origin}/superres", SUPERRES_TRUSTED_HOPS="1") as gateway,
        running_nginx(tmp_path / "nginx", PATH.format(port=port, gateway=gateway.port, uri=uri), [port]),
    ):
        page = make_page(f"{origin}/superres/")  # fails on a script, style or image that is not found
        expect(page.locator("#backend")).to_have_text("Asleep")
        choose(page, file("butterfly.png"))
        start(page)
        await_state(page, "done")
        with page.expect_download() as download:
            page.locator(".job-save").click()
        without_script = make_page(f"{origin}/superres/", java_script_enabled=False)
        choose(without_script, file("butterfly.png"))
        without_script.locator("#go").click()
        expect(without_script.locator("h1")).to_have_text("Your result")
        shown = without_script.locator(".pair img").nth(1)
        expect(shown).to_have_attribute("src", re.compile("^/superres/results/"))
        assert shown.evaluate("image => image.naturalWidth") == 256
        page.goto("about:blank")  # its next request for the status would meet a server that has ended

    with Image.open(download.value.path()) as image:
        assert image.size == (256, 256)

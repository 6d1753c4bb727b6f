"""The API called by a script on another origin, in a real browser."""

from __future__ import annotations

from pathlib import Path

from gateway.access.api_keys import ApiKeyStore
from testing.browser.chromium import MakePage
from testing.browser.front import FrontServer
from testing.data import read_pixels
from testing.pages import read_code_blocks
from testing.server import serving

# Sends a file of the script's own site with an API key, twice; returns what the script can read.
CALL = """async ([url, key]) => {
  const body = await (await fetch("icon.svg")).blob();
  const read = [];
  for (let call = 0; call < 2; call += 1) {
    const response = await fetch(url, { method: "POST", body, headers: { "X-API-Key": key } }).catch(() => null);
    if (!response) return "refused by the browser";
    const { title } = await response.json();
    const [wait, id] = ["Retry-After", "X-Request-Id"].map((name) => response.headers.get(name));
    read.push([response.status, title, Number(wait) > 0, Boolean(id)]);
  }
  return read;
}"""


def test_script_of_an_allowed_origin_reads_responses_and_errors(
    make_page: MakePage, front: FrontServer, tmp_path: Path
) -> None:
    with serving(tmp_path, SUPERRES_API_ORIGINS=front.origin, SUPERRES_CLIENT_REQUESTS="1 per hour") as gateway:
        key = ApiKeyStore(tmp_path / "keys.json").new("script")
        url = f"http://127.0.0.1:{gateway.port}/api/v1/upscale"
        refusals = ("Failed to load resource", "Access to fetch")
        other_origin = front.origin.replace("localhost", "127.0.0.1")

        allowed = make_page(f"{front.origin}/front.css", refusals=refusals).evaluate(CALL, [url, key])
        other = make_page(f"{other_origin}/front.css", refusals=refusals).evaluate(CALL, [url, key])

    assert allowed == [
        [415, "Unsupported image format", False, True],
        [429, "Rate limit reached", True, True],
    ]
    assert other == "refused by the browser"


def test_function_of_the_guide_for_clients_runs_in_a_browser(
    make_page: MakePage, front: FrontServer, tmp_path: Path
) -> None:
    blocks = [text for language, text in read_code_blocks("docs/how-to/use-a-client.md") if language == "javascript"]
    (function,) = [text for text in blocks if "async function readEvents" in text]
    (browser,) = [text for text in blocks if "input.files[0]" in text]
    draw = "const canvas = new OffscreenCanvas(8, 8); canvas.getContext('2d').fillRect(0, 0, 4, 4);"
    with serving(tmp_path, SUPERRES_API_ORIGINS=front.origin) as gateway:
        key = ApiKeyStore(tmp_path / "keys.json").new("script")
        code = f"{draw} const input = {{files: [await canvas.convertToBlob()]}}; {function} {browser} return blob.type;"
        page = make_page(f"{front.origin}/front.css")
        with page.expect_download() as download:
            media_type = page.evaluate(f"async (key) => {{{code.replace('8080', str(gateway.port))}}}", key)

    assert media_type == "image/png"
    assert download.value.suggested_filename == "image_compact_x4.png"
    assert read_pixels(download.value.path()).shape == (32, 32, 3)

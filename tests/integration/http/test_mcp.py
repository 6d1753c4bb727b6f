"""`superres mcp` as an AI application runs it: by the SDK's own client, over standard input and output."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from PIL import Image as PilImage

from gateway.access.api_keys import ApiKeyStore
from gateway.cli.mcp_command import mcp
from testing.data import ROOT
from testing.image_files import draw_file
from testing.server import Served
from testing.stack import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def key(served: Served) -> str:
    return ApiKeyStore(served.state_dir / "keys.json").new("mcp", requests="10000 per minute")


def use_tool(
    url: str, key: str, root: Path, use: Callable[[Client], Awaitable[Any]], *, version: str = "legacy"
) -> Any:
    """Start the server with one root and return what `use` returns.

    `version` is that of the protocol. The SDK would find out which one the server speaks within 10 s.
    """
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "gateway", "mcp", "--to", url, "--root", str(root)],
        env={"SUPERRES_CLIENT_KEY": key, "SUPERRES_STATE_DIR": str(root.parent / "state")},
        cwd=ROOT,
    )

    async def run() -> Any:
        async with Client(stdio_client(parameters), mode=version) as client:
            return await use(client)

    return asyncio.run(run())


def test_image_is_upscaled_with_progress(served: Served, key: str, tmp_path: Path) -> None:
    draw_file(tmp_path / "root" / "a.png", 51)
    shown: list[tuple[float, float | None, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        shown.append((progress, total, message))

    async def use(client: Client) -> Any:
        tools = (await client.list_tools()).tools
        arguments = {"image": "a.png", "output": "b.webp", "variant": "compact_x4"}
        return tools, await client.call_tool("upscale_image", arguments, progress_callback=note)

    tools, result = use_tool(f"http://127.0.0.1:{served.port}", key, tmp_path / "root", use, version="2026-07-28")

    assert [tool.name for tool in tools] == ["upscale_image"]
    assert not result.is_error, result.content
    made = tmp_path / "root" / "b.webp"
    expected = {"path": str(made), "width": 32, "height": 32, "variant": "compact_x4"}
    assert expected.items() <= result.structured_content.items()
    with PilImage.open(made) as image:
        assert (image.format, image.size) == ("WEBP", (32, 32))
    numbers = [progress for progress, _, _ in shown]
    assert numbers == sorted(set(numbers))
    assert {total for _, total, _ in shown} == {100.0}
    assert "uploading" in str(shown[0][2])


def test_only_files_below_the_root_are_used_and_none_is_replaced(served: Served, key: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    draw_file(root / "a.png", 52)
    secret = draw_file(tmp_path / "secret.png", 53)
    (root / "link.png").symlink_to(secret)
    (root / "out").symlink_to(tmp_path)
    (root / "text.png").write_text("no image")
    calls: dict[str, dict[str, Any]] = {
        "is outside of the folders": {"image": "../secret.png"},
        "secret.png is outside": {"image": str(secret)},
        "link.png is outside": {"image": "link.png"},
        "out/b.png is outside": {"image": "a.png", "output": "out/b.png"},
        "none.png is not a file": {"image": "none.png"},
        "The folder of sub/b.png does not exist": {"image": "a.png", "output": "sub/b.png"},
        "a.png exists. Set overwrite": {"image": "a.png", "output": "a.png"},
        "an unknown format": {"image": "text.png"},
    }

    async def use(client: Client) -> Any:
        answers = {words: await client.call_tool("upscale_image", arguments) for words, arguments in calls.items()}
        arguments = {"image": "a.png", "output": "a.png", "variant": "compact_x4", "overwrite": True}
        return answers, await client.call_tool("upscale_image", arguments)

    answers, replaced = use_tool(f"http://127.0.0.1:{served.port}", key, root, use)

    for words, answer in answers.items():
        assert answer.is_error
        assert words in answer.content[0].text
    assert not replaced.is_error
    with PilImage.open(root / "a.png") as image:
        assert image.size == (32, 32)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "secret.png"]


def test_cancelled_call_cancels_the_image_on_the_service(stuck: tuple[str, str], tmp_path: Path) -> None:
    url, key = stuck
    draw_file(tmp_path / "root" / "a.png", 54)

    def count_running() -> int:
        with urllib.request.urlopen(f"{url}/api/v1/status", timeout=120) as response:
            return int(json.load(response)["queue"]["running"])

    async def use(client: Client) -> None:
        call = asyncio.create_task(client.call_tool("upscale_image", {"image": "a.png"}))
        await asyncio.to_thread(wait_for, lambda: count_running() == 1, "the job to run")
        call.cancel()
        await asyncio.to_thread(wait_for, lambda: count_running() == 0, "the job to be cancelled")

    use_tool(url, key, tmp_path / "root", use)


def test_installation_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("superres", "mcp")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp", None)

    done = CliRunner().invoke(mcp, ["--to", "https://a.example"], env={"SUPERRES_CLIENT_KEY": "k"})

    assert done.exit_code == 2
    assert "pip install 'serverless-superres[mcp]'" in done.output

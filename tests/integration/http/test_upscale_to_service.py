"""`superres upscale --to` against the real gateway: results, limits, errors, retries, TLS and interruption."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from gateway.access.api_keys import ApiKeyStore
from gateway.cli import upscale
from gateway.cli.remote_service import RemoteService
from gateway.config.settings import Settings
from preprocessing.image import Pixels
from testing import images
from testing.content_images import draw_pixel_art
from testing.image_files import draw_file
from testing.scripted_relay import Canned, Cut, ScriptedRelay, relaying
from testing.server import Served, serving

pytestmark = pytest.mark.slow

COMPACT = {"variant": "compact_x4"}


@pytest.fixture(scope="module")
def key(served: Served) -> str:
    return ApiKeyStore(served.state_dir / "keys.json").new("cli", requests="10000 per minute")


def upscale_to(port: int, key: str, paths: list[Path], **options: Any) -> tuple[int, list[float]]:
    """Upscale on a service and return (exit code, seconds of each wait that was asked for)."""
    waits: list[float] = []
    parameters = options.pop("parameters", COMPACT)
    url = options.pop("url", f"http://127.0.0.1:{port}")
    service = RemoteService(url, key, parameters, sleep=waits.append)
    settings = Settings(state_dir=str(paths[-1].parent / "state"))
    return upscale.run(settings, paths, parameters, service=service, arguments=["upscale"], **options), waits


def draw_noise(side: int) -> Pixels:
    return np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)


def problem(status: int, detail: str, **members: Any) -> Canned:
    body = {"type": "/problems/x", "title": "X", "status": status, "detail": detail, "request_id": "r1", **members}
    headers = {"Content-Type": "application/problem+json"}
    if "retry_after_s" in members:
        headers["Retry-After"] = str(members["retry_after_s"])
    return Canned(status, json.dumps(body).encode(), headers)


def count(relay: ScriptedRelay, method: str) -> int:
    return sum(line.startswith(f"{method} ") for line in relay.requests)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_folder_is_upscaled_with_the_notes_of_the_service(
    served: Served, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    art = draw_pixel_art()
    (tmp_path / "in" / "sub" / "мой art.png").write_bytes(images.encode_png(art))
    draw_file(tmp_path / "in" / "a.png", 1)

    code, _ = upscale_to(served.port, key, [tmp_path / "in", tmp_path / "out"], parameters={})

    assert code == 0
    assert names(tmp_path / "out") == ["a_compact_x4.png", "sub/мой art_nearest_x4.png"]
    with PilImage.open(tmp_path / "out" / "sub" / "мой art_nearest_x4.png") as made:
        assert np.array_equal(np.array(made), np.repeat(np.repeat(art, 4, axis=0), 4, axis=1))
    said = capsys.readouterr().err
    assert "  Looks like pixel art (6 colours and hard edges): nearest_x4." in said
    assert "2 of 2 images upscaled." in said


@pytest.mark.parametrize(("name", "kind"), [("a.jpg", "JPEG"), ("a.webp", "WEBP")])
def test_format_follows_the_name_of_the_output(served: Served, key: str, tmp_path: Path, name: str, kind: str) -> None:
    code, _ = upscale_to(served.port, key, [draw_file(tmp_path / "in.png", 2), tmp_path / name])

    with PilImage.open(tmp_path / name) as made:
        assert (code, made.format, made.size) == (0, kind, (32, 32))


def test_existing_results_are_not_sent_again(served: Served, key: str, tmp_path: Path) -> None:
    draw_file(tmp_path / "in" / "a.png", 3)
    paths = [tmp_path / "in", tmp_path / "out"]
    assert upscale_to(served.port, key, paths, parameters={})[0] == 0

    with relaying(served.port) as relay:
        code, _ = upscale_to(relay.port, key, paths, parameters={}, flags=upscale.Flags(skip_existing=True))

    assert (code, relay.requests) == (0, ["GET /api/v1/variants"])


def test_image_over_a_limit_of_the_service_is_not_sent(
    served: Served, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "large.png").write_bytes(images.encode_png(draw_noise(400)))  # 480 kB; the limit is 300 kB

    with relaying(served.port) as relay:
        code, _ = upscale_to(relay.port, key, [tmp_path / "large.png", tmp_path / "out.png"])

    assert (code, relay.requests) == (upscale.EXIT_REJECTED, ["GET /api/v1/variants"])
    assert "the limit is 300,000 bytes (max_upload_bytes)" in capsys.readouterr().err


def test_wrong_key_ends_the_run_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(images.encode_png(draw_noise(2_000)))  # refused while 12 MB are sent
    draw_file(tmp_path / "in" / "b.png", 5)

    with serving(tmp_path / "served") as server:
        code, waits = upscale_to(server.port, "ssr_wrong", [tmp_path / "in", tmp_path / "out"])

    assert (code, waits, names(tmp_path / "out")) == (upscale.EXIT_BACKEND, [], [])
    assert "The service refuses all images: Send a valid API key" in (said := capsys.readouterr().err)
    assert "Stopped. 0 of 2 images upscaled." in said
    assert "ssr_wrong" not in said


def test_rejection_by_the_service_does_not_stop_the_others(
    served: Served, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = images.encode_jpeg(images.draw_photo(64, 64))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("not an image")
    (tmp_path / "in" / "b.jpg").write_bytes(cut[: len(cut) // 2])
    draw_file(tmp_path / "in" / "c.png", 6)

    code, _ = upscale_to(served.port, key, [tmp_path / "in", tmp_path / "out"])

    assert (code, names(tmp_path / "out")) == (upscale.EXIT_REJECTED, ["c_compact_x4.png"])
    assert "1 of 3 images upscaled, 2 failed." in capsys.readouterr().err


def test_retry_after_is_obeyed(served: Served, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with relaying(served.port) as relay:
        relay.posts += [
            problem(503, "The queue is full (2 images waiting).", retry_after_s=7),
            problem(429, "The rate limit is used up.", retry_after_s=3),
        ]
        code, waits = upscale_to(relay.port, key, [draw_file(tmp_path / "a.png", 7), tmp_path / "out.png"])

    assert (code, sum(waits), count(relay, "POST")) == (0, 10, 3)
    assert "  The queue is full (2 images waiting). Trying again in 7 s." in capsys.readouterr().err


def test_wait_of_a_day_ends_the_run(
    served: Served, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_file(tmp_path / "in" / "a.png", 8)
    draw_file(tmp_path / "in" / "b.png", 9)
    with relaying(served.port) as relay:
        relay.posts += [problem(503, "This month's 60 GPU seconds are used up.", retry_after_s=86_400)]
        code, waits = upscale_to(relay.port, key, [tmp_path / "in", tmp_path / "out"])

    assert (code, waits, len(relay.requests)) == (upscale.EXIT_BACKEND, [], 2)
    said = capsys.readouterr().err
    assert "This month's 60 GPU seconds are used up. This command does not wait that long." in said
    assert "To go on: superres upscale --skip-existing" in said


def test_fault_of_the_service_is_retried_once_and_then_counts_against_the_image(
    served: Served, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_file(tmp_path / "in" / "a.png", 10)
    draw_file(tmp_path / "in" / "b.png", 11)
    with relaying(served.port) as relay:
        relay.posts += [problem(502, "The backend failed."), problem(502, "The backend failed.")]
        code, waits = upscale_to(relay.port, key, [tmp_path / "in", tmp_path / "out"])

    assert (code, sum(waits)) == (upscale.EXIT_BACKEND, 2)
    assert names(tmp_path / "out") == ["b_compact_x4.png"]
    assert f"{tmp_path}/in/a.png: The backend failed. (request r1)" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [0, 100])
def test_connection_that_breaks_is_retried_and_leaves_nothing_partial(
    served: Served, key: str, tmp_path: Path, kept: int
) -> None:
    source = draw_file(tmp_path / "in" / "a.png", 12, side=64)
    with relaying(served.port) as relay:
        relay.posts += [Cut(kept), Cut(kept)]
        code, waits = upscale_to(relay.port, key, [source, tmp_path / "out"])

    assert (code, sum(waits)) == (0, 3)
    assert names(tmp_path / "out") == ["a_compact_x4.png"]
    with PilImage.open(tmp_path / "out" / "a_compact_x4.png") as made:
        made.load()
        assert made.size == (256, 256)


def test_download_that_breaks_is_continued(served: Served, key: str, tmp_path: Path) -> None:
    source = draw_file(tmp_path / "a.png", 16, side=64)
    assert upscale_to(served.port, key, [source, tmp_path / "whole.png"])[0] == 0
    with relaying(served.port) as relay:
        relay.downloads += [Cut(0), Cut(0), Cut(1_000), Cut(1), Cut(0)]
        code, waits = upscale_to(relay.port, key, [source, tmp_path / "out.png"])

    assert (code, sum(waits)) == (0, 7)
    assert (tmp_path / "out.png").read_bytes() == (tmp_path / "whole.png").read_bytes()
    assert [count(relay, method) for method in ("POST", "GET", "DELETE")] == [1, 7, 1]


def test_result_that_another_replica_has_comes_within_the_events(served: Served, key: str, tmp_path: Path) -> None:
    draw_file(tmp_path / "in" / "a.png", 17)
    draw_file(tmp_path / "in" / "b.png", 18)
    with relaying(served.port) as relay:
        relay.downloads.append(problem(404, "No such result."))
        code, waits = upscale_to(relay.port, key, [tmp_path / "in", tmp_path / "out"])

    posts = [line for line in relay.requests if line.startswith("POST")]
    assert (code, waits, count(relay, "GET")) == (0, [1], 2)
    assert ["inline=1" in line for line in posts] == [False, True, True]
    assert names(tmp_path / "out") == ["a_compact_x4.png", "b_compact_x4.png"]


def test_download_that_fails_for_good_sends_the_image_again(served: Served, key: str, tmp_path: Path) -> None:
    with relaying(served.port) as relay:
        relay.downloads += [Cut(0)] * 6 + [Canned(500)]
        code, _ = upscale_to(relay.port, key, [draw_file(tmp_path / "a.png", 19), tmp_path / "out.png"])

    assert (code, count(relay, "POST")) == (0, 3)
    assert names(tmp_path) == ["a.png", "out.png"]


def test_service_forgets_a_result_that_was_downloaded(served: Served, key: str, tmp_path: Path) -> None:
    with relaying(served.port) as relay:
        upscale_to(relay.port, key, [draw_file(tmp_path / "a.png", 20), tmp_path / "out.png"])

    path = next(line for line in relay.requests if line.startswith("DELETE")).split()[1]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{served.port}{path}", timeout=120)


def test_errors_of_a_proxy_in_front(
    served: Served, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html = {"Content-Type": "text/html"}
    with relaying(served.port) as relay:
        relay.posts += [Canned(502, b"<h1>Bad Gateway</h1>", html), Canned(413, b"<h1>Too Large</h1>", html)]
        code, waits = upscale_to(relay.port, key, [draw_file(tmp_path / "a.png", 13), tmp_path / "out.png"])

    assert (code, sum(waits)) == (upscale.EXIT_REJECTED, 1)
    assert "a proxy in front of the service does not let so large an upload pass." in capsys.readouterr().err

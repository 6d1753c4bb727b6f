"""The main job: an image comes back four times as large on each side, better than interpolated."""

from __future__ import annotations

import io
import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swinir.inference.torch_engine import TorchEngine
from swinir.zoo import DEFAULT_VARIANT
from testing import images
from testing.data import SET5, SET5_NAMES, decode_pixels, max_difference, read_pixels, set5_pair
from testing.stack import Stack, superres
from training.metrics import luminance_psnr

MIN_SET5_DB = 31.0
BICUBIC_SET5_DB = 28.43


def test_curl_gets_a_png_of_four_times_the_sides(stack: Stack, tmp_path: Path) -> None:
    source, target = SET5 / "x4" / "butterfly.png", tmp_path / "out.png"

    subprocess.run(
        [
            "curl",
            "--silent",
            "--show-error",
            "--fail",
            "-F",
            f"image=@{source}",
            "-H",
            f"X-API-Key: {stack.key}",
            f"{stack.url}/api/v1/upscale",
            "-o",
            str(target),
        ],
        check=True,
    )

    with Image.open(target) as opened, Image.open(source) as low_res:
        assert (opened.format, opened.size) == ("PNG", (low_res.width * 4, low_res.height * 4))


def test_set5_beats_bicubic_and_equals_the_network(stack: Stack) -> None:
    engine, scores, plain = TorchEngine(), {}, {}
    for name in SET5_NAMES:
        low_res, reference = set5_pair(name)

        with stack.post((SET5 / "x4" / f"{name}.png").read_bytes()) as response:
            assert response.headers["Content-Type"] == "image/png"
            upscaled = decode_pixels(response.read())

        assert max_difference(upscaled, engine.restore(low_res[None], DEFAULT_VARIANT).tiles[0]) <= 1
        scores[name] = luminance_psnr(upscaled, reference, border=4)
        bicubic = Image.fromarray(low_res).resize((reference.shape[1], reference.shape[0]), Image.Resampling.BICUBIC)
        plain[name] = luminance_psnr(np.array(bicubic), reference, border=4)

    assert np.mean(list(scores.values())) >= MIN_SET5_DB, scores
    assert np.mean(list(plain.values())) == pytest.approx(BICUBIC_SET5_DB, abs=0.05)
    assert all(scores[name] > plain[name] for name in SET5_NAMES), (scores, plain)


@pytest.mark.parametrize("format_name", ["png", "jpeg", "webp"])
def test_raw_body_returns_the_requested_format(stack: Stack, format_name: str) -> None:
    source = (SET5 / "x4" / "bird.png").read_bytes()

    with stack.post(source, f"?format={format_name}&quality=95&variant={DEFAULT_VARIANT}") as response:
        data = response.read()

    with Image.open(io.BytesIO(data)) as opened:
        assert opened.format == format_name.upper()
        assert luminance_psnr(decode_pixels(data), set5_pair("bird")[1], border=4) > 30


UPLOADS = {
    "an empty body": (b"", 400, "empty-upload", "0 bytes|empty"),
    "text named .png": (b"this is not a picture\n" * 20, 415, "unknown-format", "JPEG, PNG, WebP"),
    "a 30000x30000 header": (images.png_header_only(30000, 30000), 413, "too-many-pixels|side-too-long", "30000"),
    "a truncated JPEG": (
        images.truncated(images.encode_jpeg(images.draw_photo(64, 64, seed=1))),
        422,
        "unreadable-image",
        ".",
    ),
}


@pytest.mark.parametrize("case", UPLOADS)
def test_invalid_uploads_are_rejected_and_the_server_stays_healthy(stack: Stack, case: str) -> None:
    data, status, slug, text = UPLOADS[case]

    with pytest.raises(urllib.error.HTTPError) as refused:
        stack.post(data)

    problem = json.loads(refused.value.read())
    assert refused.value.code == problem["status"] == status
    assert refused.value.headers["Content-Type"] == "application/problem+json"
    assert any(problem["type"].endswith(each) for each in slug.split("|")), problem
    assert any(each in problem["detail"] for each in text.split("|")), problem
    with urllib.request.urlopen(f"{stack.url}/healthz", timeout=120) as response:
        assert response.status == 200


def odd_uploads() -> dict[str, tuple[bytes, tuple[int, int], str]]:
    """Return name -> (upload, size of the result, mode of the result)."""
    photo = images.draw_photo(24, 30, seed=2)
    return {
        "one pixel": (images.encode_png(photo[:1, :1]), (4, 4), "RGB"),
        "one row": (images.encode_png(photo[:1]), (120, 4), "RGB"),
        "one column": (images.encode_png(photo[:, :1]), (4, 96), "RGB"),
        "an animated WebP": (images.animated_webp([photo, photo[::-1]]), (0, 0), "RGB"),
        "a CMYK JPEG": (images.cmyk_jpeg(photo), (0, 0), "RGB"),
        "a palette with transparency": (images.palette_png_with_transparency(photo), (0, 0), "RGBA"),
        "16-bit grey": (images.grey16_png((photo[..., 0].astype(np.uint16) * 257).astype(np.uint16)), (0, 0), "I;16"),
    }


@pytest.mark.parametrize("case", odd_uploads())
def test_unusual_but_valid_uploads_are_upscaled(stack: Stack, case: str) -> None:
    data, size, mode = odd_uploads()[case]
    with Image.open(io.BytesIO(data)) as low_res:
        size = size if size[0] else (low_res.width * 4, low_res.height * 4)

    with stack.post(data) as response, Image.open(io.BytesIO(response.read())) as opened:
        assert (opened.size, opened.mode) == (size, mode)


def test_new_and_revoked_keys_take_effect_at_once(stack: Stack) -> None:
    image = images.encode_png(images.draw_photo(8, 8, seed=3))
    made = superres("keys", "new", "visitor", environ=stack.environ)
    key = made.stdout.strip()
    assert made.stdout == f"{key}\n"
    assert made.returncode == 0

    with stack.post(image, headers={"X-API-Key": key}) as response:
        assert response.status == 200

    assert "visitor" in superres("keys", "list", environ=stack.environ).stdout
    assert superres("keys", "revoke", "visitor", environ=stack.environ).returncode == 0
    with pytest.raises(urllib.error.HTTPError, match="401"):
        stack.post(image, headers={"X-API-Key": key})


def test_command_line_gives_the_same_image_and_a_line_per_file(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("not an image")
    sources = [str(SET5 / "x4" / "woman.png"), str(tmp_path / "notes.png"), str(SET5 / "x4" / "head.png")]

    servers_log = (stack.state_dir / "triton.log").stat().st_ino
    beside = sorted(path.name for path in stack.state_dir.glob("triton*"))

    done = superres("upscale", *sources, str(tmp_path / "made"), environ=stack.environ)

    assert done.returncode == 3, done.stderr
    assert (stack.state_dir / "triton.log").stat().st_ino == servers_log, "the server's log was taken away"
    assert sorted(path.name for path in stack.state_dir.glob("triton*")) == beside
    assert "notes.png: The upload begins with" in done.stderr
    with stack.post(Path(sources[0]).read_bytes()) as response:
        assert (
            max_difference(read_pixels(tmp_path / "made" / "woman_compact_x4.png"), decode_pixels(response.read())) <= 1
        )
    assert (tmp_path / "made" / "head_compact_x4.png").exists()
    again = superres("upscale", sources[0], str(tmp_path / "made"), environ=stack.environ)
    assert again.returncode == 3
    assert "--overwrite" in again.stderr


def test_command_line_explains_invalid_usage(tmp_path: Path, stack: Stack) -> None:
    source = str(SET5 / "x4" / "woman.png")
    for arguments, text in (
        ([source], "at least one input file"),
        ([source, str(tmp_path / "out.gif")], "The formats are png, jpeg, webp"),
        ([source, str(tmp_path / "out.png"), "--variant", "nope"], "compact_x4"),
        ([source, str(tmp_path / "out.png"), "--format", "webp"], "ends in .png"),
    ):
        done = superres("upscale", *arguments, environ=stack.environ)
        assert done.returncode == 2, done.stderr
        assert text in done.stderr

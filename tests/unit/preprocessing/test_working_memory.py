"""The estimate of the working memory is never below the measured peak."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest

from preprocessing.codec import OutputFormat, Upload, UploadLimits, max_output_pixels, probe, working_bytes
from testing import images
from testing.data import ROOT

LIMITS = UploadLimits(max_bytes=20_000_000, max_pixels=10_000_000, max_side=10_000)
SIDE = 512
MEASURE = f"""
import json, sys
from pathlib import Path
import numpy as np
from preprocessing.codec import BandEncoder, Image, encode

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

format_, channels, side, is_lossless = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "True"
random = np.random.default_rng(0)
encode(Image(np.zeros((8, 8, 3), np.uint8)), format_, is_lossless=is_lossless)
given = random.integers(0, 256, ({SIDE}, {SIDE}, channels), np.uint8)
image = Image(given[..., :3], alpha=given[..., 3] if channels == 4 else None)
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
shrink_to = None if side == {4 * SIDE} else (side, side)
encoder = BandEncoder(image, 4, format_, 100, is_lossless=is_lossless, shrink_to=shrink_to)
for _ in range({4 * SIDE // 256}):
    encoder.add(random.integers(0, 256, (256, {4 * SIDE}, 3), np.uint8))
data = encoder.finish()
print(json.dumps({{"taken": memory("VmHWM") - before, "file": len(data)}}))
"""


def make_upload(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Upload:
    return probe(images.encode_png(pixels), LIMITS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format_", "is_lossless"), [*((name, False) for name in get_args(OutputFormat)), ("webp", True)]
)
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("side", [4 * SIDE, 3 * SIDE])
def test_noise_takes_no_more_than_it_is_said_to(
    format_: OutputFormat, channels: int, side: int, *, is_lossless: bool
) -> None:
    upload = make_upload(np.zeros((SIDE, SIDE, channels), np.uint8))
    shrunk_to = None if side == 4 * SIDE else (side, side)
    predicted = working_bytes(upload, 4, format_, shrunk_to, is_lossless=is_lossless)

    command = [sys.executable, "-c", MEASURE, format_, str(channels), str(side), str(is_lossless)]
    response = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    taken = json.loads(response.stdout)["taken"]
    assert taken < predicted, f"{taken / side**2:.1f} bytes per pixel, not {predicted / side**2:.1f}"


def test_more_pixels_a_larger_scale_and_transparency_take_more() -> None:
    plain, larger = (make_upload(np.zeros((side, 64, 3), np.uint8)) for side in (64, 65))
    clear = make_upload(np.zeros((64, 64, 4), np.uint8))

    assert working_bytes(plain, 2, "webp") < working_bytes(larger, 2, "webp")
    assert working_bytes(plain, 2, "webp") < working_bytes(plain, 3, "webp")
    assert working_bytes(plain, 2, "webp") < working_bytes(clear, 2, "webp")


def test_a_result_that_is_shrunk_takes_less() -> None:
    upload = make_upload(np.zeros((1_000, 1_000, 3), np.uint8))

    assert working_bytes(upload, 4, "webp", (2_000, 2_000)) < working_bytes(upload, 4, "webp") / 1.8


def test_at_scale_1_decoding_takes_most() -> None:
    assert working_bytes(make_upload(np.zeros((100, 1_000, 3), np.uint8)), 1, "png") == 100 * 1_000 * 24


def test_most_pixels_are_those_that_the_bytes_hold() -> None:
    assert max_output_pixels("webp", 1_600, is_transparent=False) == 100
    assert max_output_pixels("webp", 4_200, is_transparent=True) == 100

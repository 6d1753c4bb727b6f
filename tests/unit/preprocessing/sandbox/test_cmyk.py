"""CMYK: converted through its profile, or as an offset press prints; never with a broken profile."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage
from PIL import ImageCms

from preprocessing.sandbox.press_profile import default_profile
from testing import images
from testing.data import ROOT
from testing.decoding import read
from testing.inks import GHOSTSCRIPT_COLOURS, cmyk_jpeg_with_profile, grid_of_inks, press_profile

PIXELS = np.asarray(PilImage.open(ROOT / "tests/data/Set5/x4/butterfly.png").convert("RGB"))[:64, :64]
CMYK = cmyk_jpeg_with_profile(PIXELS)
PROFILE = press_profile()


def inks() -> PilImage.Image:
    drawn = PilImage.open(BytesIO(CMYK)).copy()
    drawn.info.clear()  # or Pillow saves the profile again
    return drawn


def convert(drawn: PilImage.Image, profile: bytes) -> images.Pixels:
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    return np.asarray(
        ImageCms.profileToProfile(
            drawn, source, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB"
        )
    )


def mean_error(pixels: Any, expected: Any) -> float:
    return float(np.abs(pixels.astype(int) - expected).mean())


def test_profile_is_used_and_no_longer_describes_the_result() -> None:
    image = read(CMYK)
    assert mean_error(image.pixels, PIXELS) < 2
    assert mean_error(convert(inks(), default_profile()), PIXELS) > 20
    assert image.icc_profile is None
    assert image.notes == ("The image is in CMYK, for print: it was converted to sRGB through its colour profile.",)


def test_tiff_and_jpeg_of_the_same_inks_agree() -> None:
    tiff = images.save(inks(), "TIFF", icc_profile=PROFILE)
    assert (read(tiff).pixels == read(CMYK).pixels).all()


@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_turned_cmyk_is_upright(orientation: int) -> None:
    stored = images.store_for_orientation(np.asarray(inks())[:40], orientation)
    exif = images.exif_with_orientation(orientation)
    drawn = PilImage.frombytes("CMYK", (stored.shape[1], stored.shape[0]), np.ascontiguousarray(stored).tobytes())
    data = images.save(drawn, "JPEG", quality=98, subsampling=0, icc_profile=PROFILE, exif=b"Exif\0\0" + exif)
    assert mean_error(read(data).pixels, PIXELS[:40]) < 3


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        (None, "because it has no colour profile"),
        (PROFILE[:3_000], "because its colour profile is broken"),
        (PROFILE[:128] + bytes(len(PROFILE) - 128), "because its colour profile is broken"),
        (images.icc_profile(), "because its colour profile is broken"),
    ],
)
def test_without_a_sound_profile_the_press_default_is_used_with_a_note(profile: bytes | None, reason: str) -> None:
    data = images.save(inks(), "TIFF", **({"icc_profile": profile} if profile else {}))
    image = read(data)
    assert (image.pixels == convert(inks(), default_profile())).all()
    (note,) = image.notes
    assert reason in note
    assert "as on a typical offset press" in note


def test_default_profile_is_near_the_one_of_ghostscript() -> None:
    drawn = grid_of_inks(3)
    converted = convert(drawn, default_profile())
    assert mean_error(converted, GHOSTSCRIPT_COLOURS) < 7
    assert mean_error(np.asarray(drawn.convert("RGB")), GHOSTSCRIPT_COLOURS) > 20
    assert (converted[0, 0] >= 254).all()  # no ink is white

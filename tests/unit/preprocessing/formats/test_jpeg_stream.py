"""A JPEG written in strips of any size has the pixels that one call of Pillow gives."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage

from preprocessing.formats.jpeg import STRIP_ROWS, JpegStream
from preprocessing.image import Pixels
from testing import images


def write(pixels: Pixels, cuts: list[int], quality: int = 92, profile: bytes | None = None) -> bytes:
    mode = "RGB" if pixels.shape[2] == 3 else "L"
    stream = JpegStream(pixels.shape[1], pixels.shape[0], mode, quality, profile)
    return b"".join([*(stream.rows(rows) for rows in np.split(pixels, cuts)), stream.finish()])


def read(data: bytes) -> Pixels:
    return np.atleast_3d(np.asarray(PilImage.open(BytesIO(data))))


def at_once(pixels: Pixels, quality: int) -> Pixels:
    target = BytesIO()
    drawn = PilImage.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    drawn.save(target, "JPEG", quality=quality, subsampling=0)
    return read(target.getvalue())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 40), st.sampled_from([1, 3]), st.sampled_from([1, 75, 92, 100]), st.data())
def test_strips_have_the_pixels_of_one_call(
    height: int, width: int, channels: int, quality: int, data: st.DataObject
) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, channels), np.uint8)
    cuts = sorted(data.draw(st.sets(st.integers(0, height), max_size=6)))

    assert (read(write(pixels, cuts, quality)) == at_once(pixels, quality)).all()


def test_bytes_do_not_depend_on_the_bands() -> None:
    pixels, profile = images.draw_photo(3 * STRIP_ROWS + 5, 24), images.icc_profile(b"RGB ")

    data = write(pixels, [], profile=profile)

    assert write(pixels, [1, 63, 64, 150], profile=profile) == data
    assert PilImage.open(BytesIO(data)).info["icc_profile"] == profile
    assert data.count(profile) == 1


def test_strip_leaves_as_soon_as_its_rows_are_there() -> None:
    stream = JpegStream(16, 1_000, "RGB", 92)

    assert not stream.rows(np.zeros((STRIP_ROWS - 1, 16, 3), np.uint8))
    assert stream.rows(np.zeros((1, 16, 3), np.uint8))


@pytest.mark.parametrize("rows", [0, 9, 11])
def test_file_with_rows_missing_or_too_many_is_not_finished(rows: int) -> None:
    stream = JpegStream(4, 10, "RGB", 92)
    stream.rows(np.zeros((rows, 4, 3), np.uint8))

    with pytest.raises(ValueError, match=f"has 10 rows and {rows} of them were written"):
        stream.finish()

"""AVIF results: the right pixels for every size of grid, exact alpha, colours, and equal bytes for any bands."""

from __future__ import annotations

import tracemalloc
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from preprocessing.codec import BandEncoder, Image, Pixels, describe_losses, encode
from preprocessing.formats.avif import AvifStream, choose_layout, map_quality
from preprocessing.formats.avif_container import AvifColours
from testing import images

# One pixel, one cell, cells side by side, below each other, a grid, and grids thinner than the smallest cell.
SHAPES = [(1, 1), (200, 300), (512, 512), (20, 513), (1_100, 9), (600, 1_030), (1, 1_500)]


def smooth(height: int, width: int) -> Pixels:
    """Return a photo enlarged, which is as smooth as results are."""
    small = PilImage.fromarray(images.draw_photo(max(1, height // 8), max(1, width // 8)))
    return np.array(small.resize((width, height), PilImage.Resampling.BICUBIC))


def reopen(data: bytes) -> PilImage.Image:
    opened = PilImage.open(BytesIO(data))
    opened.load()
    return opened


def psnr(one: Any, other: Any) -> float:
    error = float(np.square(one.astype(float) - other).mean())
    return 10 * float(np.log10(255**2 / error)) if error else 99.0


def pixels_of(data: bytes, mode: str = "RGB") -> Pixels:
    return np.asarray(reopen(data).convert(mode))


@pytest.mark.parametrize("shape", SHAPES)
def test_grid_of_any_size_holds_the_pixels_and_exact_alpha(shape: tuple[int, int]) -> None:
    pixels = smooth(*shape)
    alpha = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    opened = reopen(encode(Image(pixels, alpha=alpha), "avif", 92))

    assert (opened.mode, opened.size) == ("RGBA", (shape[1], shape[0]))
    found = np.asarray(opened)
    assert (found[..., 3] == alpha).all()
    assert psnr(found[..., :3], pixels) > 38


def test_no_seam_shows_where_cells_meet() -> None:
    pixels = smooth(700, 1_100)
    error = np.square(pixels_of(encode(Image(pixels), "avif", 60)).astype(float) - pixels).mean(axis=2)

    layout = choose_layout(1_100, 700)
    seam = error[:, layout.cell_width - 1 : layout.cell_width + 1].mean()
    assert (layout.columns, layout.rows) == (3, 2)
    assert seam < 2 * error.mean()


def test_grey_stays_neutral_in_a_smaller_file() -> None:
    grey = np.repeat(smooth(200, 300)[..., :1], 3, axis=2)
    file, colour_file = encode(Image(grey, is_grey=True), "avif"), encode(Image(grey), "avif")
    found = pixels_of(file)

    assert (found[..., 0] == found[..., 1]).all()
    assert (found[..., 0] == found[..., 2]).all()
    assert psnr(found, grey) > 45
    assert len(file) < len(colour_file)


def test_quality_means_about_the_psnr_and_size_of_webp() -> None:
    pixels = smooth(512, 512)
    for quality in (40, 80, 92):
        avif_file, webp_file = encode(Image(pixels), "avif", quality), encode(Image(pixels), "webp", quality)
        assert psnr(pixels_of(avif_file), pixels) > psnr(pixels_of(webp_file), pixels) - 2
        assert len(avif_file) < 1.1 * len(webp_file)
    assert [map_quality(quality) for quality in (1, 50, 92, 93, 100)] == [1, 40, 74, 77, 100]


def test_any_bands_make_the_same_bytes() -> None:
    original = Image(images.draw_photo(300, 330), alpha=images.draw_alpha(300, 330))
    large = original.pixels.repeat(2, axis=0).repeat(2, axis=1)
    files = []
    for cuts in ((), (1, 7, 511, 512, 513), (300,)):
        encoder = BandEncoder(original, 2, "avif", 50)
        for band in np.split(large, cuts):
            encoder.add(band)
        files.append(encoder.finish())

    assert files[0] == files[1] == files[2]


def test_profile_goes_into_the_file() -> None:
    profile = images.icc_profile(b"RGB ")
    for shape in ((30, 40), (30, 600)):
        assert reopen(encode(Image(smooth(*shape), icc_profile=profile), "avif")).info["icc_profile"] == profile


def test_grey_profile_is_dropped_with_a_note() -> None:
    image = Image(smooth(8, 8), is_grey=True, icc_profile=images.icc_profile(b"GRAY"))

    assert "icc_profile" not in reopen(encode(image, "avif")).info
    assert describe_losses(image, "avif") == ("AVIF has no greyscale: the greyscale colour profile was dropped.",)


def test_cicp_is_kept_as_codes_even_for_hdr() -> None:
    image = Image(
        smooth(30, 600), icc_profile=images.icc_profile(b"RGB "), colour_chunks={b"cICP": bytes((9, 16, 0, 1))}
    )
    data = encode(image, "avif")

    assert b"colrnclx\0\x09\0\x10\0\x06\x80" in data
    assert "icc_profile" not in reopen(data).info
    assert describe_losses(image, "avif") == ()


def test_narrow_range_of_cicp_is_reported() -> None:
    image = Image(smooth(8, 8), colour_chunks={b"cICP": bytes((9, 16, 0, 0))})

    assert "AVIF cannot hold the colours of this PNG" in describe_losses(image, "avif")[0]


@pytest.mark.parametrize("width", [40, 600])
def test_exif_and_xmp_go_into_the_file(width: int) -> None:
    exif, xmp = images.exif_with_orientation(1), b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    pixels = smooth(40, width)
    stream = AvifStream(width, 40, "RGB", 80, AvifColours(), exif=exif, xmp=xmp)
    stream.rows(pixels)

    opened = reopen(b"".join(stream.finish()))

    assert opened.info["exif"].removeprefix(b"Exif\0\0") == exif
    assert opened.info["xmp"] == xmp
    assert psnr(np.asarray(opened), pixels) > 35


def test_missing_rows_are_reported() -> None:
    stream = AvifStream(40, 20, "RGB", 80)
    stream.rows(smooth(19, 40))

    with pytest.raises(ValueError, match="The AVIF has 20 rows and 19 of them were written"):
        stream.finish()


def test_memory_follows_the_cells() -> None:
    band, rows = np.zeros((64, 2_048, 4), np.uint8), 4_096
    stream = AvifStream(2_048, rows, "RGBA", 92)
    tracemalloc.start()  # includes numpy's memory and Pillow's files, not libaom's: see test_working_memory
    for _ in range(rows // len(band)):
        stream.rows(band)
    data = b"".join(stream.finish())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most - 2 * len(data) < 4_000_000  # the image has 33,554,432 bytes

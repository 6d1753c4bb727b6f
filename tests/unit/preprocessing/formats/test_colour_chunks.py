"""Colour chunks of a PNG are kept in a PNG and become an equal profile in JPEG and WebP."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PilImage
from PIL import ImageCms

from preprocessing.codec import OutputFormat, describe_losses, encode
from preprocessing.formats.colour_chunks import CHUNK_BYTES, Colours, find_colours, make_profile
from preprocessing.formats.icc import colour_space, keep_profile
from preprocessing.formats.png import read_png
from testing import images
from testing.data import UPLOADS
from testing.decoding import read

PHOTO, GREY = images.draw_photo(16, 24), images.draw_grey(16, 24)
D65, D50 = (0.3127, 0.3290), (0.3457, 0.3585)
SRGB = (D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
P3 = (D65, (0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
BT2020 = (D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
PROFILE = images.icc_profile()
Points = tuple[tuple[float, float], ...]
Matrix = npt.NDArray[np.float64]


def gama(number: int) -> bytes:
    return struct.pack(">I", number)


def chrm(points: Points) -> bytes:
    return struct.pack(">8I", *(round(1e5 * number) for point in points for number in point))


def png(chunks: Mapping[bytes, bytes], pixels: images.Pixels = PHOTO, profile: bytes | None = None) -> bytes:
    data = images.encode_png(pixels, icc_profile=profile)
    for kind, body in chunks.items():
        data = images.insert_png_chunk(data, kind, body)
    return data


def profile_in(data: bytes, output: OutputFormat) -> bytes | None:
    profile: bytes | None = PilImage.open(BytesIO(encode(read(data), output))).info.get("icc_profile")
    return profile


def matrix(points: Points) -> Matrix:
    """Return linear RGB to XYZ under the white of `points` (SMPTE RP 177)."""
    white, *primaries = (np.array((x, y, 1 - x - y)) / y for x, y in points)
    columns = np.column_stack(primaries)
    product: Matrix = columns @ np.diag(np.linalg.inv(columns) @ white)
    return product


def linear(levels: Matrix, curve: tuple[float, ...]) -> Matrix:
    if len(curve) == 1:
        return np.power(levels, curve[0])
    g, a, b, c, d = curve
    return np.where(levels >= d, np.power(a * levels + b, g), c * levels)


def to_srgb(pixels: images.Pixels, points: Points, curve: tuple[float, ...]) -> Matrix:
    """Return sRGB levels of pixels whose white is D65, in floating point."""
    light = linear(pixels / 255, curve) @ (np.linalg.inv(matrix(SRGB)) @ matrix(points)).T
    light = np.clip(light, 0, 1)
    levels: Matrix = 255.0 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.power(light, 1 / 2.4) - 0.055)
    return levels


def by_littlecms(pixels: images.Pixels, profile: bytes) -> Matrix:
    """Return sRGB levels of pixels with a profile."""
    converted = ImageCms.profileToProfile(
        PilImage.fromarray(pixels),
        ImageCms.ImageCmsProfile(BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    )
    return np.asarray(converted).astype(np.float64)


PATCHES = np.random.default_rng(5).integers(0, 256, (64, 64, 3)).astype(np.uint8)
SPACES = {
    "gAMA 0.55": ({b"gAMA": gama(55_100)}, SRGB, (1 / 0.551,)),
    "gAMA 1": ({b"gAMA": gama(100_000)}, SRGB, (1.0,)),
    "gAMA and cHRM": ({b"gAMA": gama(45_455), b"cHRM": chrm(BT2020)}, BT2020, (1 / 0.45455,)),
    "cHRM alone": ({b"cHRM": chrm(P3)}, P3, SRGB_CURVE),
    "cICP P3": ({b"cICP": b"\x0c\x0d\0\1"}, P3, SRGB_CURVE),
    "cICP BT.2020": (
        {b"cICP": b"\x09\x0e\0\1"},
        BT2020,
        (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081),
    ),
    "cICP gamma 2.2": ({b"cICP": b"\1\4\0\1"}, SRGB, (2.2,)),
    "cICP wins": ({b"cICP": b"\x0c\x0d\0\1", b"gAMA": gama(100_000), b"sRGB": b"\0"}, P3, SRGB_CURVE),
}


@pytest.mark.parametrize("name", SPACES)
def test_littlecms_converts_by_the_profile_as_the_chunks_mean(name: str) -> None:
    chunks, points, curve = SPACES[name]
    profile = profile_in(png(chunks), "jpeg")
    assert profile is not None
    difference = np.abs(by_littlecms(PATCHES, profile) - to_srgb(PATCHES, points, curve))
    assert difference.max() < 2.5
    assert difference.mean() < 0.5
    assert keep_profile(profile, is_grey=False) == (profile, "")
    assert profile_in(png(chunks), "webp") == profile


def test_profile_of_srgb_has_the_colorants_of_littlecms() -> None:
    made = ImageCms.ImageCmsProfile(BytesIO(make_profile(Colours(SRGB, SRGB_CURVE), is_grey=False))).profile
    reference = ImageCms.createProfile("sRGB")
    for name in ("red_colorant", "green_colorant", "blue_colorant"):
        assert np.abs(np.subtract(getattr(made, name)[0], getattr(reference, name)[0])).max() < 2 / 65_536


def test_other_white_is_adapted_to_d50() -> None:
    """White stays white at any (x, y)."""
    for white in (D50, (0.314, 0.351), (0.31, 0.316)):
        profile = make_profile(Colours((white, *SRGB[1:]), (1.8,)), is_grey=False)
        assert by_littlecms(np.full((1, 1, 3), 255, np.uint8), profile).min() >= 254


def test_impossible_points_have_no_profile() -> None:
    for points in ((SRGB[0], SRGB[1], SRGB[1], SRGB[3]), ((0.3, 0.0), *SRGB[1:])):
        with pytest.raises(ValueError, match="No colour space has the white"):
            make_profile(Colours(points, SRGB_CURVE), is_grey=False)


def test_greyscale_gets_a_grey_profile_and_rgb_in_webp() -> None:
    data = png({b"gAMA": gama(55_100)}, GREY)
    grey, colour = profile_in(data, "jpeg"), profile_in(data, "webp")
    assert grey is not None
    assert colour is not None
    assert (colour_space(grey), colour_space(colour)) == ("greyscale", "RGB")
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = to_srgb(np.repeat(levels[..., np.newaxis], 3, axis=2), SRGB, (1 / 0.551,))
    assert np.abs(by_littlecms(levels, grey) - expected).max() < 2
    assert describe_losses(read(data), "webp") == ()


@pytest.mark.parametrize(
    "chunks",
    [
        *(chunks for chunks, _, _ in SPACES.values()),
        {b"sRGB": b"\1", b"gAMA": gama(45_455), b"cHRM": chrm(SRGB)},
        {b"cICP": b"\x09\x10\0\1", b"mDCV": bytes(range(24)), b"cLLI": bytes(8)},
    ],
)
def test_png_keeps_the_chunks(chunks: Mapping[bytes, bytes]) -> None:
    result = encode(read(png(chunks)), "png")
    assert read_png(result).colour_chunks == chunks
    assert result.index(next(iter(chunks))) < result.index(b"IDAT")
    assert (read(result).pixels == PHOTO).all()


@pytest.mark.parametrize(
    ("chunks", "profile", "kept"),
    [
        ({}, None, None),
        ({b"sRGB": b"\0"}, None, None),
        ({b"sRGB": b"\0", b"gAMA": gama(50_000)}, None, None),
        ({b"gAMA": gama(50_000)}, PROFILE, PROFILE),
        ({b"sRGB": b"\0"}, PROFILE, PROFILE),
        ({b"gAMA": gama(0)}, None, None),
        ({b"gAMA": gama(2**31)}, None, None),
        ({b"cHRM": bytes(32)}, None, None),
        ({b"cHRM": chrm((D65, (0.3, 0.3), (0.3, 0.3), (0.3, 0.3)))}, None, None),
        ({b"cICP": b"\x09\x10\0\1"}, PROFILE, PROFILE),
    ],
)
def test_precedence_and_impossible_values(
    chunks: Mapping[bytes, bytes], profile: bytes | None, kept: bytes | None
) -> None:
    assert profile_in(png(chunks, profile=profile), "jpeg") == kept


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"\x09\x10\0\1", "HDR, PQ"),
        (b"\x09\x12\0\1", "HDR, HLG"),
        (b"\2\2\0\1", "cICP 2, 2, 0, 1"),
        (b"\1\x0d\1\1", "cICP 1, 13, 1, 1"),
        (b"\1\x0d\0\0", "cICP 1, 13, 0, 0"),
    ],
)
def test_colours_that_a_profile_cannot_express_are_said(body: bytes, words: str) -> None:
    image = read(png({b"cICP": body}))
    assert profile_in(png({b"cICP": body}), "jpeg") is None
    for output in ("jpeg", "webp"):
        assert [words in note for note in describe_losses(image, output)] == [True]
    assert describe_losses(image, "png") == ()


def test_damaged_and_late_chunks_are_ignored() -> None:
    damaged = bytearray(png({b"gAMA": gama(55_100)}))
    damaged[damaged.index(b"gAMA") + 8] ^= 1
    whole = images.encode_png(PHOTO)
    late = whole[:-12] + images.png_chunk(b"gAMA", gama(55_100)) + whole[-12:]
    for data in (bytes(damaged), late, png({b"gAMA": b"\0\0\1"}), png({b"cICP": b"\1\1\0"})):
        assert read_png(data).colour_chunks == {}


def test_next_to_a_profile_srgb_is_not_written() -> None:
    result = encode(read(png({b"sRGB": b"\0", b"gAMA": gama(50_000)}, profile=PROFILE)), "png")
    assert (b"sRGB" in result, b"gAMA" in result, b"iCCP" in result) == (False, True, True)


@pytest.mark.parametrize("name", ["gama_55100.png", "cicp_p3.png", "chrm2020.png"])
def test_reported_files_keep_their_colours(name: str) -> None:
    data = (UPLOADS / name).read_bytes()
    assert read_png(encode(read(data), "png")).colour_chunks == read_png(data).colour_chunks != {}
    assert profile_in(data, "jpeg") is not None


@given(
    st.fixed_dictionaries({}, optional={kind: st.binary(min_size=n, max_size=n) for kind, n in CHUNK_BYTES.items()}),
    st.booleans(),
)
def test_no_chunks_make_the_writer_fail(chunks: dict[bytes, bytes], is_grey: bool) -> None:
    if colours := find_colours(chunks, has_profile=False):
        profile = make_profile(colours, is_grey=is_grey)
        assert keep_profile(profile, is_grey=is_grey) == (profile, "")

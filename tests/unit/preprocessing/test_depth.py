"""Samples of 16 bits: read from PNG and TIFF without loss, and kept by all that happens to them before the file."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from preprocessing.alpha import bleed_colour, scale_alpha
from preprocessing.codec import BandEncoder, Image, decode, encode, probe
from preprocessing.depth import depth_of, from_bytes, to_bytes, to_depth
from preprocessing.grey import is_grey, to_grey
from preprocessing.hard_alpha import HardAlpha, is_hard
from preprocessing.mixing import mix
from preprocessing.resampling import BandResampler
from preprocessing.soft_alpha import SoftAlpha
from testing import images
from testing.decoding import LIMITS
from testing.deep_images import draw_gradient, interlaced_png16, png16, tiff16
from testing.png_reader import read_png

NOISE = np.random.default_rng(7).integers(0, 65_536, (13, 11, 4), np.uint16)
KINDS = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGBA"}


def decode16(data: bytes) -> Image:
    return decode(probe(data, LIMITS), depth=16, bleeds_colour=False)


def join(image: Image, channels: int) -> npt.NDArray[Any]:
    """Return all channels of an image, as a file with so many of them stores them."""
    colour = image.pixels[..., :1] if channels < 3 else image.pixels
    return colour if image.alpha is None else np.dstack((colour, image.alpha))


@pytest.mark.parametrize("write", [png16, interlaced_png16])
@pytest.mark.parametrize("channels", KINDS, ids=KINDS.get)
def test_png_of_16_bits_is_read_without_loss(channels: int, write: Any) -> None:
    samples = NOISE[..., :channels]

    image = decode16(write(samples))

    assert (join(image, channels) == samples).all()
    assert image.is_grey == (channels < 3)
    assert image.notes == ()


@pytest.mark.parametrize("orientation", range(2, 9))
def test_16_bits_are_turned_upright(orientation: int) -> None:
    stored = images.store_for_orientation(NOISE, orientation)  # type: ignore[arg-type]
    data = images.insert_png_chunk(png16(stored), b"eXIf", images.exif_with_orientation(orientation))
    assert (join(decode16(data), 4) == NOISE).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflates", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiff_of_16_bits_is_read_without_loss(channels: int, order: Literal["<", ">"], deflates: bool) -> None:
    samples = NOISE[..., :channels]

    image = decode16(tiff16(samples, order, deflates=deflates))

    assert (join(image, channels) == samples).all()
    assert image.notes == ()


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_colour_is_found_in_all_16_bits(channels: int) -> None:
    samples = NOISE[..., :channels].copy()
    samples[2, 3] = samples[5, 5] + np.uint16(1)
    key = images.png_chunk(b"tRNS", samples[5, 5].astype(">u2").tobytes())

    alpha = decode16(png16(samples, (key,))).alpha

    assert alpha is not None
    assert np.argwhere(alpha == 0).tolist() == [[5, 5]]
    assert alpha.max() == 65_535


def test_other_files_are_spread_over_16_bits() -> None:
    photo, alpha = images.draw_photo(9, 12), images.draw_alpha(9, 12)
    image = decode16(images.encode_png(np.dstack((photo, alpha))))
    assert image.alpha is not None
    assert (image.pixels == photo * np.uint16(257)).all()
    assert (image.alpha == alpha * np.uint16(257)).all()


def test_colours_multiplied_by_alpha_keep_8_bits_with_a_note() -> None:
    image = decode16(tiff16(NOISE, alpha_kind=1))
    assert depth_of(image.pixels) == 16
    assert (image.pixels % 257 == 0).all()
    assert image.notes == ("The image has 16 bits per channel: it was reduced to 8.",)


def test_reducing_and_spreading_are_exact() -> None:
    levels = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    assert (to_depth(levels, 8) == np.rint(levels / 257)).all()
    assert (to_depth(to_depth(levels, 8), 16) == np.rint(levels / 257) * 257).all()


@pytest.mark.parametrize("samples", [NOISE[..., :3], images.draw_photo(5, 6)])
def test_packed_samples_come_back(samples: Any) -> None:
    packed = to_bytes(samples)
    assert packed.shape[2] == 3 * samples.itemsize
    assert (from_bytes(packed) == samples).all()
    assert packed[0, 0, 0] == samples[0, 0, 0] & 0xFF, "the low byte comes first"


def test_strength_is_mixed_in_16_bits() -> None:
    restored = NOISE[::-1, :, :3]
    mixed = mix(NOISE[..., :3], restored, 37)
    assert (mixed == np.rint((NOISE[..., :3].astype(int) * 63 + restored.astype(int) * 37) / 100)).all()


def test_shrunk_gradient_keeps_its_levels_and_does_not_depend_on_the_bands() -> None:
    samples = draw_gradient(300, 200, 4)
    colour, alpha = samples[..., :3], samples[..., 3]
    whole = BandResampler((200, 300), (90, 140)).add(colour, alpha)
    resampler = BandResampler((200, 300), (90, 140))
    parts = [resampler.add(colour[top : top + 37], alpha[top : top + 37]) for top in range(0, 300, 37)]

    assert whole[0].dtype == np.uint16
    assert len(np.unique(whole[0][..., 0])) > 5_000
    assert (np.concatenate([part[0] for part in parts]) == whole[0]).all()
    eight = BandResampler((200, 300), (90, 140)).add(to_depth(colour, 8), to_depth(alpha, 8))
    for deep, shallow in zip(whole, eight, strict=True):
        assert deep is not None
        assert shallow is not None
        assert np.abs(deep / 257 - shallow).max() <= 1.2  # 8 bits are rounded before and between the two passes


def test_bleeding_a_flat_colour_is_exact() -> None:
    pixels = np.zeros((40, 50, 3), np.uint16)
    alpha = np.zeros((40, 50), np.uint16)
    pixels[10:20, 10:20], alpha[10:20, 10:20] = (0x1234, 0x4321, 0xFFFF), 0x8001
    assert (bleed_colour(pixels, alpha) == (0x1234, 0x4321, 0xFFFF)).all()


def alpha_masks() -> dict[str, npt.NDArray[np.uint16]]:
    soft = draw_gradient(24, 24, 2)[..., 1]
    hard = np.zeros((24, 24), np.uint16)
    hard[6:18, 4:20] = 65_535
    three = hard.copy()
    three[:3] = 30_000
    two = np.where(hard, 50_000, 1_000).astype(np.uint16)
    return {"soft": soft, "hard": hard, "three levels": three, "two levels": two}


@pytest.mark.parametrize("name", alpha_masks())
def test_alpha_of_16_bits_agrees_with_8_bits(name: str) -> None:
    alpha = alpha_masks()[name]
    shallow = to_depth(alpha, 8)
    assert is_hard(alpha) == is_hard(shallow)
    deep, smooth = HardAlpha(alpha, 4).rows(0, 96), scale_alpha(alpha, 4)
    assert deep.dtype == smooth.dtype == np.uint16
    assert (
        np.abs(deep / 257 - HardAlpha(shallow, 4).rows(0, 96)).max() <= 3
    )  # 8 bits are rounded before a contrast of 4
    assert np.abs(smooth / 257 - scale_alpha(shallow, 4)).max() <= 1.5  # and here between two passes


def test_two_levels_of_alpha_stay_exact() -> None:
    two = alpha_masks()["two levels"]
    enlarged = HardAlpha(two, 4).rows(0, 96)
    assert (enlarged.min(), enlarged.max()) == (1_000, 50_000)


def test_soft_alpha_keeps_constant_levels() -> None:
    alpha = draw_gradient(24, 24, 2)[..., 1].copy()
    alpha[:12] = 0x1234
    soft = SoftAlpha(alpha, 2, window=8, halo=8)
    soft.start()
    soft.add(soft.network_input.repeat(2, axis=0).repeat(2, axis=1) ^ np.uint16(1))
    rows = soft.rows(0, 48)
    assert rows.dtype == np.uint16
    assert (rows[:20] == 0x1234).all()
    assert (rows[30:] == alpha.repeat(2, axis=0).repeat(2, axis=1)[30:] ^ 1).all()


def test_grey_of_16_bits_is_found_and_made() -> None:
    grey = NOISE[..., :1].repeat(3, axis=2)
    assert is_grey(grey)
    assert (to_grey(grey) == grey).all()
    assert not is_grey(grey + np.array([0, 0, 1], np.uint16))


@pytest.mark.parametrize("channels", KINDS, ids=KINDS.get)
def test_png_of_16_bits_is_written_without_loss(channels: int) -> None:
    samples = NOISE[..., :channels]
    assert (read_png(encode(decode16(png16(samples)), "png")) == samples).all()


@pytest.mark.parametrize("output", ["jpeg", "webp", "avif"])
def test_other_formats_are_written_in_8_bits(output: Literal["jpeg", "webp", "avif"]) -> None:
    deep = decode16(png16(draw_gradient(20, 24, 4)))
    shallow = Image(to_depth(deep.pixels, 8), None if deep.alpha is None else to_depth(deep.alpha, 8))
    assert encode(deep, output) == encode(shallow, output)


def test_bands_of_another_depth_do_not_fit() -> None:
    encoder = BandEncoder(decode16(png16(NOISE)), 1, "png", 92)
    with pytest.raises(ValueError, match=r"uint8 rows 0 to 13 .* do not fit 11 columns of uint16"):
        encoder.add(to_depth(NOISE[..., :3], 8))

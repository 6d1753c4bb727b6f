"""GIF: the first frame on its canvas, transparency, and what is refused."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image as PilImage

from preprocessing.codec import decode, encode, probe
from preprocessing.errors import TooManyPixelsError
from testing import images
from testing.decoding import LIMITS, read, refusal
from testing.metadata_images import COMMENT, xmp_packet

PATCHES = np.zeros((24, 40, 3), np.uint8)
PATCHES[:12], PATCHES[12:, :20], PATCHES[12:, 20:] = (250, 40, 10), (20, 90, 200), (255, 255, 255)


def encode_gif(pixels: images.Pixels, **options: object) -> bytes:
    return images.save(PilImage.fromarray(pixels).quantize(16), "GIF", **options)


def test_colours_are_exact_and_the_palette_is_noted() -> None:
    image = read(encode_gif(PATCHES))
    assert (image.pixels == PATCHES).all()
    assert image.notes == ("The image has a palette: it was converted to RGB.",)


def test_first_frame_of_an_animation_is_used_and_the_others_are_counted() -> None:
    others = [PilImage.fromarray(255 - PATCHES).quantize(16)] * 2
    data = encode_gif(PATCHES, save_all=True, append_images=[others[0], PilImage.fromarray(PATCHES)])
    image = read(data)
    assert (image.pixels == PATCHES).all()
    assert "The image is animated: only the first of its 3 frames was used." in image.notes


def test_further_frames_do_not_reach_the_decoder() -> None:
    data = encode_gif(PATCHES, save_all=True, append_images=[PilImage.fromarray(255 - PATCHES)])
    required = b"".join(probe(data, LIMITS).container.required_chunks)
    assert required.endswith(b"\0\x3b")
    assert len(required) < len(data) - 20


def test_transparent_colour_becomes_alpha() -> None:
    indexed = PilImage.fromarray(PATCHES).quantize(16)
    image = read(images.save(indexed, "GIF", transparency=indexed.getpixel((0, 0))))
    assert image.alpha is not None
    assert (image.alpha == np.where(PATCHES[..., 2] == 10, 0, 255)).all()


def test_canvas_outside_the_first_frame_is_transparent() -> None:
    data = encode_gif(PATCHES)
    larger = data[:6] + struct.pack("<HH", 50, 30) + data[10:]
    at = larger.index(b"\x2c\0\0\0\0\x28\0\x18\0")
    moved = larger[: at + 1] + struct.pack("<HH", 6, 2) + larger[at + 5 :]
    image = read(moved)
    assert image.pixels.shape == (30, 50, 3)
    assert image.alpha is not None
    expected = np.zeros((30, 50), np.uint8)
    expected[2:26, 6:46] = 255
    assert (image.alpha == expected).all()
    assert (image.pixels[2:26, 6:46] == PATCHES).all()


@pytest.mark.parametrize("keep", [0.2, 0.6, 0.95])
def test_gif_cut_in_its_first_frame_is_refused(keep: float) -> None:
    assert "its first frame is incomplete" in refusal(images.truncated(encode_gif(images.draw_photo(64, 64)), keep))


def test_size_is_checked_in_the_header() -> None:
    with pytest.raises(TooManyPixelsError, match="60000 x 60000"):
        probe(b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + b"\0\0\0", LIMITS)


def test_endless_sub_blocks_take_bounded_time() -> None:
    data = encode_gif(PATCHES)
    at = data.index(b"\x2c\0\0\0\0\x28\0\x18\0")
    hostile = data[:at] + b"\x21\xfe" + b"\1a" * 600_000
    assert "its first frame is incomplete" in refusal(hostile[:900_000])


def test_comment_and_xmp_are_kept_on_request() -> None:
    trailer = bytes((1, *range(255, -1, -1), 0))
    xmp = b"\x21\xff\x0bXMP DataXMP" + xmp_packet() + trailer
    data = encode_gif(PATCHES, comment=COMMENT.encode())
    at = data.index(b"\x21\xfe")
    data = data[:at] + xmp + data[at:]
    assert read(data).notes[-1] == "Not in the result: XMP, text."
    image = decode(probe(data, LIMITS), keeps_metadata=True)
    assert image.notes == ("The image has a palette: it was converted to RGB.",)
    result = PilImage.open(BytesIO(encode(image, "png")))
    assert result.info["Comment"] == COMMENT
    assert 'xmp:Rating="5"' in result.info["XML:com.adobe.xmp"]

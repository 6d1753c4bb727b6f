"""AVIF and HEIC: pixels, turning, alpha and colours, and what is refused."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PilImage

from preprocessing import upload as upload_module
from preprocessing.codec import OutputFormat, UploadLimits, decode, encode, probe
from preprocessing.errors import ImageError, TooManyPixelsError, UnknownFormatError
from preprocessing.formats.exif import TRANSPOSITIONS, orientation_after, read_orientation
from testing import images
from testing.data import ROOT
from testing.decoding import LIMITS, read, refusal
from testing.metadata_images import full_exif, xmp_packet

PHOTO = images.draw_photo(48, 64)
HEIC = ROOT / "tests/data/heic"
BUTTERFLY = np.asarray(PilImage.open(ROOT / "tests/data/Set5/x4/butterfly.png").convert("RGB"))[:48, :63].astype(int)


def encode_avif(pixels: images.Pixels, **options: Any) -> bytes:
    return images.save(PilImage.fromarray(pixels), "AVIF", **{"quality": 95, "subsampling": "4:4:4", **options})


def heic(name: str) -> bytes:
    return (HEIC / f"{name}.heic").read_bytes()


def mean_error(pixels: Any, expected: Any) -> float:
    return float(np.abs(pixels.astype(int) - expected).mean())


def with_nclx(data: bytes, primaries: int, transfer: int) -> bytes:
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


def test_avif_is_read() -> None:
    image = read(encode_avif(PHOTO))
    assert mean_error(image.pixels, PHOTO) < 3
    assert (image.alpha, image.icc_profile, image.notes) == (None, None, ())


def test_heic_is_read_in_its_cropped_size() -> None:
    image = read(heic("plain"))
    assert image.pixels.shape == (48, 63, 3)
    assert mean_error(image.pixels, BUTTERFLY) < 6
    assert image.notes == ()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_avif_is_upright(orientation: int) -> None:
    exif = PilImage.Exif()
    exif[274] = orientation
    stored = images.store_for_orientation(PHOTO, orientation)
    image = read(encode_avif(stored, exif=exif))
    assert mean_error(image.pixels, PHOTO) < 3


def test_turned_heic_is_upright_and_its_exif_is_not_applied_again() -> None:
    image = read(heic("exif6"))
    assert mean_error(image.pixels, np.rot90(BUTTERFLY, -1)) < 6
    assert image.notes == ("Not in the result: EXIF.",)


@pytest.mark.parametrize("mirror", [None, 0, 1])
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("first", range(1, 9))
def test_turns_after_an_orientation_add_up(first: int, turns: int, mirror: int | None) -> None:
    def apply(drawn: PilImage.Image, orientation: int) -> PilImage.Image:
        return drawn.transpose(TRANSPOSITIONS[orientation]) if orientation in TRANSPOSITIONS else drawn

    drawn = PilImage.fromarray(images.draw_photo(5, 7))
    expected = np.rot90(np.asarray(apply(drawn, first)), turns)
    turned = orientation_after(first, quarter_turns=turns)
    if mirror is not None:
        expected = expected[::-1] if mirror == 0 else expected[:, ::-1]
        turned = orientation_after(turned, mirror=mirror)
    assert (np.asarray(apply(drawn, turned)) == expected).all()


def test_alpha_is_kept() -> None:
    alpha = images.draw_alpha(48, 64)
    image = read(encode_avif(np.dstack((PHOTO, alpha))))
    assert image.alpha is not None
    assert mean_error(image.alpha, alpha) < 3
    image = read(heic("alpha"))
    assert image.alpha is not None
    assert (image.alpha[:, :12] <= 2).all()
    assert (image.alpha[:, 20:] >= 253).all()


def test_profile_is_kept() -> None:
    assert read(encode_avif(PHOTO, icc_profile=images.icc_profile())).icc_profile == images.icc_profile()


@pytest.mark.parametrize(
    ("primaries", "transfer", "expected"),
    [
        (1, 13, None),
        (2, 2, None),
        (1, 1, None),
        (12, 13, (12, 13)),
        (9, 16, (9, 16)),
        (12, 2, (12, 13)),
        (1, 8, (1, 8)),
    ],
)
def test_colours_without_a_profile_become_a_chunk(
    primaries: int, transfer: int, expected: tuple[int, int] | None
) -> None:
    data = with_nclx(heic("plain"), primaries, transfer)
    chunks = probe(data, LIMITS).container.colour_chunks
    assert chunks == ({} if expected is None else {b"cICP": bytes((*expected, 0, 1))})


def test_bits_and_further_images_are_noted() -> None:
    image = read(heic("ten"))
    assert mean_error(image.pixels, BUTTERFLY) < 6
    assert image.notes == ("The image has 10 bits per channel: it was reduced to 8.",)
    assert read(heic("two")).notes == ("Not in the result: further images.",)


def test_first_frame_of_an_animated_avif_is_used() -> None:
    frames = [PilImage.fromarray(~PHOTO)] * 2
    image = read(encode_avif(PHOTO, save_all=True, append_images=frames))
    assert mean_error(image.pixels, PHOTO) < 3
    assert "The image is animated: only the first of its 3 frames was used." in image.notes


@pytest.mark.parametrize("keep", [0.2, 0.7, 0.99])
@pytest.mark.parametrize("data", [encode_avif(PHOTO), heic("plain")])
def test_truncated_file_is_refused_in_words(data: bytes, keep: float) -> None:
    assert "Send the whole file" in refusal(images.truncated(data, keep))


@pytest.mark.parametrize("data", [encode_avif(PHOTO), heic("plain")])
def test_size_is_checked_in_the_header(data: bytes) -> None:
    at = data.index(b"ispe") + 8
    huge = data[:at] + struct.pack(">II", 30_000, 30_000) + data[at + 8 :]
    if (crop := huge.find(b"clap")) > 0:
        huge = huge[:crop] + b"free" + huge[crop + 4 :]
    with pytest.raises(TooManyPixelsError, match="30000 x 30000"):
        probe(huge, LIMITS)


def test_header_with_another_size_than_the_pixels_is_refused() -> None:
    """Of a HEIC; libavif resizes the pixels to the size in the header, within the memory for that size."""
    data = heic("two")
    at = data.index(b"ispe") + 8
    assert "orrupt" in refusal(data[:at] + struct.pack(">II", 40, 30) + data[at + 8 :])
    data = encode_avif(PHOTO)
    at = data.index(b"ispe") + 8
    assert read(data[:at] + struct.pack(">II", 40, 30) + data[at + 8 :]).pixels.shape == (30, 40, 3)


def test_heic_without_its_decoder_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_module, "find_spec", lambda _: None)
    with pytest.raises(UnknownFormatError, match="pip install pi-heif"):
        probe(heic("plain"), UploadLimits(max_bytes=1_000_000, max_pixels=1_000_000, max_side=5_000))
    assert probe(encode_avif(PHOTO), LIMITS).format == "AVIF"


def test_video_is_called_a_video() -> None:
    with pytest.raises(UnknownFormatError, match="is a video"):
        probe(b"\0\0\0\x18ftypisom" + bytes(100), LIMITS)


@pytest.mark.parametrize("output", ["png", "jpeg", "webp", "avif"])
def test_metadata_of_an_avif_is_kept_on_request(output: OutputFormat) -> None:
    data = encode_avif(PHOTO, exif=full_exif(1, maker_note=True), xmp=xmp_packet())
    assert read(data).notes == ("Not in the result: EXIF (location, maker's note), XMP.",)
    image = decode(probe(data, LIMITS), keeps_metadata=True)
    assert image.notes == ("Not in the result: the maker's note in EXIF.",)
    assert image.dpi == pytest.approx((300, 300))
    result = PilImage.open(BytesIO(encode(image, output)))
    assert result.getexif()[0x010F] == "Maker"
    assert b"xmp:Rating" in encode(image, output)


def test_metadata_of_a_heic_is_read() -> None:
    container = probe(heic("exif6"), LIMITS).container
    assert read_orientation(container.exif) == 6


@given(st.integers(0, 3_000), st.binary(min_size=1, max_size=8))
def test_no_location_of_an_item_makes_the_reader_fail(at: int, wrong: bytes) -> None:
    data = encode_avif(PHOTO, exif=full_exif(1), xmp=xmp_packet())
    start = data.index(b"iloc") + at % 60
    try:
        container = probe(data[:start] + wrong + data[start + len(wrong) :], LIMITS).container
    except ImageError:
        return
    assert max(len(container.exif), len(container.xmp)) <= len(data)

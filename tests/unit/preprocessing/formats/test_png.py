"""A PNG yields all the pixels that its header declares, or is rejected."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image as PilImage

from preprocessing.codec import probe
from preprocessing.errors import UnreadableImageError
from preprocessing.formats import png as png_module
from preprocessing.formats.png import InflatedPng, check_pixels, read_png
from testing import images
from testing.data import UPLOADS
from testing.decoding import LIMITS, read, refusal

KINDS = [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (1, 3), (2, 3), (4, 3), (8, 3), (8, 4), (16, 4)]
KINDS += [(8, 6), (16, 6)]
"""All combinations of (depth, colour type) in PNG."""
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
SIDES = [(1, 1), (1, 9), (9, 1), (2, 3), (5, 4), (7, 13), (17, 8), (40, 33)]


def filtered_zeros(height: int, width: int, depth: int, colour: int, *, interlaced: bool) -> bytes:
    """Return the bytes of a black image as a PNG packs them: each row of each pass after its filter byte."""
    pixels = np.zeros((height, width, CHANNELS[colour] * depth), np.uint8)
    passes = [pixels[top::down, left::right] for top, left, down, right in images.ADAM7] if interlaced else [pixels]
    return b"".join(b"\0" + np.packbits(row.reshape(-1)).tobytes() for part in passes if part.size for row in part)


def png(height: int, width: int, depth: int, colour: int, packed: bytes, *, interlaced: bool = False) -> bytes:
    size = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    palette = [(b"PLTE", bytes(6))] if colour == 3 else []
    chunks = [(b"IHDR", size), *palette, (b"IDAT", packed), (b"IEND", b"")]
    return images.PNG_SIGNATURE + b"".join(images.png_chunk(kind, body) for kind, body in chunks)


def test_png_with_half_its_rows_is_rejected() -> None:
    photo = images.draw_photo(400, 300)
    rows = b"".join(b"\0" + row.tobytes() for row in photo)
    assert (read(png(400, 300, 8, 2, zlib.compress(rows))).pixels == photo).all()
    assert refusal(png(400, 300, 8, 2, zlib.compress(rows[: len(rows) // 2]))) == (
        "Truncated or corrupt PNG: it holds 180,200 of the 360,400 bytes that 300 x 400 pixels need. "
        "Send the whole file."
    )


@pytest.mark.parametrize("interlaced", [False, True], ids=["plain", "interlaced"])
@pytest.mark.parametrize(("depth", "colour"), KINDS)
def test_png_without_its_last_byte_is_incomplete(depth: int, colour: int, *, interlaced: bool) -> None:
    for height, width in SIDES:
        rows = filtered_zeros(height, width, depth, colour, interlaced=interlaced)
        whole = png(height, width, depth, colour, zlib.compress(rows), interlaced=interlaced)
        assert read(whole).pixels.shape == (height, width, 3)
        for missing in (1, len(rows)):
            cut = png(height, width, depth, colour, zlib.compress(rows[:-missing]), interlaced=interlaced)
            assert f"of the {len(rows):,} bytes" in refusal(cut), (height, width)


def test_bytes_after_the_last_row_are_ignored() -> None:
    rows = filtered_zeros(16, 24, 8, 2, interlaced=False)
    packer = zlib.compressobj()
    endless = packer.compress(rows) + packer.flush(zlib.Z_SYNC_FLUSH)
    for packed in (zlib.compress(rows) + b"more", zlib.compress(rows + b"\xff" * 99), endless):
        assert not read(png(16, 24, 8, 2, packed)).pixels.any()


def test_pixels_in_many_and_empty_chunks_are_counted_across_them() -> None:
    whole = images.encode_png(images.draw_photo(16, 24))
    start = whole.index(b"IDAT") - 4
    packed = whole[start + 8 : start + 8 + int.from_bytes(whole[start : start + 4], "big")]
    bodies = [b"", *(packed[at : at + 1] for at in range(len(packed))), b""]
    many = whole[:start] + b"".join(images.png_chunk(b"IDAT", body) for body in bodies) + whole[-12:]
    assert (read(many).pixels == read(whole).pixels).all()


def test_counting_a_bombs_pixels_needs_little_memory() -> None:
    rows = filtered_zeros(2_000, 2_000, 8, 6, interlaced=False)
    required_chunks = read_png(png(2_000, 2_000, 8, 6, zlib.compress(rows, 9))).required_chunks
    tracemalloc.start()
    try:
        check_pixels(required_chunks)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1_000_000, f"{len(rows):,} bytes were counted holding {peak_bytes:,}"


@pytest.mark.parametrize(
    ("palette", "words"),
    [
        (b"", "need a palette, and no palette comes before them"),
        (images.png_chunk(b"PLTE", b""), "palette has 0 bytes"),
        (images.png_chunk(b"PLTE", bytes(7)), "palette has 7 bytes"),
        (images.png_chunk(b"PLTE", bytes(771)), "palette has 771 bytes"),
    ],
)
def test_palette_that_is_missing_or_no_palette_is_rejected(palette: bytes, words: str) -> None:
    assert words in refusal(images.raw_png(2, 2, 8, 3, bytes(4), [palette]))


def test_palette_behind_the_pixels_is_none() -> None:
    whole = images.raw_png(2, 2, 8, 3, bytes(4))
    assert "no palette comes before them" in refusal(whole[:-12] + images.png_chunk(b"PLTE", bytes(6)) + whole[-12:])


PHOTO = images.draw_photo(16, 24)
WHOLE = images.encode_png(PHOTO)
DATA_END = WHOLE.rindex(b"IEND") - 4 - 4
"""Where the zlib stream ends, ahead of the checksum of its chunk."""


@pytest.mark.parametrize(
    "data",
    [
        WHOLE[:-12],
        WHOLE[:-1],
        WHOLE[:-4] + bytes(4),
        WHOLE[:-12] + bytes(12),
        WHOLE[:-12] + bytes(900),
        WHOLE[:-12] + images.png_chunk(b"tEXt", b"Comment\0cut")[:-5],
        WHOLE[:DATA_END],
        WHOLE[: DATA_END + 2],
        images.palette_png(PHOTO)[:-12],
        images.interlaced_png(PHOTO)[:-12],
    ],
    ids=["missing", "cut", "checksum", "zeros", "padding", "text", "no-checksum", "half-checksum", "palette", "adam7"],
)
def test_png_with_all_pixels_and_no_end_is_read_with_a_note(data: bytes) -> None:
    image = read(data)
    assert image.pixels.shape == PHOTO.shape
    assert ["no valid end" in note for note in image.notes].count(True) == 1
    if "palette" not in image.notes[-1]:
        assert (image.pixels == PHOTO).all()


def test_reported_png_without_an_end_is_read() -> None:
    image = read((UPLOADS / "no_iend.png").read_bytes())
    assert image.pixels.mean(axis=(0, 1)).round().tolist() == [153, 119, 73]


@pytest.mark.parametrize("tail", [b"", bytes(1), bytes(400), bytes(9_000), WHOLE[-12:], b"\xff" * 90])
def test_cut_png_is_rejected_before_the_queue_whatever_follows(tail: bytes) -> None:
    for missing in (1, 3, 4, 5, 20, 200, DATA_END - WHOLE.index(b"IDAT") - 4):
        with pytest.raises(UnreadableImageError, match="PNG"):
            probe(WHOLE[: DATA_END - missing] + tail, LIMITS)


def test_zeros_that_inflate_to_pixels_do_not_complete_a_cut_png() -> None:
    """In a block with fixed codes, eight zero bits are a literal; only the checksum of the stream tells."""
    rows = b"".join(b"\0" + row.tobytes() for row in PHOTO)
    packer = zlib.compressobj(strategy=zlib.Z_FIXED)
    packed = packer.compress(rows) + packer.flush()
    header = png(16, 24, 8, 2, packed)
    start = header.index(b"IDAT") + 4
    padded = header[: start + len(packed) // 2] + bytes(len(packed) // 2)
    assert refusal(padded).startswith("Truncated or corrupt PNG")


def test_damaged_pixels_are_the_same_with_zlib_and_zlib_ng(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    rows = b"".join(b"\0" + row.tobytes() for row in images.draw_photo(80, 60))
    packed = zlib.compress(rows)
    outcomes: list[list[str]] = []
    damaged = []
    for _ in range(300):
        body = bytearray(packed)
        body[random.integers(len(body))] ^= 1 << random.integers(8)
        damaged.append(read_png(png(80, 60, 8, 2, bytes(body))).required_chunks)
    for module in (zlib, png_module._inflate):
        monkeypatch.setattr(png_module, "_inflate", module)
        outcomes.append([])
        for chunks in damaged:
            try:
                check_pixels(chunks)
            except (UnreadableImageError, zlib.error) as error:
                outcomes[-1].append(type(error).__name__)
            else:
                outcomes[-1].append("")
    assert outcomes[0] == outcomes[1]
    assert len(set(outcomes[0])) > 1


@pytest.mark.parametrize("size", [1, 7, 4_096, 1_000_000])
def test_file_with_stored_pixels_is_the_same_image(size: int) -> None:
    photo = images.draw_photo(200, 300)
    chunks = read_png(images.encode_png(photo)).required_chunks
    stored = InflatedPng(chunks)

    assert stored.read(16) == b"".join(chunks)[:16]
    assert stored.seek(0) == stored.tell() == 0
    parts = list(iter(lambda: stored.read(size), b""))

    assert all(len(part) == size for part in parts[:-1])
    assert (np.asarray(PilImage.open(BytesIO(b"".join(parts)))) == photo).all()
    with pytest.raises(OSError, match="read once"):
        stored.seek(0)


def test_file_with_stored_pixels_that_end_early_raises_what_counting_raises() -> None:
    rows = filtered_zeros(200, 300, 8, 2, interlaced=False)
    cut = read_png(png(200, 300, 8, 2, zlib.compress(rows[:-1]))).required_chunks
    stored = InflatedPng(cut)

    with pytest.raises(UnreadableImageError) as counted:
        check_pixels(cut)
    with pytest.raises(UnreadableImageError) as read_part:
        stored.read(len(rows) + 10_000)
    with pytest.raises(UnreadableImageError) as unread:
        InflatedPng(cut).finish()

    assert str(counted.value) == str(read_part.value) == str(unread.value)

"""Hostile metadata that is kept never breaks a result: it opens in Pillow, with the pixels of one without metadata."""

from __future__ import annotations

import random
import warnings
import zlib
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage
from PIL import ImageOps

from preprocessing.codec import BandEncoder, OutputFormat, decode, probe
from preprocessing.errors import ImageError
from preprocessing.image import Image
from preprocessing.metadata.exif_rewrite import MAX_EXIF_BYTES, rewrite_exif
from preprocessing.metadata.iptc import read_iptc, write_iptc
from preprocessing.metadata.metadata import Metadata
from preprocessing.metadata.texts import MAX_TEXTS, Text
from preprocessing.metadata.xml_tree import parse_xml
from preprocessing.metadata.xmp import MAX_KEPT_XMP_BYTES, Origin, rewrite_xmp
from preprocessing.output_formats import MAX_OUTPUT_SIDES
from testing import images, metadata_images
from testing.damaged_images import DAMAGES, seal
from testing.decoding import LIMITS

FORMATS: tuple[OutputFormat, ...] = tuple(MAX_OUTPUT_SIDES)
PHOTO = images.draw_photo(16, 24)
ORIGIN = Origin("algorithmicallyEnhanced", "Serverless SuperRes 0.1.0", "compact_x4")
EXIF = metadata_images.full_exif(thumbnail=True, maker_note=True)
LITTLE_ENDIAN = images.exif_with_orientation(6, gps=True)


def save(image: Image, output: OutputFormat) -> Any:
    encoder = BandEncoder(image, 1, output, 80, origin=ORIGIN)
    encoder.add(image.pixels)
    opened = PilImage.open(BytesIO(encoder.finish()))
    opened.load()
    return opened


PIXELS = {output: np.asarray(save(Image(PHOTO), output)) for output in FORMATS}


def check(metadata: Metadata, output: OutputFormat) -> None:
    """Assert that Pillow reads the result of this metadata, all of it, and shows the same pixels."""
    opened = save(Image(PHOTO, metadata=metadata), output)
    assert np.array_equal(np.asarray(opened), PIXELS[output])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metadata Warning, tag .* had too many entries")  # as in the upload
        exif = opened.getexif()
        for directory in (0x8769, 0x8825, 0xA005, 0x0201):
            exif.get_ifd(directory)
        dict(exif)
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(opened)), PIXELS[output])
    xmp = opened.info["xmp"]
    parse_xml(xmp.encode() if isinstance(xmp, str) else xmp)


def damage(block: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 3))):
        block = rng.choice(DAMAGES)(block, rng) if len(block) > 12 else block
    return block


@pytest.mark.parametrize("seed", range(60))
def test_damaged_metadata_gives_a_sound_result(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(10):
        metadata = Metadata(
            exif=damage(rng.choice((EXIF, LITTLE_ENDIAN)), rng),
            xmp=damage(metadata_images.xmp_packet(), rng),
            iptc=read_iptc(damage(write_iptc(metadata_images.iptc()), rng)),
            texts=(Text("Comment", "a\nb"),),
        )
        check(metadata, rng.choice(FORMATS))


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_damaged_uploads_whose_metadata_is_kept_give_sound_results(name: str) -> None:
    rng, decoded = random.Random(name), 0
    whole = getattr(metadata_images, f"full_{name}")()
    for _ in range(300):
        try:
            image = decode(probe(seal(damage(whole, rng)), LIMITS), keeps_metadata=True)
        except ImageError:
            continue
        decoded += 1
        output = rng.choice(FORMATS)
        opened = save(image, output)
        plain = save(Image(image.pixels, image.alpha, image.is_grey), output)
        assert np.array_equal(np.asarray(opened), np.asarray(plain))
        dict(opened.getexif())
    assert decoded > 30


def _exif_values() -> st.SearchStrategy[bytes]:
    """Blocks of a directory with entries of any type, count and offset, which may point back at it."""
    entry = st.tuples(
        st.sampled_from([0x010F, 0x0112, 0x011A, 0x8769, 0x8825, 0xA005, 0x927C, 0x9286, 0x0201, 0xC000]),
        st.integers(0, 20),
        st.sampled_from([0, 1, 2, 3, 4, 5, 1000, 65_535, 2**31, 2**32 - 1]),
        st.sampled_from([0, 1, 4, 8, 10, 26, 60, 2**16, 2**31, 2**32 - 1]),
    )

    def build(order: str, entries: list[tuple[int, int, int, int]], tail: bytes) -> bytes:
        byte_order: Any = "little" if order == "II" else "big"
        parts = [order.encode() + (42).to_bytes(2, byte_order) + (8).to_bytes(4, byte_order)]
        parts.append(len(entries).to_bytes(2, byte_order))
        for tag, kind, count, value in entries:
            parts += [tag.to_bytes(2, byte_order), kind.to_bytes(2, byte_order)]
            parts += [count.to_bytes(4, byte_order), value.to_bytes(4, byte_order)]
        return b"".join(parts) + bytes(4) + tail

    return st.builds(build, st.sampled_from(["II", "MM"]), st.lists(entry, max_size=12), st.binary(max_size=200))


@pytest.mark.parametrize(
    "keyword", [b"exif", b"transparency", b"icc_profile", b"dpi", b"XML:com.adobe.xmp", b" a", b"a  b"]
)
@pytest.mark.parametrize("kind", [b"tEXt", b"iTXt"])
def test_text_that_readers_take_for_something_else_is_not_kept(keyword: bytes, kind: bytes) -> None:
    data = images.encode_png(PHOTO)
    body = keyword + (b"\0" if kind == b"tEXt" else b"\0\0\0\0\0")
    for text in (metadata_images.xmp_packet(), b"x" * 9):  # the first XMP is the one that counts
        data = images.insert_png_chunk(data, kind, body + text)
    image = decode(probe(data, LIMITS), keeps_metadata=True)
    assert image.metadata.texts == ()
    assert image.notes == (() if keyword.startswith(b"XML") else ("Not in the result: text.",))
    for output in FORMATS:
        check(image.metadata, output)


def test_texts_are_bounded_in_number_and_size() -> None:
    """Each of these would inflate to 60 kB: 4 GB without a limit."""
    bombs = images.insert_png_chunk(
        images.encode_png(PHOTO), b"zTXt", b"a\0\0" + zlib.compress(bytes(60_000)), copies=60_000
    )
    many = images.insert_png_chunk(images.encode_png(PHOTO), b"tEXt", b"a\0" + b"b" * 50, copies=101)
    long = images.insert_png_chunk(images.encode_png(PHOTO), b"tEXt", b"a\0" + b"b" * 25_000, copies=3)
    for data, n_texts in ((bombs, 0), (many, MAX_TEXTS), (long, 2)):
        image = decode(probe(data, replace(LIMITS, max_bytes=10**8)), keeps_metadata=True)
        assert len(image.metadata.texts) == n_texts
        assert image.notes == ("Not in the result: text.",)


@settings(max_examples=300)
@given(_exif_values(), st.sampled_from(FORMATS))
def test_any_exif_gives_a_sound_result(exif: bytes, output: OutputFormat) -> None:
    written = rewrite_exif(exif, 24, 16, (300, 300))
    assert len(written) <= MAX_EXIF_BYTES
    assert rewrite_exif(written, 24, 16, (300, 300)) == written
    check(Metadata(exif=exif), output)


@given(st.binary(max_size=200), st.sampled_from([b"", metadata_images.xmp_packet()[:-40], b"<rdf:RDF>"]))
def test_any_xmp_gives_a_sound_result(tail: bytes, start: bytes) -> None:
    written, _ = rewrite_xmp(start + tail, 24, 16, ORIGIN.properties())
    if written:
        parse_xml(written)
    check(Metadata(xmp=start + tail), "png")


@pytest.mark.parametrize(
    "hostile",
    [
        b"<a>" * 20_000,
        b"<a>" * 5_000 + b"</a>" * 5_000,
        b"<r>" + b"<a/>" * 12_000 + b"</r>",
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaa">]><x>&a;</x>',
        b'<x xmlns:y="' + b"u" * 30_000 + b'">' + b"<y:a/>" * 4_000 + b"</x>",
        b"\xff\xfe<\0x\0",
        b'<?xml version="1.0" encoding="utf-7"?><x/>',
    ],
    ids=["open", "deep", "many", "entity", "namespace", "utf-16", "encoding"],
)
def test_hostile_xmp_is_not_kept(hostile: bytes) -> None:
    assert len(hostile) <= MAX_KEPT_XMP_BYTES
    assert rewrite_xmp(hostile, 24, 16, {}) == (b"", False)


@pytest.mark.parametrize("pointer", [0x8769, 0x8825, 0xA005])
def test_directory_that_points_at_itself_is_read_once(pointer: int) -> None:
    exif = b"II*\0" + (8).to_bytes(4, "little") + (3).to_bytes(2, "little")
    for tag in (0x010F, pointer, 0x9999):
        kind, value = (4, 8) if tag == pointer else (3, 5)
        exif += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + b"\1\0\0\0" + value.to_bytes(4, "little")
    for output in FORMATS:
        check(Metadata(exif=exif + bytes(4)), output)


def test_overlapping_values_are_bounded() -> None:
    """65,535 entries of 60 kB each, all of them the same bytes: 4 GB if they were copied."""
    entries = b"".join(tag.to_bytes(2, "little") + b"\7\0" + b"\x60\xea\0\0" + b"\x08\0\0\0" for tag in range(65_535))
    exif = b"II*\0" + (8).to_bytes(4, "little") + b"\xff\xff" + entries + bytes(4)
    assert rewrite_exif(exif, 24, 16, None) == b""

"""With metadata kept, a result has what its upload said, corrected for the result; without, it has none of it."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage
from PIL import ImageOps, IptcImagePlugin
from PIL.ExifTags import GPS, IFD, Base

from preprocessing.codec import FORMAT_NAMES, BandEncoder, Image, OutputFormat, decode, describe_losses, probe
from preprocessing.output_formats import MAX_OUTPUT_SIDES
from testing import images, metadata_images
from testing.data import ROOT
from testing.decoding import LIMITS
from testing.metadata_images import (
    COMMENT,
    PHOTO,
    append_box,
    append_c2pa,
    append_xmp_box,
    full_exif,
    gif_with_application,
    iptc,
    photoshop,
    tiff_with_tags,
    xmp_packet,
)

FORMATS = tuple(MAX_OUTPUT_SIDES)
FULL: dict[str, Callable[[int], bytes]] = {
    "png": metadata_images.full_png,
    "jpeg": metadata_images.full_jpeg,
    "webp": metadata_images.full_webp,
}


def keep(data: bytes) -> Image:
    return decode(probe(data, LIMITS), keeps_metadata=True)


def result_of(image: Image, output: OutputFormat, scale: int = 2) -> bytes:
    encoder = BandEncoder(image, scale, output, 90)
    encoder.add(image.pixels.repeat(scale, axis=0).repeat(scale, axis=1))
    return encoder.finish()


def upscale(data: bytes, output: OutputFormat) -> Any:
    opened = PilImage.open(BytesIO(result_of(keep(data), output)))
    opened.load()
    return opened


def iptc_in(opened: Any) -> dict[tuple[int, int], Any]:
    """Return the datasets of a result; in a PNG they are hexadecimal digits, as ImageMagick writes them."""
    if opened.format != "PNG":
        return dict(IptcImagePlugin.getiptcinfo(opened) or {})
    raw = opened.text["Raw profile type iptc"]
    block = bytes.fromhex("".join(raw.split("\n")[3:]))
    carrier = images.insert_jpeg_segment(images.encode_jpeg(PHOTO), 0xED, b"Photoshop 3.0\0" + block)
    return dict(IptcImagePlugin.getiptcinfo(PilImage.open(BytesIO(carrier))) or {})


@pytest.mark.parametrize("output", FORMATS)
@pytest.mark.parametrize("source", FULL)
def test_exif_is_kept_and_describes_the_result(source: str, output: OutputFormat) -> None:
    exif = upscale(FULL[source](6), output).getexif()

    assert {tag: exif[tag] for tag in (Base.Make, Base.Model, Base.Copyright, Base.DateTime)} == {
        Base.Make: "Maker",
        Base.Model: "Model 1",
        Base.Copyright: "Ada",
        Base.DateTime: "2026:01:02 03:04:05",
    }
    assert exif[Base.Orientation] == 1
    assert (exif[Base.XResolution], exif[Base.YResolution], exif[Base.ResolutionUnit]) == (300, 300, 2)
    photo, place = exif.get_ifd(IFD.Exif), exif.get_ifd(IFD.GPSInfo)
    assert (photo[Base.ExposureTime], photo[Base.LensModel]) == (1 / 250, "A lens")
    assert photo[Base.UserComment] == b"ASCII\0\0\0hello"
    assert (photo[Base.ExifImageWidth], photo[Base.ExifImageHeight]) == (48, 32)
    assert (place[GPS.GPSLatitudeRef], place[GPS.GPSLatitude]) == ("N", (54, 19, 59.98))


@pytest.mark.parametrize("output", FORMATS)
@pytest.mark.parametrize("source", FULL)
@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_viewers_show_the_result_as_it_is(source: str, output: OutputFormat, orientation: int) -> None:
    opened = upscale(FULL[source](orientation), output)
    turned = ImageOps.exif_transpose(opened)
    assert turned.size == opened.size == (48, 32)
    assert np.array_equal(np.asarray(turned), np.asarray(opened))
    assert opened.getexif()[Base.Orientation] == 1
    if output in FULL:  # the formats of uploads
        assert probe(result_of(keep(FULL[source](orientation)), output), LIMITS).orientation == 1


@pytest.mark.parametrize("output", FORMATS)
@pytest.mark.parametrize("source", FULL)
def test_xmp_is_kept_with_the_size_of_the_result(source: str, output: OutputFormat) -> None:
    xmp = upscale(FULL[source](6), output).info["xmp"]
    text = xmp if isinstance(xmp, str) else xmp.decode()
    assert 'tiff:Orientation="1"' in text
    assert 'exif:PixelXDimension="48"' in text
    assert 'xmp:Rating="5"' in text
    assert '<rdf:li xml:lang="x-default">Küste &amp; Meer</rdf:li>' in text
    assert 'rdf:about="uuid:1"' in text


@pytest.mark.parametrize("output", ["png", "jpeg"])
@pytest.mark.parametrize("source", ["png", "jpeg"])
def test_iptc_is_kept(source: str, output: OutputFormat) -> None:
    assert iptc_in(upscale(FULL[source](1), output)) == {
        (1, 90): b"\x1b%G",
        (2, 120): b"Reuters",
        (2, 25): [b"sea", b"coast"],
    }


def test_comments_and_texts_are_kept() -> None:
    assert upscale(metadata_images.full_jpeg(), "jpeg").info["comment"] == COMMENT.encode()
    assert upscale(metadata_images.full_jpeg(), "png").text["Comment"] == COMMENT
    texts = upscale(metadata_images.full_png(), "png").text
    assert (texts["Comment"], texts["parameters"]) == (COMMENT, "猫, 4k")
    comments = re.findall(rb"\xff\xfe(..)([^\xff]*)", result_of(keep(metadata_images.full_png()), "jpeg"), re.DOTALL)
    assert [(struct.unpack(">H", size)[0] - 2, text.decode()) for size, text in comments] == [
        (len(COMMENT.encode()), COMMENT),
        (len("parameters: 猫, 4k".encode()), "parameters: 猫, 4k"),
    ]


@pytest.mark.parametrize("output", FORMATS)
@pytest.mark.parametrize("source", FULL)
def test_keeping_changes_no_pixel_and_says_what_a_format_cannot_hold(source: str, output: OutputFormat) -> None:
    data = FULL[source](6)
    kept, stripped = keep(data), decode(probe(data, LIMITS))
    one, other = (PilImage.open(BytesIO(result_of(image, output))).convert("RGB") for image in (kept, stripped))
    assert np.array_equal(np.asarray(one), np.asarray(other))
    assert kept.notes == ()
    expected = (f"{FORMAT_NAMES[output]} cannot hold IPTC and text of the upload: not in the result.",)
    assert describe_losses(kept, output) == (expected if output in ("webp", "avif") and source != "webp" else ())


@pytest.mark.parametrize("output", FORMATS)
@pytest.mark.parametrize("source", FULL)
def test_stripped_result_has_the_resolution_and_nothing_else(source: str, output: OutputFormat) -> None:
    image = decode(probe(FULL[source](6), LIMITS))
    result = result_of(image, output)
    opened = PilImage.open(BytesIO(result))
    assert not opened.info.keys() & {"xmp", "comment", "photoshop", "Comment", "parameters", "Raw profile type iptc"}
    assert set(opened.getexif()) <= {Base.XResolution, Base.YResolution, Base.ResolutionUnit}
    for secret in (b"Maker", b"Reuters", "Küste".encode(), COMMENT.encode(), b"A lens"):
        assert secret not in result
    assert image.notes == (
        {
            "jpeg": "Not in the result: EXIF (location), XMP, IPTC, text.",
            "png": "Not in the result: EXIF (location), XMP, IPTC, text.",
            "webp": "Not in the result: EXIF (location), XMP.",
        }[source],
    )


def jpeg_with(**options: Any) -> bytes:
    return images.encode_jpeg(PHOTO, **options)


GAIN_MAP = 'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"'
CHUNK = (struct.pack(">4sHHI", b"8BIM", 0x040C, 0, 300) + bytes(300)).ljust(400, b"\1")

AVIF = images.save(PilImage.fromarray(PHOTO), "AVIF")
GIF = images.save(PilImage.fromarray(PHOTO), "GIF")
HEIC = (ROOT / "tests/data/heic/plain.heic").read_bytes()

LOST = {
    "thumbnail": (jpeg_with(exif=b"Exif\0\0" + full_exif(thumbnail=True)), "the thumbnail in EXIF"),
    "maker's note": (jpeg_with(exif=b"Exif\0\0" + full_exif(maker_note=True)), "the maker's note in EXIF"),
    "damaged EXIF": (images.encode_webp(PHOTO, exif=b"II*\0\x08\0\0\0\1\0\x0f\1\2\0\xff\0\0\0\xff\xff\0\0"), "EXIF"),
    "long EXIF": (
        images.encode_png(PHOTO, exif=b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x9999, 7, 70_000, 26) + bytes(70_008)),
        "EXIF",
    ),
    "damaged XMP": (jpeg_with(xmp=xmp_packet()[:-60]), "XMP"),
    "XMP with entities": (jpeg_with(xmp=b'<!DOCTYPE a [<!ENTITY b "c">]>' + xmp_packet()), "XMP"),
    "long XMP": (jpeg_with(xmp=xmp_packet(attributes=f'dc:source="{"a" * 61_000}"')), "XMP"),
    "gain map": (
        jpeg_with(xmp=xmp_packet(namespaces=GAIN_MAP, attributes='hdrgm:Version="1.0"')),
        "what XMP says of other images, the HDR gain map",
    ),
    "extension of XMP": (
        images.insert_jpeg_segment(jpeg_with(), 0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(60)),
        "the extension of XMP",
    ),
    "MPO": (images.insert_jpeg_segment(jpeg_with(), 0xE2, b"MPF\0II*\0"), "further images"),
    "motion photo": (jpeg_with() + b"\0\0\0\x18ftypmp42" + bytes(200), "data after the end of the image"),
    "JPEG C2PA": (images.insert_jpeg_segment(jpeg_with(), 0xEB, b"JP\0\1\0\0\0\1" + bytes(40)), "the C2PA manifest"),
    "PNG C2PA": (images.insert_png_chunk(images.encode_png(PHOTO), b"caBX", bytes(40)), "the C2PA manifest"),
    "WebP C2PA": (images.add_webp_chunk(images.encode_webp(PHOTO), b"C2PA", bytes(40)), "the C2PA manifest"),
    "AVIF C2PA": (append_c2pa(AVIF), "the C2PA manifest"),
    "HEIC C2PA": (append_c2pa(HEIC), "the C2PA manifest"),
    "AVIF jumb": (append_box(AVIF, b"jumb", bytes(40)), "the C2PA manifest"),
    "TIFF C2PA": (tiff_with_tags({0xCD41: b"c2pa" + bytes(40)}), "the C2PA manifest"),
    "GIF C2PA": (gif_with_application(b"C2PA_GIF\1\0\0", b"c2pa" + bytes(40)), "the C2PA manifest"),
    "HEIC motion photo": (append_box(HEIC, b"mpvd", bytes(40)), "the video of a motion photo"),
    "HEIC maker's data": (append_box(HEIC, b"sefd", bytes(900)), "data of the camera or program"),
    "damaged XMP of an AVIF": (append_xmp_box(AVIF, b"<x/>"), "XMP"),
    "TIFF layers": (tiff_with_tags({37724: b"Adobe Photoshop" + bytes(900)}), "data of Photoshop"),
    "TIFF with oblong pixels": (tiff_with_tags({282: 2.0, 283: 1.0, 296: 1}), "the shape of the pixels"),
    "GIF profile": (gif_with_application(b"ICCRGBG1012", images.icc_profile()), "the colour profile"),
    "GIF with oblong pixels": (GIF[:12] + b"\x7f" + GIF[13:], "the shape of the pixels"),
    "JFXX": (images.insert_jpeg_segment(jpeg_with(), 0xE0, b"JFXX\0\x10"), "a thumbnail"),
    "maker's preview": (
        images.insert_jpeg_segment(jpeg_with(), 0xE4, b"QVCI\0" + bytes(900)),
        "data of the camera or program",
    ),
    "Photoshop without IPTC": (
        images.insert_jpeg_segment(jpeg_with(), 0xED, b"Photoshop 3.0\0" + CHUNK),
        "data of Photoshop",
    ),
    "long text": (images.insert_png_chunk(images.encode_png(PHOTO), b"tEXt", b"a\0" + b"b" * 60_001), "text"),
    "bomb of text": (
        images.insert_png_chunk(images.encode_png(PHOTO), b"zTXt", b"a\0\0" + zlib.compress(bytes(10**7))),
        "text",
    ),
    "raw profile": (
        images.insert_png_chunk(images.encode_png(PHOTO), b"tEXt", b"Raw profile type APP12\0\nx\n1\n00"),
        "a raw profile",
    ),
    "JFIF with oblong pixels": (
        jpeg_with().replace(b"JFIF\0\1\1\0\0\1\0\1", b"JFIF\0\1\1\0\0\2\0\1"),
        "the shape of the pixels",
    ),
    "PNG with oblong pixels": (
        images.insert_png_chunk(images.encode_png(PHOTO), b"pHYs", struct.pack(">IIB", 2, 1, 0)),
        "the shape of the pixels",
    ),
}


@pytest.mark.parametrize("name", LOST)
def test_what_cannot_be_kept_is_reported(name: str) -> None:
    data, words = LOST[name]
    image = keep(data)
    assert image.notes[-1] == f"Not in the result: {words}."
    assert len([note for note in image.notes if "palette" not in note]) == 1
    for output in FORMATS:
        assert b"c2pa" not in result_of(image, output)
        opened = PilImage.open(BytesIO(result_of(image, output)))
        opened.load()
        assert b"hdrgm" not in result_of(image, output)


def test_thumbnail_and_makers_note_are_not_in_the_result() -> None:
    image = keep(jpeg_with(exif=b"Exif\0\0" + full_exif(thumbnail=True, maker_note=True)))
    assert image.notes == ("Not in the result: the thumbnail in EXIF, the maker's note in EXIF.",)
    for output in FORMATS:
        exif = PilImage.open(BytesIO(result_of(image, output))).getexif()
        assert exif.get_ifd(IFD.IFD1) == {}
        assert Base.MakerNote not in exif.get_ifd(IFD.Exif)
        assert exif.get_ifd(IFD.Exif)[Base.LensModel] == "A lens"


def test_properties_of_other_images_are_taken_out_of_xmp_and_the_rest_stays() -> None:
    namespaces = (
        f'{GAIN_MAP} xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" '
        'xmlns:note="http://ns.adobe.com/xmp/note/" xmlns:dcterms="http://purl.org/dc/terms/"'
    )
    packet = xmp_packet(
        "<hdrgm:GainMapMax><rdf:Seq><rdf:li>2.5</rdf:li></rdf:Seq></hdrgm:GainMapMax><xmp:Thumbnails/>",
        'GCamera:MotionPhoto="1" note:HasExtendedXMP="0123" dcterms:provenance="self#jumbf=c2pa"',
        namespaces=namespaces,
    )
    written = keep(jpeg_with(xmp=packet)).metadata.rewrite(48, 32, None, None).xmp
    for name in (b"hdrgm", b"GainMap", b"Thumbnails", b"MotionPhoto", b"HasExtendedXMP", b"jumbf"):
        assert name not in written
    assert "Küste &amp; Meer".encode() in written
    assert b'xmp:Rating="5"' in written


def test_preview_in_iptc_is_not_kept() -> None:
    preview = struct.pack(">BBBH", 0x1C, 2, 202, 4) + b"prev"
    data = images.insert_jpeg_segment(jpeg_with(), 0xED, photoshop(iptc() + preview))
    assert keep(data).metadata.iptc == iptc()


def test_result_has_the_same_bytes_each_time() -> None:
    for output in FORMATS:
        assert len({result_of(keep(metadata_images.full_jpeg()), output) for _ in range(2)}) == 1

"""Write the table of docs/reference/formats.md: ``python -m testing.format_table``.

It says what the codec does with files of every format. A further input format needs files of its own in `_rows` only
where the keywords of Pillow's encoder do not write them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, get_args

import numpy as np
from PIL import Image as PilImage
from PIL.ExifTags import IFD, Base

from preprocessing.codec import BandEncoder, Image, InputFormat, OutputFormat, decode, describe_losses, probe
from testing import images
from testing.data import ROOT
from testing.decoding import LIMITS
from testing.metadata_images import (
    COMMENT,
    PHOTO,
    append_c2pa,
    append_xmp_box,
    full_exif,
    gif_with_application,
    iptc,
    photoshop,
    tiff_with_tags,
    v5_bmp,
    xmp_packet,
)

PAGE = ROOT / "docs/reference/formats.md"
INPUTS: tuple[InputFormat, ...] = get_args(InputFormat)
OUTPUTS: tuple[OutputFormat, ...] = get_args(OutputFormat)

Files = Mapping[InputFormat, bytes]
"""A file of each input format that can hold the thing in question."""


def _by_pillow(**keywords: Any) -> Files:
    """Return files of all input formats that Pillow writes; encoders ignore keywords that they do not know."""
    PilImage.init()
    return {name: images.save(PilImage.fromarray(PHOTO), name, **keywords) for name in INPUTS if name in PilImage.SAVE}


# Pillow writes no HEIC.
_HEIC = {name: (ROOT / f"tests/data/heic/{name}.heic").read_bytes() for name in ("exif6", "two")}


def _heic_with_exif(exif: bytes) -> bytes:
    """Return the HEIC of tests/data with another EXIF: its last item, whose length stands at the end of iloc."""
    data = _HEIC["exif6"]
    at = data.index(b"MM\0*")
    length = struct.pack(">HIII", 1, 0, len(data) - at + 10, 0)[:-4]
    block = bytes((0, 0, 0, 6)) + b"Exif\0\0" + exif
    grown = len(block) - (len(data) - at + 10)
    start = data.index(b"mdat") - 4
    data = data[:start] + struct.pack(">I", int.from_bytes(data[start : start + 4], "big") + grown) + data[start + 4 :]
    data = data.replace(length, struct.pack(">HII", 1, 0, len(block)), 1)
    return data[: at - 10] + block


def _jpeg(marker: int, body: bytes) -> bytes:
    return images.insert_jpeg_segment(images.encode_jpeg(PHOTO), marker, body)


def _png(kind: bytes, body: bytes) -> bytes:
    return images.insert_png_chunk(images.encode_png(PHOTO), kind, body)


def _webp(kind: bytes, body: bytes) -> bytes:
    return images.add_webp_chunk(images.encode_webp(PHOTO), kind, body)


def _exif(**parts: bool) -> Files:
    exif = full_exif(1, **parts)
    return {**_by_pillow(exif=b"Exif\0\0" + exif), "HEIF": _heic_with_exif(exif)}


@dataclass(frozen=True)
class Row:
    """One thing that a file may hold."""

    name: str
    files: Files
    words: str
    """What a note says of it where it is not in the result."""
    is_in: Callable[[Any, bytes], bool] = field(default=lambda *_: False)
    """Whether it is in a file, given as opened by Pillow and as bytes."""


def _rows() -> Iterator[Row]:
    profile = images.icc_profile()
    comment = images.save(PilImage.fromarray(PHOTO), "GIF", comment=COMMENT.encode())
    tiff = images.save(PilImage.fromarray(PHOTO), "TIFF", tiffinfo={700: xmp_packet(), 33723: iptc()})
    exif = _exif()
    xmp = {**_by_pillow(xmp=xmp_packet()), "PNG": images.png_with_xmp(PHOTO, xmp_packet()), "TIFF": tiff}
    xmp |= {"HEIF": append_xmp_box(_HEIC["exif6"], xmp_packet())}
    block = photoshop(iptc())
    raw = f"Raw profile type iptc\0\niptc\n{len(block) - 14:8}\n{block[14:].hex()}\n".encode()
    turned = {**_by_pillow(exif=b"Exif\0\0" + full_exif(6)), "HEIF": _HEIC["exif6"]}
    resolution = {**_by_pillow(dpi=(300, 300)), "WEBP": exif["WEBP"], "AVIF": exif["AVIF"], "HEIF": exif["HEIF"]}
    two = images.save(PilImage.fromarray(PHOTO), "MPO", save_all=True, append_images=[PilImage.fromarray(~PHOTO)])
    first, second = PilImage.fromarray(PHOTO), PilImage.fromarray(~PHOTO)
    gama = struct.pack(">I", 55_100)
    yield Row(
        "ICC profile",
        {
            **_by_pillow(icc_profile=profile),
            "BMP": v5_bmp(profile),
            "GIF": gif_with_application(b"ICCRGBG1012", profile),
        },
        "profile",
        lambda opened, data: "icc_profile" in opened.info or profile in data,
    )
    yield Row(
        "`cICP`, `gAMA`, `cHRM`",
        {"PNG": _png(b"gAMA", gama)},
        "colours",
        lambda opened, _: "gamma" in opened.info or "icc_profile" in opened.info,
    )
    yield Row("resolution (dpi)", resolution, "resolution", _has_resolution)
    yield Row("orientation", turned, "turned", lambda opened, _: opened.height > opened.width)
    yield Row("EXIF", exif, "EXIF", lambda opened, _: opened.getexif().get(Base.Make) == "Maker")
    yield Row("location in EXIF", exif, "location", lambda opened, _: bool(opened.getexif().get_ifd(IFD.GPSInfo)))
    yield Row("thumbnail in EXIF", _exif(thumbnail=True), "thumbnail", lambda _, data: b"\xff\xd8\xff" in data[9:])
    yield Row("maker's note in EXIF", _exif(maker_note=True), "maker's note", lambda _, data: b"Nikon" in data)
    yield Row("XMP", xmp, "XMP", lambda _, data: "Küste".encode() in data)
    yield Row(
        "IPTC",
        {"JPEG": _jpeg(0xED, block), "PNG": _png(b"tEXt", raw), "TIFF": tiff},
        "IPTC",
        lambda _, data: _has_iptc(data),
    )
    yield Row(
        "comments, text chunks",
        {
            "JPEG": _jpeg(0xFE, COMMENT.encode()),
            "PNG": _png(b"tEXt", b"Comment\0" + COMMENT.encode("latin-1")),
            "GIF": comment,
        },
        "text",
        lambda _, data: COMMENT.encode() in data or COMMENT.encode("latin-1") in data,
    )
    yield Row(
        "HDR gain map",
        {"JPEG": _jpeg(0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(20))},
        "HDR gain map",
        _has(b"21496"),
    )
    yield Row("further images (MPO, HEIC)", {"JPEG": two, "HEIF": _HEIC["two"]}, "further images", _has(b"MPF\0"))
    yield Row(
        "video of a motion photo, data after the end",
        {"JPEG": images.encode_jpeg(PHOTO) + b"\0\0\0\x18ftypmp42" + bytes(99)},
        "after the end",
        _has(b"ftypmp42"),
    )
    yield Row("preview of the maker", {"JPEG": _jpeg(0xE4, b"QVCI\0" + bytes(900))}, "camera", _has(b"QVCI"))
    yield Row(
        "C2PA manifest",
        {
            "JPEG": _jpeg(0xEB, b"JP\0\1\0\0\0\1c2pa" + bytes(40)),
            "PNG": _png(b"caBX", b"c2pa" + bytes(40)),
            "WEBP": _webp(b"C2PA", b"c2pa" + bytes(40)),
            "AVIF": append_c2pa(images.save(first, "AVIF")),
            "HEIF": append_c2pa(_HEIC["exif6"]),
            "TIFF": tiff_with_tags({0xCD41: b"c2pa" + bytes(40)}),
            "GIF": gif_with_application(b"C2PA_GIF\1\0\0", b"c2pa" + bytes(40)),
        },
        "C2PA",
        _has(b"c2pa"),
    )
    square = images.save(first, "GIF")
    oblong = images.encode_jpeg(PHOTO).replace(b"JFIF\0\1\1\0\0\1\0\1", b"JFIF\0\1\1\0\0\2\0\1")
    yield Row(
        "oblong pixels",
        {
            "JPEG": oblong,
            "PNG": _png(b"pHYs", struct.pack(">IIB", 2, 1, 0)),
            "TIFF": tiff_with_tags({282: 2.0, 283: 1.0, 296: 1}),
            "GIF": square[:12] + b"\x7f" + square[13:],
        },
        "shape",
    )
    hidden = np.dstack((PHOTO, images.draw_alpha(16, 24)))
    yield Row(
        "colours under alpha 0",
        {"PNG": images.encode_png(hidden), "WEBP": images.encode_webp(hidden, exact=True)},
        "under full transparency",
    )
    yield Row(
        "frames and pages after the first",
        {
            "PNG": images.animated_png([PHOTO, ~PHOTO]),
            "WEBP": images.animated_webp([PHOTO, ~PHOTO]),
            **{name: images.save(first, name, save_all=True, append_images=[second]) for name in ("TIFF", "GIF")},
        },
        "first",
        lambda opened, _: getattr(opened, "n_frames", 1) > 1,
    )


def _has(marker: bytes) -> Callable[[Any, bytes], bool]:
    return lambda _, data: marker in data


def _has_resolution(opened: Any, _: bytes) -> bool:
    found = opened.info.get("dpi") or (opened.getexif().get(Base.XResolution, 0),)
    return bool(round(float(found[0])) == 300)


def _has_iptc(data: bytes) -> bool:
    return b"Reuters" in data or b"Reuters".hex().encode() in data.replace(b"\n", b"")


def _outcome(row: Row, data: bytes) -> str:
    """Return what becomes of one thing in a file of one format, over all formats of the result."""
    kept: dict[bool, list[str]] = {False: [], True: []}
    is_reported = True
    for keeps in (False, True):
        image = decode(probe(data, LIMITS), keeps_metadata=keeps)
        for output in OUTPUTS:
            if _is_kept(row, image, output):
                kept[keeps].append(output)
            else:
                is_reported &= any(row.words in note for note in (*image.notes, *describe_losses(image, output)))
    if row.name == "orientation":
        return "applied"
    if kept[False]:
        return "kept" + _except(kept[False])
    report = "; said" if is_reported else ""
    return f"`keep`{_except(kept[True])}{report}" if kept[True] else f"dropped{report}"


def _is_kept(row: Row, image: Image, output: OutputFormat) -> bool:
    encoder = BandEncoder(image, 1, output, 90)
    encoder.add(image.pixels)
    data = encoder.finish()
    with PilImage.open(BytesIO(data)) as opened:
        opened.load()
        return row.is_in(opened, data)


def _except(outputs: list[str]) -> str:
    missing = [output for output in OUTPUTS if output not in outputs]
    return f", not in {', '.join(missing)}" if missing else ""


def format_table() -> list[str]:
    """Return the lines of the table: what becomes of each thing, by format of the upload."""
    names = {"WEBP": "WebP", "HEIF": "HEIC"}
    lines = [
        f"| in the upload | {' | '.join(names.get(name, name) for name in INPUTS)} |",
        "|---" * (1 + len(INPUTS)) + "|",
    ]
    for row in _rows():
        has = {name: data for name, data in row.files.items() if _holds(row, data)}
        cells = [_outcome(row, has[name]) if name in has else "-" for name in INPUTS]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    return lines


def split_page() -> tuple[str, list[str], str]:
    """Return the page before the table, the table's lines, and the page after it."""
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition("<!-- measured: metadata -->\n")
    table, end, after = rest.partition("<!-- end of metadata -->")
    return before + begin, table.splitlines(), end + after


def _holds(row: Row, data: bytes) -> bool:
    """Return whether the encoder of the upload's format wrote the thing: not all take Pillow's keywords."""
    if row.name == "orientation":
        return probe(data, LIMITS).orientation != 1
    if data[4:12] == b"ftypheic":  # Pillow alone does not open it
        return True
    if row.name in ("oblong pixels", "colours under alpha 0"):
        return True
    with PilImage.open(BytesIO(data)) as opened:
        return row.is_in(opened, data)


if __name__ == "__main__":
    BEFORE, _, AFTER = split_page()
    PAGE.write_text(BEFORE + "\n".join(format_table()) + "\n" + AFTER, encoding="utf-8")

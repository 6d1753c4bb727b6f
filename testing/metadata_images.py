"""Metadata as cameras and editors write it, and uploads that hold all of it."""

from __future__ import annotations

import struct

from PIL import Image as PilImage
from PIL import TiffImagePlugin
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational

from testing import images

XMP_NAMESPACE = b"http://ns.adobe.com/xap/1.0/\0"
PHOTO = images.draw_photo(16, 24)
COMMENT = "Grüße vom Meer"


def full_exif(orientation: int = 6, *, thumbnail: bool = False, maker_note: bool = False) -> bytes:
    """Return the EXIF of a phone's photo: camera, time, exposure, place, resolution, sizes."""
    tags = PilImage.Exif()
    tags[Base.Make], tags[Base.Model], tags[Base.Orientation] = "Maker", "Model 1", orientation
    tags[Base.XResolution], tags[Base.YResolution], tags[Base.ResolutionUnit] = IFDRational(300), IFDRational(300), 2
    tags[Base.DateTime], tags[Base.Copyright] = "2026:01:02 03:04:05", "Ada"
    photo = tags.get_ifd(IFD.Exif)
    photo[Base.ExposureTime], photo[Base.LensModel] = IFDRational(1, 250), "A lens"
    photo[Base.ExifImageWidth], photo[Base.ExifImageHeight] = 24, 16
    photo[Base.UserComment] = b"ASCII\0\0\0hello"
    if maker_note:
        photo[Base.MakerNote] = b"Nikon\0" + bytes(range(200))
    place = tags.get_ifd(IFD.GPSInfo)
    place[GPS.GPSLatitudeRef] = "N"
    place[GPS.GPSLatitude] = (IFDRational(54), IFDRational(19), IFDRational(5998, 100))
    block = tags.tobytes().removeprefix(b"Exif\0\0")
    return _add_thumbnail(block) if thumbnail else block


def _add_thumbnail(block: bytes) -> bytes:
    """Return a block with a second directory, which holds a JPEG."""
    (directory,) = struct.unpack_from(">I", block, 4)
    (entries,) = struct.unpack_from(">H", block, directory)
    jpeg = images.encode_jpeg(PHOTO)
    second = struct.pack(">HHHIIHHIII", 2, 0x0201, 4, 1, len(block) + 30, 0x0202, 4, 1, len(jpeg), 0)
    block = (
        block[: directory + 2 + 12 * entries] + struct.pack(">I", len(block)) + block[directory + 6 + 12 * entries :]
    )
    return block + second + jpeg


def xmp_packet(properties: str = "", attributes: str = "", *, namespaces: str = "") -> bytes:
    """Return a packet of one description with these properties, next to a title and a rating."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="uuid:1" '
        'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        f'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" {namespaces} '
        f'xmp:Rating="5" tiff:Orientation="6" exif:PixelXDimension="24" {attributes}>'
        "<dc:title><rdf:Alt><rdf:li xml:lang='x-default'>Küste &amp; Meer</rdf:li></rdf:Alt></dc:title>"
        f"{properties}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
    ).encode()


def iptc(caption: str = "Reuters") -> bytes:
    """Return datasets of IPTC-IIM: the coded character set, a caption and two keywords."""
    datasets = ((1, 90, b"\x1b%G"), (2, 120, caption.encode()), (2, 25, b"sea"), (2, 25, b"coast"))
    return b"".join(struct.pack(">BBBH", 0x1C, record, number, len(data)) + data for record, number, data in datasets)


def photoshop(datasets: bytes) -> bytes:
    """Return the body of a JPEG's segment with Photoshop's resources: a path name, then IPTC."""
    name = b"8BIM" + struct.pack(">H", 0x0BB7) + b"\x03abc" + struct.pack(">I", 3) + b"xyz\0"
    return b"Photoshop 3.0\0" + name + b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(datasets)) + datasets


def full_jpeg(orientation: int = 6) -> bytes:
    """Return a JPEG with EXIF, XMP, IPTC and a comment."""
    data = images.encode_jpeg(
        images.store_for_orientation(PHOTO, orientation),
        exif=b"Exif\0\0" + full_exif(orientation),
        xmp=xmp_packet(),
        comment=COMMENT.encode(),
        dpi=(300, 300),
    )
    return images.insert_jpeg_segment(data, 0xED, photoshop(iptc()))


def full_png(orientation: int = 6) -> bytes:
    """Return a PNG with EXIF, XMP, IPTC, a Latin-1 text and a Unicode one."""
    data = images.png_with_xmp(images.store_for_orientation(PHOTO, orientation), xmp_packet())
    data = images.insert_png_chunk(data, b"eXIf", full_exif(orientation))
    block = photoshop(iptc()).removeprefix(b"Photoshop 3.0\0")
    raw = f"\niptc\n{len(block):8}\n{block.hex()}\n".encode()
    data = images.insert_png_chunk(data, b"tEXt", b"Raw profile type iptc\0" + raw)
    data = images.insert_png_chunk(data, b"tEXt", b"Comment\0" + COMMENT.encode("latin-1"))
    return images.insert_png_chunk(data, b"iTXt", b"parameters\0\0\0\0\0" + "猫, 4k".encode())


def full_webp(orientation: int = 6) -> bytes:
    """Return a WebP with EXIF and XMP."""
    stored = images.store_for_orientation(PHOTO, orientation)
    return images.encode_webp(stored, exif=full_exif(orientation), xmp=xmp_packet())


def append_box(data: bytes, kind: bytes, body: bytes) -> bytes:
    """Return an AVIF or HEIC with a further box of the file at its end, where it moves no offset."""
    return data + struct.pack(">I4s", 8 + len(body), kind) + body


def append_c2pa(data: bytes) -> bytes:
    """Return an AVIF or HEIC with the box of a C2PA manifest (C2PA specification 2.2, annex A.5)."""
    kind = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
    return append_box(data, b"uuid", kind + bytes(4) + b"manifest\0" + bytes(8) + b"c2pa" + bytes(40))


def append_xmp_box(data: bytes, xmp: bytes) -> bytes:
    """Return an AVIF or HEIC with XMP in a box of the file (XMP specification, part 3)."""
    return append_box(data, b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + xmp)


def gif_with_application(name: bytes, body: bytes) -> bytes:
    """Return a GIF with an application extension, whose name has 11 bytes and whose body at most 255."""
    data = images.save(PilImage.fromarray(PHOTO).quantize(16), "GIF")
    at = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    return data[:at] + b"\x21\xff\x0b" + name + bytes((len(body),)) + body + b"\0" + data[at:]


def tiff_with_tags(tags: dict[int, object], **options: object) -> bytes:
    """Return a TIFF with further tags of type UNDEFINED where the value is bytes."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        if isinstance(value, bytes):
            directory.tagtype[tag] = 7
        directory[tag] = value
    return images.save(PilImage.fromarray(PHOTO), "TIFF", tiffinfo=directory, **options)


def v5_bmp(profile: bytes) -> bytes:
    """Return a BMP whose header of version 5 has an ICC profile."""
    height, width, _ = PHOTO.shape
    body = b"".join(row.tobytes().ljust((width * 3 + 3) // 4 * 4, b"\0") for row in PHOTO[::-1, :, ::-1])
    head = struct.pack("<IiiHHIIii", 124, width, height, 1, 24, 0, len(body), 0, 0).ljust(56, b"\0") + b"DEBM"
    head = head.ljust(112, b"\0") + struct.pack("<III", 124 + len(body), len(profile), 0)
    return b"BM" + struct.pack("<IHHI", 138 + len(body) + len(profile), 0, 0, 138) + head + body + profile

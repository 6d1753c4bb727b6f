"""What the making of a picture takes of memory, known from headers alone: by its size, its format and its alpha."""

from __future__ import annotations

from preprocessing.output_formats import OutputFormat
from preprocessing.upload import Upload

ENCODER_BYTES: dict[OutputFormat, tuple[int, int]] = {"png": (3, 4), "jpeg": (3, 3), "webp": (16, 42)}
"""Of a pixel of the result, its file included: (without, with transparency). Measured with noise, which takes most: PNG
files of 2.7 and 3.6 bytes a pixel enlarged four times, JPEG files of 2.6 at quality 100, VmHWM of WebP's encoder at
quality 100 15.3 and 41.3 (Pillow 13.0, libwebp of its wheel, 2,048 to 4,096 pixels a side)."""
DECODER_BYTES = 24
"""Of a pixel of the upload, while it is decoded and its colour bled: 23 at most (docs/explanation/codec.md)."""
IMAGE_BYTES = 4
"""Of a pixel of the upload, afterwards."""
BAND_BYTES = 9
"""Of a pixel of a band: the message, what protobuf made of it, and the array; counted in triton_client.py."""
BAND_ROWS = 256
"""Of the upload in one band: as many as the largest tile has (swinir/zoo.py)."""


def working_bytes(upload: Upload, scale: int, format: OutputFormat) -> int:  # noqa: A002
    """Return the most bytes that are held at any time while this picture is made."""
    given = upload.width * upload.height
    made, band = given * scale**2, upload.width * min(upload.height, BAND_ROWS) * scale**2
    encoding = made * ENCODER_BYTES[format][upload.may_be_transparent] + band * BAND_BYTES + given * IMAGE_BYTES
    return max(given * DECODER_BYTES, encoding)


def most_pixels(format: OutputFormat, max_bytes: int, *, is_transparent: bool) -> int:  # noqa: A002
    """Return the most pixels of a result that an encoder writes within so many bytes."""
    return max_bytes // ENCODER_BYTES[format][is_transparent]

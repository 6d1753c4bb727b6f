"""Memory that upscaling an image needs, known from its headers: by size, output format and alpha."""

from __future__ import annotations

from preprocessing.output_formats import OutputFormat
from preprocessing.upload import Upload

# Bytes per pixel of the result, the file included: (opaque, with alpha). Measured with noise, which needs the maximum:
# PNG files of 2.7 and 3.6 bytes per pixel at 4x, JPEG files of 2.6 at quality 100, and VmHWM of WebP's encoder at
# quality 100 of 15.3 and 41.3 (Pillow 13.0 with the libwebp of its wheel, 2,048 to 4,096 pixels per side).
ENCODER_BYTES: dict[OutputFormat, tuple[int, int]] = {"png": (3, 4), "jpeg": (3, 3), "webp": (16, 42)}
# Bytes per pixel of the upload while it is decoded and colour is bled: measured at most 23 (docs/explanation/codec.md).
DECODER_BYTES = 24
# Bytes per pixel of the upload afterwards: RGB and alpha.
IMAGE_BYTES = 4
# Bytes per pixel of a band: the gRPC message, what protobuf makes of it, and the array
# (gateway/backend/triton_client.py). Mixing by strength adds 3, but only at scale 1, where DECODER_BYTES is more than
# all of this together.
BAND_BYTES = 9
# Rows of the upload in one band: the maximum tile side (swinir/zoo.py).
BAND_ROWS = 256


def working_bytes(upload: Upload, scale: int, format: OutputFormat) -> int:  # noqa: A002
    """Return the maximum number of bytes held at any time while this image is upscaled."""
    input_pixels = upload.width * upload.height
    output_pixels = input_pixels * scale**2
    band_pixels = upload.width * min(upload.height, BAND_ROWS) * scale**2
    encoding = (
        output_pixels * ENCODER_BYTES[format][upload.may_be_transparent]
        + band_pixels * BAND_BYTES
        + input_pixels * IMAGE_BYTES
    )
    return max(input_pixels * DECODER_BYTES, encoding)


def max_output_pixels(format: OutputFormat, max_bytes: int, *, is_transparent: bool) -> int:  # noqa: A002
    """Return the maximum number of pixels of a result that an encoder can write within `max_bytes` of memory."""
    return max_bytes // ENCODER_BYTES[format][is_transparent]

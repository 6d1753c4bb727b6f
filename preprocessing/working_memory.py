"""Memory that upscaling an image needs, known from its headers: by size, output format and alpha."""

from __future__ import annotations

from preprocessing.depth import Depth
from preprocessing.formats.avif import MAX_CELL_PX
from preprocessing.formats.container import SANDBOXED_FORMATS
from preprocessing.output_formats import OutputFormat
from preprocessing.resampling import STEP_ROWS, buffer_rows
from preprocessing.sandbox.process import memory_limit
from preprocessing.upload import Upload

# Bytes per pixel of the result, the file included: (opaque, with alpha). Measured with noise, which needs the maximum:
# PNG files of 2.7 and 3.6 bytes per pixel at 4x, JPEG files of 2.6 at quality 100, and VmHWM of WebP's encoder at
# quality 100 of 15.3 and 41.3 (Pillow 13.0 with the libwebp of its wheel, 2,048 to 4,096 pixels per side),
# AVIF files of 3.8 and 5.2.
ENCODER_BYTES: dict[OutputFormat, tuple[int, int]] = {"png": (3, 4), "jpeg": (3, 3), "webp": (16, 42), "avif": (5, 7)}
# The same for lossless WebP, with and without alpha: measured 36.3 (LOSSLESS_WEBP_METHOD in encoder.py).
LOSSLESS_WEBP_BYTES = 42
# In addition, for AVIF: bytes per pixel of one row of cells, and of the cell that is being encoded.
AVIF_ROW_BYTES, AVIF_CELL_BYTES = 4, 60
# Bytes per pixel of the upload while it is decoded and colour is bled: measured at most 23 (docs/explanation/codec.md).
DECODER_BYTES = 24
# The same for 16 bits: measured at most 36.
DEEP_DECODER_BYTES = 40
# All of the following is for 8 bits per channel; 16 take twice as much, in PNG files of noise too.
# Bytes per pixel of the upload afterwards: RGB and alpha.
IMAGE_BYTES = 4
# Bytes per pixel of a band: the gRPC message, what protobuf makes of it, and the array
# (gateway/backend/triton_client.py). Mixing by strength adds 3, but only at scale 1, where DECODER_BYTES is more than
# all of this together.
BAND_BYTES = 9
# Bytes per upscaled pixel, and per pixel of the upload, of alpha that a network enlarges ahead of the colours
# (`soft_alpha`).
ALPHA_BYTES = 1
# Rows of the upload in one band: the maximum tile side (swinir/zoo.py).
BAND_ROWS = 256
# Bytes per pixel that the resampler holds: colour and alpha, twice while rows are appended.
RESAMPLER_BYTES = 8
# Bytes per pixel of a shrunk band, which is kept for its preview: colour, twice while its parts are joined.
SHRUNK_BAND_BYTES = 6


def working_bytes(
    upload: Upload,
    scale: int,
    format: OutputFormat,  # noqa: A002
    shrunk_to: tuple[int, int] | None = None,
    *,
    is_lossless: bool = False,
    depth: Depth = 8,
) -> int:
    """Return the maximum number of bytes held at any time while this image is upscaled, and shrunk to a size."""
    input_pixels = upload.width * upload.height
    output_pixels = input_pixels * scale**2 if shrunk_to is None else shrunk_to[0] * shrunk_to[1]
    band_pixels = upload.width * min(upload.height, BAND_ROWS) * scale**2
    encoding = (
        output_pixels * _encoder_bytes(format, is_transparent=upload.may_be_transparent, is_lossless=is_lossless)
        + (_avif_cell_bytes(upload.width * scale, upload.height * scale) if format == "avif" else 0)
        + band_pixels * BAND_BYTES
        + input_pixels * IMAGE_BYTES
    )
    if upload.may_be_transparent and scale > 1:
        encoding += input_pixels * (scale**2 + 1) * ALPHA_BYTES
    if shrunk_to is not None:
        rows = buffer_rows(upload.height * scale, shrunk_to[1], STEP_ROWS)
        encoding += shrunk_to[0] * rows * RESAMPLER_BYTES
        encoding += min(output_pixels, band_pixels) * SHRUNK_BAND_BYTES
    decoder_bytes = DECODER_BYTES if depth == 8 else DEEP_DECODER_BYTES
    return max(input_pixels * decoder_bytes, _decoder_process_bytes(upload, depth), encoding * depth // 8)


def _decoder_process_bytes(upload: Upload, depth: Depth) -> int:
    """Return the maximum memory of the decoder process and of its result here; 0 for an upload that needs none."""
    if upload.format not in SANDBOXED_FORMATS and upload.mode != "CMYK":
        return 0
    pixels = upload.width * upload.height
    maximum = upload.decoder_limits.max_memory_bytes
    return memory_limit(upload.width, upload.height, len(upload.data), maximum) + pixels * IMAGE_BYTES * depth // 8


def max_output_pixels(
    format: OutputFormat,  # noqa: A002
    max_bytes: int,
    *,
    is_transparent: bool,
    is_lossless: bool = False,
    depth: Depth = 8,
) -> int:
    """Return the maximum number of pixels of a result that an encoder can write within `max_bytes` of memory."""
    pixel_bytes = _encoder_bytes(format, is_transparent=is_transparent, is_lossless=is_lossless)
    return max_bytes // (pixel_bytes * depth // 8)


def _avif_cell_bytes(width: int, height: int) -> int:
    rows = min(height, MAX_CELL_PX)
    return rows * (width * AVIF_ROW_BYTES + min(width, MAX_CELL_PX) * AVIF_CELL_BYTES)


def _encoder_bytes(format: OutputFormat, *, is_transparent: bool, is_lossless: bool) -> int:  # noqa: A002
    """Return the bytes per pixel of a result that its encoder needs, the file included."""
    if format == "webp" and is_lossless:
        return LOSSLESS_WEBP_BYTES
    return ENCODER_BYTES[format][is_transparent]

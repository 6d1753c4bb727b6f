"""The codec's public API: bytes -> `probe` -> Upload -> `decode` -> Image -> `encode` -> bytes.

Import these names from here. They are defined in `upload`, `decoder`, `image`, `encoder`, `output_formats` and
`working_memory`.
"""

from __future__ import annotations

from preprocessing.decoder import decode
from preprocessing.encoder import BandEncoder, encode
from preprocessing.formats.container import InputFormat
from preprocessing.image import Image, Pixels
from preprocessing.output_formats import (
    DEFAULT_QUALITY,
    FORMAT_NAMES,
    MAX_OUTPUT_SIDES,
    OutputFormat,
    check_output,
    describe_losses,
    join_channels,
    png_mode,
)
from preprocessing.upload import MAX_DECODED_PIXELS, Upload, UploadLimits, probe
from preprocessing.working_memory import max_output_pixels, working_bytes

__all__ = [
    "DEFAULT_QUALITY",
    "FORMAT_NAMES",
    "MAX_DECODED_PIXELS",
    "MAX_OUTPUT_SIDES",
    "BandEncoder",
    "Image",
    "InputFormat",
    "OutputFormat",
    "Pixels",
    "Upload",
    "UploadLimits",
    "check_output",
    "decode",
    "describe_losses",
    "encode",
    "join_channels",
    "max_output_pixels",
    "png_mode",
    "probe",
    "working_bytes",
]

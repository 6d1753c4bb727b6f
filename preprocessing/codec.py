"""The codec's public API: bytes -> `probe` -> Upload -> `decode` -> Image -> `encode` -> bytes.

Import these names from here. They are defined in `upload`, `decoder`, `image`, `encoder`, `output_formats` and
`working_memory`.
"""

from __future__ import annotations

from preprocessing.decoder import decode
from preprocessing.decoder_limits import DecoderLimits
from preprocessing.encoder import BandEncoder, encode
from preprocessing.formats.container import (
    INPUT_FORMAT_NAMES,
    INPUT_MEDIA_TYPES,
    SANDBOXED_FORMATS,
    UNSHOWN_FORMATS,
    InputFormat,
)
from preprocessing.formats.icc import colour_space as profile_colour_space
from preprocessing.image import Image, Pixels
from preprocessing.output_formats import (
    DEFAULT_QUALITY,
    FORMAT_NAMES,
    LOSSLESS_FORMATS,
    MAX_OUTPUT_SIDES,
    OutputFormat,
    check_output,
    describe_losses,
    join_channels,
    png_mode,
    profile_for,
)
from preprocessing.upload import (
    MAX_DECODED_PIXELS,
    Upload,
    UploadLimits,
    describe_formats,
    probe,
    probe_start,
    readable_formats,
)
from preprocessing.working_memory import max_output_pixels, working_bytes

__all__ = [
    "DEFAULT_QUALITY",
    "FORMAT_NAMES",
    "INPUT_FORMAT_NAMES",
    "INPUT_MEDIA_TYPES",
    "LOSSLESS_FORMATS",
    "MAX_DECODED_PIXELS",
    "MAX_OUTPUT_SIDES",
    "SANDBOXED_FORMATS",
    "UNSHOWN_FORMATS",
    "BandEncoder",
    "DecoderLimits",
    "Image",
    "InputFormat",
    "OutputFormat",
    "Pixels",
    "Upload",
    "UploadLimits",
    "check_output",
    "decode",
    "describe_formats",
    "describe_losses",
    "encode",
    "join_channels",
    "max_output_pixels",
    "png_mode",
    "probe",
    "probe_start",
    "profile_colour_space",
    "profile_for",
    "readable_formats",
    "working_bytes",
]

"""Decodes an upload of `SANDBOXED_FORMATS`, and converts CMYK, in the decoder process."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image as PilImage

from preprocessing.depth import Depth, max_level
from preprocessing.formats.container import INPUT_FORMAT_NAMES
from preprocessing.formats.exif import TRANSPOSITIONS
from preprocessing.image import Pixels
from preprocessing.sandbox.press_profile import default_profile
from preprocessing.sandbox.process import Decoded, DecodeJob, run
from preprocessing.upload import Upload


class SandboxedImage(NamedTuple):
    """An upright image from the decoder process."""

    pixels: Pixels
    """[H, W, 3] uint8, or uint16 where it was asked for and the file has it."""
    alpha: Pixels | None = None
    """[H, W] of the type of the pixels; None when every pixel is opaque."""
    is_grey: bool = False
    """Whether the three channels are copies of one."""
    note: str = ""
    """How CMYK was converted, as a sentence; empty for other images."""


def decode_sandboxed(upload: Upload, depth: Depth = 8) -> SandboxedImage:
    """Decode an upload of `SANDBOXED_FORMATS`; with a depth of 16, a TIFF of more than 8 bits keeps them.

    Raises UnreadableImageError for every failure of the decoder, and DecoderStartError when it could not start.
    """
    is_cmyk = upload.mode == "CMYK"
    container = upload.container
    job = DecodeJob(
        format=upload.format,
        data=b"".join(container.required_chunks),
        width=container.width,
        height=container.height,
        result_size=(upload.width, upload.height),
        # libtiff and libheif turn the image themselves.
        transposition=TRANSPOSITIONS.get(upload.orientation) if upload.format in ("AVIF", "GIF") else None,
        profile=(container.icc_profile or b"") if is_cmyk else b"",
        default_profile=default_profile() if is_cmyk else b"",
        keeps_16_bits=depth == upload.depth == 16,
    )
    decoded = run(job, INPUT_FORMAT_NAMES[upload.format], upload.decoder_limits)
    return _split_channels(decoded, container.bits, depth, _describe_cmyk(upload, decoded) if is_cmyk else "")


def convert_cmyk(opened: PilImage.Image, upload: Upload) -> SandboxedImage:
    """Convert an upright image in mode CMYK through the ICC profile of its upload, or through a default one.

    In the decoder process, because LittleCMS reads the profile. Raises as `decode_sandboxed` does.
    """
    job = DecodeJob(
        format="CMYK",
        data=opened.tobytes(),
        width=opened.width,
        height=opened.height,
        result_size=opened.size,
        profile=upload.container.icc_profile or b"",
        default_profile=default_profile(),
    )
    decoded = run(job, f"CMYK {INPUT_FORMAT_NAMES[upload.format]}", upload.decoder_limits)
    return _split_channels(decoded, 8, 8, _describe_cmyk(upload, decoded))


def _describe_cmyk(upload: Upload, decoded: Decoded) -> str:
    start = "The image is in CMYK, for print: it was converted to sRGB"
    if not decoded.is_default_profile_used:
        return f"{start} through its colour profile."
    reason = "it has no colour profile" if upload.container.icc_profile is None else "its colour profile is broken"
    return f"{start} as on a typical offset press, because {reason}; colours may differ."


def _split_channels(decoded: Decoded, bits: int, depth: Depth, note: str) -> SandboxedImage:
    channels: Pixels = decoded.pixels
    if decoded.mode in ("I;16", "I;16B"):
        highest, target = 2**bits - 1, np.uint8 if depth == 8 else np.uint16
        spread = decoded.pixels.astype(np.uint32) * np.uint32(np.iinfo(target).max) + np.uint32(highest // 2)
        channels = (spread // np.uint32(highest)).astype(target)
    alpha: Pixels | None = None
    if channels.shape[2] in (2, 4):
        channels, alpha = channels[..., :-1], channels[..., -1].copy()
        if alpha.min() == max_level(alpha):
            alpha = None
    is_grey = channels.shape[2] == 1
    pixels = np.repeat(channels, 3, axis=2) if is_grey else np.ascontiguousarray(channels)
    return SandboxedImage(pixels, alpha, is_grey, note)

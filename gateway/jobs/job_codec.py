"""The decoder and the encoder of a job, as the options of its request ask for."""

from __future__ import annotations

from gateway.jobs.alpha_pass import AlphaPass
from gateway.jobs.options import UpscaleRequest
from gateway.jobs.result_metadata import describe_origin
from preprocessing.codec import BandEncoder, Image, decode
from swinir.auto import NEAREST


def decode_upload(request: UpscaleRequest) -> Image:
    """Return the image of a request. Raises ImageError."""
    options = request.options
    return decode(
        request.upload,
        keeps_metadata=options.metadata == "keep",
        bleeds_colour=options.transparent_colour == "bleed",
        depth=options.output.depth,
    )


def make_encoder(request: UpscaleRequest, image: Image, alpha: AlphaPass) -> BandEncoder:
    """Return the encoder of the result of a request whose variant is chosen. Raises ImageError."""
    options = request.options
    variant = options.variant
    return BandEncoder(
        image,
        variant.scale,
        options.format,
        options.output.quality,
        alpha_rows=alpha.rows,
        is_exact=variant is NEAREST,
        is_lossless=options.output.is_lossless,
        shrink_to=request.shrunk_to,
        origin=describe_origin(variant) if options.has_provenance else None,
    )

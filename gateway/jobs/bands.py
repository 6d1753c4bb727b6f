"""The bands of a result: how many there will be, who makes them, and how each is mixed with the upload."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gateway.backend.interface import Backend, BackendFaultError, Band
from gateway.cancellation import CancelToken
from gateway.jobs.alpha_pass import AlphaPass
from gateway.jobs.nearest import BAND_ROWS, repeat_bands
from gateway.jobs.options import UpscaleOptions, UpscaleRequest
from preprocessing.codec import Image
from preprocessing.mixing import FULL_STRENGTH_PERCENT, mix
from preprocessing.soft_alpha import SoftAlpha
from swinir.auto import NEAREST
from swinir.checks import mix_rows
from swinir.image_grid import tile_grid


def make_bands(
    backend: Backend,
    image: Image,
    alpha: AlphaPass,
    options: UpscaleOptions,
    *,
    deadline: float,
    request_id: str,
    cancel_token: CancelToken,
) -> Iterator[tuple[Band, SoftAlpha | None]]:
    """Yield the bands of the pending mask, each with the mask that it belongs to, then those of the colours.

    The two come one after the other: at most one stream of a job is open. Raises a BackendError or CancelledError.
    """
    variant = options.variant
    if variant is NEAREST:
        for band in repeat_bands(image.pixels, variant.scale, cancel_token):
            yield band, None
        return
    if (mask := alpha.pending) is not None:
        mask.start()
        for band in backend.upscale_bands(
            mask.network_input, variant.name, deadline=deadline, request_id=request_id, cancel_token=cancel_token
        ):
            yield band, mask
        if alpha.pending is not None:
            raise BackendFaultError("the bands do not add up to the alpha of the image")
    for band in backend.upscale_bands(
        image.pixels, variant.name, deadline=deadline, request_id=request_id, cancel_token=cancel_token
    ):
        yield band, None


def mix_band(band: Band, image: Image, options: UpscaleOptions) -> Band:
    """Return a band mixed with the upload by the strength. Raises ValueError if it does not fit the upload.

    Mixed here and not in Triton: the input is at hand, and the models' contract needs no further tensor.
    """
    if options.strength_percent == FULL_STRENGTH_PERCENT:
        return band
    original = image.pixels[band.top : band.top + len(band.pixels)]
    checks = None if band.checks is None else mix_rows(band.checks, options.strength)
    return replace(band, pixels=mix(original, band.pixels, options.strength_percent), checks=checks)


def count_bands(request: UpscaleRequest, alpha: AlphaPass) -> int:
    """Return how many bands the backend will send, those of the pending mask included: it chooses the same grids."""
    variant, upload = request.options.variant, request.upload
    if variant is NEAREST:
        return -(-upload.height // BAND_ROWS)
    return alpha.n_bands + tile_grid(variant, upload.height, upload.width).rows

"""The notes of a result: sentences for the user on what was changed, dropped or invented."""

from __future__ import annotations

from gateway.jobs.options import UpscaleOptions, UpscaleRequest
from preprocessing.codec import Image, describe_losses
from preprocessing.grey import is_grey
from preprocessing.mixing import FULL_STRENGTH_PERCENT
from swinir.credits import CHROMA_NOTE


def describe_result(image: Image, request: UpscaleRequest) -> tuple[str, ...]:
    """Return the notes of the result that the decoded image of a request has."""
    options, variant = request.options, request.options.variant
    chroma_note = CHROMA_NOTE if variant.channels == 1 and not is_grey(image.pixels) else ""
    losses = describe_losses(image, options.format)
    notes = (
        *image.notes,
        options.output.note,
        options.output.depth_note,
        *losses,
        chroma_note,
        _describe_size(request),
        _describe_strength(options),
        variant.notice,
    )
    return tuple(note for note in notes if note)


def _describe_size(request: UpscaleRequest) -> str:
    if request.shrunk_to is None:
        return ""
    variant = request.options.variant
    return f"Upscaled {variant.scale}x by {variant.name}, then shrunk to {request.width} x {request.height} pixels."


def _describe_strength(options: UpscaleOptions) -> str:
    if (percent := options.strength_percent) == FULL_STRENGTH_PERCENT:
        return ""
    strength, rest = f"{options.strength:g}", 100 - percent
    if (chosen := options.chosen_strength) is None:
        return f"Strength {strength}: the result is a mix of {percent} % restored and {rest} % original."
    if percent == 0:
        return f"Strength 0, because {chosen.reason}: the result is the original."
    why = chosen.reason
    return f"Strength {strength}, because {why}: the result is a mix of {percent} % restored and {rest} % original."

"""The choices that an image makes: the variant with `variant=auto` and for grey images, and the strength."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gateway.jobs.options import UpscaleOptions, UpscaleRequest
from gateway.jobs.strength import find_strength
from preprocessing.content import classify
from preprocessing.damage import has_shared_noise
from preprocessing.formats.jpeg import read_quality
from preprocessing.formats.webp_quantiser import read_quantiser
from preprocessing.grey import is_grey
from preprocessing.image import Image
from swinir.auto import GreyReason


@dataclass(frozen=True)
class Choice:
    """A variant that was chosen by what the image shows."""

    kind: str
    """What the image shows: a `preprocessing.content.ImageKind` or a `swinir.auto.GreyReason`."""
    variant: str
    alternative: str
    """Variant to try if the result does not please; empty without another one."""
    sentence: str
    """The reason, for the user: "Looks like a worn JPEG (JPEG quality 40): compact_real_x4."."""

    def body(self) -> dict[str, Any]:
        """Return the members of the JSON object."""
        return asdict(self)


def choose_variant(request: UpscaleRequest, image: Image) -> UpscaleRequest:
    """Return the request with its variant chosen by the decoded image.

    A variant by name stays, unless it is for colour, the image is grey or has the noise of a grey one, and the server
    has a variant for those.
    """
    if not request.options.must_choose:
        reason = _find_grey_reason(request, image)
        return request.with_grey_variant(reason) if reason else request
    container = request.upload.container
    return request.choose(classify(image, read_quality(container), read_quantiser(container)))


def _find_grey_reason(request: UpscaleRequest, image: Image) -> GreyReason | None:
    if request.options.grey_variant is None:
        return None
    if is_grey(image.pixels):
        return GreyReason.GREY_IMAGE
    denoises = request.options.variant.task.endswith("_denoise")
    return GreyReason.SHARED_NOISE if denoises and has_shared_noise(image) else None


def choose_strength(request: UpscaleRequest, image: Image) -> UpscaleRequest:
    """Return the request with its strength chosen by the decoded image; unchanged if it names one or takes none."""
    options = request.options
    if not options.must_choose_strength:
        return request
    return request.with_strength(find_strength(options.variant.task, image, read_quality(request.upload.container)))


def describe_choice(options: UpscaleOptions) -> Choice | None:
    """Return the choice that was made; None for a variant by name that serves the image, and before the choice."""
    if options.replaced is not None and options.grey_reason is not None:
        name, named = options.variant.name, options.replaced.name
        if options.grey_reason is GreyReason.GREY_IMAGE:
            reason = f"The image is grey: {name} instead of {named}."
        else:
            reason = f"The noise is the same in red, green and blue: {name} instead of {named}."
        return Choice(str(options.grey_reason), name, "", reason)
    candidates, content = options.candidates, options.content
    if candidates is None or content is None:
        return None
    sentence = f"Looks like {content.description} ({content.evidence}): {options.variant.name}."
    if missing := candidates.find_gap(content.kind):
        sentence += f" {missing} would fit better, but this service does not offer it."
    elif oversized := candidates.find_oversized(content.kind):
        sentence += f" {oversized} would fit better, but it makes too many pixels of an image of this size."
    second = candidates.second(content.kind)
    return Choice(
        kind=str(content.kind),
        variant=options.variant.name,
        alternative=second.name if second else "",
        sentence=sentence,
    )

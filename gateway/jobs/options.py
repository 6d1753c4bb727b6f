"""Options of an upscale request (variant, format, size and others) and the checks of an upload's header.

Decodes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from gateway import problems
from gateway.config.settings import Settings
from gateway.error_mapping import problem_from_image_error
from gateway.jobs.filenames import fit_name, safe_stem
from gateway.jobs.limits import (
    check_cost,
    check_memory,
    check_reach,
    find_16_bit_obstacle,
    max_upload_pixels,
    probe_first_bytes,
    probe_upload,
)
from gateway.jobs.offered_variants import find_offered_variant, weights_version
from gateway.jobs.output_options import PARAMETERS as OUTPUT_PARAMETERS
from gateway.jobs.output_options import OutputOptions, parse_flag, parse_output_options
from gateway.jobs.result_metadata import MetadataChoice, parse_metadata
from gateway.jobs.result_size import SIZE_PARAMETERS, ResultSize, parse_decimal, parse_size
from gateway.jobs.strength import ChosenStrength
from gateway.jobs.transparent_colour import TransparentColour, parse_transparent_colour
from preprocessing.codec import OutputFormat, Upload, check_output, working_bytes
from preprocessing.content import Content
from preprocessing.errors import ImageError
from preprocessing.mixing import FULL_STRENGTH_PERCENT
from swinir.auto import AUTO, Candidates, GreyReason, find_grey_variant
from swinir.zoo import Variant

PARAMETERS = ("variant", *OUTPUT_PARAMETERS, "strength", *SIZE_PARAMETERS, "metadata", "transparent_colour")

# Images that Triton's model `swinir` runs together: `large_jobs.SMALL_PIXELS` of the engine.
SMALL_IMAGE_PIXELS = 128 * 128


@dataclass(frozen=True)
class UpscaleOptions:
    """Variant, output and strength."""

    variant: Variant
    """The variant to use. While `candidates` is set, the one of them with the largest result, for limits."""
    output: OutputOptions
    """Format and quality of the result's file."""
    weights_version: str = ""
    """Changes when the variant's weights are replaced; empty for bundled weights."""
    strength_percent: int = FULL_STRENGTH_PERCENT
    """Share of the network's change that the result keeps, 0 to 100; below 100 only if the variant keeps the size."""
    chooses_strength: bool = False
    """Whether the strength follows from the image, because the request names none and the variant keeps the size."""
    chosen_strength: ChosenStrength | None = None
    """The strength for the image, once it was chosen; `strength_percent` is then the same."""
    size: ResultSize = field(default_factory=ResultSize)
    """The requested size of the result; the variant's result is shrunk to it."""
    metadata: MetadataChoice = "strip"
    """Whether the result keeps the metadata of the upload."""
    has_provenance: bool = True
    """Whether the result's metadata say how it was made: the setting `provenance`."""
    transparent_colour: TransparentColour = "bleed"
    """What becomes of the colours under full transparency."""
    candidates: Candidates | None = field(default=None, compare=False)
    """What `variant=auto` chooses from; None for a variant by name, and never changed by the choice."""
    candidate_versions: Mapping[str, str] = field(default_factory=dict, compare=False)
    """The version of the weights of each candidate and of `grey_variant`, by name."""
    content: Content | None = None
    """What the image shows, once `variant=auto` has chosen by it."""
    grey_variant: Variant | None = None
    """The variant that serves grey images instead of `variant`, which is for colour; None if there is no other."""
    replaced: Variant | None = None
    """The variant that the request names, if the one for grey images serves it."""
    grey_reason: GreyReason | None = None
    """Why the variant for grey images serves it."""

    @property
    def format(self) -> OutputFormat:
        """Format of the result; for `format=same`, known once the upload is."""
        return self.output.format

    @property
    def strength(self) -> float:
        """Strength as clients send it, 0 to 1, in steps of 0.01."""
        return self.strength_percent / 100

    @property
    def must_choose(self) -> bool:
        """Whether the variant is still to be chosen from the decoded image."""
        return self.candidates is not None and self.content is None

    @property
    def must_choose_strength(self) -> bool:
        """Whether the strength is still to be chosen from the decoded image."""
        return self.chooses_strength and self.chosen_strength is None

    @property
    def variant_name(self) -> str:
        """Name of the variant; "auto" until it is chosen."""
        return AUTO if self.must_choose else self.variant.name

    def choose(self, content: Content) -> UpscaleOptions:
        """Return the options with the variant for an image that shows this."""
        if self.candidates is None:
            return self
        variant = self.candidates[content.kind]
        version = self.candidate_versions[variant.name]
        return replace(self, variant=variant, weights_version=version, content=content)

    def with_grey_variant(self, reason: GreyReason) -> UpscaleOptions:
        """Return the options for an image that `grey_variant` serves."""
        if self.grey_variant is None:
            return self
        version = self.candidate_versions[self.grey_variant.name]
        chosen = replace(self, variant=self.grey_variant, weights_version=version, grey_variant=None)
        return replace(chosen, replaced=self.variant, grey_reason=reason)

    def with_strength(self, chosen: ChosenStrength) -> UpscaleOptions:
        """Return the options with the strength that was chosen for an image."""
        return replace(self, strength_percent=chosen.percent, chosen_strength=chosen)

    def result_filename(self, stem: str, shrunk_to: tuple[int, int] | None = None) -> str:
        """Return the file name of a result, such as photo_compact_x4.png, or photo_compact_x4_800x600.png."""
        # The one that the request names, and no chosen strength: the name is then known before the image is decoded.
        variant = self.replaced or self.variant
        scale = f"_x{variant.scale}"
        name = variant.name if variant.name.endswith(scale) else variant.name + scale
        if self.strength_percent != FULL_STRENGTH_PERCENT and not self.chooses_strength:
            name += f"_strength{self.strength_percent}"
        if shrunk_to:
            name += f"_{shrunk_to[0]}x{shrunk_to[1]}"
        return fit_name(stem, f"_{name}{self.output.suffix}")


@dataclass(frozen=True)
class UpscaleRequest:
    """An upload that is within all limits, and the options for it."""

    upload: Upload
    options: UpscaleOptions
    stem: str
    """The upload's file name without its extension, safe for any file system."""

    @property
    def pixels(self) -> int:
        """Pixels of the upload, which rate limits charge."""
        return self.upload.width * self.upload.height

    @property
    def is_small(self) -> bool:
        """Whether the backend runs the image in one batch with others."""
        return self.pixels <= SMALL_IMAGE_PIXELS

    @property
    def working_bytes(self) -> int:
        """Maximum memory that the job needs, in bytes."""
        options, shrunk_to = self.options, self.shrunk_to
        return working_bytes(
            self.upload,
            options.variant.scale,
            options.format,
            shrunk_to,
            is_lossless=options.output.is_lossless,
            depth=options.output.depth,
        )

    @property
    def shrunk_to(self) -> tuple[int, int] | None:
        """Width and height to which the variant's result is shrunk; None if it is not."""
        fitted = self.options.size.fit(self.upload.width, self.upload.height)
        return None if fitted == self._made else fitted

    @property
    def width(self) -> int:
        """Pixels per row of the result."""
        return (self.shrunk_to or self._made)[0]

    @property
    def height(self) -> int:
        """Rows of the result."""
        return (self.shrunk_to or self._made)[1]

    @property
    def _made(self) -> tuple[int, int]:
        """Width and height of what the variant makes."""
        scale = self.options.variant.scale
        return self.upload.width * scale, self.upload.height * scale

    @property
    def filename(self) -> str:
        """File name of the result, such as photo_compact_x4.png."""
        return self.options.result_filename(self.stem, self.shrunk_to)

    def choose(self, content: Content) -> UpscaleRequest:
        """Return the request with the variant for an image that shows this."""
        return replace(self, options=self.options.choose(content))

    def with_grey_variant(self, reason: GreyReason) -> UpscaleRequest:
        """Return the request for an image that the variant for grey images serves."""
        return replace(self, options=self.options.with_grey_variant(reason))

    def with_strength(self, chosen: ChosenStrength) -> UpscaleRequest:
        """Return the request with the strength that was chosen for its image."""
        return replace(self, options=self.options.with_strength(chosen))


def parse_options(parameters: Mapping[str, str], settings: Settings) -> UpscaleOptions:
    """Return the options that the parameters name; raise BadParameter with the allowed values."""
    for name in parameters:
        if name not in PARAMETERS:
            raise _bad_parameter(name, f"Unknown parameter {name[:40]!r}", PARAMETERS)
    name = parameters.get("variant") or settings.default_variant
    offered = settings.offered()
    candidates = Candidates(offered) if name == AUTO and offered else None
    variant = candidates.largest() if candidates else find_offered_variant(name, settings)
    grey_variant = find_grey_variant(variant, offered)
    output = parse_output_options(parameters)
    strength_percent = FULL_STRENGTH_PERCENT
    strength = parameters.get("strength") or AUTO  # the form sends an empty field without a script
    if strength != AUTO:
        strength_percent = parse_strength(strength)
        _check_strength(strength_percent, name, variant, settings)
    return UpscaleOptions(
        variant=variant,
        output=output,
        weights_version=weights_version(variant, settings),
        strength_percent=strength_percent,
        chooses_strength=strength == AUTO and variant.keeps_size,
        size=parse_size(parameters),
        metadata=parse_metadata(parameters.get("metadata") or ""),
        has_provenance=settings.provenance == "on",
        transparent_colour=parse_transparent_colour(parameters.get("transparent_colour", "")),
        candidates=candidates,
        candidate_versions=_versions((*(candidates.variants() if candidates else ()), grey_variant), settings),
        grey_variant=grey_variant,
    )


def parse_strength(text: str) -> int:
    """Return a strength from 0 to 1 in percent, rounded to 0.01; raise BadParameter for anything else."""
    if (strength := parse_decimal(text, 0, 1)) is None:
        raise problems.BadParameter(
            f"Invalid strength {text[:40]!r}: use a number from 0 to 1 with a decimal point, such as 0.5, or auto.",
            parameter="strength",
        )
    return round(100 * strength)


def pop_flag(parameters: dict[str, str], name: str) -> bool:
    """Remove a 0/1 flag from the parameters and return it; raise BadParameter for any other value."""
    value = parse_flag(parameters, name)
    parameters.pop(name, None)
    return value


def reject_early(first_bytes: bytes, options: UpscaleOptions | None, settings: Settings) -> None:
    """Raise a Problem if the first bytes of an upload already show that it will be rejected.

    `options` are None if they come after the upload.
    """
    upload = probe_first_bytes(first_bytes, settings)
    if upload is None or options is None:
        return
    # With a requested size `auto` depends on both sides, and what turns the image may follow.
    if options.candidates is None or options.size == ResultSize():
        check_cost(upload, options.variant, options.variant_name, settings)


def make_request(data: bytes, filename: str, options: UpscaleOptions, settings: Settings) -> UpscaleRequest:
    """Check an upload's header against the limits and return the request; raise a Problem if it cannot be served."""
    upload = probe_upload(data, settings)
    options = replace(options, output=options.output.resolve(upload))
    options = _narrow_candidates(options, upload, settings)
    check_reach(upload, options.size, options.variant, options.variant_name, settings)
    check_cost(upload, options.variant, options.variant_name, settings)
    request = UpscaleRequest(upload=upload, options=options, stem=safe_stem(filename))
    try:
        check_output(request.width, request.height, options.format, options.output.quality)
    except ImageError as error:
        raise problem_from_image_error(error) from error
    check_memory(upload, (request.width, request.height), options.output, settings)
    return _limit_depth(request, settings)


def _limit_depth(request: UpscaleRequest, settings: Settings) -> UpscaleRequest:
    """Return the request in 8 bits if 16 need too much memory; raise ResultTooLarge if the client asks for 16."""
    output = request.options.output
    if output.depth == 8 or not (
        obstacle := find_16_bit_obstacle(request.upload, (request.width, request.height), settings)
    ):
        return request
    if output.requested_depth is not None:
        raise problems.ResultTooLarge(
            f"In 16 bits per channel, {obstacle}. Use depth=8, request a smaller size, or send a smaller image."
        )
    note = f"The result has 8 bits per channel: in 16 bits, {obstacle}."
    return replace(request, options=replace(request.options, output=replace(output, depth=8, depth_note=note)))


def _narrow_candidates(options: UpscaleOptions, upload: Upload, settings: Settings) -> UpscaleOptions:
    """Return the options with those candidates of `auto` that reach the requested size and may read this upload.

    Without a requested size nothing changes: a client that names none expects the usual scale.
    """
    if options.candidates is None or (fitted := options.size.fit(upload.width, upload.height)) is None:
        return options
    pixels = upload.width * upload.height
    scales = [row.scale for row in settings.offered().values() if pixels <= max_upload_pixels(row.scale, settings)]
    needed = max(fitted[0] / upload.width, fitted[1] / upload.height)
    try:
        candidates = Candidates(settings.offered(), min_scale=needed, max_scale=max(scales, default=0))
    except LookupError:
        return options  # whose check says what is too large
    return replace(
        options,
        variant=candidates.largest(),
        candidates=candidates,
        candidate_versions=_versions(candidates.variants(), settings),
    )


def _versions(variants: Iterable[Variant | None], settings: Settings) -> dict[str, str]:
    return {row.name: weights_version(row, settings) for row in variants if row}


def _check_strength(strength_percent: int, name: str, variant: Variant, settings: Settings) -> None:
    """Raise BadParameter if the variant changes the size, so that its result cannot be mixed with the upload.

    `name` is the one requested, which may be `auto`; `variant` is then the candidate with the largest result.
    """
    if strength_percent == FULL_STRENGTH_PERCENT or variant.keeps_size:
        return
    names = ", ".join(row.name for row in settings.offered().values() if row.keeps_size)
    choose = f"Choose one that keeps it ({names})" if names else "This service offers none that keeps it"
    raise problems.BadParameter(
        f"The strength {strength_percent / 100:g} cannot be used with {name}, which changes the size. "
        f"{choose}, or leave the strength out.",
        parameter="strength",
    )


def _bad_parameter(parameter: str, explanation: str, allowed: tuple[str, ...]) -> problems.BadParameter:
    return problems.BadParameter(
        f"{explanation}. Allowed: {', '.join(allowed)}.", parameter=parameter[:40], allowed=list(allowed)
    )

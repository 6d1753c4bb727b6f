"""Options of an upscale request (variant, format, quality, strength) and the checks of an upload's header.

Decodes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import get_args

from gateway import problems
from gateway.config.settings import Settings
from gateway.error_mapping import problem_from_image_error
from gateway.jobs.offered_variants import find_offered_variant, weights_version
from preprocessing.codec import (
    DEFAULT_QUALITY,
    FORMAT_NAMES,
    MAX_OUTPUT_SIDES,
    OutputFormat,
    Upload,
    UploadLimits,
    check_output,
    max_output_pixels,
    probe,
    working_bytes,
)
from preprocessing.content import Content
from preprocessing.errors import ImageError, SideTooLongError, TooManyPixelsError, UnknownFormatError
from preprocessing.mixing import FULL_STRENGTH_PERCENT
from swinir.auto import AUTO, Candidates
from swinir.zoo import Variant

FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)
PARAMETERS = ("variant", "format", "quality", "strength")
MAX_STEM_LENGTH = 80

# UTF-8 bytes of a stem. With the variant and the extension, the name stays below the 255 bytes of most file systems.
MAX_STEM_BYTES = 160

_UNSAFE = re.compile(r"[^\w.-]+")

# A decimal number as JSON and Python write it. Not NaN, not 0,5, and no digits other than ASCII's.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)

# Longer than any number that a program writes. The pattern takes quadratic time for a long run of digits.
_MAX_NUMBER_LENGTH = 40


@dataclass(frozen=True)
class UpscaleOptions:
    """Variant and output format."""

    variant: Variant
    """The variant to use. While `candidates` is set, the one of them with the largest result, for limits."""
    format: OutputFormat
    quality: int
    """JPEG and WebP quality, 1 to 100; ignored for PNG."""
    weights_version: str = ""
    """Changes when the variant's weights are replaced; empty for bundled weights."""
    strength_percent: int = FULL_STRENGTH_PERCENT
    """Share of the network's change that the result keeps, 0 to 100; below 100 only if the variant keeps the size."""
    candidates: Candidates | None = field(default=None, compare=False)
    """What `variant=auto` chooses from; None for a variant by name, and never changed by the choice."""
    candidate_versions: Mapping[str, str] = field(default_factory=dict, compare=False)
    """The version of the weights of each candidate, by name."""
    content: Content | None = None
    """What the image shows, once `variant=auto` has chosen by it."""

    @property
    def strength(self) -> float:
        """Strength as clients send it, 0 to 1, in steps of 0.01."""
        return self.strength_percent / 100

    @property
    def must_choose(self) -> bool:
        """Whether the variant is still to be chosen from the decoded image."""
        return self.candidates is not None and self.content is None

    def choose(self, content: Content) -> UpscaleOptions:
        """Return the options with the variant for an image that shows this."""
        if self.candidates is None:
            return self
        variant = self.candidates[content.kind]
        version = self.candidate_versions[variant.name]
        return replace(self, variant=variant, weights_version=version, content=content)

    def result_filename(self, stem: str) -> str:
        """Return the file name of a result, such as photo_compact_x4.png."""
        variant = self.variant
        scale = f"_x{variant.scale}"
        name = variant.name if variant.name.endswith(scale) else variant.name + scale
        if self.strength_percent != FULL_STRENGTH_PERCENT:
            name += f"_strength{self.strength_percent}"
        return f"{stem}_{name}.{self.format}"


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
    def working_bytes(self) -> int:
        """Maximum memory that the job needs, in bytes."""
        return working_bytes(self.upload, self.options.variant.scale, self.options.format)

    @property
    def filename(self) -> str:
        """File name of the result, such as photo_compact_x4.png."""
        return self.options.result_filename(self.stem)

    def choose(self, content: Content) -> UpscaleRequest:
        """Return the request with the variant for an image that shows this."""
        return replace(self, options=self.options.choose(content))


def upload_limits(settings: Settings) -> UploadLimits:
    """Return the limits that the settings put on uploads."""
    return UploadLimits(max_bytes=settings.max_upload_bytes, max_pixels=settings.max_pixels, max_side=settings.max_side)


def parse_options(parameters: Mapping[str, str], settings: Settings) -> UpscaleOptions:
    """Return the options that the parameters name; raise BadParameter with the allowed values."""
    for name in parameters:
        if name not in PARAMETERS:
            raise _bad_parameter(name, f"Unknown parameter {name[:40]!r}", PARAMETERS)
    name = parameters.get("variant") or settings.default_variant
    offered = settings.offered()
    candidates = Candidates(offered) if name == AUTO and offered else None
    variant = candidates.largest() if candidates else find_offered_variant(name, settings)
    if (format_ := parameters.get("format") or "png") not in FORMATS:
        raise _bad_parameter("format", f"Unknown output format {format_[:40]!r}", FORMATS)
    quality = parameters.get("quality") or str(DEFAULT_QUALITY)
    if not (quality.isascii() and quality.isdigit() and len(quality) <= 3 and 1 <= int(quality) <= 100):
        raise problems.BadParameter(
            f"Invalid quality {quality[:40]!r}: use a whole number from 1 to 100 (default: {DEFAULT_QUALITY}).",
            parameter="quality",
        )
    strength_percent = FULL_STRENGTH_PERCENT
    if (strength := parameters.get("strength")) is not None:
        strength_percent = parse_strength(strength)
        _check_strength(strength_percent, name, variant, settings)
    return UpscaleOptions(
        variant=variant,
        format=next(f for f in FORMATS if f == format_),
        quality=int(quality),
        weights_version=weights_version(variant, settings),
        strength_percent=strength_percent,
        candidates=candidates,
        candidate_versions={row.name: weights_version(row, settings) for row in candidates.variants()}
        if candidates
        else {},
    )


def parse_strength(text: str) -> int:
    """Return a strength from 0 to 1 in percent, rounded to 0.01; raise BadParameter for anything else."""
    is_number = len(text) <= _MAX_NUMBER_LENGTH and _NUMBER.fullmatch(text)
    if not is_number or not 0 <= float(text) <= 1:
        raise problems.BadParameter(
            f"Invalid strength {text[:40]!r}: use a number from 0 to 1 with a decimal point, such as 0.5 (default: 1).",
            parameter="strength",
        )
    return round(100 * float(text))


def pop_flag(parameters: dict[str, str], name: str) -> bool:
    """Remove a 0/1 flag from the parameters and return it; raise BadParameter for any other value."""
    value = parameters.pop(name, "") or "0"
    if value not in ("0", "1"):
        raise _bad_parameter(name, f"Invalid {name} {value[:40]!r}", ("0", "1"))
    return value == "1"


def make_request(data: bytes, filename: str, options: UpscaleOptions, settings: Settings) -> UpscaleRequest:
    """Check an upload's header against the limits and return the request; raise a Problem if it cannot be served."""
    try:
        upload = probe(data, upload_limits(settings))
        scale = options.variant.scale
        width, height = upload.width * scale, upload.height * scale
        if width * height > settings.max_output_pixels:
            raise problems.ResultTooLarge(
                f"The result would have {width} x {height} = {width * height:,} pixels; the maximum is "
                f"{settings.max_output_pixels:,}. Upload a smaller image, or crop it."
            )
        check_output(width, height, options.format, options.quality)
        _check_memory(upload, options, settings)
    except ImageError as error:
        raise problem_from_image_error(error) from error
    return UpscaleRequest(upload=upload, options=options, stem=safe_stem(filename))


def max_result_pixels(format_: OutputFormat, settings: Settings, *, is_transparent: bool) -> int:
    """Return the maximum number of pixels of a result in this format."""
    fits_in_memory = max_output_pixels(format_, settings.max_job_memory_bytes, is_transparent=is_transparent)
    return min(settings.max_output_pixels, fits_in_memory)


def output_limits(format_: OutputFormat, settings: Settings) -> dict[str, int]:
    """Return the limits of a result in this format, as the API and the form name them."""
    return {
        "max_side": MAX_OUTPUT_SIDES[format_],
        "max_pixels": max_result_pixels(format_, settings, is_transparent=False),
        "max_pixels_transparent": max_result_pixels(format_, settings, is_transparent=True),
    }


def reject_early(first_bytes: bytes, settings: Settings) -> None:
    """Raise a Problem if the first bytes of an upload already show that it will be rejected."""
    try:
        probe(first_bytes, upload_limits(settings))
    except (UnknownFormatError, TooManyPixelsError, SideTooLongError) as error:
        raise problem_from_image_error(error) from error
    except ImageError:
        return  # truncated, as expected of the first bytes


def _check_memory(upload: Upload, options: UpscaleOptions, settings: Settings) -> None:
    """Raise ResultTooLarge if the job would need more memory than all jobs together may have: WebP, as a rule."""
    width, height = upload.width * options.variant.scale, upload.height * options.variant.scale
    is_transparent = upload.may_be_transparent
    if width * height > (maximum := max_result_pixels(options.format, settings, is_transparent=is_transparent)):
        kind = FORMAT_NAMES[options.format] + (" with transparency" if is_transparent else "")
        advice = "Upload" if options.format == "png" else "Choose PNG, upload"
        raise problems.ResultTooLarge(
            f"The result would have {width} x {height} = {width * height:,} pixels; the maximum for {kind} is "
            f"{maximum:,}, because encoding it needs memory. {advice} a smaller image, or crop it."
        )


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


def safe_stem(filename: str) -> str:
    """Return the last part of a path from any system, without its extension and characters that file systems reject."""
    name = re.split(r"[/\\]", filename)[-1]
    stem = name.rpartition(".")[0] or name
    stem = _UNSAFE.sub("_", stem).strip("._")[:MAX_STEM_LENGTH]
    return stem.encode()[:MAX_STEM_BYTES].decode(errors="ignore") or "image"

"""Orders: what somebody wants done with an upload, checked against what there is. Nothing is decoded here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from gateway import error_mapping as causes
from gateway import problems
from gateway.config.settings import Settings
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
from preprocessing.errors import ImageError, SideTooLongError, TooManyPixelsError, UnknownFormatError
from swinir.zoo import Variant

FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)
PARAMETERS = ("variant", "format", "quality")
MAX_STEM_LENGTH = 80
MAX_STEM_BYTES = 160
"""In UTF-8: with the variant and the extension behind it a name stays below the 255 bytes of most file systems."""

_UNSAFE = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class UpscaleOptions:
    """How the picture is to be made."""

    variant: Variant
    format: OutputFormat
    quality: int
    """1..100; counts for JPEG and WebP."""

    def name_result(self, stem: str) -> str:
        """Return what the result of an upload is called: photo_compact_x4.png."""
        variant = self.variant
        scale = f"_x{variant.scale}"
        name = variant.name if variant.name.endswith(scale) else variant.name + scale
        return f"{stem}_{name}.{self.format}"


@dataclass(frozen=True)
class UpscaleRequest:
    """An upload within all limits, and what is to be done with it."""

    upload: Upload
    choices: UpscaleOptions
    stem: str
    """The upload's name without its extension, fit for any file system."""

    @property
    def pixels(self) -> int:
        """Of the upload: what it costs."""
        return self.upload.width * self.upload.height

    @property
    def working_bytes(self) -> int:
        """Of memory that making it takes at most."""
        return working_bytes(self.upload, self.choices.variant.scale, self.choices.format)

    @property
    def filename(self) -> str:
        """What the result is called: photo_compact_x4.png."""
        return self.choices.name_result(self.stem)


def limits_of(settings: Settings) -> UploadLimits:
    """Return the limits that the settings put on uploads."""
    return UploadLimits(max_bytes=settings.max_upload_bytes, max_pixels=settings.max_pixels, max_side=settings.max_side)


def parse_options(parameters: Mapping[str, str], settings: Settings) -> UpscaleOptions:
    """Return the choices that texts by name mean; raise BadParameter with what there is to choose from."""
    for name in parameters:
        if name not in PARAMETERS:
            raise _bad(name, f"There is no parameter {name[:40]!r}", PARAMETERS)
    offered = settings.offered()
    variant = offered.get(chosen := parameters.get("variant") or settings.default_variant)
    if variant is None:
        raise _bad("variant", f"There is no variant {chosen[:40]!r}", tuple(offered))
    if (format_ := parameters.get("format") or "png") not in FORMATS:
        raise _bad("format", f"There is no output format {format_[:40]!r}", FORMATS)
    quality = parameters.get("quality") or str(DEFAULT_QUALITY)
    if not (quality.isascii() and quality.isdigit() and len(quality) <= 3 and 1 <= int(quality) <= 100):
        raise problems.BadParameter(
            f"The quality is {quality[:40]!r}: it must be a whole number from 1 to 100 "
            f"({DEFAULT_QUALITY} when left out).",
            parameter="quality",
        )
    return UpscaleOptions(variant=variant, format=next(f for f in FORMATS if f == format_), quality=int(quality))


def read_switch(parameters: dict[str, str], name: str) -> bool:
    """Take a switch, 1 or 0, out of the parameters and return it; raise BadParameter for anything else."""
    given = parameters.pop(name, "") or "0"
    if given not in ("0", "1"):
        raise _bad(name, f"{name} is {given[:40]!r}, a switch", ("0", "1"))
    return given == "1"


def make_request(data: bytes, filename: str, choices: UpscaleOptions, settings: Settings) -> UpscaleRequest:
    """Look at an upload's header and return what is to be done; raise a Problem for whatever cannot be done."""
    try:
        upload = probe(data, limits_of(settings))
        scale = choices.variant.scale
        width, height = upload.width * scale, upload.height * scale
        if width * height > settings.max_output_pixels:
            raise problems.ResultTooLarge(
                f"The result would have {width} x {height} = {width * height:,} pixels; "
                f"{settings.max_output_pixels:,} is the limit. Send a smaller image or a part of it."
            )
        check_output(width, height, choices.format, choices.quality)
        _check_memory(upload, choices, settings)
    except ImageError as error:
        raise causes.problem_from_image_error(error) from error
    return UpscaleRequest(upload=upload, choices=choices, stem=stem_of(filename))


def most_pixels_of(format_: OutputFormat, settings: Settings, *, is_transparent: bool) -> int:
    """Return the most pixels that a result of a format may have."""
    fitting = max_output_pixels(format_, settings.max_job_memory_bytes, is_transparent=is_transparent)
    return min(settings.max_output_pixels, fitting)


def limits_of_format(format_: OutputFormat, settings: Settings) -> dict[str, int]:
    """Return what a result of a format may at most be."""
    return {
        "max_side": MAX_OUTPUT_SIDES[format_],
        "max_pixels": most_pixels_of(format_, settings, is_transparent=False),
        "max_pixels_transparent": most_pixels_of(format_, settings, is_transparent=True),
    }


def refuse_early(head: bytes, settings: Settings) -> None:
    """Raise a Problem when the first bytes of an upload already show that the rest need not be read."""
    try:
        probe(head, limits_of(settings))
    except (UnknownFormatError, TooManyPixelsError, SideTooLongError) as error:
        raise causes.problem_from_image_error(error) from error
    except ImageError:
        return  # truncated, as a head is


def _check_memory(upload: Upload, choices: UpscaleOptions, settings: Settings) -> None:
    """Raise ResultTooLarge for what would take all the memory there is for work, and more: WebP, as a rule."""
    width, height = upload.width * choices.variant.scale, upload.height * choices.variant.scale
    is_transparent = upload.may_be_transparent
    if width * height > (most := most_pixels_of(choices.format, settings, is_transparent=is_transparent)):
        kind = FORMAT_NAMES[choices.format] + (" with transparency" if is_transparent else "")
        advice = "Send" if choices.format == "png" else "Ask for PNG, or send"
        raise problems.ResultTooLarge(
            f"The result would have {width} x {height} = {width * height:,} pixels; {most:,} is the limit for {kind}, "
            f"which takes more memory than there is. {advice} a smaller image or a part of it."
        )


def _bad(parameter: str, what: str, allowed: tuple[str, ...]) -> problems.BadParameter:
    return problems.BadParameter(
        f"{what}. There are: {', '.join(allowed)}.", parameter=parameter[:40], allowed=list(allowed)
    )


def stem_of(filename: str) -> str:
    """Return the last part of a path from any system, without its extension and what file systems dislike."""
    name = re.split(r"[/\\]", filename)[-1]
    stem = name.rpartition(".")[0] or name
    stem = _UNSAFE.sub("_", stem).strip("._")[:MAX_STEM_LENGTH]
    return stem.encode()[:MAX_STEM_BYTES].decode(errors="ignore") or "image"

"""Limits of an upload and its result by what they cost: the pixels that a variant reads and makes, and memory.

Two numbers rule all: an upload has at most `max_pixels`, and a variant makes at most `max_output_pixels` of it, which
is the upload's pixels times the square of the variant's scale. A smaller requested size does not change what is made.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.config.fields import split_list
from gateway.config.settings import Settings
from gateway.error_mapping import problem_from_image_error
from gateway.jobs.output_options import OutputOptions
from gateway.jobs.result_size import ResultSize
from gateway.problems import BadParameter, Problem, ResultTooLarge
from preprocessing.codec import (
    FORMAT_NAMES,
    INPUT_FORMAT_NAMES,
    MAX_OUTPUT_SIDES,
    SANDBOXED_FORMATS,
    DecoderLimits,
    InputFormat,
    OutputFormat,
    Upload,
    UploadLimits,
    max_output_pixels,
    probe,
    probe_start,
)
from preprocessing.errors import ImageError, SideTooLongError, TooManyPixelsError, UnknownFormatError
from preprocessing.working_memory import DECODER_BYTES, DEEP_DECODER_BYTES
from swinir.auto import AUTO
from swinir.zoo import Variant

# Names of variants in one sentence.
_MAX_NAMED = 3


def upload_limits(settings: Settings) -> UploadLimits:
    """Return the limits that the settings put on every upload. It must fit into the memory of jobs while decoded."""
    max_pixels = min(settings.max_pixels, max(1, settings.max_job_memory_bytes // DECODER_BYTES))
    return UploadLimits(
        max_bytes=settings.max_upload_bytes,
        max_pixels=max_pixels,
        max_side=settings.max_side,
        formats=accepted_formats(settings),
        decoder=DecoderLimits(settings.max_decoder_memory_bytes, settings.max_decoder_s),
    )


def accepted_formats(settings: Settings) -> tuple[InputFormat, ...]:
    """Return the formats that the settings accept, whether or not their decoder is installed."""
    extra = split_list(settings.extra_formats)
    names = INPUT_FORMAT_NAMES.items()
    return tuple(name for name, word in names if name not in SANDBOXED_FORMATS or word.lower() in extra)


def max_upload_pixels(scale: int, settings: Settings) -> int:
    """Return the maximum number of pixels of an upload for a variant of this scale."""
    return min(upload_limits(settings).max_pixels, settings.max_output_pixels // scale**2)


def max_result_pixels(
    format_: OutputFormat, settings: Settings, *, is_transparent: bool, is_lossless: bool = False
) -> int:
    """Return the maximum number of pixels of a result in this format."""
    fits_in_memory = max_output_pixels(
        format_, settings.max_job_memory_bytes, is_transparent=is_transparent, is_lossless=is_lossless
    )
    return min(settings.max_output_pixels, fits_in_memory)


def output_limits(format_: OutputFormat, settings: Settings) -> dict[str, int]:
    """Return the limits of a result in this format, as the API and the form name them."""
    return {
        "max_side": MAX_OUTPUT_SIDES[format_],
        "max_pixels": max_result_pixels(format_, settings, is_transparent=False),
        "max_pixels_transparent": max_result_pixels(format_, settings, is_transparent=True),
    }


def probe_upload(data: bytes, settings: Settings) -> Upload:
    """Return the facts of an upload within the limits; raise a Problem that names both limits, or the defect."""
    try:
        return probe(data, upload_limits(settings))
    except ImageError as error:
        raise _explain(error, settings) from error


def probe_first_bytes(first_bytes: bytes, settings: Settings) -> Upload | None:
    """Return the facts in the first bytes of an upload; None if they do not reach to its size.

    Raises a Problem if they show already that it will be rejected.
    """
    try:
        return probe_start(first_bytes, upload_limits(settings))
    except (UnknownFormatError, TooManyPixelsError, SideTooLongError) as error:
        raise _explain(error, settings) from error
    except ImageError:
        return None  # truncated, as expected of the first bytes


def check_cost(upload: Upload, variant: Variant, requested: str, settings: Settings) -> None:
    """Raise ResultTooLarge if the variant would make too many pixels of the upload.

    `requested` is the name that the client sent, which may be `auto`; `variant` is then the candidate with the largest
    result.
    """
    width, height = upload.width * variant.scale, upload.height * variant.scale
    if width * height <= settings.max_output_pixels:
        return
    maximum = max_upload_pixels(variant.scale, settings)
    ratio = (maximum / (upload.width * upload.height)) ** 0.5
    smaller = f"{int(upload.width * ratio) or 1} x {int(upload.height * ratio) or 1}"
    raise ResultTooLarge(
        f"Of this image of {upload.width} x {upload.height}, {requested} would make {width} x {height} = "
        f"{width * height:,} pixels; the maximum is {settings.max_output_pixels:,} (max_output_pixels). "
        f"At {variant.scale}x an upload may have {maximum:,} pixels, such as {smaller}: "
        f"{_advise(upload, requested, settings)}."
    )


def _advise(upload: Upload, requested: str, settings: Settings) -> str:
    """Return what the client can do: a smaller image, a smaller size or another variant."""
    pixels = upload.width * upload.height
    rows = sorted(settings.offered().values(), key=lambda row: -row.scale)
    fitting = [row for row in rows if pixels <= max_upload_pixels(row.scale, settings)]
    largest = max((row.scale for row in fitting), default=0)
    advice = "send a smaller image, or a part of it"
    if not fitting:
        return advice
    if requested == AUTO and largest > 1:
        return f"{advice}, or scale={largest}"
    names = [row.name for row in fitting if not row.notice] or [row.name for row in fitting]
    return f"{advice}, or choose {_join(names[:_MAX_NAMED])}, which make fewer pixels"


def check_memory(upload: Upload, size: tuple[int, int], output: OutputOptions, settings: Settings) -> None:
    """Raise ResultTooLarge if encoding would need more memory than all jobs together may have: WebP, as a rule."""
    width, height = size
    is_transparent, is_lossless = upload.may_be_transparent, output.is_lossless
    maximum = max_result_pixels(output.format, settings, is_transparent=is_transparent, is_lossless=is_lossless)
    if width * height > maximum:
        kind = ("lossless " if is_lossless else "") + FORMAT_NAMES[output.format]
        kind += " with transparency" if is_transparent else ""
        advice = "Upload" if output.format == "png" else "Choose PNG, a smaller size, upload"
        raise ResultTooLarge(
            f"The result would have {width} x {height} = {width * height:,} pixels; the maximum for {kind} is "
            f"{maximum:,}, because encoding it needs memory (max_job_memory_bytes). {advice} a smaller image, or crop "
            "it."
        )


def find_16_bit_obstacle(upload: Upload, size: tuple[int, int], settings: Settings) -> str:
    """Return why a result of this size cannot have 16 bits per channel, as a clause; empty if it can."""
    memory, pixels, made = settings.max_job_memory_bytes, upload.width * upload.height, size[0] * size[1]
    if pixels > (maximum := memory // DEEP_DECODER_BYTES):
        return f"decoding {pixels:,} pixels needs more memory than max_job_memory_bytes; the maximum is {maximum:,}"
    if made > (maximum := max_output_pixels("png", memory, is_transparent=upload.may_be_transparent, depth=16)):
        return f"a result of {made:,} pixels needs more memory than max_job_memory_bytes; the maximum is {maximum:,}"
    return ""


def check_reach(upload: Upload, size: ResultSize, variant: Variant, requested: str, settings: Settings) -> None:
    """Raise BadParameter for a requested size below that of the upload, or above what the variant makes."""
    if (fitted := size.fit(upload.width, upload.height)) is None:
        return
    width, height = fitted
    given, own = f"The requested size {width} x {height}", f"{upload.width} x {upload.height}"
    parameter = next(name for name in vars(size) if getattr(size, name) is not None)
    if width < upload.width or height < upload.height:
        raise BadParameter(
            f"{given} is smaller than the upload, {own}: what the network adds would be lost. Request at least {own}, "
            "or shrink the image without this service.",
            parameter=parameter,
        )
    max_width, max_height = upload.width * variant.scale, upload.height * variant.scale
    if width <= max_width and height <= max_height:
        return
    reach = f"keeps {own}" if variant.keeps_size else f"makes at most {max_width} x {max_height} ({variant.scale}x)"
    larger = [row.name for row in settings.offered().values() if row.scale > variant.scale]
    choose = f", or choose a variant that makes more: {_join(larger[:_MAX_NAMED])}" if larger else ""
    less = "Leave the size out" if variant.keeps_size else "Request less"
    raise BadParameter(f"{given} is too large: {requested} {reach}. {less}{choose}.", parameter=parameter)


def _explain(error: ImageError, settings: Settings) -> Problem:
    """Return the problem for an upload that `probe` rejected; for too many pixels it says how many are accepted."""
    problem = problem_from_image_error(error)
    if not isinstance(error, TooManyPixelsError):
        return problem
    scales = sorted({row.scale for row in settings.offered().values()}) or [1]
    accepted = _join([f"{max_upload_pixels(scale, settings):,} at {scale}x" for scale in scales], "and")
    return type(problem)(
        f"{error} An upload may have {accepted}: at most max_pixels, and a result of at most "
        f"{settings.max_output_pixels:,} (max_output_pixels)."
    )


def _join(names: Sequence[str], word: str = "or") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"

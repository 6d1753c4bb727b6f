"""Options of the result's file: format, quality, lossless and depth.

`format=same` and `depth=auto` are resolved once the upload is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import get_args

from gateway import problems
from preprocessing.codec import DEFAULT_QUALITY, FORMAT_NAMES, LOSSLESS_FORMATS, InputFormat, OutputFormat, Upload
from preprocessing.depth import Depth

FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)
"""The formats that a result can have."""
SAME = "same"
"""The value of `format` that asks for the format of the upload."""
FORMAT_VALUES: tuple[str, ...] = (*FORMATS, "jpg", SAME)
"""All values of the parameter `format`."""
DEPTHS: Mapping[str, Depth | None] = {"auto": None, "8": 8, "16": 16}
"""The values of the parameter `depth`; None is the depth of the upload where the format has it."""
PARAMETERS = ("format", "quality", "lossless", "depth")
"""The parameters that this module reads."""

_ALIASES: Mapping[str, OutputFormat] = {"jpg": "jpeg"}
# By the format of the upload. Formats that are not written become one that loses nothing; HEIC, which photos have,
# becomes JPEG, which opens everywhere.
_NEAREST: Mapping[str, OutputFormat] = {"HEIC": "jpeg", "HEIF": "jpeg"}


@dataclass(frozen=True)
class OutputOptions:
    """Format and quality of a result."""

    format: OutputFormat
    """The format; while `is_same` is set and the upload is not known, the default."""
    quality: int = DEFAULT_QUALITY
    """JPEG and WebP quality, 1 to 100; ignored by lossless files."""
    is_lossless: bool = False
    """Whether the pixels are kept exactly: always in PNG, on request in WebP."""
    extension: str = ""
    """Extension of the file name, without the dot, as the client names the format; empty: the name of the format."""
    is_same: bool = False
    """Whether the result takes the format of its upload."""
    depth: Depth = 8
    """Bits per channel of the result; while the upload is not known, 8."""
    requested_depth: Depth | None = None
    """The depth that the client asks for; None: that of the upload, where the format has it."""
    depth_note: str = ""
    """Why the result has fewer bits than its upload, although no depth was requested, for the user."""
    note: str = ""
    """Why the format is not that of the upload, although it was requested, for the user."""

    def resolve(self, upload: Upload) -> OutputOptions:
        """Return the options for this upload: with `is_same`, in its format or in the nearest that can be written.

        Raises BadParameter for lossless results in a format that has none, and for 16 bits in one that has 8.
        """
        return self._resolve_format(upload)._resolve_depth(upload)  # noqa: SLF001 - of this class

    def _resolve_depth(self, upload: Upload) -> OutputOptions:
        _check_depth(self.format, self.requested_depth)
        if self.format == "png":
            return replace(self, depth=self.requested_depth or upload.depth)
        if self.requested_depth is not None or upload.depth == 8:
            return self
        return replace(self, depth_note=f"{FORMAT_NAMES[self.format]} has 8 bits per channel. Use PNG to keep 16.")

    def _resolve_format(self, upload: Upload) -> OutputOptions:
        if not self.is_same:
            return self
        name, nearest = upload.format, nearest_format(upload.format)
        _check_lossless(nearest, is_lossless=self.is_lossless)
        note = (
            ""
            if nearest == name.lower()
            else f"Results cannot be written as {name}: this one is {FORMAT_NAMES[nearest]}."
        )
        return replace(self, format=nearest, note=note)

    @property
    def suffix(self) -> str:
        """Ending of the file name, such as .png."""
        return "." + (self.extension or self.format)

    def cache_key(self) -> tuple[str, ...]:
        """Return all that changes the file or its notes."""
        is_lossless = self.is_lossless or self.format == "png"
        quality = "lossless" if is_lossless else str(self.quality)
        return (self.format, quality, str(self.depth), self.depth_note, self.note)


def nearest_format(name: InputFormat) -> OutputFormat:
    """Return the format of results of `format=same` for uploads in this format."""
    return next((each for each in FORMATS if each == name.lower()), _NEAREST.get(name, "png"))


def parse_output_options(parameters: Mapping[str, str]) -> OutputOptions:
    """Return the options that the parameters name; raise BadParameter with the allowed values."""
    requested = parameters.get("format") or FORMATS[0]
    if requested not in FORMAT_VALUES:
        raise problems.BadParameter(
            f"Unknown output format {requested[:40]!r}. Allowed: {', '.join(FORMAT_VALUES)}.",
            parameter="format",
            allowed=list(FORMAT_VALUES),
        )
    quality = parameters.get("quality") or str(DEFAULT_QUALITY)
    if not (quality.isascii() and quality.isdigit() and len(quality) <= 3 and 1 <= int(quality) <= 100):
        raise problems.BadParameter(
            f"Invalid quality {quality[:40]!r}: use a whole number from 1 to 100 (default: {DEFAULT_QUALITY}).",
            parameter="quality",
        )
    is_lossless = parse_flag(parameters, "lossless")
    depth = parameters.get("depth") or "auto"
    if depth not in DEPTHS:
        raise problems.BadParameter(
            f"Invalid depth {depth[:40]!r}. Allowed: {', '.join(DEPTHS)}.", parameter="depth", allowed=list(DEPTHS)
        )
    is_same = requested == SAME
    named = next((each for each in FORMATS if each == requested), FORMATS[0])
    output = _ALIASES.get(requested, named)
    _check_lossless(output, is_lossless=is_lossless)
    if not is_same:
        _check_depth(output, DEPTHS[depth])
    return OutputOptions(
        format=output,
        quality=int(quality),
        is_lossless=is_lossless,
        extension=requested if requested in _ALIASES else "",
        is_same=is_same,
        requested_depth=DEPTHS[depth],
    )


def parse_flag(parameters: Mapping[str, str], name: str) -> bool:
    """Return a 0/1 flag, false when it is absent or empty; raise BadParameter for any other value."""
    value = parameters.get(name) or "0"
    if value not in ("0", "1"):
        raise problems.BadParameter(
            f"Invalid {name} {value[:40]!r}. Allowed: 0, 1.", parameter=name, allowed=["0", "1"]
        )
    return value == "1"


def _check_lossless(output: OutputFormat, *, is_lossless: bool) -> None:
    if is_lossless and output not in LOSSLESS_FORMATS:
        names = " or ".join(LOSSLESS_FORMATS)
        raise problems.BadParameter(
            f"{FORMAT_NAMES[output]} results are always lossy. Use the format {names}, or leave lossless out.",
            parameter="lossless",
        )


def _check_depth(output: OutputFormat, depth: Depth | None) -> None:
    if depth == 16 and output != "png":
        raise problems.BadParameter(
            f"{FORMAT_NAMES[output]} results have 8 bits per channel. Use the format png for 16, or leave depth out.",
            parameter="depth",
        )

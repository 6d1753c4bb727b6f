"""The images of one `superres upscale`: where each result goes, how much there is to do, and what forbids to begin."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from PIL import Image as PilImage

from gateway.cli.service import ResultWriter
from gateway.cli.sources import Source
from gateway.cli.targets import (
    ResultFile,
    Target,
    TargetError,
    WriteError,
    check_writable,
    copy_to_stream,
    exists_error,
    find_collisions,
    free_bytes,
    ignores_case,
    is_whole,
)
from gateway.config.settings import Settings
from gateway.error_mapping import problem_from_image_error
from gateway.jobs.choice import choose_variant
from gateway.jobs.options import UpscaleOptions, UpscaleRequest, make_request
from preprocessing.codec import OutputFormat, decode
from preprocessing.errors import ImageError

# Bytes per pixel of a result, (low, usual). Measured on 12 images upscaled by compact_x4 (64 to 256 px, quality 92):
# PNG 1.24 to 2.00, JPEG 0.22 to 0.50, WebP 0.10 to 0.34, AVIF a third less. Drawings take less, so only
# a quarter forbids to begin.
_BYTES_PER_PIXEL: dict[OutputFormat, tuple[float, float]] = {
    "png": (0.3, 1.4),
    "jpeg": (0.06, 0.26),
    "webp": (0.03, 0.16),
    "avif": (0.02, 0.12),
}
# The same for a PNG of 16 bits, measured on 7 images: 4.3 to 5.2.
_DEEP_BYTES_PER_PIXEL = 4.8
# A result for a stream is kept in memory up to this size, and in a temporary file beyond it.
_MAX_IN_MEMORY_BYTES = 1 << 26


class InputFileError(Exception):
    """A file cannot be read; the message is for the user."""


class AlreadyDone(Exception):
    """The result exists, whole. No error, but what --skip-existing asks for."""


@dataclass(frozen=True)
class Batch:
    """The images and where their results go."""

    sources: list[Source]
    target: Target
    options: UpscaleOptions
    settings: Settings
    overwrite: bool = False
    skip_existing: bool = False

    def check(self, *, makes_folder: bool) -> None:
        """Raise TargetError if the results could not be written. Makes the folder if `makes_folder`."""
        if self.target.is_folder:
            has_no_case = ignores_case(self.target.path)
            if collisions := find_collisions(self.sources, self._any_destination, ignores_case=has_no_case):
                raise TargetError(collisions)
        if not self.target.is_stream:
            is_same = self.options.output.is_same
            low = min(_BYTES_PER_PIXEL.values())[0] if is_same else _BYTES_PER_PIXEL[self.options.format][0]
            needed = sum(self._result_pixels(*sides) for sides in self._sides_of_missing()) * low
            if needed > (free := free_bytes(self.target.path)):
                raise TargetError(
                    f"The results need at least {describe_bytes(needed)} (an estimate); the disk of {self.target} has "
                    f"{describe_bytes(free)} free. Free some space, choose --format jpeg, or pass fewer images."
                )
        check_writable(self.target, makes_folder=makes_folder)

    def pixels(self) -> int:
        """Return the pixels of the images that are not there yet, as far as their headers could be read."""
        return sum(width * height for width, height in self._sides_of_missing())

    def destination(self, source: Source, filename: str) -> Path:
        """Return the path of a result with this name."""
        return self.target.path / source.folder / filename if self.target.is_folder else self.target.path

    def prepare(self, source: Source, *, must_choose: bool = False) -> UpscaleRequest:
        """Return the request for an image that is still to be upscaled. Decodes it only if its name depends on that.

        With `must_choose` the variant is always chosen now. Raises AlreadyDone, InputFileError, WriteError or Problem.
        """
        options = self.options
        if not self.target.is_folder or not (
            options.must_choose or options.size.is_requested or options.output.is_same
        ):
            self._reject_existing(self._any_destination(source))  # without reading the image
        request = read_request(source, self.options, self.settings)
        if self.target.format not in (None, request.options.format):  # with --format same
            path, output = self.target.path, request.options.format
            raise InputFileError(f"{path} ends in {path.suffix}, but the format of this input is {output}.")
        is_taken = any(self._exists(source, filename) for filename in _possible_filenames(request))
        if request.options.must_choose and (is_taken or must_choose):
            request = _choose(request)
        if is_taken:
            self._reject_existing(self.destination(source, request.filename))
        return request

    @contextmanager
    def open_result(self, source: Source, filename: str) -> Iterator[ResultWriter]:
        """Yield what takes the bytes of a result, which appears whole or not at all. Raises WriteError."""
        if self.target.is_stream:
            with SpooledTemporaryFile(_MAX_IN_MEMORY_BYTES) as spooled:
                yield spooled
                copy_to_stream(cast("BinaryIO", spooled), self.target)
            return
        with ResultFile(self.destination(source, filename), overwrite=self.overwrite) as file:
            yield file
            file.commit()

    def estimate_bytes(self, request: UpscaleRequest) -> float:
        """Return the usual size of the result of a request."""
        output = request.options.output
        usual = _DEEP_BYTES_PER_PIXEL if output.depth == 16 else _BYTES_PER_PIXEL[output.format][1]
        return request.width * request.height * usual

    def _any_destination(self, source: Source) -> Path:
        """Return the path of a result without the parts of its name that depend on the image."""
        path = self.destination(source, self.options.result_filename(source.stem))
        is_same = self.options.output.is_same and self.target.is_folder
        return path.with_suffix(source.path.suffix.lower()) if is_same else path

    def _exists(self, source: Source, filename: str) -> bool:
        return not self.target.is_stream and self.destination(source, filename).exists()

    def _reject_existing(self, path: Path) -> None:
        """Raise AlreadyDone or WriteError for a result that exists and is not to be replaced."""
        if self.overwrite or self.target.is_stream or not path.exists():
            return
        if not self.skip_existing:
            raise exists_error(path)
        try:
            if is_whole(path):
                raise AlreadyDone(f"{path} exists")
        except OSError as error:
            raise WriteError(f"{path} cannot be read: {error.strerror}.") from error
        raise WriteError(f"{path} exists, but is not a whole image. Remove it, or use --overwrite.")

    def _sides_of_missing(self) -> Iterator[tuple[int, int]]:
        """Yield width and height of each image whose result is not left out, as far as its header can be read."""
        for source in self.sources:
            width, height = read_sides(source)
            sizes = [self.options.size.fit(width, height), self.options.size.fit(height, width)] if width else [None]
            rows = self.options.candidates.variants() if self.options.candidates else [self.options.variant]
            names = (
                replace(self.options, variant=row).result_filename(source.stem, size) for row in rows for size in sizes
            )
            if not (self.skip_existing and any(self._exists(source, name) for name in names)):
                yield width, height

    def _result_pixels(self, width: int, height: int) -> int:
        fitted = self.options.size.fit(width, height) if width else None
        return fitted[0] * fitted[1] if fitted else width * height * self.options.variant.scale**2


def _possible_filenames(request: UpscaleRequest) -> list[str]:
    """Return the names that the result may have: several while the variant is still to be chosen."""
    options = request.options
    if not options.must_choose or options.candidates is None:
        return [request.filename]
    rows = options.candidates.variants()
    return [replace(request, options=replace(options, variant=row)).filename for row in rows]


def read_request(source: Source, options: UpscaleOptions, settings: Settings) -> UpscaleRequest:
    """Read an image and check its header. Raises InputFileError or a Problem."""
    limit = settings.max_upload_bytes
    try:
        if source.is_standard_input:
            data = sys.stdin.buffer.read(limit + 1)
        else:
            with source.path.open("rb") as file:
                data = file.read(limit + 1)
    except OSError as error:
        raise InputFileError(f"The file cannot be read: {error.strerror}.") from error
    if len(data) > limit:
        size = "more" if source.is_standard_input else f"{source.path.stat().st_size:,} bytes"
        raise InputFileError(f"The file has {size}; the limit is {limit:,} bytes (max_upload_bytes).")
    return replace(make_request(data, source.path.name, options, settings), stem=source.stem)


def read_sides(source: Source) -> tuple[int, int]:
    """Return width and height as stored, from an image's header; 0 and 0 if it does not say."""
    if source.is_standard_input or not source.path.is_file():  # opening a named pipe would take its bytes
        return 0, 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PilImage.open(source.path) as image:
                return image.size
    except (OSError, ValueError, SyntaxError, TypeError, PilImage.DecompressionBombError):
        return 0, 0


def describe_bytes(count: float) -> str:
    """Return "12 kB", "3.4 MB", "1.2 GB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.0f} kB"


def _choose(request: UpscaleRequest) -> UpscaleRequest:
    """Return the request with the variant that fits the image. Raises a Problem if it cannot be decoded."""
    try:
        return choose_variant(request, decode(request.upload))
    except ImageError as error:
        raise problem_from_image_error(error) from error

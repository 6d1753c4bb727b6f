"""The image to send."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from superres.client.errors import ImageFileError

ImageSource = str | os.PathLike[str] | bytes | BinaryIO
"""A path, the bytes of an image file, or a file opened for reading bytes."""

UNNAMED = "image"
"""Name of an image that is sent without one."""

# The largest upload that an operator can permit (setting max_upload_bytes).
_MAX_UPLOAD_BYTES = 1_000_000_000
_MAX_STEM_LENGTH = 80


@dataclass(frozen=True)
class ImageFile:
    """An image to send."""

    data: bytes = field(repr=False)
    stem: str = UNNAMED
    """Name of the file without its extension, which the name of the result begins with."""


def read_image(source: ImageSource) -> ImageFile:
    """Read an image to send. Raises ImageFileError."""
    if isinstance(source, bytes | bytearray | memoryview):
        return ImageFile(bytes(source))
    try:
        if isinstance(source, str | os.PathLike):
            name = os.fspath(source)
            with Path(source).open("rb") as file:
                data = file.read(_MAX_UPLOAD_BYTES + 1)
        else:
            name = str(getattr(source, "name", ""))
            data = source.read(_MAX_UPLOAD_BYTES + 1)
    except OSError as error:
        raise ImageFileError(f"The image cannot be read: {error}.") from error
    if len(data) > _MAX_UPLOAD_BYTES:
        raise ImageFileError(f"The image has more than {_MAX_UPLOAD_BYTES:,} bytes. No service accepts that.")
    return ImageFile(data, Path(name).stem[:_MAX_STEM_LENGTH] or UNNAMED)

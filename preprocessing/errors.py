"""Errors for images that are rejected: the whole exception tree of this package.

ImageError                    anything wrong with the upload or the requested output; `kind` is its slug
  EmptyUploadError            no bytes at all
  UnknownFormatError          none of the formats that are read
  TooManyBytesError           the upload is larger than the limit
  TooManyPixelsError          the header declares more pixels than the limit
  SideTooLongError            the header declares a side over the limit
  UnreadableImageError        truncated, corrupt or inconsistent
  UnsupportedOutputError      the requested format cannot hold the result

Every message is a full sentence with the number, the limit and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class ImageError(ValueError):
    """The upload or the requested output is invalid; the message says why and what to do."""

    kind: ClassVar[str] = "image-error"


class EmptyUploadError(ImageError):
    """The upload has no bytes."""

    kind = "empty-upload"


class UnknownFormatError(ImageError):
    """The first bytes are not those of a format that is read."""

    kind = "unknown-format"


class TooManyBytesError(ImageError):
    """The upload is larger than `UploadLimits.max_bytes`."""

    kind = "too-many-bytes"


class TooManyPixelsError(ImageError):
    """The header declares more pixels than `UploadLimits.max_pixels`; nothing was decoded."""

    kind = "too-many-pixels"


class SideTooLongError(ImageError):
    """The header declares a side over `UploadLimits.max_side`; nothing was decoded."""

    kind = "side-too-long"


class UnreadableImageError(ImageError):
    """The upload is truncated, corrupt or inconsistent."""

    kind = "unreadable-image"


class UnsupportedOutputError(ImageError):
    """The requested format or quality cannot hold this result."""

    kind = "unsupported-output"

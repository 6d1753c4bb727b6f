"""Why an image is refused: the whole exception tree of this room.

ImageError                    anything wrong with what was sent or asked for; `kind` is its slug
  EmptyUpload                 no bytes at all
  UnknownFormat               not a JPEG, PNG or WebP
  TooManyBytes                the upload is larger than the limit
  TooManyPixels               its header announces more pixels than the limit
  SideTooLong                 its header announces a side over the limit
  UnreadableImage             truncated, corrupt, or made so that no sound decoder reads it
  UnsupportedOutput           the asked-for format cannot hold the result

Every message is a full sentence with the number, the limit and what to do about it.
"""

from __future__ import annotations

from typing import ClassVar


class ImageError(ValueError):
    """What was sent or asked for cannot be served; the message says why and what to do."""

    kind: ClassVar[str] = "image-error"


class EmptyUploadError(ImageError):
    """The upload holds no bytes."""

    kind = "empty-upload"


class UnknownFormatError(ImageError):
    """The first bytes are those of no format that is read here."""

    kind = "unknown-format"


class TooManyBytesError(ImageError):
    """The upload is larger than `Limits.max_bytes`."""

    kind = "too-many-bytes"


class TooManyPixelsError(ImageError):
    """The header announces more pixels than `Limits.max_pixels`; nothing was decoded."""

    kind = "too-many-pixels"


class SideTooLongError(ImageError):
    """The header announces a side over `Limits.max_side`; nothing was decoded."""

    kind = "side-too-long"


class UnreadableImageError(ImageError):
    """The upload is truncated, corrupt, or contradicts itself."""

    kind = "unreadable-image"


class UnsupportedOutputError(ImageError):
    """The asked-for format or quality cannot hold this result."""

    kind = "unsupported-output"

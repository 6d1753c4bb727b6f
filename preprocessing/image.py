"""Images: decoded pixels, HWC uint8 or uint16, with their alpha, colour profile and notes for the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from preprocessing.depth import Pixels
from preprocessing.metadata.metadata import Metadata

__all__ = ["Image", "Pixels"]


@dataclass(frozen=True, eq=False)
class Image:
    """A decoded image: what `decode` returns and `encode` takes. Raises ValueError for arrays of the wrong shape."""

    pixels: Pixels = field(repr=False)
    """[H, W, 3] uint8 or uint16, always three channels.

    Under alpha 0: colour bled from visible neighbours, or the upload's.
    """
    alpha: Pixels | None = field(default=None, repr=False)
    """[H, W], of the type of the pixels; None when every pixel is opaque."""
    is_grey: bool = False
    """Whether the three channels are copies of one; `encode` writes one channel again."""
    icc_profile: bytes | None = field(default=None, repr=False)
    """The ICC profile that describes the pixels; None when there is none."""
    colour_chunks: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    """Type and body of the PNG chunks that describe the pixels: see `preprocessing.formats.colour_chunks`."""
    dpi: tuple[float, float] | None = None
    """Horizontal and vertical resolution in pixels per inch; upscaling does not change it."""
    metadata: Metadata = field(default_factory=Metadata, repr=False)
    """What else the file said, if it is kept: EXIF, XMP, IPTC, texts."""
    notes: tuple[str, ...] = ()
    """What decoding changed or dropped, one sentence each, for the user."""

    def __post_init__(self) -> None:
        sample = self.pixels.dtype
        if self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or sample not in (np.uint8, np.uint16):
            raise ValueError(f"pixels must be uint8 or uint16 [H, W, 3], not {sample} {list(self.pixels.shape)}.")
        if self.alpha is not None and (self.alpha.shape != self.pixels.shape[:2] or self.alpha.dtype != sample):
            raise ValueError(
                f"alpha must be {sample} {list(self.pixels.shape[:2])} as the pixels are, "
                f"not {self.alpha.dtype} {list(self.alpha.shape)}."
            )

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.pixels.shape[1])

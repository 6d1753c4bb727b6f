"""Images: decoded pixels, HWC uint8, with the little that is kept beside them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Image:
    """What the codec hands to the network's side and takes back."""

    pixels: Pixels = field(repr=False)
    """[H, W, 3] uint8, always three channels. Colour is bled under alpha 0."""
    alpha: Pixels | None = field(default=None, repr=False)
    """[H, W] uint8, None when every pixel is opaque."""
    is_grey: bool = False
    """The three channels came equal from one; `encode` writes one channel again."""
    icc_profile: bytes | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    """What was changed or dropped on the way, as sentences for the person who asked."""

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or self.pixels.dtype != np.uint8:
            raise ValueError(f"pixels must be uint8 [H, W, 3], not {self.pixels.dtype} {list(self.pixels.shape)}.")
        if self.alpha is not None and (self.alpha.shape != self.pixels.shape[:2] or self.alpha.dtype != np.uint8):
            raise ValueError(
                f"alpha must be uint8 {list(self.pixels.shape[:2])} as the pixels are, "
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

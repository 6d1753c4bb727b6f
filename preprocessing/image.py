"""Images: decoded pixels, HWC uint8, with their alpha, colour profile and notes for the user."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Image:
    """A decoded image: what `decode` returns and `encode` takes. Raises ValueError for arrays of the wrong shape."""

    pixels: Pixels = field(repr=False)
    """[H, W, 3] uint8, always three channels. Under alpha 0 they hold colour bled from visible neighbours."""
    alpha: Pixels | None = field(default=None, repr=False)
    """[H, W] uint8; None when every pixel is opaque."""
    is_grey: bool = False
    """Whether the three channels are copies of one; `encode` writes one channel again."""
    icc_profile: bytes | None = field(default=None, repr=False)
    """The ICC profile that describes the pixels; None when there is none."""
    notes: tuple[str, ...] = ()
    """What decoding changed or dropped, one sentence each, for the user."""

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

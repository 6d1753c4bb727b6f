"""The pass that enlarges an image's alpha: chosen by the mask, and run ahead of the colours.

A mask with soft edges goes through the image's own variant, as a grey image. All other masks cost the backend nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from preprocessing.alpha import repeat_alpha, scale_alpha
from preprocessing.hard_alpha import HardAlpha, is_hard
from preprocessing.image import Image, Pixels
from preprocessing.soft_alpha import SoftAlpha
from swinir.auto import NEAREST
from swinir.image_grid import tile_grid
from swinir.zoo import Variant


class AlphaPass:
    """Alpha of one image, enlarged for one variant. Survives a retry of the job: complete masks are not sent again."""

    def __init__(self, image: Image, variant: Variant) -> None:
        self._soft: SoftAlpha | None = None
        self._variant = variant
        self.rows: Callable[[int, int], Pixels] | None = None
        """Returns rows `top` to `bottom` of the enlarged alpha, once no mask is pending; None for an opaque image."""
        if (alpha := image.alpha) is None:
            return
        scale = variant.scale
        if variant is NEAREST:
            self.rows = lambda top, bottom: repeat_alpha(alpha, scale, top, bottom)
        elif scale == 1 or alpha.min() == alpha.max():
            self.rows = lambda top, bottom: scale_alpha(alpha, scale, top, bottom)
        elif is_hard(alpha):
            self.rows = HardAlpha(alpha, scale).rows
        else:
            self._soft = SoftAlpha(alpha, scale, window=variant.window, halo=variant.halo)
            self.rows = self._soft.rows

    @property
    def pending(self) -> SoftAlpha | None:
        """The mask that must go through the network; None when there is none, or when that is done."""
        return None if self._soft is None or self._soft.is_complete else self._soft

    @property
    def pending_pixels(self) -> int:
        """Number of pixels of the enlarged pending mask."""
        return 0 if (soft := self.pending) is None else soft.shape[0] * soft.shape[1] * self._variant.scale**2

    @property
    def n_bands(self) -> int:
        """Number of bands in which the backend returns the pending mask."""
        return 0 if (soft := self.pending) is None else tile_grid(self._variant, *soft.shape).rows

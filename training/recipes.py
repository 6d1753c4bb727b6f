"""What each compact variant is trained for: its row in the zoo, and the degradation that it shall undo."""

from __future__ import annotations

from dataclasses import dataclass

from swinir.zoo import VARIANTS, Variant


@dataclass(frozen=True)
class Recipe:
    """How one compact variant is made from photographs."""

    variant: Variant
    degradation: str
    """A name that :class:`training.data.Crops` knows."""

    @property
    def scale(self) -> int:
        """Output side / input side."""
        return self.variant.scale

    @property
    def channels(self) -> int:
        """3 for RGB; 1 where the network sees luminance alone."""
        return self.variant.channels


RECIPES = {
    name: Recipe(VARIANTS[name], degradation)
    for name, degradation in {
        "compact_x4": "bicubic",
        "compact_x2": "bicubic",
        "compact_real_x4": "real",
        "compact_color_denoise_25": "noise:25",
        "compact_color_jpeg_20": "jpeg:20",
        "compact_gray_denoise_25": "noise:25",
        "compact_gray_jpeg_20": "jpeg:20",
    }.items()
}

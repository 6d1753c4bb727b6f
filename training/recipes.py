"""What each compact variant is trained for: its architecture, its degradation, how it is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """How one compact variant is made from photographs."""

    scale: int
    degradation: str
    """A name that :class:`training.data.Crops` knows."""
    channels: int = 3
    window: int = 8
    img_range: float = 1.0

    def network_config(self) -> dict[str, Any]:
        """The keywords of ``swinir.network.SwinIR``."""
        return {
            "upscale": self.scale,
            "in_chans": self.channels,
            "window_size": self.window,
            "img_range": self.img_range,
            "depths": [4, 4],
            "embed_dim": 48,
            "num_heads": [4, 4],
            "mlp_ratio": 2,
            "resi_connection": "1conv",
            "upsampler": "pixelshuffledirect" if self.scale > 1 else "",
        }


RECIPES = {
    "compact_x4": Recipe(scale=4, degradation="bicubic"),
    "compact_x2": Recipe(scale=2, degradation="bicubic"),
    "compact_real_x4": Recipe(scale=4, degradation="real"),
    "compact_color_denoise_25": Recipe(scale=1, degradation="noise:25"),
    "compact_color_jpeg_20": Recipe(scale=1, degradation="jpeg:20", window=7, img_range=255.0),
    "compact_gray_denoise_25": Recipe(scale=1, degradation="noise:25", channels=1),
    "compact_gray_jpeg_20": Recipe(scale=1, degradation="jpeg:20", channels=1, window=7, img_range=255.0),
}

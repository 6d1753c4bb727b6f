"""What a request may name besides networks: `auto`, and the row of `nearest_x4`, the variant for pixel art.

`nearest_x4` repeats pixels, so it has no network, no weights and no place in the zoo, and only the gateway offers it.
"""

from __future__ import annotations

from types import MappingProxyType

from swinir.zoo import Variant

AUTO = "auto"

NEAREST = Variant(
    name="nearest_x4",
    task="pixel_art",
    scale=4,
    summary="4x for pixel art. Repeats each pixel 4 x 4 times; no network, exact colours.",
    config=MappingProxyType({"window_size": 1, "in_chans": 3}),
    halo=0,
    max_tile_px=64,
    credit="Pixels repeated, without a network",
    licence="",
)

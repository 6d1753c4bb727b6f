"""Short names of variants for people, such as "Photos": the form shows them before the name that the API uses."""

from __future__ import annotations

from gateway.languages.catalogue import Catalogue
from swinir.zoo import Variant

# Keys of the catalogue. Every task of the zoo, and pixel art, which only the gateway has.
TITLES = {
    "classical_sr": "variant.clean",
    "lightweight_sr": "variant.clean",
    "real_sr": "variant.photos",
    "gray_denoise": "variant.denoise_grey",
    "color_denoise": "variant.denoise",
    "gray_jpeg": "variant.jpeg_grey",
    "color_jpeg": "variant.jpeg",
    "pixel_art": "variant.pixel_art",
}


def variant_title(variant: Variant, texts: Catalogue) -> str:
    """Return what a variant is for in a few words: its task, and where it differs from the usual 4x."""
    title = texts.text(TITLES[variant.task])
    if variant.notice:
        title = texts.text("variant.texture", title=title)
    return title if variant.scale in (1, 4) else texts.text("variant.scaled", title=title, scale=variant.scale)

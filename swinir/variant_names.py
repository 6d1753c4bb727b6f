"""Spellings of variant names that the command line accepts: short ones, other case, and names of published files."""

from __future__ import annotations

from swinir.zoo import VARIANTS

_SPELLINGS = str.maketrans({"-": "_", " ": "_"})


def resolve_name(text: str) -> str:
    """Return the name of the variant that a text means: real, Real-x4 and swinir_real_x4 all mean real_x4.

    A name without scale means 4x, a denoiser or JPEG variant without colour means the one for colour images, and the
    name of a published file its variant. Any other text is returned as it is.
    """
    stem = text.strip().removesuffix(".pth")
    for row in VARIANTS.values():
        if row.file and stem.lower() == row.file.removesuffix(".pth").lower():
            return row.name
    name = stem.lower().translate(_SPELLINGS).removeprefix("swinir_").replace("grey", "gray").replace("colour", "color")
    candidates = (name, f"{name}_x4", f"color_{name}")
    return next((candidate for candidate in candidates if candidate in VARIANTS), text)

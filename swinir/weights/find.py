"""Finds the weights file of a variant. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from swinir.errors import MissingWeightsError
from swinir.zoo import Variant

BUNDLED = Path(__file__).parents[1] / "bundled"


def find_weights(variant: Variant, weights_dir: Path | None) -> Path:
    """Return the safetensors file of a variant, from ``weights_dir`` or bundled; raises MissingWeightsError."""
    candidates = [weights_dir / f"{variant.name}.safetensors"] if weights_dir else []
    if variant.is_bundled:
        candidates.append(BUNDLED / f"{variant.name}.safetensors")
    for path in candidates:
        if path.is_file():
            return path
    raise MissingWeightsError(
        f"The weights of {variant.name} are not fetched yet: superres weights fetch {variant.name}"
    )

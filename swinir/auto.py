"""The variant `auto`: which of the offered variants fits an image, by what the image shows.

`preprocessing.content` says what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from preprocessing.content import ImageKind
from swinir.custom_variants import find_offered
from swinir.networkless import AUTO, NEAREST
from swinir.zoo import DEFAULT_VARIANT, PHOTO_VARIANT, Variant

__all__ = ["AUTO", "NEAREST", "Candidates", "GreyReason", "choose_warm_variant", "find_grey_variant", "offer"]

# In order of preference. Only variants that invent no detail, and only those measured or published for the purpose.
_CLEAN = (
    DEFAULT_VARIANT,
    *("lightweight_x4", "classical_x4", "classical_div2k_x4"),
    *("compact_x2", "lightweight_x2", "classical_x2", "classical_div2k_x2"),
)
_PREFERRED: Mapping[ImageKind, tuple[str, ...]] = {
    ImageKind.CLEAN_PHOTO: _CLEAN,
    ImageKind.WORN_PHOTO: (PHOTO_VARIANT, "real_x4_psnr", "real_large_x4_psnr", *_CLEAN),
    # The photo variant softens letters and thin lines, so drawings do without it, however worn they are.
    ImageKind.DRAWING: _CLEAN,
    ImageKind.PIXEL_ART: (NEAREST.name, *_CLEAN),
}
# The kind whose variant is worth a try when the choice was wrong.
_SECOND = {
    ImageKind.CLEAN_PHOTO: ImageKind.WORN_PHOTO,
    ImageKind.WORN_PHOTO: ImageKind.CLEAN_PHOTO,
    ImageKind.DRAWING: ImageKind.WORN_PHOTO,
    ImageKind.PIXEL_ART: ImageKind.DRAWING,
}


def offer(names: Sequence[str], weights_dir: Path | None) -> Mapping[str, Variant]:
    """Return the rows that a gateway with these names offers: those of `find_offered`, and `nearest_x4`.

    Without names, all whose weights are on this machine. Unknown names are skipped.
    """
    if not names:
        return {**find_offered((), weights_dir), NEAREST.name: NEAREST}
    networks = [name for name in names if name != NEAREST.name]
    rows = {**(find_offered(networks, weights_dir) if networks else {}), NEAREST.name: NEAREST}
    return {name: rows[name] for name in names if name in rows}


class GreyReason(StrEnum):
    """Why a variant for grey images serves an image instead of the one for colour images."""

    GREY_IMAGE = "grey image"
    SHARED_NOISE = "shared noise"


def find_grey_variant(variant: Variant, offered: Mapping[str, Variant]) -> Variant | None:
    """Return the offered variant for grey images that goes with one for colour images; None if there is none.

    Its name and task differ in the colour only: `gray_denoise_25` goes with `color_denoise_25`.
    """
    grey = offered.get(variant.name.replace("color_", "gray_", 1))
    is_pair = variant.task.startswith("color_") and grey and grey.task == variant.task.replace("color_", "gray_", 1)
    return grey if is_pair else None


def choose_warm_variant(default_variant: str, offered: Mapping[str, Variant]) -> str:
    """Return the name of the variant that the backend loads before it reports ready: the one likeliest to be used."""
    networks = [name for name in offered if name != NEAREST.name]
    if default_variant in networks:
        return default_variant
    return DEFAULT_VARIANT if DEFAULT_VARIANT in networks or not networks else networks[0]


class Candidates:
    """The variant for each kind of image, chosen among those that a server offers."""

    def __init__(self, offered: Mapping[str, Variant], *, min_scale: float = 0.0, max_scale: float = math.inf) -> None:
        """`offered` holds at least one variant of a scale from `min_scale` to `max_scale`; others are not chosen.

        With a `min_scale`, the one that enlarges least is chosen among those that differ in their scale only. Raises
        LookupError if no scale is within the range.
        """
        fitting = {name: row for name, row in offered.items() if min_scale <= row.scale <= max_scale}
        if not fitting:
            raise LookupError(f"none of {len(offered)} variants has a scale from {min_scale:g} to {max_scale:g}")
        self._offered, self._max_scale = offered, max_scale
        chosen = {kind: _pick(names, fitting) for kind, names in _PREFERRED.items()}
        self._by_kind = {kind: _smallest(row, fitting) if min_scale else row for kind, row in chosen.items()}

    def __getitem__(self, kind: ImageKind) -> Variant:
        """Return the variant for a kind of image."""
        return self._by_kind[kind]

    def by_kind(self) -> dict[str, str]:
        """Return the names of the variants, by kind."""
        return {str(kind): variant.name for kind, variant in self._by_kind.items()}

    def variants(self) -> list[Variant]:
        """Return the different variants, that for clean photos first."""
        return list({variant.name: variant for variant in self._by_kind.values()}.values())

    def largest(self) -> Variant:
        """Return the variant with the largest result: limits that hold for it hold for all."""
        return max(self.variants(), key=lambda variant: variant.scale)

    def second(self, kind: ImageKind) -> Variant | None:
        """Return the variant to try next when that for this kind does not please; None without another one."""
        other = self._by_kind[_SECOND[kind]]
        return None if other.name == self._by_kind[kind].name else other

    def find_gap(self, kind: ImageKind) -> str:
        """Return the name of the variant that is meant for this kind if it is not offered; else an empty text."""
        meant = _PREFERRED[kind][0]
        return "" if self._by_kind[kind].name == meant or meant in self._offered else meant

    def find_oversized(self, kind: ImageKind) -> str:
        """Return the name of the offered variant that is meant for this kind if its scale is too large."""
        meant = self._offered.get(_PREFERRED[kind][0])
        return "" if meant is None or meant.scale <= self._max_scale else meant.name


def _smallest(variant: Variant, fitting: Mapping[str, Variant]) -> Variant:
    """Return the variant that enlarges least among those whose names differ from this one's in the scale only."""
    family = _family(variant)
    return min((row for row in fitting.values() if _family(row) == family), key=lambda row: row.scale)


def _family(variant: Variant) -> str:
    return variant.name.replace(f"_x{variant.scale}", "_x", 1)


def _pick(names: tuple[str, ...], offered: Mapping[str, Variant]) -> Variant:
    """Return the first that is offered; without any, the first offered one that enlarges and invents nothing."""
    for name in names:
        if name in offered:
            return offered[name]
    return min(offered.values(), key=lambda variant: (bool(variant.notice), variant.scale == 1))

"""Metadata of a result: whether that of the upload is kept, and what the result says of its own making."""

from __future__ import annotations

import importlib.metadata
from typing import Literal, get_args

from gateway import problems
from preprocessing.metadata.xmp import Origin
from swinir.auto import NEAREST
from swinir.zoo import Variant

MetadataChoice = Literal["strip", "keep"]
METADATA_CHOICES: tuple[MetadataChoice, ...] = get_args(MetadataChoice)

_SOFTWARE = f"Serverless SuperRes {importlib.metadata.version('serverless-superres')}"


def parse_metadata(text: str) -> MetadataChoice:
    """Return what becomes of the upload's metadata, `strip` for an empty text; raise BadParameter for other values."""
    for choice in METADATA_CHOICES:
        if choice == (text or "strip"):
            return choice
    raise problems.BadParameter(
        f"Invalid metadata {text[:40]!r}. Allowed: {', '.join(METADATA_CHOICES)}.",
        parameter="metadata",
        allowed=list(METADATA_CHOICES),
    )


def describe_origin(variant: Variant) -> Origin | None:
    """Return how the results of a variant are made, in IPTC's terms; None for pixels that are only repeated.

    Variants with a notice invent texture: GANs, and imported ones whose notice says so.
    """
    if variant is NEAREST:
        return None
    invents_texture = bool(variant.notice)
    return Origin(
        source_type="compositeWithTrainedAlgorithmicMedia" if invents_texture else "algorithmicallyEnhanced",
        software=_SOFTWARE,
        variant=variant.name,
        invents_texture=invents_texture,
    )

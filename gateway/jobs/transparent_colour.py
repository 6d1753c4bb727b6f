"""The parameter `transparent_colour`: what becomes of the colours under full transparency."""

from __future__ import annotations

from typing import Literal, get_args

from gateway import problems

TransparentColour = Literal["bleed", "keep"]
"""bleed: colour of visible neighbours, so that edges have no fringe. keep: the upload's own, for textures of games."""

TRANSPARENT_COLOURS: tuple[TransparentColour, ...] = get_args(TransparentColour)


def parse_transparent_colour(text: str) -> TransparentColour:
    """Return the value of the parameter, `bleed` for an empty one; raise BadParameter for anything else."""
    for value in TRANSPARENT_COLOURS:
        if value == (text or "bleed"):
            return value
    raise problems.BadParameter(
        f"Invalid transparent_colour {text[:40]!r}. Allowed: {', '.join(TRANSPARENT_COLOURS)}.",
        parameter="transparent_colour",
        allowed=list(TRANSPARENT_COLOURS),
    )
